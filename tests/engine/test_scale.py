"""Planning at 10^9 documents: what the driver holds depends on parts and buckets, never documents.

The barriers' own code plans every step; see `simulated.py` for what is fabricated.
"""

import pickle
from pathlib import Path
from typing import Any

import pytest

from longctx.engine.corpus import Corpus
from longctx.engine.ingest import CheckIds
from longctx.engine.op import Barrier
from longctx.errors import RunError
from longctx.pack import stages as pack_stages
from longctx.registry import OPS, resolve
from tests.engine.simulated import DOCUMENTS, EXCHANGE_BYTES, PARTS, Ledger, Simulated, corpus

FEW_PARTS = 300
TOKENS = 1000 * DOCUMENTS
WINDOWS = {"targets": {"8192": {"windows_per_shard": 2048, "shards": TOKENS // 2**24}}}
STATS: dict[str, Any] = {
    "documents": {"with_vector": DOCUMENTS, "documents": DOCUMENTS, "tokens": TOKENS},
    "units": {"units": 20 * DOCUMENTS, "unit_tokens": TOKENS},
    "partitions": {"count": 4000, "documents": DOCUMENTS},
    "sizes": {"bytes": 4000 * DOCUMENTS},
    "borders": {"files": 4000 * DOCUMENTS // EXCHANGE_BYTES},
    "cells-1": {"rows": 40_000_000, "most": 2_000_000},
    "cells-2": {"rows": 2_000_000, "most": 50_000},
    "plan": WINDOWS,
    "draft": {"to_calibrate": 40_000_000},
}
LENGTH = {"length": 8192}
KEEP = {"n_tokens": {"top": 0.2}, "longattn": {"top": 0.5}}
FIELDS: dict[str, dict[str, Any]] = {
    "filter.decontaminate": {"against": [{"path": str(Path(__file__).parents[2] / "README.md")}]},
    "decide": {"keep": KEEP},
    "export": {"order_by": {"column": "n_tokens"}},
    "mix.upsample": {"budget": TOKENS / 10},
    "mix.weights": {"budget": TOKENS / 10, "weights": {"kind": "natural"}},
    "pack": LENGTH,
    "order.splice": LENGTH,
    "order.quest": LENGTH,
    "order.neighbours": LENGTH,
    "order.clusters": LENGTH,
    "order.cluster_path": LENGTH,
}
# These plan as order.path, order.random and read do.
ALIKE = {"order.icp", "order.splice", "order.clusters", "order.cluster_path"}
ALIKE |= {"order.source", "dedup.exact", "mix.weights"}
# Compare texts over all documents in one place, and say so instead of failing in the middle.
REFUSED = {"order.quest": "order.path", "pack.turns": "in several recipes"}
# Their units follow from the rows that are asked for, which the driver holds, not from documents.
BY_ROWS = {n for n in OPS if resolve(n).ends == "rows"}
# Bytes of a bucket that is a partition of an order, or a block of a plan: sized by documents.
BY_DOCUMENTS = {"placed": 1_000_000 * 2500, "blocks": 5_000_000 * 2500}


@pytest.fixture(scope="module")
def billion() -> Corpus:
    return corpus()


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Sums over the windows of all blocks; there are none here.
    monkeypatch.setattr(pack_stages, "plan_stats", lambda op, context: WINDOWS)


def barriers() -> list[str]:
    return ["read", *(n for n in OPS if issubclass(resolve(n), Barrier) and n not in BY_ROWS)]


def op_of(name: str) -> Barrier:
    if name == "read":
        return CheckIds()
    found = resolve(name).model_validate({"op": name, **FIELDS.get(name, {})})
    assert isinstance(found, Barrier)
    return found


def planned(name: str, over: Corpus, documents: int = DOCUMENTS) -> Ledger:
    context = Simulated(over, op_of(name), rows=documents, stats=STATS)
    context.op.run(context)  # type: ignore[attr-defined]
    return context.ledger


@pytest.mark.parametrize("name", [n for n in barriers() if n not in ALIKE | set(REFUSED)])
def test_a_billion_documents_are_planned_by_parts_and_buckets(name: str, billion: Corpus) -> None:
    ledger = planned(name, billion)
    for step, found in ledger.steps.items():
        assert found.units <= 2 * PARTS, step
        # A unit names the files of one part; the rule of a step may name those of all.
        assert found.unit_bytes < 4000, step
        assert found.work_bytes < 1000 * PARTS, step
        limit = BY_DOCUMENTS.get(step, 1.1 * EXCHANGE_BYTES)
        assert found.bucket_bytes <= limit, step
        assert found.readers <= 2 * PARTS, step
        assert found.waves <= 16, step
    assert ledger.units <= 8 * PARTS


@pytest.mark.parametrize("name", [n for n in barriers() if n not in REFUSED])
def test_ten_times_the_documents_in_as_many_parts_weigh_the_same(name: str) -> None:
    small, large = (
        planned(name, corpus(FEW_PARTS, n), n).steps for n in (DOCUMENTS // 10, DOCUMENTS)
    )
    assert list(small) == list(large)
    for step, before in small.items():
        after = large[step]
        assert after.unit_bytes <= before.unit_bytes + 100, step
        # Rules name the files of earlier steps, of which an exchange has one for each bucket.
        assert after.work_bytes <= 10 * before.work_bytes, step
        assert after.units <= 10 * before.units, step


@pytest.mark.parametrize("documents", [DOCUMENTS // 10, DOCUMENTS])
def test_the_pool_of_fillers_is_a_sample_of_any_corpus(documents: int, billion: Corpus) -> None:
    from longctx.synth.stages_in2 import SynthIN2
    from longctx.synth.stages_in2_pool import SHELF, pool_of_corpus

    generator = {"backend": "scripted"}
    op = SynthIN2.model_validate({"op": "synth.in2", "rows": 10**6, "generator": generator})
    stats = {"pieces": {"pieces": {"en": 8 * documents}}}
    context = Simulated(billion, op, rows=documents, stats=stats)
    pool = pool_of_corpus(op, context)
    steps = context.ledger.steps
    assert steps["shelves"].units == len(pool.shelves.units) == -(-op.pool_segments // SHELF)
    for step, found in steps.items():
        assert found.units <= PARTS, step
        assert found.unit_bytes < 4000, step
        # Many small files are read together, and nothing names those of all parts.
        assert found.work_bytes < 100_000, step
        assert found.readers <= 2 * PARTS, step


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_one_place_cannot_hold_is_refused_before_it_begins(name: str) -> None:
    with pytest.raises(RunError, match=r"one_place_up_to") as refused:
        planned(name, corpus(FEW_PARTS))
    assert REFUSED[name] in refused.value.remedy


def test_conversations_are_planned_by_parts_and_files() -> None:
    op, rows = op_of("pack.turns"), 5_000_000
    context = Simulated(
        corpus(FEW_PARTS, rows), op, rows=rows, stats={"plan": {"files": rows * 12_000 // 2**24}}
    )
    op.run(context)
    steps = context.ledger.steps
    assert {step: found.units for step, found in steps.items()} == {
        "turns": FEW_PARTS,
        "plan": 1,
        "files": context.step_stats["plan"]["files"],
    }
    assert max(found.unit_bytes for found in steps.values()) < 4000
    assert max(found.work_bytes for found in steps.values()) < 1000 * FEW_PARTS
    assert steps["files"].bucket_bytes <= 1.1 * EXCHANGE_BYTES


def test_a_corpus_is_light_enough_for_the_driver(billion: Corpus) -> None:
    assert len(pickle.dumps(billion)) < 1000 * PARTS
    part = len(pickle.dumps(billion.part(7)))
    assert part < 2000
    assert len(billion.states(["text", "tokens", "embedding"])) == PARTS


def test_the_simulation_would_see_a_step_that_grows_with_documents() -> None:
    class Leaky(CheckIds):
        def run(self, context: Any) -> None:
            payloads = [(i, 1000) for i in range(0, context.rows, 15_000)]
            context.spread("leak", _nothing, payloads, [])

    few = corpus(FEW_PARTS)
    context = Simulated(few, Leaky())
    context.op.run(context)  # type: ignore[attr-defined]
    assert context.ledger.units > 2 * PARTS


def _nothing(payload: Any, setting: Any) -> Any:
    raise AssertionError("steps are only planned")
