"""What every order over a neighbour graph shares: one table for all, then the op's own rule.

Documents are numbered in ascending order of their id, so neither parts nor workers can change an
order. Near-duplicates of a kept document are dropped first: next to each other they would teach a
model to copy.

Up to `one_place_up_to` documents the order is arranged in one place. The neighbour search is shared
by the workers (`cluster/stages_knn.py`); the arrangement is one process over numbers, similarities
and the mapped vectors: 104 bytes a document (8 for each of the `graph_width` neighbours, and a few
more), and 4·d for those of d dimensions that stay where near-duplicates leave. Numbering holds all
vectors in one process, once: 4·d bytes a document. Above, no process holds more than a partition
(`stages_partitions.py`).
"""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from longctx.cluster.stages_knn import (
    EXACT_UP_TO,
    VECTORS,
    Neighbours,
    find_neighbours,
    lists_in_blocks,
    load_cells,
)
from longctx.engine.arrays import Matrix, mapped
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.rows import addressed, to_part, usable, vectors
from longctx.engine.steps import Prepare, Stats, StepRef, read_table
from longctx.errors import RunError

if TYPE_CHECKING:
    from longctx.order.tours import Arranged, Graph

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_MOVED_ROWS = 65_536
_PLACED_STATUS = ("ok", "no_embedding")
OPTIONAL = pa.schema([("n_tokens", pa.int64()), ("emb_cover", pa.float32())])
# What every order writes about each document; `tours.tour_table` makes the rows.
PLACED = pa.schema(
    [
        (ROW, pa.int32()),
        ("tour_id", pa.string()),
        ("rank", pa.int64()),
        ("sim_prev", pa.float32()),
        ("jump", pa.bool_()),
        ("link", pa.string()),
        ("order_status", pa.string()),
        ("order_kept_id", pa.string()),
        ("order_kept_sim", pa.float32()),
    ]
)


class SemanticOrder(Barrier):
    """What every order over a neighbour graph shares: its table, near-duplicates, the tour table.

    `k` neighbours make the graph, `k_search` are searched. With `dup_action: drop` documents at
    cosine >= `dup_cos` to a kept one leave (`drop_reason` order_dup), unless a vector saw less than
    half of its text; the longest of them stays (in tokens, where an earlier stage counted them).
    Up to `exact_up_to` documents neighbours are exact; above, at least nine tenths of the nearest
    ten are found (measured, `neighbour_recall`) at a cost that grows with n·sqrt(n), not with n².

    More than `one_place_up_to` documents are arranged in partitions of similar ones, of at most
    `partition_documents` each: neighbours and near-duplicates in two partitions are not seen.
    """

    k: int = Field(10, ge=1)
    k_search: int = Field(32, ge=1)
    dup_cos: float = Field(0.95, gt=0, le=1)
    dup_action: Literal["drop", "keep"] = "drop"
    exact_up_to: int = Field(EXACT_UP_TO, ge=0)
    one_place_up_to: int = Field(5_000_000, ge=1)
    partition_documents: int = Field(1_000_000, ge=1)

    reads: ClassVar[tuple[str, ...]] = ("embedding",)
    writes: ClassVar[tuple[str, ...]] = (*PLACED.names[1:], DROP_REASON)
    removes: ClassVar[bool] = True
    limits: ClassVar[frozenset[str]] = frozenset({"one_place_up_to", "partition_documents"})
    # What may be done with the tours of a partition: turned as a whole, made one with the next.
    may_turn: ClassVar[bool] = False
    one_tour: ClassVar[bool] = False

    def needs_all(self) -> str | None:
        """Why partitions cannot be arranged without knowing of one another; None where they can."""
        return None

    def places_all(self) -> bool:
        """Whether documents without a vector are arranged too (orders that read the text)."""
        return False

    def graph_width(self) -> int:
        """How many neighbours of a document `arrange` looks at; at most `k_search`."""
        return self.k

    def bring(self, context: BarrierContext, numbered: StepRef) -> list[StepRef]:
        """Steps of the op's own that `arrange` reads; `numbered` is the table of documents."""
        return []

    def arrange(self, graph: "Graph", brought: list[StepRef], setting: Setting) -> "Arranged":
        """The op's rule: documents, their neighbours and what `bring` made, to an order."""
        raise NotImplementedError

    def describe(self, context: BarrierContext, tours: StepRef, brought: list[StepRef]) -> None:
        """Steps of the op's own that say more about finished tours than their table does."""

    def run(self, context: BarrierContext) -> None:
        if context.rows > self.one_place_up_to:
            self._run_in_partitions(context)
            return
        graph = ("dup_cos", "dup_action", "k", *self._further_fields(), *self.limits)
        numbered, found = neighbour_lists(context, self.k_search, graph, self.exact_up_to)
        brought = self.bring(context, numbered)
        read = [numbered, *found.steps(), *brought]
        rule = partial(_arrange, self, numbered, found, brought)
        tours = context.single("tours", rule, read, ignore=("exact_up_to", *self.limits))
        self.describe(context, tours, brought)
        home: list[tuple[StepRef, Prepare]] = [(tours, to_part)]
        context.sidecar("", home, mark_part, PLACED, self.writes, removes=True, ignore=self.limits)

    def _run_in_partitions(self, context: BarrierContext) -> None:
        from longctx.order.stages_partitions import arrange_partitions

        if (reason := self.needs_all()) is not None:
            raise RunError(
                f"{context.rows:,} documents are more than `one_place_up_to` "
                f"({self.one_place_up_to:,}), and {reason}",
                where=context.setting.stage,
                remedy="take order.path, order.cluster_path, order.icp or order.splice with "
                "`retriever: dense`, which are arranged in partitions; or raise `one_place_up_to` "
                "where one worker can hold that many documents (their vectors and words, and 104 "
                "bytes each)",
            )
        placed, home = arrange_partitions(self, context)
        context.sidecar("", [(placed, home)], mark_part, PLACED, self.writes, removes=True)

    def _further_fields(self) -> tuple[str, ...]:
        return tuple(set(type(self).model_fields) - set(SemanticOrder.model_fields))


def neighbour_lists(
    context: BarrierContext,
    k_search: int,
    ignore: Iterable[str],
    exact_up_to: int = EXACT_UP_TO,
) -> tuple[StepRef, Neighbours]:
    """The step `documents` (read by `load_numbered`) and those that find neighbours.

    There are lists of `k_search` neighbours for each document with a vector; the fields of the op
    named by `ignore` do not decide them.
    """
    ignored = tuple(ignore)
    columns = ["doc_id", "embedding", *(n for n in OPTIONAL.names if context.corpus.has(n))]
    numbered = context.single(
        "documents",
        partial(_number, context.parts()),
        columns=columns,
        ignore=(*ignored, "k_search", "exact_up_to"),
    )
    n = context.step_stats["documents"]["with_vector"]
    return numbered, find_neighbours(context, numbered, n, k_search, exact_up_to, ignored)


def _number(parts: list[Part], setting: Setting) -> dict[str, Any]:
    """All living documents in ascending order of doc_id, and their vectors in the same order."""
    merged = pa.concat_tables([_described(part) for part in parts])
    order = pc.sort_indices(merged.column("doc_id"))
    place = np.empty(merged.num_rows, dtype=np.int64)
    place[order.to_numpy()] = np.arange(merged.num_rows)
    matrix, known = _filled(parts, place)
    merged = merged.take(order).combine_chunks().append_column("has_vector", pa.array(known))
    chosen = np.flatnonzero(known)
    _move_to_front(matrix.rows, chosen)
    described = Stats.attach(merged, {"with_vector": len(chosen)})
    return {"documents.parquet": described, VECTORS: matrix.content(len(chosen))}


def _described(part: Part) -> pa.Table:
    """Addresses and small columns of a part's living rows."""
    known = [n for n in OPTIONAL.names if n in part.columns()]
    table = part.table(["doc_id", *known])
    found = addressed(part, table)
    for field in OPTIONAL:
        column = table.column(field.name) if field.name in known else pa.nulls(len(table))
        found = found.append_column(field, column.cast(field.type))
    return found


def _filled(parts: list[Part], place: I64) -> tuple[Matrix, BoolArray]:
    """The vector of every living row at its place, and whether it can be used.

    A row without a vector is equally far from all others: it would only slow the search down.
    """
    matrix: Matrix | None = None
    known = np.zeros(len(place), dtype=bool)
    at = 0
    for part in parts:
        for table in part.groups(["embedding"]):
            found = vectors(table.column("embedding"))
            if matrix is None:
                matrix = Matrix(len(place), found.shape[1])
            rows = place[at : at + len(found)]
            matrix.rows[rows] = found
            known[rows] = usable(found)
            at += len(found)
    return matrix or Matrix(0, 0), known


def _move_to_front(rows: F32, chosen: I64) -> None:
    """Bring the chosen rows (ascending numbers) to the front, in place."""
    if len(chosen) == len(rows):
        return
    for at in range(0, len(chosen), _MOVED_ROWS):
        block = chosen[at : at + _MOVED_ROWS]
        rows[at : at + len(block)] = rows[block]


def load_numbered(numbered: StepRef) -> tuple[pa.Table, F32]:
    """The table of all living documents, and the vectors (mapped) of those that have one."""
    ref = next(f for f in numbered.files if f.name.endswith(".parquet"))
    return read_table(numbered.run_dir, ref), mapped(numbered, VECTORS)


def _arrange(
    op: SemanticOrder,
    numbered: StepRef,
    found: Neighbours,
    brought: list[StepRef],
    setting: Setting,
) -> dict[str, Any]:
    """The tour table: every living document once, with its link or the reason why it left."""
    from longctx.cluster.lists import Searched
    from longctx.order import tours
    from longctx.order.stages_seats import seat

    table, X = load_numbered(numbered)
    cells = None if found.cells is None else load_cells(found.cells)
    searched = Searched(partial(lists_in_blocks, found.lists), cells, found.recall)
    seated = seat(op, table, X, searched, brought, setting)
    n = table.num_rows
    lonely = 0 if op.places_all() else n - len(X)
    dup_cos = op.dup_cos if op.dup_action == "drop" else None
    warnings = tours.warnings(seated.top1[:, None], dup_cos, lonely, n)
    return {"tours.parquet": Stats.attach(seated.table, {**seated.figures, "warnings": warnings})}


def mark_part(base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    """The part's rows of the tour table; near-duplicates and what the op left out leave."""
    status = brought.column("order_status")
    stays = pc.is_in(status, value_set=pa.array(_PLACED_STATUS))
    reasons = pc.if_else(stays, pa.scalar(None, pa.string()), status)
    return brought.drop_columns([ROW]).append_column(DROP_REASON, reasons)
