"""The page of rows that a language model made: true, readable, hard to break."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longctx.errors import LongctxError, RecipeError
from longctx.report.collect import collect, load_run, write_report
from longctx.report.html import render as render_report
from longctx.report.scores.passages import Place
from longctx.report.synth.checks import check_of
from longctx.report.synth.collect import synthesis_of, with_rows
from longctx.report.synth.data import Gap, SynthData
from longctx.report.synth.excerpt import excerpt, places_in
from longctx.report.synth.page import render
from longctx.report.synth.section import remarks
from longctx.report.synth.systems import SYSTEMS
from tests.report.example import HOSTILE
from tests.report.page import Page
from tests.report.recorded import Json, record, stage
from tests.report.synthesised import EVIDENCE, OPS, ROWS, SECRET, synthesis, write_run
from tests.report.test_run_shape import MISSING, VALUES, places


def gathered(folder: Path, system: str, mark: str = "") -> SynthData:
    root = write_run(folder, system, mark)
    run = load_run(root)
    told = synthesis_of(run)
    assert told is not None
    return with_rows(told, root, run)


@pytest.mark.parametrize("system", SYSTEMS)
def test_rows_of_every_system_can_be_read(tmp_path: Path, system: str) -> None:
    data = gathered(tmp_path, system)
    page = Page(render(data))
    assert page.faults == []
    assert len(data.samples) == 8
    assert [s.tokens for s in data.samples] == sorted(s.tokens for s in data.samples)
    assert data.read is not None
    assert data.read.rows == ROWS
    assert "Answer" in page.text
    assert SECRET not in page.text
    headings = [h.text for h in page.named("h2")]
    placed = system in ("film", "chatqa2", "pamqa", "longmit")
    assert ("Where the evidence stands" in headings) == placed


@pytest.mark.parametrize("system", ["film", "chatqa2", "pamqa", "longmit"])
def test_evidence_is_marked_where_it_stands(tmp_path: Path, system: str) -> None:
    data = gathered(tmp_path, system)
    rows = pq.read_table(tmp_path / "run/output/part-00000.parquet").to_pylist()
    contexts = {row["id"]: row["context"] for row in rows}
    for sample in data.samples:
        shown, context = sample.context, contexts[sample.row_id]
        assert shown is not None
        at = context.index(EVIDENCE)
        assert any(a <= at / len(context) < b for a, b in shown.places)
        marked = [p.text for part in shown.parts if isinstance(part, list) for p in part if p.label]
        assert any(EVIDENCE in text for text in marked)
        assert not any(
            EVIDENCE in p.text
            for part in shown.parts
            if isinstance(part, list)
            for p in part
            if not p.label
        )


def test_depths_are_those_of_the_rows(tmp_path: Path) -> None:
    found = gathered(tmp_path / "a", "pamqa").depths
    # One gold in each of five slots in turn: a slot is two tenths.
    assert found is not None
    assert [a + b for a, b in zip(found.counts[::2], found.counts[1::2], strict=True)] == [6] * 5
    clues = gathered(tmp_path / "b", "longmit").depths
    assert clues is not None
    assert sum(clues.counts) == 2 * ROWS
    assert sum(clues.counts[4:6]) == 0
    rows = gathered(tmp_path / "c", "chatqa2").depths
    assert rows is not None
    assert sum(rows.counts) == ROWS


def test_what_each_system_has_of_its_own_is_shown(tmp_path: Path) -> None:
    pages = {s: Page(render(gathered(tmp_path / s, s))) for s in SYSTEMS}
    assert "Pieces" not in pages["film"].text
    assert "summary, inserted here" in pages["chatqa2"].text
    assert "or else" in pages["chatqa2"].text
    assert "Proposed questions of the kind summary" in pages["longalign"].text
    marked = [m.text for m in pages["longalign"].named("mark")]
    assert len(marked) == 8
    assert all(m.startswith("Proposed") and m.endswith("2?") for m in marked)
    assert "long, book" in pages["longalpaca"].text
    golds = [b.text for b in pages["pamqa"].named("b") if b.attributes.get("class") == "kept"]
    assert len(golds) == 8
    assert all(g.startswith("[") for g in golds)
    chain = [c.text for c in pages["longmit"].named("td")]
    assert {"0.812", "Single 1?"} <= set(chain)
    assert "Reasoning" in pages["longmit"].text
    bars = [one.text for one in pages["longwriter"].named("desc")]
    assert "planned: 200; written: 150" in " ".join(bars)
    assert "Length score" in pages["longwriter"].text


def test_numbers_are_those_of_the_record(tmp_path: Path) -> None:
    data = gathered(tmp_path, "longalign")
    page = Page(render(data))
    assert "34 documents became 30 rows" in page.text
    assert data.used.usd == 1.75
    tiles = " ".join(one.text for one in page.named("dd"))
    for told in ("65 of 71 requests", "6 8.5 %", "100 k", "12.0 k", "1.75 USD"):
        assert told in tiles, told
    cells = [c.text for c in page.named("td")]
    assert "semantic 2odd 1" in cells
    no_price = replace(
        data, stages=[replace(s, used=s.used and replace(s.used, usd=None)) for s in data.stages]
    )
    assert "No price is known of the model." in Page(render(no_price)).text
    assert "USD" not in Page(render(no_price)).text


def test_rejects_are_shown_by_reason_with_replies(tmp_path: Path) -> None:
    data = gathered(tmp_path, "longalign")
    assert [(e.stage, e.code) for e in data.examples] == [
        ("ask", "semantic"),
        ("ask", "odd"),
        ("assemble", "too_long"),
    ]
    page = Page(render(data))
    assert '{"questions": []} of' in page.text
    assert "No reply is kept" in page.text
    assert SECRET not in page.text


def test_checks_say_what_was_found_and_how_it_ended(tmp_path: Path) -> None:
    data = gathered(tmp_path, "film")
    told = {c.name: c for c in data.checks}
    assert {n: c.verdict for n, c in told.items()} == {
        "depth": "holds",
        "types": "too few rows",
        "support": "fails",
        "decontamination": "not looked at",
        "answer_words": "figure",
        "new_check": "holds",
        "sound_rows": "fails",
    }
    assert "p 0.610" in told["depth"].sentence
    held_out = "No row shares a run of words with the evaluation sets: "
    nothing = "none were given, so nothing was held out."
    assert told["decontamination"].sentence == held_out + nothing
    found = {"hits": 1, "texts": 1200, "ngram": 10, "ok": False}
    looked_for = "1 row found, 1,200 texts of theirs looked for in runs of 10 words."
    assert check_of("decontamination", found).sentence == held_out + looked_for
    assert "40.0 % of the rows, at least 90.0 % wanted" in told["support"].sentence
    assert "late 2" in told["sound_rows"].sentence
    assert "seen 3; why so" in told["new_check"].sentence
    items = [i.text for i in Page(render(data)).named("li")]
    assert f"fails{told['support'].sentence.replace(' %', chr(160) + '%')}" in items
    assert [said for said in remarks(data) if "fewer were taken" in said]
    assert any("a and b: rows may come from several models" in said for said in remarks(data))


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"ok": None},
        {"ok": 3},
        {"D": 1, "n": "x", "ok": True},
        {"stat": 10**400, "df": 1, "p": 0, "max_dev": 0, "tol": 1},
    ],
)
def test_odd_figures_are_told_as_they_stand(figures: Json) -> None:
    found = check_of("depth", figures)
    assert found.sentence.endswith(".")
    assert found.verdict in ("figure", "too few rows", "fails", "holds")


@pytest.mark.parametrize(
    ("name", "figures", "said"),
    [
        ("unanswerable", {"share": 0.04, "wanted": 0.1, "stat": 1, "df": 1}, "4.0 % of the rows"),
        ("multihop", {"share": 0.9, "n": 20, "target": 0.85}, "90.0 % of 20, at least 85.0 %"),
        ("target_len", {"D": 0.08, "n": 82}, "0.080 off at the most"),
        ("distinct_ids", {"n": 13}, "13 looked at"),
        ("hops", {"counts": {"inter-2": 3}}, "inter-2 3"),
        ("margin", {"mean": 7.5, "histogram": {"below 1": 2}}, "mean 7.50."),
        (
            "mixture",
            {"parts": {"book": {"reached_share": 0.74, "requested_share": 0.75}}},
            "book 74.0 % of 75.0 %",
        ),
    ],
)
def test_figures_of_every_form_are_sentences(name: str, figures: Json, said: str) -> None:
    assert said in check_of(name, {**figures, "ok": True}).sentence


@pytest.mark.parametrize("system", SYSTEMS)
def test_planted_texts_stay_text(tmp_path: Path, system: str) -> None:
    plain, planted = (
        Page(render(gathered(tmp_path / str(len(mark)), system, mark)))
        for mark in ("p" * len(HOSTILE), HOSTILE)
    )
    assert planted.faults == []
    assert {e.name for e in planted.elements} == {e.name for e in plain.elements}
    assert not planted.named("script", "img")
    assert {n for e in planted.elements for n in e.attributes} == {
        n for e in plain.elements for n in e.attributes
    }


def test_the_report_tells_of_it_and_leads_to_its_page(tmp_path: Path) -> None:
    root = write_run(tmp_path, "pamqa")
    written = [Path(w).name for w in write_report(root)]
    assert f"02-{OPS['pamqa']}.html" in written
    report = Page((tmp_path / "run/report.html").read_text(encoding="utf-8"))
    assert report.faults == []
    assert f"report/02-{OPS['pamqa']}.html" in [a.attributes["href"] for a in report.named("a")]
    assert "2 fail: support, sound_rows" in report.text
    page = Page((tmp_path / "run/report/02-synth.pam_qa.html").read_text(encoding="utf-8"))
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    links = {a.attributes["href"] for a in page.named("a")}
    assert links <= {f"#{one}" for one in ids} | {"../report.html"}


def test_rows_that_are_not_to_be_had_leave_the_rest(tmp_path: Path) -> None:
    def why(folder: str, change: Any) -> str:
        root = write_run(tmp_path / folder, "film")
        change(Path(root))
        run = load_run(root)
        told = synthesis_of(run)
        assert told is not None
        data = with_rows(told, root, run)
        assert Page(render(data)).faults == []
        assert data.samples == []
        return data.why

    def foreign(root: Path) -> None:
        (root / "output/_longctx.json").write_text('{"run_dir": "/elsewhere"}')

    def other_columns(root: Path) -> None:
        pq.write_table(pa.table({"id": ["a"]}), root / "output/part-00000.parquet")

    assert "not where run.json says" in why("gone", lambda root: shutil.rmtree(root / "output"))
    assert "not where run.json says" in why("foreign", foreign)
    assert "no manifest" in why("unlisted", lambda r: (r / "output/manifest.json").unlink())
    assert "files of the rows are gone" in why(
        "lost", lambda r: (r / "output/part-00000.parquet").unlink()
    )
    assert "other columns" in why("old", other_columns)


def test_a_name_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    root = write_run(tmp_path, "film")
    shutil.copy(f"{root}/output/part-00000.parquet", tmp_path / "part-00001.parquet")
    listed = {"files": [{"name": "../../part-00001.parquet"}]}
    (Path(root) / "output/manifest.json").write_text(json.dumps(listed))
    run = load_run(root)
    told = synthesis_of(run)
    assert told is not None
    assert with_rows(told, root, run).samples == []


def test_without_its_steps_a_row_of_film_is_shown_unmarked(tmp_path: Path) -> None:
    root = write_run(tmp_path, "film")
    shutil.rmtree(Path(root) / "stages")
    run = load_run(root)
    told = synthesis_of(run)
    assert told is not None
    data = with_rows(told, root, run)
    assert len(data.samples) == 8
    assert all(s.context and s.context.places == [] for s in data.samples)


def nulls(table: pa.Table) -> pa.Table:
    """The same columns, all null but for the ids."""
    return pa.table(
        {
            f.name: table.column(f.name) if f.name == "id" else pa.nulls(table.num_rows, f.type)
            for f in table.schema
        },
        schema=table.schema,
    )


@pytest.mark.parametrize("system", SYSTEMS)
def test_rows_of_nulls_are_drawn(tmp_path: Path, system: str) -> None:
    root = write_run(tmp_path, system)
    file = Path(root) / "output/part-00000.parquet"
    pq.write_table(nulls(pq.read_table(file)), file)
    run = load_run(root)
    told = synthesis_of(run)
    assert told is not None
    assert Page(render(with_rows(told, root, run))).faults == []


def bare(told: Json) -> Json:
    last = stage(1, "synth.in2")
    last["summary"]["synthesis"] = told
    last["steps"] = {"files": {"files": 1, "bytes": 9}}
    return record([stage(0, "read"), last])


def test_whatever_stands_in_the_record_it_is_drawn_or_refused(tmp_path: Path) -> None:
    refused = drawn = tried = 0
    for number, place in enumerate([*places(synthesis("film"))]):
        value = VALUES[number * 5 % len(VALUES)]
        told = synthesis("film")
        inner: Any = told
        for key in place[:-1]:
            inner = inner[key]
        if value is MISSING:
            del inner[place[-1]]
        else:
            inner[place[-1]] = value
        (tmp_path / "run.json").write_bytes(json.dumps(bare(told)).encode())
        try:
            found = collect(str(tmp_path))
            assert found.synthesis is not None or value is None
            render_report(found).encode()
            if found.synthesis is not None:
                render(found.synthesis).encode()
            drawn += 1
        except LongctxError as error:
            refused += str(tmp_path / "run.json") in error.where
        tried += 1
    assert drawn + refused == tried
    assert refused > 30
    assert drawn > 15


def test_the_field_is_named(tmp_path: Path) -> None:
    told = synthesis("film")
    told["stages"]["answer"]["ok"] = -1
    (tmp_path / "run.json").write_text(json.dumps(bare(told)))
    with pytest.raises(RecipeError) as caught:
        collect(str(tmp_path))
    assert "`stages.1.summary.synthesis.stages.answer.ok`" in caught.value.message


def test_a_context_is_shortened_around_its_evidence() -> None:
    words_ = [f"word{i}" for i in range(4_000)]
    words_[3_000] = "GOLD"
    context = " ".join(words_)
    at = context.index("GOLD")
    shown = excerpt(context, 4_000, [Place(at, at + 4, "gold")])
    assert shown.places == [(at / len(context), (at + 4) / len(context))]
    texts = [p for p in shown.parts if isinstance(p, list)]
    gaps = [p for p in shown.parts if isinstance(p, Gap)]
    assert (len(texts), len(gaps)) == (3, 2)
    assert [p.text for p in texts[1] if p.label] == ["GOLD"]
    kept = sum(len("".join(p.text for p in part).split()) for part in texts)
    assert abs(kept + sum(g.tokens for g in gaps) - 4_000) < 60
    assert all(
        "".join(p.text for p in part).strip().split()[0].rstrip() in words_ for part in texts
    )


def test_evidence_that_is_left_out_is_counted() -> None:
    context = " ".join(f"word{i}" for i in range(20_000))
    golds = [
        Place(context.index(f"word{i} "), context.index(f"word{i} ") + 5, "gold")
        for i in range(1_000, 19_000, 1_000)
    ]
    shown = excerpt(context, 20_000, golds)
    assert len(shown.places) == 18
    assert sum(p.evidence for p in shown.parts if isinstance(p, Gap)) == 12


def test_short_contexts_and_wrong_places_are_shown_whole() -> None:
    shown = excerpt("all of it", 3, [Place(-3, 2, "x"), Place(4, 90, "x"), Place(5, 5, "x")])
    assert shown.places == []
    assert [[p.text for p in part] for part in shown.parts if isinstance(part, list)] == [
        ["all of it"]
    ]
    assert excerpt("", 0, []).parts == []


def test_texts_are_found_in_their_order() -> None:
    found = places_in("a b a c", [("a", ""), ("a", "second"), ("z", "gone"), ("c", "third")])
    assert found == [Place(4, 5, "second"), Place(6, 7, "third")]
