"""`decide` with rules that compare rows: the same cut for any parts, order of rows and rounds."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from longctx.engine.barrier import BarrierContext
from longctx.engine.units import PendingWorkError
from longctx.errors import RecipeError, RunError
from longctx.filter.cut import select
from longctx.filter.derived import derive, wanjuan
from longctx.filter.stages_decide import Decide
from longctx.recipe import from_dict
from tests.in_process import context_of, corpus_of, rows_of, run_here

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(monkeypatch)


def scored(n: int = 120, seed: int = 0) -> list[Row]:
    """Documents of three sources with scores of every kind; many are equal, some are null."""
    rng = np.random.default_rng(seed)
    names = ("la_ds", "la_var", "ga_hmg", "ga_cas", "ga_nll_a", "ga_nll_b")
    names += ("lw_acc_long", "lw_acc_diff", "lw_pron_rate", "lw_conn_rate", "lw_ttr_win")
    return [
        {
            "doc_id": f"doc-{i:04d}",
            "source": ("web", "book", "code")[int(rng.integers(3))],
            "n_tokens": int(rng.integers(1, 100)),
            "lf_score": None if i % 11 == 0 else float(rng.random()),
            "lp_key_share": float(rng.integers(3)) / 2,
            **{name: float(rng.random()) for name in names},
        }
        for i in range(n)
    ]


def decided(
    folder: Path, rows: list[Row], parts: int = 2, **fields: Any
) -> tuple[dict[str, Row], BarrierContext]:
    """What a decide says of every row, and the context in which it was run."""
    op = Decide(op="decide", **fields)
    context = context_of(op, corpus_of(str(folder), rows, parts), len(rows))
    op.run(context)
    return rows_of(context), context


def kept(found: dict[str, Row]) -> set[str]:
    return {i for i, row in found.items() if row["drop_reason"] is None}


def expected(rows: list[Row], column: str, **mode: Any) -> set[str]:
    """The ids that `select` keeps, inside each source."""
    ids = [r["doc_id"] for r in rows]
    values = [math.nan if r[column] is None else r[column] for r in rows]
    mask = select(
        values, ids, [r["source"] for r in rows], tokens=[r["n_tokens"] for r in rows], **mode
    )
    return {i for i, keep in zip(ids, mask, strict=True) if keep}


def meta(context: BarrierContext) -> Any:
    folder = Path(context.folder, "cut")
    return json.loads((folder / "cut_meta.json").read_text())


ALL_KINDS = {
    "rules": {"n_tokens": {"min": 5}},
    "keep": {
        "longfilter": {"top": 0.6, "per_source": {"book": {"min_quantile": 0.3}}},
        "longppl": {"top": 0.7, "per": "all"},
        "longattn": {"band": [0.1, 0.95]},
        "gateau": {"threshold": -1.5},
        "wanjuan": {"classes": ["holistic", "aggregated"]},
        "n_tokens": {"top_tokens": 2500, "per": "all"},
    },
}


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_neither_parts_nor_row_order_change_a_byte(tmp_path: Path, parts: int) -> None:
    rows = scored()
    whole, first = decided(tmp_path / "one", rows, 1, **ALL_KINDS)
    mixed = [rows[i] for i in np.random.default_rng(parts).permutation(len(rows))]
    found, context = decided(tmp_path / "more", mixed, parts, **ALL_KINDS)
    assert found == whole
    assert 10 < len(kept(found)) < 60
    assert len({r["drop_reason"] for r in found.values()}) > 5
    texts = [Path(c.folder, "cut", "cut_meta.json").read_bytes() for c in (first, context)]
    assert texts[0] == texts[1]
    near = [pq.read_table(Path(c.folder, "cut", "closest.parquet")) for c in (first, context)]
    assert near[0].equals(near[1])


@pytest.mark.parametrize("limit", [20, 90])
def test_rounds_of_counting_change_nothing(tmp_path: Path, limit: int) -> None:
    rows = scored()
    keep = {n: k for n, k in ALL_KINDS["keep"].items() if n != "wanjuan"}
    at_once, _ = decided(tmp_path / "once", rows, 3, keep=keep)
    found, context = decided(tmp_path / "rounds", rows, 3, keep=keep, one_place_up_to=limit)
    assert found == at_once
    assert "counts-1" in context.step_commits
    assert context.step_stats["cells-1"]["rows"] < len(keep) * len(rows)


@pytest.mark.parametrize(
    ("rule", "mode"),
    [
        ({"top": 0.2}, {"top_fraction": 0.2}),
        ({"top_tokens": 500}, {"top_tokens": 500}),
        ({"band": [0.25, 0.75]}, {"band": (0.25, 0.75)}),
        ({"threshold": 0.5, "compare": "lt"}, {"threshold": ("lt", 0.5)}),
        ({"budget_tokens": "2e3"}, {"top_percent_for_budget": 2000}),
    ],
)
def test_rules_keep_what_select_keeps(tmp_path: Path, rule: Row, mode: Row) -> None:
    rows = scored()
    for column in ("lf_score", "lp_key_share"):
        found, _ = decided(tmp_path / column, rows, keep={column: rule})
        assert kept(found) == expected(rows, column, **mode)


def test_a_budget_by_score_takes_the_best_of_all_sources(tmp_path: Path) -> None:
    rows = scored()
    keep = {"longfilter": {"budget_tokens": 1500, "budget": "score"}}
    found, context = decided(tmp_path, rows, keep=keep)
    best = sorted((r for r in rows if r["lf_score"] is not None), key=lambda r: -r["lf_score"])
    fits = np.cumsum([r["n_tokens"] for r in best]) <= 1500
    assert kept(found) == {r["doc_id"] for r, fit in zip(best, fits, strict=True) if fit}
    said = meta(context)["scores"]["longfilter"]
    assert (said["per"], list(said["groups"])) == ("all", [""])
    assert said["groups"][""]["kept_tokens"] <= 1500


def test_shares_keep_the_same_percent_of_every_source(tmp_path: Path) -> None:
    _, context = decided(tmp_path, scored(), keep={"longfilter": {"budget_tokens": 1500}})
    groups = meta(context)["scores"]["longfilter"]["groups"].values()
    (percent,) = {g["percent"] for g in groups}
    assert [g["kept"] for g in groups] == [g["n"] * percent // 100 for g in groups]
    assert sum(g["kept_tokens"] for g in groups) > 1500


def test_rules_for_single_rows_come_first(tmp_path: Path) -> None:
    rows = scored()
    found, context = decided(
        tmp_path, rows, rules={"n_tokens": {"min": 50}}, keep={"longfilter": {"top": 0.5}}
    )
    left = [r for r in rows if r["n_tokens"] >= 50]
    assert kept(found) == expected(left, "lf_score", top_fraction=0.5)
    reasons = Counter(r["drop_reason"] for r in found.values())
    assert reasons["n_tokens < 50"] == len(rows) - len(left)
    assert reasons["longfilter is null"] == sum(r["lf_score"] is None for r in left)
    # What was not compared has no score to show.
    gone = {i for i, r in found.items() if r["drop_reason"] == "n_tokens < 50"}
    assert all(found[i]["cut_longfilter"] is None for i in gone)
    total = sum(
        g["n"] + g["nulls"] for g in meta(context)["scores"]["longfilter"]["groups"].values()
    )
    assert total == len(left)


def test_several_scores_are_joined_by_all_or_any(tmp_path: Path) -> None:
    rows = [r for r in scored() if r["lf_score"] is not None]
    keep = {"longfilter": {"top": 0.4}, "la_ds": {"top": 0.4}}
    one, two = (expected(rows, c, top_fraction=0.4) for c in ("lf_score", "la_ds"))
    found, _ = decided(tmp_path / "all", rows, keep=keep)
    assert kept(found) == one & two
    found, _ = decided(tmp_path / "any", rows, keep=keep, combine="any")
    assert kept(found) == one | two
    assert {r["drop_reason"] for r in found.values()} == {None, "none of longfilter, la_ds"}


def test_a_null_may_be_kept_and_many_are_remarked(tmp_path: Path) -> None:
    rows = [{**r, "lf_score": None if i % 4 == 0 else i / 7} for i, r in enumerate(scored())]
    null = {r["doc_id"] for r in rows if r["lf_score"] is None}
    found, context = decided(tmp_path, rows, keep={"longfilter": {"top": 0.2}}, nulls="keep")
    assert kept(found) == expected(rows, "lf_score", top_fraction=0.2) | null
    (remark,) = context.step_stats["cut"]["warnings"]
    assert remark == "30 of 120 documents have no longfilter and were kept by decide."


def test_a_source_may_have_a_rule_of_its_own_or_none(tmp_path: Path) -> None:
    rows = scored()
    found, _ = decided(
        tmp_path, rows, keep={"longfilter": {"per_source": {"book": {"threshold": 0.5}}}}
    )
    gone = {r["doc_id"] for r in rows if r["source"] == "book" and (r["lf_score"] or 0) < 0.5}
    assert kept(found) == {r["doc_id"] for r in rows} - gone
    assert {r["drop_reason"] for r in found.values()} == {
        None,
        "longfilter < 0.5",
        "longfilter is null",
    }


def test_the_score_that_was_cut_by_is_a_column(tmp_path: Path) -> None:
    rows = scored()
    found, _ = decided(
        tmp_path,
        rows,
        parts=3,
        keep={"longattn": {"top": 0.5, "alpha": 0.25}, "gateau": {"top": 0.5, "norm": "rank"}},
    )
    for source in ("web", "book", "code"):
        own = [r for r in rows if r["source"] == source]
        columns = {n: [r[n] for r in own] for n in ("la_ds", "la_var")}
        scores = derive("longattn", columns, alpha=0.25)
        assert [found[r["doc_id"]]["cut_longattn"] for r in own] == scores.tolist()
    columns = {n: [r[n] for r in rows] for n in ("ga_hmg", "ga_cas")}
    scores = derive("gateau", columns, norm="rank")
    assert [found[r["doc_id"]]["cut_gateau"] for r in rows] == scores.tolist()


def test_wanjuan_writes_its_ranks_and_classes_by_source(tmp_path: Path) -> None:
    rows = scored(200)
    options = {"p_lo": 0.4, "p_hi": 0.5, "x_lo": 0.3, "x_hi": 0.7}
    rule = {**options, "classes": ["holistic"], "weights": {"aggregated": 3}}
    rule["per_source"] = {"book": {"classes": ["holistic", "chaotic"]}}
    found, context = decided(tmp_path, rows, keep={"wanjuan": rule})
    names = ("lw_acc_long", "lw_acc_diff", "lw_pron_rate", "lw_conn_rate", "lw_ttr_win")
    counts: Counter[str] = Counter()
    for source in ("web", "book", "code"):
        own = [r for r in rows if r["source"] == source]
        classes = wanjuan({n: [r[n] for r in own] for n in names}, **options)
        written = [found[r["doc_id"]] for r in own]
        assert [w["lw_class"] for w in written] == classes.name.tolist()
        assert [w["lw_C"] for w in written] == classes.C.tolist()
        weights = {"holistic": 1, "aggregated": 3, "chaotic": 0}
        assert all(w["lw_weight"] == weights[w["lw_class"]] for w in written)
        stays = {"holistic", "chaotic"} if source == "book" else {"holistic"}
        for w in written:
            counts[w["lw_class"]] += 1
            assert w["drop_reason"] == (
                None if w["lw_class"] in stays else f"wanjuan {w['lw_class']}"
            )
    assert set(counts) == {"holistic", "aggregated", "chaotic"}
    groups = meta(context)["scores"]["wanjuan"]["groups"]
    assert sum(g["classes"]["chaotic"]["docs"] for g in groups.values()) == counts["chaotic"]
    assert sum(g["kept"] for g in groups.values()) == len(kept(found))


def test_discourse_markers_are_read_where_a_stage_wrote_them(tmp_path: Path) -> None:
    rows = scored()
    plain, _ = decided(tmp_path / "plain", rows, keep={"wanjuan": {}})
    with_dmr = [{**r, "lw_dmr": r["la_ds"]} for r in rows]
    found, _ = decided(tmp_path / "dmr", with_dmr, keep={"wanjuan": {}})
    assert [r["lw_H"] for r in found.values()] != [r["lw_H"] for r in plain.values()]


def test_ranks_of_more_rows_than_one_place_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"one_place_up_to.*wanjuan and gateau rank") as refused:
        decided(
            tmp_path,
            scored(),
            keep={"wanjuan": {}, "gateau": {"top": 0.1, "norm": "released"}},
            one_place_up_to=100,
        )
    assert "norm: z" in refused.value.remedy


def test_figures_of_a_cut(tmp_path: Path) -> None:
    rows = scored()
    _, context = decided(tmp_path, rows, keep={"longfilter": {"top": 0.2}})
    groups = meta(context)["scores"]["longfilter"]["groups"]
    for source, said in groups.items():
        own = [r for r in rows if r["source"] == source]
        values = np.array([r["lf_score"] for r in own if r["lf_score"] is not None])
        assert (said["n"], said["nulls"]) == (len(values), len(own) - len(values))
        assert said["mean"] == pytest.approx(values.mean())
        assert said["sd"] == pytest.approx(values.std(ddof=1))
        assert said["q25"] == np.percentile(values, 25)
        assert (said["min"], said["max"]) == (values.min(), values.max())
        assert said["kept"] == math.ceil(0.2 * len(values))
        assert said["border"]["low"] == sorted(values)[-said["kept"]]
        tokens = sum(r["n_tokens"] for r in own if (r["lf_score"] or 0) >= said["border"]["low"])
        assert said["kept_tokens"] == tokens
    recorded = context.step_stats["cut"]["cuts"]["longfilter"]
    assert recorded["kept"] == sum(g["kept"] for g in groups.values())
    assert recorded["groups"]["web"]["low"] == groups["web"]["border"]["low"]


def test_documents_next_to_the_border_are_named(tmp_path: Path) -> None:
    rows = scored()
    _, context = decided(tmp_path, rows, parts=5, keep={"la_ds": {"top": 0.4, "per": "all"}})
    near = pq.read_table(Path(context.folder, "cut", "closest.parquet")).to_pylist()
    order = sorted(rows, key=lambda r: -r["la_ds"])
    ids = [r["doc_id"] for r in order]
    border = math.ceil(0.4 * len(rows))
    for stays, there in ((True, ids[border - 20 : border][::-1]), (False, ids[border:][:20])):
        assert [n["doc_id"] for n in near if n["kept"] is stays] == there
    assert {n["edge"] for n in near} == {"low"}
    places = pq.read_table(Path(context.folder, "cut", "places.parquet")).to_pylist()
    assert [p["doc_id"] for p in places] == sorted({n["doc_id"] for n in near})
    read = {p.name: pq.read_table(Path(p.run_dir, p.documents.name)) for p in context.parts()}
    assert all(read[p["part"]]["doc_id"][p["row"]].as_py() == p["doc_id"] for p in places)


def written(context: BarrierContext, step: str) -> dict[str, int]:
    files = Path(context.folder, step).glob("*.commit.json")
    return {f.name: f.stat().st_mtime_ns for f in files}


def test_another_threshold_makes_no_score_again(tmp_path: Path) -> None:
    rows = scored()
    first, before = decided(tmp_path, rows, keep={"longfilter": {"top": 0.2}})
    stamps = written(before, "scored")
    _, again = decided(tmp_path, rows, keep={"longfilter": {"top": 0.2}})
    assert again.skipped == again.units == before.units
    found, after = decided(tmp_path, rows, keep={"longfilter": {"top": 0.5}})
    assert written(after, "scored") == stamps
    assert kept(first) < kept(found)
    # Another column is other scores, though the same columns are read.
    keep = {"la_ds": {"top": 0.5}}
    decided(tmp_path, rows, keep=keep, rules={"lf_score": {"min": 0}})
    _, last = decided(tmp_path, rows, keep={"lf_score": {"top": 0.5}}, rules={"la_ds": {"min": 0}})
    assert last.skipped < last.units


def test_a_plan_walks_the_same_steps(tmp_path: Path) -> None:
    rows, fields = scored(), {"keep": {"longattn": {"top": 0.5}}, "one_place_up_to": 50}
    op = Decide(op="decide", **fields)
    corpus = corpus_of(str(tmp_path), rows, 2)
    with pytest.raises(PendingWorkError) as pending:
        op.run(context_of(op, corpus, len(rows), dry=True))
    assert pending.value.step == "scored"
    decided(tmp_path, rows, **fields)
    context = context_of(op, corpus, len(rows), dry=True)
    op.run(context)
    assert context.final is not None


def test_a_part_without_living_rows(tmp_path: Path) -> None:
    rows = [{**r, "drop_reason": "gone" if i % 3 == 1 else None} for i, r in enumerate(scored(60))]
    op = Decide(op="decide", keep={"longattn": {"top": 0.5}, "wanjuan": {}})
    context = context_of(op, corpus_of(str(tmp_path), rows, 3), 40)
    op.run(context)
    assert [c.stats["rows_in"] for c in context.final.commits] == [20, 0, 20]
    alone, _ = decided(
        tmp_path / "alone", [r for r in rows if not r["drop_reason"]], **op_fields(op)
    )
    found = rows_of(context)
    assert {i: found[i] for i in alone} == alone


def op_fields(op: Decide) -> dict[str, Any]:
    return op.model_dump(exclude_defaults=True, exclude={"op"})


# What a recipe may say


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": {}}, "at least one of .*keep"),
        ({"keep": {"longfilter": {}}}, "longfilter: give one of top, top_tokens, min_quantile"),
        ({"keep": {"x": {"top": 0.2, "threshold": 1}}}, "give one of top, threshold, not 2"),
        ({"keep": {"x": {"top": 20}}}, "less than or equal to 1"),
        ({"keep": {"x": {"top": 0.1, "compare": "gt"}}}, "`compare` says on which side"),
        ({"keep": {"x": {"band": [0.9, 0.1]}}}, "0.9 is above 0.1"),
        ({"keep": {"x": {"min_quantile": 0.9, "max_quantile": 0.1}}}, "0.9 is above 0.1"),
        (
            {"keep": {"x": {"top": 0.1, "alpha": 0.5}}},
            "`alpha` is an option of longattn.*, not of x",
        ),
        ({"keep": {"longatn": {"top": 0.1, "alpha": 0.5}}}, "did you mean 'longattn'"),
        ({"keep": {"longattn": {"top": 0.1, "norm": "rank"}}}, "option of gateau, not of longattn"),
        ({"keep": {"wanjuan": {"top": 0.1}}}, "wanjuan keeps `classes`"),
        ({"keep": {"wanjuan": {"classes": []}}}, "at least 1 item"),
        ({"keep": {"wanjuan": {"classes": ["good"]}}}, "holistic"),
        (
            {"keep": {"gateau": {"top": 0.1, "per_source": {"a": {"top": 1}}}}},
            "`per_source` needs `per: source`",
        ),
        ({"keep": {"x": {"top": 0.1, "budget": "score"}}}, "`budget` says how"),
        (
            {"keep": {"x": {"budget_tokens": 9, "budget": "score", "per": "source"}}},
            "compares all sources",
        ),
        (
            {"keep": {"x": {"budget_tokens": 9, "per_source": {"a": {"top": 0.1}}}}},
            "no source has its own",
        ),
        (
            {"keep": {"x": {"budget_tokens": 9}, "y": {"top": 0.1}}},
            "`budget_tokens` works with one score",
        ),
    ],
)
def test_wrong_rules_are_refused(fields: Row, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Decide(op="decide", **fields)


def test_columns_that_are_read_and_written() -> None:
    op = Decide(
        op="decide",
        keep={
            "longattn": {"top": 0.5},
            "gateau": {"top": 0.1, "norm": "released"},
            "n_words": {"top_tokens": 100},
            "wanjuan": {},
        },
    )
    assert {"la_ds", "la_var", "ga_nll_a", "ga_cas", "n_words", "n_tokens"} < {*op.reads_columns()}
    assert not {"ga_hmg", "lw_dmr"} & {*op.reads_columns()}
    made = ("cut_longattn", "cut_gateau", "lw_C", "lw_H", "lw_X", "lw_class", "lw_weight")
    assert op.writes_columns() == (*made, "drop_reason")


def recipe(*stages: Row) -> Row:
    return {
        "name": "x",
        "input": [{"path": "in", "source": "s"}],
        "run_dir": "run",
        "stages": list(stages),
    }


def test_a_recipe_is_told_of_scores_that_no_stage_writes() -> None:
    def told(**keep: Row) -> str:
        with pytest.raises(RecipeError) as found:
            from_dict(recipe({"op": "score.heuristics"}, {"op": "decide", "keep": keep}))
        return found.value.message

    assert "decide reads `lf_score`, which no earlier stage writes" in told(longfilter={"top": 0.2})
    assert "did you mean 'longfilter'" in told(longfiltr={"top": 0.2})
    assert "did you mean 'n_words'" in told(n_word={"top": 0.2})
    assert "unknown field; did you mean 'top'" in told(longfilter={"topp": 0.2})
    assert "derived scores: longfilter, delta_ppl" in told(qqqq={"top": 0.2})


def test_what_a_decide_writes_can_be_read_by_the_next() -> None:
    first = {"op": "decide", "keep": {"longattn": {"top": 0.5}}}
    later = {"op": "decide", "rules": {"cut_longattn": {"min": 0}}}
    with pytest.raises(RecipeError) as found:
        from_dict(recipe({"op": "score.heuristics"}, first, later))
    assert "cut_longattn" not in found.value.message
    assert "la_ds" in found.value.message


def test_a_column_of_words_cannot_be_ranked(tmp_path: Path) -> None:
    rows = [{**r, "kind": "a"} for r in scored(6)]
    with pytest.raises(RunError, match="`kind` is string, which has no bounds"):
        decided(tmp_path, rows, keep={"kind": {"top": 0.5}})
