"""The page of pairs: side by side, with the reason, and with what the judge is worth."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longctx.errors import RecipeError
from longctx.prefer.pairs import PAIRS
from longctx.report.collect import load_run, write_report
from longctx.report.synth.collect import synthesis_of, with_rows
from longctx.report.synth.data import SynthData
from longctx.report.synth.page import render
from tests.report.example import HOSTILE
from tests.report.page import Page
from tests.report.paired import ROWS, STAGE, pair, tree, write_run
from tests.report.recorded import Json
from tests.report.synthesised import SECRET


def gathered(root: str) -> SynthData:
    run = load_run(root)
    told = synthesis_of(run)
    assert told is not None
    return with_rows(told, root, run)


def test_pairs_are_shown_with_their_reason(tmp_path: Path) -> None:
    data = gathered(write_run(tmp_path))
    assert data.pairs is not None
    margins = [one.margin for one in data.pairs.pairs]
    assert len(margins) == 8
    assert margins == sorted(margins, key=lambda m: m or 0.0)
    page = Page(render(data))
    assert page.faults == []
    assert [h.text for h in page.named("h2")] == [
        *("Overview", "Stage by stage", "What came to nothing", "Checks of all rows together"),
        *("Documents", "What the judge is worth", "Scores of both sides", "Pairs to read"),
        "Trees of candidates",
    ]
    first = data.pairs.pairs[0].reason
    assert "rejected one 26" in first
    assert "They differ most in faithfulness: 9.5 against 2.5." in first
    assert "The lowest of the other candidates is the rejected one." in first
    assert SECRET not in page.text
    assert "34 documents became 20 rows" in page.text
    assert "4 rejects, of documents or of what was asked about them" in page.text
    assert "document doc, 4,321 characters" in page.text
    assert "What is written so far" in page.text
    assert "Rejected as well" in page.text


def test_scores_are_drawn_for_both_sides(tmp_path: Path) -> None:
    found = gathered(write_run(tmp_path)).pairs
    assert found is not None
    assert [one.name for one in found.dimensions] == ["score", "faithfulness", "tone"]
    for one in found.dimensions:
        assert sum(one.chosen.counts) == sum(one.rejected.counts) == ROWS
        assert one.chosen.edges == one.rejected.edges
    assert found.margins is not None
    assert sum(found.margins.counts) == ROWS


def test_a_judge_that_fails_is_named(tmp_path: Path) -> None:
    page = Page(render(gathered(write_run(tmp_path))))
    assert "It fails: shuffled." in page.text
    cells = [c.text for c in page.named("td")]
    assert {"passed", "failed", "no case"} <= set(cells)


def test_planted_texts_stay_text(tmp_path: Path) -> None:
    plain, planted = (
        Page(render(gathered(write_run(tmp_path / str(i), mark))))
        for i, mark in enumerate(("p" * len(HOSTILE), HOSTILE))
    )
    assert planted.faults == []
    assert {e.name for e in planted.elements} == {e.name for e in plain.elements}
    assert not planted.named("script", "img")


def test_pairs_without_scores_and_rows_of_nulls_are_drawn(tmp_path: Path) -> None:
    bare: dict[str, object] = {"score_chosen": None, "score_rejected": None, "margin": None}
    bare |= {"dims_chosen": [], "dims_rejected": [], "rejected_rule": None}
    plain = gathered(write_run(tmp_path / "a", rows=[{**pair("", i), **bare} for i in range(3)]))
    assert plain.pairs is not None
    assert plain.pairs.dimensions == []
    assert "The row holds no scores." in Page(render(plain)).text
    nothing = [dict.fromkeys(PAIRS.names) | {"id": "x"} for _ in range(2)]
    nulls = gathered(write_run(tmp_path / "b", rows=nothing))
    assert Page(render(nulls)).faults == []


def test_trees_are_drawn_with_their_path(tmp_path: Path) -> None:
    data = gathered(write_run(tmp_path, trees=[*tree(prompt="t1"), *tree(prompt="t2")]))
    assert data.pairs is not None
    assert [one.prompt_id for one in data.pairs.trees] == ["t1", "t2"]
    page = Page(render(data))
    assert page.faults == []
    drawn = [one.text for one in page.named("g")]
    assert len(drawn) == 8
    assert sum("chosen" in words for words in drawn) == 4
    assert "Step 1 [email]" in page.text


@pytest.mark.parametrize(
    "change", [{"parent": 9}, {"parent": 3}, {"depth": 5}, {"node": 0}, {"parent": None}]
)
def test_what_is_no_tree_is_left_out(tmp_path: Path, change: Json) -> None:
    nodes = tree()
    nodes[3] |= change
    found = gathered(write_run(tmp_path, trees=nodes)).pairs
    assert found is not None
    assert found.trees == []


def test_calls_that_came_to_nothing_are_examples(tmp_path: Path) -> None:
    found = gathered(write_run(tmp_path)).examples
    assert {one.code for one in found} == {"semantic", "odd", "too_long"}


def test_the_report_leads_to_the_page(tmp_path: Path) -> None:
    root = write_run(tmp_path)
    assert f"{root}/report/{STAGE}.html" in write_report(root)
    report = Page((tmp_path / "run/report.html").read_text(encoding="utf-8"))
    assert f"report/{STAGE}.html" in [a.attributes["href"] for a in report.named("a")]


@pytest.mark.parametrize("value", [3, {"judge": "x", "controls": [{"name": 3}]}, []])
def test_a_judge_in_another_form_is_refused(tmp_path: Path, value: object) -> None:
    root = write_run(tmp_path)
    file = Path(root) / "run.json"
    run = json.loads(file.read_text())
    run["stages"][2]["summary"]["synthesis"]["judge"] = value
    file.write_text(json.dumps(run))
    with pytest.raises(RecipeError, match=r"summary\.synthesis\.judge"):
        load_run(root)


def test_schemas_with_more_columns_are_pairs(tmp_path: Path) -> None:
    root = write_run(tmp_path)
    file = Path(root) / "output/part-00000.parquet"
    pq.write_table(pq.read_table(file).append_column("gold", pa.nulls(ROWS, pa.string())), file)
    found = gathered(root).pairs
    assert found is not None
    assert len(found.pairs) == 8
