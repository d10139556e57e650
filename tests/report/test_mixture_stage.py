"""The page of a stage that mixed, and what the report says of it: true, complete, hard to break."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from longctx.errors import LongctxError, RecipeError
from longctx.report.collect import collect, write_report
from longctx.report.findings import findings
from longctx.report.html import render
from longctx.report.mixture.collect import mixture_of
from longctx.report.mixture.data import MixtureData
from longctx.report.mixture.section import remarks
from longctx.report.mixture.stage import render_stage
from tests.report.example import HOSTILE, example
from tests.report.mixed_run import STAGE, mixture, run_json
from tests.report.page import Page
from tests.report.recorded import Json
from tests.report.test_run_shape import MISSING, VALUES, places


def data(change: Callable[[Any], None] = lambda _: None, evidence: bool = True) -> MixtureData:
    """The mixture of the run, after a change of its record."""
    run = run_json(evidence=evidence)
    change(run["stages"][3]["summary"]["mixture"])
    found = mixture_of(run)
    assert found is not None
    return found


def row(page: Page, caption: str, source: str) -> list[str]:
    """The cells of a source in a table."""
    table = next(t for t in page.named("table") if t.text.startswith(caption))
    cells = [e for e in page.named("th", "td") if "tbody" in e.parents and e.text in table.text]
    texts = [cell.text for cell in cells]
    inside = texts[[i for i, t in enumerate(texts) if t == source][0 if caption[0] == "P" else 1] :]
    return inside[:10]


def test_numbers_of_sources_are_those_of_the_record() -> None:
    page = Page(render_stage(data()))
    assert page.faults == []
    assert [h.text for h in page.named("h2")] == [
        *("Overview", "By source", "Lengths", "Strategies", "Plan"),
        *("How sure the gain is", "Shares of tokens", "Beside mixtures that need no model"),
        *("Predicted against measured", "How they were found"),
    ]
    told = mixture()
    line = next(s for s in told["plan"]["sources"] if s["name"] == "web")
    came = next(s for s in told["realised"]["sources"] if s["name"] == "web")
    planned = row(page, "Planned and realised", "web")
    assert planned[1] == f"{line['size'] / 1e6:.2f} M"
    assert planned[2] == f"{line['size'] / told['natural']['size'] * 100:.1f} %"
    assert planned[3] == f"{line['target'] / 1e6:.2f} M"
    assert planned[4] == f"{line['weight'] * 100:.1f} %"
    assert planned[5] == f"{came['size'] / 1e6:.2f} M"
    assert planned[6] == f"{came['share'] * 100:.1f} %"
    assert planned[7].startswith(f"{came['size'] / line['target'] * 100:.1f} %")
    assert planned[7].endswith(f"{came['z']:+.1f} sd")
    copied = row(page, "Documents and copies", "web")
    assert copied[1:4] == [f"{n:,}" for n in (line["docs"], came["docs"], came["copies"])]
    assert copied[4] == f"{came['epochs']:.2f}"
    assert copied[6:9] == [
        f"{share * 100:.1f} %"
        for share in (
            line["long_size"] / line["size"],
            line["planned_long_share"],
            came["long_share"],
        )
    ]


def test_the_natural_mix_and_the_strategies_stand_beside_it() -> None:
    page = Page(render_stage(data()))
    told = mixture()
    assert f"{told['natural']['l1']:.4f} from the natural mix" in page.text
    assert f"{told['realised']['l1']:.4f} from the planned ones" in page.text
    for one in told["strategies"]:
        assert one["strategy"] in page.text
    assert "Not possible here: code_up (no source is named for code)" in page.text
    assert "this mixture" in page.text


def test_buckets_hold_all_tokens_before_and_as_planned() -> None:
    found = data()
    before = sum(one.before for one in found.buckets)
    assert before == pytest.approx(sum(one.before.tokens for one in found.sources))
    assert sum(one.after for one in found.buckets) == pytest.approx(found.budget)
    assert [b.high for b in found.buckets[:-1]] == [b.low for b in found.buckets[1:]]


def test_a_length_that_no_document_has_keeps_its_place() -> None:
    def without(told: Json) -> None:
        for line in told["plan"]["sources"]:
            line["cells"] = [c for c in line["cells"] if c["lo"] != 8192]

    empty = next(b for b in data(without).buckets if b.low == 8192)
    assert (empty.high, empty.before, empty.after) == (16384, 0, 0)


def test_many_cells_leave_the_figure_of_lengths_out() -> None:
    def without(told: Json) -> None:
        for line in told["plan"]["sources"]:
            del line["cells"]

    page = Page(render_stage(data(without)))
    assert page.faults == []
    assert "Lengths" not in [h.text for h in page.named("h2")]


def test_what_deserves_a_look_is_said_on_both_pages() -> None:
    def worse(told: Json) -> None:
        told["plan"]["warnings"] = ["'books' has too few tokens"]
        told["plan"]["unused"] = {"mail": {"docs": 3, "size": 40}}
        told["realised"]["sources"][0]["z"] = -5.25
        told["sources_left_out"] = 12

    found = data(worse)
    name = mixture()["realised"]["sources"][0]["name"]
    said = " ".join(remarks(found))
    assert "'books' has too few tokens" in said
    assert f"{name} came out 5.2 standard deviations of the draw below its target" in said
    assert "Not used: mail." in said
    assert "12 smaller sources are left out here" in said
    assert all(one in Page(render_stage(found)).text for one in remarks(found))
    told = [f for f in findings(replace(example(), mixture=found)) if f.section == "mixture"]
    assert [one.sentence for one in told] == [
        "'books' has too few tokens. The page of the mixture has 3 more remarks."
    ]
    assert remarks(data()) == []


@pytest.mark.parametrize(
    "evidence", [{"note": "from the paper"}, {"verdict": 5, "fit": []}, {"method": "<b>"}]
)
def test_foreign_evidence_is_not_drawn_and_that_is_said(evidence: Any) -> None:
    def foreign(told: Json) -> None:
        told["evidence"] = evidence
        told["verdict"] = evidence.get("verdict")

    page = Page(render_stage(data(foreign)))
    assert page.faults == []
    assert "in a form that `longctx mix optimise` does not write" in page.text
    assert "How sure the gain is" not in page.text


def test_a_mixture_without_a_file_has_no_evidence() -> None:
    page = Page(render_stage(data(evidence=False)))
    assert page.faults == []
    assert "small runs" not in page.text


def test_planted_names_stay_text() -> None:
    plain, planted = (
        Page(render_stage(found))
        for mark in ("plain", HOSTILE)
        if (found := mixture_of(run_json(mark)))
    )
    assert planted.faults == []
    assert [e.name for e in planted.elements] == [e.name for e in plain.elements]
    assert [sorted(e.attributes) for e in planted.elements] == [
        sorted(e.attributes) for e in plain.elements
    ]


def test_the_report_tells_of_it_and_leads_to_its_page(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(run_json()))
    written = write_report(str(tmp_path))
    assert [Path(w).name for w in written] == ["report.html", f"{STAGE}.html"]
    report = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert report.faults == []
    assert f"report/{STAGE}.html" in [a.attributes["href"] for a in report.named("a")]
    assert "Mixture" in [h.text for h in report.named("h2")]
    assert "the verdict on them: gain" in report.text
    copies = sum(one["copies"] for one in mixture()["realised"]["sources"])
    assert f"The mixture takes them {copies:,} times in all." in report.text
    page = Page((tmp_path / "report" / f"{STAGE}.html").read_text(encoding="utf-8"))
    assert page.faults == []
    ids = {e.attributes["id"] for e in page.elements if "id" in e.attributes}
    assert len(ids) == len([e for e in page.elements if "id" in e.attributes])
    links = {a.attributes["href"] for a in page.named("a")}
    assert links <= {f"#{one}" for one in ids} | {"../report.html"}


def test_what_a_mixture_is_meant_to_do_is_no_finding(tmp_path: Path) -> None:
    def told(op: str) -> list[str]:
        run = run_json()
        if op != "mix.weights":
            del run["stages"][3]["summary"]["mixture"]
        run["stages"][3] |= {"op": op, "rows_out": 2, "dropped": {"mixture": 7}}
        run["stages"][-1]["summary"]["by_source"] = {"web": [1, 900], "books": [1, 10]}
        (tmp_path / "run.json").write_text(json.dumps(run))
        return [one.sentence for one in findings(collect(str(tmp_path)))]

    for said in ("dropped 77.8 % of its rows", "of the tokens read to"):
        assert any(said in sentence for sentence in told("decide"))
        assert not any(said in sentence for sentence in told("mix.weights"))


def test_a_run_without_a_mixture_has_no_section() -> None:
    assert "Mixture" not in [h.text for h in Page(render(example())).named("h2")]


def changed(place: tuple[Any, ...], value: Any) -> Json:
    run = run_json()
    inner: Any = run["stages"][3]["summary"]["mixture"]
    for key in place[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return run


def test_whatever_stands_in_the_record_it_is_drawn_or_refused(tmp_path: Path) -> None:
    """Every third place gets one of the values, the next of these places another."""
    refused = drawn = tried = 0
    for number, place in enumerate([*places(mixture())][::3]):
        value = VALUES[number * 5 % len(VALUES)]
        (tmp_path / "run.json").write_bytes(json.dumps(changed(place, value)).encode())
        try:
            found = collect(str(tmp_path))
            assert found.mixture is not None
            (render(found) + render_stage(found.mixture)).encode()
            drawn += 1
        except LongctxError as error:
            refused += str(tmp_path / "run.json") in error.where
        tried += 1
    assert drawn + refused == tried
    assert refused > 40
    assert drawn > 40


def test_the_field_is_named(tmp_path: Path) -> None:
    run = changed(("realised", "sources", 0, "copies"), -1)
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(RecipeError) as caught:
        collect(str(tmp_path))
    assert "`stages.3.summary.mixture.realised.sources.0.copies`" in caught.value.message


def test_names_that_stand_twice_or_lack_a_result_are_drawn() -> None:
    def odd(told: Json) -> None:
        told["plan"]["sources"] += told["plan"]["sources"][:1]
        told["realised"]["sources"] = told["realised"]["sources"][1:]
        told["plan"]["sources"][0]["cells"][0] |= {"lo": 70_000, "hi": 3}

    page = Page(render_stage(data(odd)))
    assert page.faults == []
    assert re.search(r"0 %", page.text)


def test_a_plan_of_nothing_is_drawn() -> None:
    def bare(told: Json) -> None:
        told["plan"]["sources"] = told["realised"]["sources"] = []
        told["natural"]["sources"] = {}

    assert Page(render_stage(data(bare))).faults == []
