"""The baselines on the engine: every document at random, or at random inside its source.

They need no vectors and no graph. The table is that of the other orders; similarities and jumps are
null, because nothing was compared.

Up to `one_place_up_to` documents one process sorts them all, ids included: 150 bytes a document.
Above, documents are exchanged by ranges of their priority and every range is sorted alone, which
gives the same order; a process holds one range, and a count for each source and range.
"""

from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Barrier, Setting
from longctx.engine.rows import ADDRESS, PART, addressed, to_part
from longctx.engine.steps import BUCKET, Prepare, Stats, StepRef, bucket_of
from longctx.ids import U64, priorities
from longctx.order.stages_semantic import PLACED, SemanticOrder, mark_part

I64 = npt.NDArray[np.int64]
_ROWS = pa.schema([*ADDRESS, ("source", pa.string())])


class Baseline(Barrier):
    """What the baselines share: living documents by priority, then the op's own rule.

    More than `one_place_up_to` documents are sorted in ranges of priority; the order is the same.
    """

    one_place_up_to: int = Field(5_000_000, ge=1)

    neutral: ClassVar[frozenset[str]] = frozenset({"one_place_up_to"})
    writes: ClassVar[tuple[str, ...]] = SemanticOrder.writes
    word: ClassVar[str]

    def arrange(self, sources: pa.ChunkedArray, priority: U64) -> tuple[I64, I64]:
        """Order of the documents 0..n-1 (ascending doc_id) and the places where tours begin."""
        raise NotImplementedError

    def tour_of(self, sources: pa.ChunkedArray) -> pa.ChunkedArray:
        """What tells the tours apart, a string for each document."""
        raise NotImplementedError

    def run(self, context: BarrierContext) -> None:
        if context.rows > self.one_place_up_to:
            placed, home = self._place_ranges(context)
        else:
            rule = partial(_place, self, context.parts())
            placed, home = context.single("tours", rule, columns=["doc_id", "source"]), to_part
        context.sidecar("", [(placed, home)], mark_part, PLACED, self.writes)

    def _place_ranges(self, context: BarrierContext) -> tuple[StepRef, Prepare]:
        """The rows of every range of priorities, and how they go home under their final rank."""
        ranges = -(-context.rows // self.one_place_up_to)
        rows = context.per_part("rows", _rows, ["doc_id", "source"])
        placed = context.exchange(
            "placed",
            [(rows, partial(_by_priority, ranges))],
            partial(_place_range, self, ranges),
            _ROWS,
            buckets=ranges,
        )
        held = context.step_stats["placed"].get("held", {})
        context.step_stats["tours"] = {"documents": placed.rows, "tours": len(held)}
        return placed, partial(_home, self.word, held)


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

    def tour_of(self, sources: pa.ChunkedArray) -> pa.ChunkedArray:
        return pa.chunked_array([pa.repeat("", len(sources))], pa.string())


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

    def tour_of(self, sources: pa.ChunkedArray) -> pa.ChunkedArray:
        return sources.cast(pa.string())


def _rows(part: Part, setting: Setting) -> pa.Table:
    """Addresses and sources of a part's living documents."""
    table = part.table(["doc_id", "source"])
    return addressed(part, table).append_column("source", table.column("source")).cast(_ROWS)


def _place(op: Baseline, parts: list[Part], setting: Setting) -> dict[str, Any]:
    """The tour table of all living documents."""
    rows = pa.concat_tables([_rows(part, setting) for part in parts])
    placed, tours = _placed(op, rows, setting)
    return {"tours.parquet": Stats.attach(placed, {"documents": rows.num_rows, "tours": tours})}


def _placed(op: Baseline, rows: pa.Table, setting: Setting) -> tuple[pa.Table, int]:
    """The tour table of some documents, in the order of their ids, and how many tours they make."""
    rows = rows.sort_by("doc_id")
    order, starts = op.arrange(
        rows.column("source"), priorities(rows.column("doc_key").to_numpy(), setting.seed)
    )
    placed = _tour_table(order, starts, op.word)
    for name in (ROW, PART):
        placed = placed.add_column(0, name, rows.column(name))
    return placed, len(starts)


def _by_priority(ranges: int, table: pa.Table, setting: Setting) -> pa.Table:
    priority = priorities(table.column("doc_key").to_numpy(), setting.seed)
    return table.append_column(BUCKET, bucket_of(priority, ranges))


def _place_range(op: Baseline, ranges: int, rows: pa.Table, setting: Setting) -> pa.Table:
    """The tour table of a range of priorities, each row with its tour in words and its range."""
    rows = rows.sort_by("doc_id")
    placed, _ = _placed(op, rows, setting)
    tour = op.tour_of(rows.column("source"))
    number = _by_priority(ranges, rows, setting).column(BUCKET)
    placed = placed.append_column("tour", tour).append_column("range", number)
    counts = tour.value_counts()
    held = {c["values"]: {str(number[0].as_py()): c["counts"]} for c in counts.to_pylist()}
    return Stats.attach(placed, {"held": held})


def _home(
    word: str, held: dict[str, dict[str, int]], table: pa.Table, setting: Setting
) -> pa.Table:
    """The rows of a range on their way home: ranks go on from those of the ranges before."""
    own = table.column("range")[0].as_py()
    names = sorted(held)
    before = [sum(n for r, n in held[name].items() if int(r) < own) for name in names]
    tour = pc.index_in(table.column("tour"), pa.array(names)).to_numpy()
    rank = table.column("rank").to_numpy() + np.array(before, dtype=np.int64)[tour]
    ids = pa.array([f"t{t:08d}" for t in range(len(names))]).take(pa.array(tour))
    moved = {
        "tour_id": ids,
        "rank": pa.array(rank),
        "link": pa.array(np.where(rank == 0, "start", word).tolist(), pa.string()),
    }
    for name, column in moved.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return to_part(table.drop_columns(["tour", "range"]), setting)


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
