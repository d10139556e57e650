"""The page: complete, conserved, escaped, self-contained and well-formed."""

import math
import re
from dataclasses import replace
from importlib.resources import files

import pytest

from longctx.report.data import ReportData
from longctx.report.html import POLICY, render
from tests.report.example import HOSTILE, empty, example, hostile, prefixed
from tests.report.page import Page

STYLE = files("longctx.report").joinpath("style.css").read_text(encoding="utf-8")
EVERY = [example(), empty(), hostile()]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(example()))


@pytest.mark.parametrize("data", EVERY)
def test_the_page_is_well_formed(data: ReportData) -> None:
    assert Page(render(data)).faults == []


def test_planted_markup_makes_no_element_and_no_attribute() -> None:
    harmless, planted = (
        [
            (one.name, one.parents, sorted(one.attributes))
            for one in Page(render(prefixed(example(), prefix))).elements
        ]
        for prefix in ("plain", HOSTILE)
    )
    assert planted == harmless


def test_planted_markup_is_still_readable_as_text() -> None:
    planted = Page(render(hostile()))
    for text in (
        "code-and-docs",
        "s3://out/packed",
        "00-read",
        "0.1.0",
        "embed.truncated_documents",
    ):
        assert HOSTILE + text in planted.text


@pytest.mark.parametrize("data", EVERY)
def test_nothing_is_loaded_from_anywhere(data: ReportData) -> None:
    parsed = Page(render(data))
    for one in parsed.elements:
        assert not {"src", "srcset", "xlink:href", "action", "style"} & one.attributes.keys()
        assert one.attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in one.attributes)
    assert not re.search(r"@import|url\(|https?:", STYLE)
    assert POLICY in [one.attributes.get("content") for one in parsed.named("meta")]


@pytest.mark.parametrize("data", [*EVERY, replace(example(), stages=[], quarantine={})])
def test_links_lead_to_sections_and_ids_are_unique(data: ReportData) -> None:
    parsed = Page(render(data))
    ids = [one.attributes["id"] for one in parsed.elements if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    assert {one.attributes["href"][1:] for one in parsed.named("a")} <= set(ids)


def test_every_section_has_its_heading_in_order(page: Page) -> None:
    assert [one.text for one in page.named("h2")] == [
        "Summary",
        "Rows and tokens by stage",
        "Lengths",
        "Duplicates",
        "Order",
        "Windows",
        "Sources",
        "Licences",
        "Quarantine",
        "Counters",
        "Settings and versions",
    ]


def test_sections_without_data_are_left_out() -> None:
    headings = [one.text for one in Page(render(empty())).named("h2")]
    assert headings == ["Summary", "Rows and tokens by stage", "Windows", "Settings and versions"]


def test_a_run_without_rows_says_so() -> None:
    text = Page(render(empty())).text
    assert "No rows went in, so nothing came out." in text
    assert "Problem: No rows were read." in text


def test_the_summary_says_what_went_in_and_came_out_and_where_it_lies(page: Page) -> None:
    summary = next(one for one in page.named("section") if one.attributes["id"] == "summary")
    assert "118,204 documents went in and 71,296 came out (60.3\u00a0%)" in summary.text
    assert "10,127 windows of 32,768 tokens, 99.8\u00a0% full" in summary.text
    assert "s3://out/packed" in summary.text
    assert "97 rows (0.1\u00a0% of those read) are in quarantine" in summary.text


def test_rows_add_up_in_the_table_as_in_the_data(page: Page) -> None:
    assert "At every stage, rows in = rows out + dropped + quarantined." in page.text
    cells = [one.text for one in page.named("th", "td") if "tbody" in one.parents]
    start = cells.index("02-decide")
    row = cells[start : start + 5]
    dropped = sum(int(n.replace(",", "")) for n in re.findall(r"[\d,]+", row[2]))
    into, held, out = (int(row[i].replace(",", "")) for i in (1, 3, 4))
    assert into == out + dropped + held == 118_107


def test_rows_that_do_not_add_up_are_named() -> None:
    stages = example().stages
    stages[2] = replace(stages[2], rows_out=1)
    text = Page(render(replace(example(), stages=stages))).text
    assert "Rows in are not rows out + dropped + quarantined at: 02-decide." in text
    assert "Problem: 96,539 rows of 02-decide: unaccounted for." in text


def test_bars_of_the_page_sum_to_the_histograms(page: Page) -> None:
    data = example()
    drawn = sum(int(one.attributes.get("data-count", 0)) for one in page.named("rect"))
    assert data.neighbours
    assert data.windows
    given = (
        data.lengths_before,
        data.lengths_after,
        data.neighbours.ordered,
        data.neighbours.random,
        data.windows.fill_histogram,
        data.windows.docs_per_window,
    )
    assert drawn == sum(sum(one.counts) for one in given if one)


def test_figures_say_what_they_mean(page: Page) -> None:
    assert all(one.text.endswith(".") for one in page.named("figcaption"))
    assert len(page.named("figcaption")) == len(page.named("figure")) > 6
    assert "Neighbours are 5.2 times as similar as in a random order." in page.text
    assert "The middle document had 2k to 4k tokens" in page.text


def test_a_ratio_to_almost_nothing_is_not_claimed() -> None:
    data = example()
    assert data.neighbours
    found = replace(data.neighbours, mean_random=0.0001)
    text = Page(render(replace(data, neighbours=found))).text
    assert "times as similar" not in text
    assert "Neighbours have a mean cosine of 0.642" in text


def test_similarities_of_a_single_document_are_not_numbers_and_still_render() -> None:
    data = example()
    assert data.neighbours
    found = replace(data.neighbours, mean_ordered=math.nan, mean_random=math.nan, jumps=math.nan)
    parsed = Page(render(replace(data, neighbours=found)))
    assert parsed.faults == []
    assert "nan" not in {w.strip("%") for one in parsed.elements for w in one.attributes.values()}
    assert not re.search(r"\bnan\b", parsed.text)


def test_clusters_show_members_with_snippets_and_say_what_is_left_out(page: Page) -> None:
    text = page.text
    assert "1,412 documents, found by 03-dedup.minhash, 4 of them here" in text
    assert "gh:9f2c41a07e6d" in text
    assert "similarity 0.981" in text
    assert "MIT License. Permission is hereby granted" in text
    many = replace(example(), duplicate_clusters=example().duplicate_clusters[:1] * 23)
    assert "3 more clusters are left out here." in Page(render(many)).text


def test_long_tables_say_what_they_leave_out() -> None:
    counters = {f"counter {i}": i for i in range(205)}
    text = Page(render(replace(example(), notes=counters))).text
    assert "counter 199" in text
    assert "counter 200" not in text
    assert "5 more rows are left out here." in text


def test_the_page_can_be_written_as_utf8_whatever_it_holds() -> None:
    data = replace(example(), name="a\ud800\x00\u202eb")
    assert "a???b" in render(data).encode("utf-8").decode("utf-8")


def variables(css: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", css))


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_have_enough_contrast(theme: str) -> None:
    before, _, after = STYLE.partition("prefers-color-scheme: dark")
    colours = variables(before if theme == "light" else after)
    for ground in ("page", "panel"):
        for ink in ("ink", "muted", "accent", "contrast"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for tone in ("accent", "soft", "neutral", "contrast"):
        assert contrast(colours[tone], colours["page"]) >= 3, tone


def test_clusters_say_where_they_were_looked_for() -> None:
    assert "They are the largest" not in Page(render(example())).text
    clusters = [replace(one, files=(16, 1200)) for one in example().duplicate_clusters]
    text = Page(render(replace(example(), duplicate_clusters=clusters))).text
    assert "They are the largest in 16 of 1,200 files." in text
