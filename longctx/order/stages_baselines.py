"""The baselines on the engine: every document at random, or at random inside its source.

They need no vectors and no graph: one process sorts the numbers of all living documents. The table
is that of the other orders; similarities and jumps are null, because nothing was compared.
"""

from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Barrier, Setting
from longctx.engine.rows import PART, addressed, to_part
from longctx.engine.steps import Stats
from longctx.ids import U64, priorities
from longctx.order.stages_semantic import PLACED, SemanticOrder, mark_part

I64 = npt.NDArray[np.int64]


class Baseline(Barrier):
    """What the baselines share: all living documents in one place, then the op's own rule."""

    writes: ClassVar[tuple[str, ...]] = SemanticOrder.writes
    rate_mb_s: ClassVar[float] = 500.0
    exchange_bytes_per_row: ClassVar[int] = 60
    word: ClassVar[str]

    def arrange(self, sources: pa.ChunkedArray, priority: U64) -> tuple[I64, I64]:
        """Order of the documents 0..n-1 (ascending doc_id) and the places where tours begin."""
        raise NotImplementedError

    def run(self, context: BarrierContext) -> None:
        rule = partial(_place, self, context.parts())
        tours = context.single("tours", rule, columns=["doc_id", "source"])
        context.sidecar("", [(tours, to_part)], mark_part, PLACED, self.writes)


class OrderRandom(Baseline):
    """All documents in random order, one tour: the standard of pre-training."""

    op: Literal["order.random"]

    summary: ClassVar[str] = "all documents in random order"
    source: ClassVar[str] = "the standard of pre-training; example packing in ICP 2310.10638"
    cost: ClassVar[str] = "one sort, no vectors"
    word: ClassVar[str] = "random"

    def arrange(self, sources: pa.ChunkedArray, priority: U64) -> tuple[I64, I64]:
        from longctx.order.random import random_order

        order = random_order(priority)
        return order, np.zeros(min(1, len(order)), dtype=np.int64)


class OrderSource(Baseline):
    """One tour for each source, by name; documents in random order inside."""

    op: Literal["order.source"]

    summary: ClassVar[str] = "sources one after another, in random order inside"
    source: ClassVar[str] = "the within-domain baseline of SPLICE 2312.17296"
    cost: ClassVar[str] = "one sort, no vectors"
    word: ClassVar[str] = "source"

    def arrange(self, sources: pa.ChunkedArray, priority: U64) -> tuple[I64, I64]:
        from longctx.order.random import source_order

        return source_order(sources.to_pylist(), priority)


def _place(op: Baseline, parts: list[Part], setting: Setting) -> dict[str, Any]:
    """The tour table of all living documents."""
    found = []
    for part in parts:
        table = part.table(["doc_id", "source"])
        found.append(addressed(part, table).append_column("source", table.column("source")))
    rows = pa.concat_tables(found).sort_by("doc_id")
    order, starts = op.arrange(
        rows.column("source"), priorities(rows.column("doc_key").to_numpy(), setting.seed)
    )
    placed = _tour_table(order, starts, op.word)
    for name in (ROW, PART):
        placed = placed.add_column(0, name, rows.column(name))
    figures = {"documents": len(order), "tours": len(starts)}
    return {"tours.parquet": Stats.attach(placed, figures)}


def _tour_table(order: I64, starts: I64, word: str) -> pa.Table:
    """One row for each document, in the order of their numbers: all of PLACED but the address."""
    n = len(order)
    first = np.zeros(n, dtype=bool)
    first[starts] = True
    tour = np.cumsum(first) - 1
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    known = {
        "tour_id": [f"t{t:08d}" for t in tour[place]],
        "rank": place - starts[tour[place]],
        "link": np.where(first[place], "start", word).tolist(),
        "order_status": ["ok"] * n,
    }
    return pa.table(
        {
            f.name: pa.array(known[f.name], f.type) if f.name in known else pa.nulls(n, f.type)
            for f in PLACED
            if f.name != ROW
        }
    )
