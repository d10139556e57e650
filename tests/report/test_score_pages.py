"""The pages about scores: complete, escaped, masked, linked both ways, and well-formed."""

import html
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from longctx.engine.op import DROP_REASON
from longctx.report.collect import write_report
from longctx.report.html import POLICY
from tests.report.example import HOSTILE
from tests.report.page import Page
from tests.report.score_run import OPS, SECRET, stage_of, whole_run
from tests.report.scored import write_run

STAGES = {op: stage_of(op) for op in OPS}


def pages_of(run: str) -> dict[str, Page]:
    """Pages by their name, the report as ""."""
    files = [Path(file) for file in write_report(run)]
    names = ["", *(file.name.removesuffix(".html") for file in files[1:])]
    return {n: Page(f.read_text(encoding="utf-8")) for n, f in zip(names, files, strict=True)}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    return pages_of(whole_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    return pages_of(whole_run(tmp_path_factory.mktemp("planted"), HOSTILE))


def page(pages: dict[str, Page], op: str) -> Page:
    return pages[STAGES[op]]


def section(found: Page, heading: str) -> str:
    """The text of the section with this heading, with spaces between its elements."""
    parts = found.source.split("<section ")[1:]
    inside = [" ".join(re.sub("<[^>]*>", " ", part.partition(">")[2]).split()) for part in parts]
    texts = [html.unescape(one) for one in inside if one.startswith(heading)]
    assert texts, heading
    return texts[0]


def test_every_score_stage_has_a_page_and_the_report_leads_to_it(pages: dict[str, Page]) -> None:
    assert list(pages) == ["", *STAGES.values(), "correlations"]
    links = [one.attributes["href"] for one in pages[""].named("a")]
    for name in list(pages)[1:]:
        assert f"report/{name}.html" in links
        back = [one.attributes["href"] for one in pages[name].named("a")]
        assert "../report.html" in back


def test_pages_are_well_formed_and_load_nothing(
    pages: dict[str, Page], planted: dict[str, Page]
) -> None:
    for name, found in [*pages.items(), *planted.items()]:
        assert found.faults == [], name
        assert POLICY in [one.attributes.get("content") for one in found.named("meta")]
        ids = [one.attributes["id"] for one in found.elements if "id" in one.attributes]
        assert len(ids) == len(set(ids)), name
        for one in found.elements:
            assert not {"src", "srcset", "xlink:href", "action", "style"} & one.attributes.keys()
            assert not any(attribute.startswith("on") for attribute in one.attributes)
            href = one.attributes.get("href")
            if href is None:
                continue
            assert re.fullmatch(r"#[\w-]+|(\.\./)?report\.html|report/[\w.-]+\.html", href), href
            if href.startswith("#"):
                assert href[1:] in ids


def test_planted_markup_makes_no_element_and_no_attribute(
    planted: dict[str, Page], tmp_path: Path
) -> None:
    harmless = pages_of(whole_run(tmp_path, "x" * len(HOSTILE)))
    for name, found in planted.items():
        shapes = [
            [(one.name, one.parents, sorted(one.attributes)) for one in some.elements]
            for some in (harmless[name], found)
        ]
        assert shapes[0] == shapes[1], name


def test_planted_markup_is_still_readable_as_text(planted: dict[str, Page]) -> None:
    for op, text in (
        # Ids, sources and reasons are cut where they are long.
        ("score.heuristics", HOSTILE[:50]),
        ("score.heuristics", f"{HOSTILE}Document 0-"),
        ("score.longattn", HOSTILE[:50]),
        ("filter.decontaminate", f"{HOSTILE}text of a match"),
        ("filter.decontaminate", f"{HOSTILE}item_text of a match"),
        ("dedup.containment", HOSTILE[:50]),
        ("decide", HOSTILE[:30]),
    ):
        assert text in page(planted, op).text


def test_personal_data_is_on_no_page(pages: dict[str, Page], planted: dict[str, Page]) -> None:
    for name, found in [*pages.items(), *planted.items()]:
        assert SECRET not in found.source, name
        assert SECRET.partition("@")[0] not in found.source, name
    marked = [one.text for one in page(pages, "filter.pii").named("mark")]
    assert "email" in marked
    assert "email" in [one.text for one in page(pages, "score.heuristics").named("mark")]
    assert "[email]" in page(pages, "filter.decontaminate").text
    assert "instruction: Why? [email]" in page(pages, "select.gateau").text


def test_a_score_is_spread_by_source_with_its_nulls(pages: dict[str, Page]) -> None:
    found = page(pages, "score.longattn")
    said = section(found, "la_ds")
    assert "Attention to tokens at least a quarter of the window away; higher is better." in said
    rows = re.search(r"All sources (\d+) too_short (\d+)", said)
    assert rows
    assert rows.groups() == ("22", "2")
    assert "All 24 documents that the stage saw are in these figures." in section(found, "Overview")
    bars = [one for one in found.named("rect") if "data-count" in one.attributes]
    assert sum(int(one.attributes["data-count"]) for one in bars) == 22
    assert len(found.named("li")) >= 2


def test_documents_stand_from_worst_to_best(pages: dict[str, Page]) -> None:
    found = section(page(pages, "score.heuristics"), "h_dup_5")
    listed = found.partition("Documents from")[2]
    rungs = re.findall(r"(?:worst|best|[\d.]+ %) ([\d.e-]+) (?:web|books)", listed)
    scores = [float(score) for score in rungs]
    assert len(scores) == 13
    assert scores == sorted(scores, reverse=True)
    assert "Documents from the worst to the best" in found
    upward = section(page(pages, "score.heuristics"), "n_tokens")
    assert "Documents from the lowest to the highest" in upward
    assert re.search(r"lowest [\d,]+ (web|books)", upward)
    assert "dropped by 08-decide: h_alpha < 0.2" in found


def test_texts_have_their_beginning_and_middle(pages: dict[str, Page]) -> None:
    quotes = [one.text for one in page(pages, "score.heuristics").named("blockquote")]
    begins = [quote for quote in quotes if quote.startswith("Document ")]
    assert begins
    assert all(len(quote) < 620 for quote in quotes)
    assert re.search(r"from character 1,[\d]{3} of [23],", page(pages, "score.heuristics").text)


def test_places_are_marked(pages: dict[str, Page]) -> None:
    language = [one.text for one in page(pages, "score.language").named("mark")]
    assert any(mark.startswith("de ") for mark in language)
    matched = [one.text for one in page(pages, "filter.decontaminate").named("mark")]
    assert "quiz, row 4, q Document 0" in {m[:-1] + "0" for m in matched}
    assert "the tokenizer of the model is not on this machine" in page(pages, "score.longattn").text


def test_words_are_counted_by_source(pages: dict[str, Page]) -> None:
    assert "lang by source Source en fr books 8 0 web 14 2" in section(
        page(pages, "score.language"), "Words"
    )


def test_an_op_that_nobody_knows_shows_its_numbers(pages: dict[str, Page]) -> None:
    found = page(pages, "score.strange")
    assert "Columns that score.strange wrote." in found.text
    assert "A column of score.strange." in section(found, "x_first")


def test_a_decision_shows_what_it_dropped_and_what_is_next_to_its_limits(
    pages: dict[str, Page],
) -> None:
    found = page(pages, "decide")
    dropped = section(found, "Dropped")
    assert re.search(r"(\d+) documents of 24 were dropped", dropped)
    assert "h_alpha < 0.2" in dropped
    limits = section(found, "Next to the limits")
    assert "h_alpha >= 0.2" in limits
    assert "n_tokens <= 3000 for web" in limits
    scores = {
        side: [float(s) for s in re.findall(rf"{side} ([\d.]+)", limits.partition("n_tokens")[0])]
        for side in ("within", "beyond")
    }
    assert len(scores["within"]) == 3
    assert scores["within"] == sorted(scores["within"])
    assert min(scores["within"]) >= 0.2 > max(scores["beyond"])


def test_a_cut_shows_its_figures_and_reads_next_to_its_border(pages: dict[str, Page]) -> None:
    said = section(page(pages, "decide"), "Cut by longattn")
    assert "5 of 20 documents with a score are kept by longattn (25.0 %)" in said
    assert "web top 0.25 20 2 5 25.0 % 4,000 of 9,000 -0.3 -" in said
    assert "kept -0.29" in said
    assert "Document 0-1." in said
    assert "dropped -0.31" in said


def test_cuts_show_their_own_scores_of_a_document_and_read_the_nearest_three(
    pages: dict[str, Page],
) -> None:
    said = section(page(pages, "decide"), "Cut by gateau")
    assert "which compares all documents together" in said
    read, _, listed = said.partition("All 4 next to the threshold of all")
    assert re.findall(r"kept ([\d.]+) p0-\d", read) == ["1.6", "1.7", "1.8"]
    assert "p0-4 kept low 1.9" in listed
    assert section(page(pages, "decide"), "Cut by longattn").count("kept -0.29") == 1


def test_a_decision_that_dropped_nothing_still_shows_what_is_next_to_its_limits(
    tmp_path: Path,
) -> None:
    none = pa.nulls(8, pa.string())
    run = write_run(
        tmp_path,
        [
            ("score.heuristics", lambda part: {"h_alpha": [i / 8 for i in range(8)]}),
            ("decide", lambda part: {DROP_REASON: none}),
        ],
        settings={"decide": {"rules": {"h_alpha": {"max": 2}}}},
    )
    found = pages_of(run)["02-decide"]
    said = section(found, "Next to the limits")
    assert "h_alpha <= 2 within 0.875" in " ".join(said.split())
    assert "No document of the sample is on the other side of it." in said
    assert found.faults == []


def test_several_blank_lines_are_one(tmp_path: Path) -> None:
    text = "One.\n\n\n \n    Two.\n\nThree.\nFour."
    own = pa.array([text] * 8, pa.large_string())
    run = write_run(
        tmp_path,
        [("score.heuristics", lambda part: {"h_alpha": [i / 8 for i in range(8)]})],
        columns=lambda part: {"text": own},
    )
    quotes = pages_of(run)["01-score.heuristics"].named("blockquote")
    assert {one.text for one in quotes} == {"One.\n\n    Two.\n\nThree.\nFour."}


def test_matches_and_containments_are_readable(pages: dict[str, Page]) -> None:
    matches = section(page(pages, "filter.decontaminate"), "Matches")
    assert "quiz 24 24" in matches
    assert "text of a match" in matches
    assert "item_text of a match" in matches
    pairs = section(page(pages, "dedup.containment"), "Largest containments")
    assert "92.0 % of p0-1 is in p1-2" in pairs
    assert "60 words in a row are the same" in pairs
    marked = [one.text for one in page(pages, "dedup.containment").named("mark")]
    assert sum(mark.startswith("shared0 shared1") for mark in marked) == 2


def test_correlations_say_what_they_are_of(pages: dict[str, Page]) -> None:
    found = pages["correlations"]
    assert "two scores put the documents into nearly the same order" in found.text
    cells = [one.text for one in found.named("td")]
    assert "1.000" in section(found, "Pairs")
    assert "−" in "".join(cells)
    tones = {one.attributes.get("class", "") for one in found.named("td")}
    assert "num plus-5" in tones


def test_pages_of_stages_that_are_gone_are_removed(tmp_path: Path) -> None:
    run = write_run(tmp_path, [("score.heuristics", lambda part: {"h_alpha": [0.5] * 8})])
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "07-score.old.html").write_text("old")
    (tmp_path / "report" / "notes.txt").write_text("mine")
    write_report(run)
    assert sorted(file.name for file in (tmp_path / "report").iterdir()) == [
        "01-score.heuristics.html",
        "notes.txt",
    ]
    # A single score that does not vary: a page without a figure, and nothing to correlate.
    found = Page((tmp_path / "report" / "01-score.heuristics.html").read_text())
    assert "All 16 documents have the value 0.5." in found.text
    assert "Documents from" not in found.text
    assert found.faults == []


def test_forty_sources_are_readable(tmp_path: Path) -> None:
    names = [f"source-{i:02d}" for i in range(50)]

    def own(part: int) -> dict[str, Any]:
        return {"source": names, "license": ["MIT"] * 50}

    scores = {"h_alpha": [i / 50 for i in range(50)]}
    run = write_run(
        tmp_path, [("score.heuristics", lambda part: scores)], groups=(50,), columns=own
    )
    found = pages_of(run)["01-score.heuristics"]
    strips = [one for one in found.named("ul") if one.attributes.get("class") == "bars strips"]
    assert len(strips) == 1
    drawn = [one for one in found.named("li") if one.parents[-1] == "ul" and "median" in one.text]
    assert len(drawn) == 40
    assert "10 smaller sources are in the table only." in found.text
    assert "source-49" in found.text
