"""`mix.weights` and `mix.upsample` as steps: copies for any parts, plans that hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longctx.engine.barrier import BarrierContext
from longctx.errors import RecipeError, RunError
from longctx.mixture import stages_rows, stages_steps
from longctx.mixture.chance import copies, held_out, u01
from longctx.mixture.planned import Plan
from longctx.mixture.stages import Mixture, MixUpsample, MixWeights
from longctx.recipe import from_dict
from tests.conftest import make_rows
from tests.in_process import context_of, corpus_of, rows_of, run_here
from tests.stages import run_rows

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "ray_local" not in request.fixturenames:
        run_here(monkeypatch)


def documents(n: int = 400, seed: int = 0) -> list[Row]:
    """Documents of three sources: web is short, code mixed, books are few and long."""
    rng = np.random.default_rng(seed)
    usual = {"web": (6.5, 0.8), "code": (8.0, 1.2), "books": (11.0, 0.4)}
    found = []
    for i in range(n):
        source = "books" if i % 40 == 0 else ("code" if i % 3 == 0 else "web")
        mean, spread = usual[source]
        found.append(
            {
                "doc_id": f"doc-{i:04d}",
                "source": source,
                "n_tokens": int(np.exp(rng.normal(mean, spread))) + 1,
                "lw_class": ("holistic", "aggregated", "chaotic", None)[i % 4],
                "dup_cluster_id": f"group-{i // 5}" if i % 2 else None,
            }
        )
    return found


def mixed(
    folder: Path, rows: list[Row], parts: int = 2, op: str = "mix.upsample", **fields: Any
) -> tuple[dict[str, Row], BarrierContext]:
    """What a mixture says of every row, and the context in which it was run."""
    kind = MixUpsample if op == "mix.upsample" else MixWeights
    made: Mixture = kind.model_validate({"op": op, **fields})
    context = context_of(made, corpus_of(str(folder), rows, parts), len(rows))
    made.run(context)
    return rows_of(context), context


def object_of(context: BarrierContext) -> Row:
    assert context.outcome is not None
    found: Row = json.loads(json.dumps(context.outcome["mixture"]))
    return found


def plan_of(context: BarrierContext) -> Plan:
    return Plan.from_dict(json.loads(Path(context.folder, "plan", "plan.json").read_text()))


BUDGET: Row = {"budget": 400_000}


def test_any_parts_and_order_of_rows_give_the_same_copies(tmp_path: Path) -> None:
    rows = documents()
    first, context = mixed(tmp_path / "a", rows, 2, **BUDGET)
    second, other = mixed(tmp_path / "b", rows[::-1], 5, **BUDGET)
    assert first == second
    assert object_of(context) == object_of(other)


def test_calibration_through_bins_gives_the_same_plan(tmp_path: Path) -> None:
    rows = documents()
    fields: Row = {**BUDGET, "calibrate": "always"}
    first, context = mixed(tmp_path / "a", rows, 3, **fields)
    second, other = mixed(tmp_path / "b", rows, 3, **fields, one_place_up_to=1)
    assert "bins" in other.step_commits
    assert "bins" not in context.step_commits
    assert first == second
    assert sum(c.files[0].rows for c in other.step_commits["events"]) < len(rows)


def test_copies_follow_the_plan_and_the_record_says_so(tmp_path: Path) -> None:
    rows = documents()
    found, context = mixed(tmp_path, rows, **BUDGET)
    plan, told = plan_of(context), object_of(context)
    rates = {(line.source, cell.bucket): cell.rate for line in plan.sources for cell in line.cells}
    size = 0
    for row in rows:
        got = found[row["doc_id"]]
        u = u01(3, row["doc_id"], "mixture")
        rate = rates[row["source"], got["mix_bucket"]]
        assert (got["mix_u"], got["mix_rate"]) == (u, rate)
        assert got["mix_copies"] == copies(rate, u, 4)
        assert got["drop_reason"] == (None if got["mix_copies"] else "mixture")
        assert plan.edges[got["mix_bucket"]] <= row["n_tokens"]
        size += row["n_tokens"] * got["mix_copies"]
    assert told["realised"]["size"] == size
    assert abs(size - 400_000) <= sum(max(c.max for c in s.cells) / 2 for s in plan.sources)
    assert told["realised"]["copies"] == sum(r["mix_copies"] for r in found.values())
    assert told["natural"]["l1"] < 1e-12
    assert [row["strategy"] for row in told["strategies"]][:4] == [
        *("original", "cut4k", "per_source", "global")
    ]
    assert context.outcome is not None
    assert context.outcome["rows_in"] == len(rows)
    assert context.outcome["dropped"] == {
        "mixture": sum(not r["mix_copies"] for r in found.values())
    }


def test_held_out_documents_are_in_no_cell_and_near_copies_stay_together(tmp_path: Path) -> None:
    rows = documents()
    found, context = mixed(tmp_path, rows, **BUDGET, holdout_fraction=0.2)
    out = {i for i, r in found.items() if r["drop_reason"] == "holdout"}
    keys = [r["dup_cluster_id"] or r["doc_id"] for r in rows]
    held = held_out(3, keys, 0.2)
    assert out == {r["doc_id"] for r, one in zip(rows, held, strict=True) if one}
    assert all(found[i]["mix_copies"] == 0 for i in out)
    told = object_of(context)
    assert told["realised"]["held_out"]["docs"] == len(out) > 20
    assert told["natural"]["docs"] == len(rows) - len(out)


def test_sources_without_weight_are_listed_and_dropped(tmp_path: Path) -> None:
    weights = {"kind": "fixed", "shares": {"books": 2, "code": 1}}
    found, context = mixed(tmp_path, documents(), op="mix.weights", **BUDGET, weights=weights)
    told = object_of(context)["plan"]
    assert list(told["unused"]) == ["web"]
    assert any("sum to 3" in note for note in told["warnings"])
    sources = {r["doc_id"]: r["source"] for r in documents()}
    assert {r["drop_reason"] for i, r in found.items() if sources[i] == "web"} == {"mixture"}


def test_a_class_multiplies_rates(tmp_path: Path) -> None:
    by: Row = {"column": "lw_class", "rates": {"holistic": 1, "aggregated": 2}, "other": 0}
    rows = documents()
    found, _ = mixed(
        tmp_path, rows, op="mix.weights", budget=50_000, weights={"kind": "natural"}, rate_by=by
    )
    rates: dict[tuple[str, str | None], set[float]] = {}
    for row in rows:
        key = (row["source"], row["lw_class"])
        rates.setdefault(key, set()).add(found[row["doc_id"]]["mix_rate"])
    for source in ("web", "code"):
        (half,), (whole,) = rates[source, "holistic"], rates[source, "aggregated"]
        assert whole == pytest.approx(2 * half)
        assert rates[source, "chaotic"] == rates[source, None] == {0.0}
    del by["other"]
    with pytest.raises(RunError, match="`lw_class` holds null, which has no rate"):
        mixed(
            tmp_path / "b",
            rows,
            op="mix.weights",
            budget=50_000,
            weights={"kind": "natural"},
            rate_by=by,
        )


def test_pieces_and_windows_are_columns_where_a_rule_asks(tmp_path: Path) -> None:
    cut, _ = mixed(tmp_path / "a", documents(), **BUDGET, strategy="cut4k")
    assert {r["mix_max_piece"] for r in cut.values() if r["mix_copies"]} == {4096}
    assert {r["mix_max_piece"] for r in cut.values() if not r["mix_copies"]} == {None}
    rows = documents()
    alone = {"books": {"kind": "single_document", "window": 16384}}
    found, context = mixed(tmp_path / "b", rows, **BUDGET, per_source=alone)
    books = next(s for s in plan_of(context).sources if s.name == "books")
    whole = 0
    for row in rows:
        got = found[row["doc_id"]]
        used = row["source"] == "books" and got["mix_copies"]
        assert got["mix_window"] == (16384 if used else None)
        if used:
            whole += row["n_tokens"] // 16384 * 16384 * got["mix_copies"]
    told = next(s for s in object_of(context)["realised"]["sources"] if s["name"] == "books")
    assert told["size"] == whole
    assert abs(whole - books.target) <= max(c.max for c in books.cells) / 2


def test_the_second_stage_of_prolong_parts_a_source_by_length(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows: list[Row] = [
        {"doc_id": f"b{i}", "source": "my_books", "n_tokens": int(size)}
        for i, size in enumerate(rng.integers(60_000, 900_000, 60))
    ]
    rows += [{"doc_id": f"w{i}", "source": "wikipedia", "n_tokens": 2000} for i in range(3000)]
    slots = {"books": ["my_books"]}
    found, context = mixed(
        tmp_path, rows, budget=10_000_000, strategy="prolong_512k", slots=slots, max_epochs=20
    )
    lines = {s.name: s for s in plan_of(context).sources}
    assert lines["my_books (windows of 524,288)"].weight == pytest.approx(0.6 * 0.05 / 0.30)
    assert lines["my_books (windows of 65,536)"].weight == pytest.approx(0.6 * 0.25 / 0.30)
    assert lines["wikipedia"].weight == pytest.approx(0.4)
    for row in rows:
        got = found[row["doc_id"]]
        if row["source"] == "my_books" and got["mix_copies"]:
            assert got["mix_window"] == (524_288 if row["n_tokens"] >= 524_288 else 65_536)


def test_a_file_of_weights_brings_its_evidence(tmp_path: Path) -> None:
    file = tmp_path / "weights.json"
    evidence: Row = {"verdict": "gain", "runs": 40}
    content: Row = {"schema_version": 1, "kind": "weights", "unit": "tokens", "by": "source"}
    file.write_text(
        json.dumps({**content, "weights": {"web": 0.5, "code": 0.5001}, "evidence": evidence})
    )
    fields: Row = {**BUDGET, "weights": {"kind": "file", "path": str(file)}, "max_epochs": 9}
    _, context = mixed(tmp_path / "a", documents(), **fields)
    told = object_of(context)
    assert (told["evidence"], told["verdict"]) == (evidence, "gain")
    assert any("sum to 1.0001" in note for note in told["plan"]["warnings"])
    before = context.op.fingerprint_fields()
    file.write_text(json.dumps({**content, "weights": {"web": 0.4, "code": 0.6}}))
    assert context.op.fingerprint_fields() != before
    file.write_text(json.dumps({**content, "weights": {"web": 1.0, "coed": 0.0}}))
    with pytest.raises(RunError, match="the source 'coed'; did you mean 'code'"):
        mixed(tmp_path / "b", documents(), **fields)


def test_too_little_is_told_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"'books' [\d.]+ times.*max_epochs = 4 allows") as failed:
        mixed(
            tmp_path,
            documents(),
            op="mix.weights",
            budget=8_000_000,
            weights={"kind": "fixed", "shares": {"books": 0.9, "code": 0.1}},
            length={"kind": "none"},
        )
    assert "keeps the shares" in failed.value.remedy
    assert "raise max_epochs to" in failed.value.remedy


def test_other_weights_count_no_cells_again(tmp_path: Path) -> None:
    rows = documents()
    corpus = corpus_of(str(tmp_path), rows, 2)
    skipped = {}
    for budget in (300_000, 200_000):
        op = MixUpsample.model_validate({"op": "mix.upsample", "budget": budget})
        context = context_of(op, corpus, len(rows))
        op.run(context)
        skipped[budget] = context.skipped
    assert skipped == {300_000: 0, 200_000: 2}


def test_documents_that_changed_after_the_census_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stages_rows.read_rows

    def one_less(settings: Any, table: Any, seed: int, where: str) -> Any:
        rows = real(settings, table, seed, where)
        return rows.of(np.arange(len(rows.sizes)) > 0)

    def census(*given: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(stages_steps, "read_rows", one_less)
            return counted(*given)

    counted = stages_steps._census
    monkeypatch.setattr(stages_steps, "_census", census)
    with pytest.raises(RunError, match="the census of the mixture does not hold"):
        mixed(tmp_path, documents(), **BUDGET)


def recipe(*stages: Row, **changes: Any) -> Row:
    inputs = [{"path": "x", "source": "web"}, {"path": "y", "source": "books"}]
    first = {"op": "score.heuristics"}
    return {"name": "m", "input": inputs, "run_dir": "r", "stages": [first, *stages], **changes}


UPSAMPLE = {"op": "mix.upsample", "budget": 1000}


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([{"op": "mix.upsample"}], "give a `budget`"),
        ([{**UPSAMPLE, "max_epochs": 0}], "max_epochs: should be greater than or equal to 1"),
        (
            [{**UPSAMPLE, "length": {"kind": "keep_below", "threshold": 0}}],
            "length.threshold: should be greater than 0",
        ),
        (
            [{**UPSAMPLE, "weights": {"kind": "fixed", "shares": {"web": -1}}}],
            "shares.web: should be greater than or equal to 0",
        ),
        (
            [{**UPSAMPLE, "weights": {"kind": "fixed", "shares": {"web": float("nan")}}}],
            "shares.web: should be a finite number",
        ),
        (
            [{**UPSAMPLE, "weights": {"kind": "fixed", "shares": {"wep": 1}}}],
            "no input has the source `wep`; did you mean 'web'?",
        ),
        (
            [{**UPSAMPLE, "weights": {"kind": "temprature"}}],
            "got 'temprature'; did you mean 'temperature'?",
        ),
        ([{**UPSAMPLE, "strategy": "code_up"}], r"slots: {code: \[my_code\]}"),
        (
            [{**UPSAMPLE, "slots": {"boks": ["web"]}, "strategy": "prolong_64k"}],
            "no slot `boks`; did you mean 'books'?",
        ),
        (
            [{**UPSAMPLE, "strategy": "prolong_64k", "weights": {"kind": "natural"}}],
            "prolong_64k has shares and lengths",
        ),
        ([UPSAMPLE, {**UPSAMPLE, "op": "mix.upsample"}], "a recipe has one mixture at most"),
        ([UPSAMPLE, {"op": "dedup.exact"}], "dedup.exact would change the documents"),
        ([{"op": "order.random"}, UPSAMPLE], "move mix.upsample before it"),
        (
            [{**UPSAMPLE, "unit": "bytes", "strategy": "cut4k"}],
            "`cut` counts tokens: leave `unit` at tokens",
        ),
    ],
)
def test_faults_are_told_before_anything_is_read(stages: list[Row], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        from_dict(recipe(*stages))


def test_sizes_must_be_there() -> None:
    with pytest.raises(RecipeError, match="reads `n_tokens`"):
        from_dict(recipe(UPSAMPLE) | {"stages": [UPSAMPLE]})
    from_dict(recipe(UPSAMPLE) | {"stages": [{**UPSAMPLE, "unit": "docs"}]})


@pytest.mark.ray
def test_a_run_packs_copies_in_passes(ray_local: int, tmp_path: Path) -> None:
    weights = {"kind": "pile_copies", "copies": {"sea": 3, "law": 1.5, "code": 1}}
    mix: Row = {"op": "mix.weights", "weights": weights, "calibrate": "never"}
    pack: Row = {"op": "pack", "length": 2048, "strategy": "concat"}
    stages: list[Row] = [{"op": "score.heuristics"}, mix, {"op": "order.random"}, pack]
    done = run_rows(tmp_path, make_rows(), stages)
    record, sizes = done.stage("mix.weights"), done.column("score.heuristics", "n_tokens")
    told = record.summary["mixture"]
    assert record.rows_in == record.rows_out + record.dropped["mixture"]
    made = done.rows("mix.weights")
    assert told["realised"]["size"] == sum(sizes[r["doc_id"]] * r["mix_copies"] for r in made)
    of = {row["id"]: row["source"] for row in make_rows()}
    by_source = {s: {r["mix_copies"] for r in made if of[r["doc_id"]] == s} for s in of.values()}
    assert by_source == {"sea": {3}, "law": {1, 2}, "code": {1}, "bread": {0}}
    # A document is in the windows of so many passes, pass after pass.
    packed: dict[str, set[int]] = {}
    for window in done.windows():
        for segment in window["segments"]:
            packed.setdefault(segment["doc_id"], set()).add(window["pass"])
    assert packed == {r["doc_id"]: set(range(r["mix_copies"])) for r in made if r["mix_copies"] > 0}
