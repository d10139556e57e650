"""Tokens per second and core of packing once documents are tokenised."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.bench.datasets import F32, I64
from jobs.bench.pack_published import LENGTH
from longctx.io.parquet_windows import parquet_bytes
from longctx.pack.frame import Placement, Plan
from longctx.pack.lookahead import plan_look_ahead
from longctx.pack.plan import plan_windows
from longctx.pack.window import RULES
from longctx.pack.windows import FramedDocuments, assemble

SHARD_TOKENS = 2**24
VOCABULARY = 50_000


def speed(vectors: F32, lengths: I64) -> dict[str, dict[str, float]]:
    """Tokens per CPU second of planning, with assembling, and with Parquet bytes, by strategy.

    Documents lie in the order in which they are packed; their tokens are drawn like words of a
    text (Zipf), so that they compress like one.
    """
    documents = _documents(lengths)
    ways = _ways(vectors, lengths)
    for make in ways.values():
        parquet_bytes(next(iter(_shards(make().placement, documents))))
    return {name: _rates(make, documents) for name, make in ways.items()}


def _ways(vectors: F32, lengths: I64) -> dict[str, Callable[[], Plan]]:
    where = (lengths, np.zeros(len(lengths), dtype=np.int32), LENGTH)
    ways: dict[str, Callable[[], Plan]] = {
        "concat": partial(plan_windows, "concat", *where),
        "best_fit": partial(plan_windows, "best_fit", *where),
    }
    for rule in RULES:
        ways[f"window, {rule}, 64"] = partial(
            plan_windows, "window", *where, rule=rule, look_ahead=64, vectors=vectors
        )
    ways["window, auto"] = lambda: plan_look_ahead(*where, vectors=vectors)[0]
    return ways


def _rates(make: Callable[[], Plan], documents: FramedDocuments) -> dict[str, float]:
    clock = [time.process_time()]
    placement = make().placement
    clock.append(time.process_time())
    tables = list(_shards(placement, documents))
    clock.append(time.process_time())
    for table in tables:
        parquet_bytes(table)
    clock.append(time.process_time())
    steps = ("plan", "plan, assemble", "plan, assemble, Parquet")
    return {s: placement.tokens / (at - clock[0]) for s, at in zip(steps, clock[1:], strict=True)}


def _shards(placement: Placement, documents: FramedDocuments) -> Any:
    """Windows by output shards, as the workers assemble them."""
    shard = placement.window // (SHARD_TOKENS // LENGTH)
    borders = np.flatnonzero(np.diff(shard)) + 1
    columns = [np.split(column, borders) for column in vars(placement).values()]
    for rows in zip(*columns, strict=True):
        yield assemble(Placement(*rows), documents, length=LENGTH)


def _documents(lengths: I64) -> FramedDocuments:
    n, total = len(lengths), int(lengths.sum())
    share = 1 / np.arange(1, VOCABULARY + 1)
    drawn = np.random.default_rng(0).random(total)
    tokens = np.searchsorted(np.cumsum(share / share.sum()), drawn).astype(np.int32)
    return FramedDocuments(
        doc_id=pa.array([f"{i:032x}" for i in range(n)], pa.string()),
        source=pa.array(["web"] * n, pa.string()),
        license=pa.array(["CC0-1.0"] * n, pa.string()),
        tokens=tokens,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        tour_id=pa.array(["t00000000"] * n, pa.string()),
    )
