"""What every order over a neighbour graph shares: one table for all, then the op's own rule.

Documents are numbered in ascending order of their id, so neither parts nor workers can change an
order. The neighbour search is shared by the workers (`cluster/stages_knn.py`); the arrangement is
one process over numbers, similarities and the mapped vectors: 8 bytes for each of the
`graph_width` neighbours of a document, and a few more. Numbering holds all vectors in one process,
once. Near-duplicates of a kept document are dropped first:
next to each other they would teach a model to copy.
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
from longctx.engine.rows import PART, addressed, to_part, vectors
from longctx.engine.steps import Stats, StepRef, read_table
from longctx.ids import priorities

if TYPE_CHECKING:
    from longctx.order.tours import Arranged, Graph

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_NO_VECTOR = 1e-6
_MOVED_ROWS = 65_536
_PLACED_STATUS = ("ok", "no_embedding")
_OPTIONAL = pa.schema([("n_tokens", pa.int64()), ("emb_cover", pa.float32())])
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
    """

    k: int = Field(10, ge=1)
    k_search: int = Field(32, ge=1)
    dup_cos: float = Field(0.95, gt=0, le=1)
    dup_action: Literal["drop", "keep"] = "drop"
    exact_up_to: int = Field(EXACT_UP_TO, ge=0)

    reads: ClassVar[tuple[str, ...]] = ("embedding",)
    rate_mb_s: ClassVar[float] = 20.0
    exchange_bytes_per_row: ClassVar[int] = 120
    writes: ClassVar[tuple[str, ...]] = (*PLACED.names[1:], DROP_REASON)
    removes: ClassVar[bool] = True

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
        graph = ("dup_cos", "dup_action", "k", *self._own_fields())
        numbered, found = neighbour_lists(context, self.k_search, graph, self.exact_up_to)
        brought = self.bring(context, numbered)
        read = [numbered, *found.steps(), *brought]
        rule = partial(_arrange, self, numbered, found, brought)
        tours = context.single("tours", rule, read, ignore=("exact_up_to",))
        self.describe(context, tours, brought)
        context.sidecar("", [(tours, to_part)], mark_part, PLACED, self.writes, removes=True)

    def _own_fields(self) -> tuple[str, ...]:
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
    columns = ["doc_id", "embedding", *(n for n in _OPTIONAL.names if context.corpus.has(n))]
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
    matrix, usable = _filled(parts, place)
    merged = merged.take(order).combine_chunks().append_column("has_vector", pa.array(usable))
    chosen = np.flatnonzero(usable)
    _move_to_front(matrix.rows, chosen)
    described = Stats.attach(merged, {"with_vector": len(chosen)})
    return {"documents.parquet": described, VECTORS: matrix.content(len(chosen))}


def _described(part: Part) -> pa.Table:
    """Addresses and small columns of a part's living rows."""
    known = [n for n in _OPTIONAL.names if n in part.columns()]
    table = part.table(["doc_id", *known])
    found = addressed(part, table)
    for field in _OPTIONAL:
        column = table.column(field.name) if field.name in known else pa.nulls(len(table))
        found = found.append_column(field, column.cast(field.type))
    return found


def _filled(parts: list[Part], place: I64) -> tuple[Matrix, BoolArray]:
    """The vector of every living row at its place, and whether it can be used.

    A row without a vector is equally far from all others: it would only slow the search down.
    """
    matrix: Matrix | None = None
    usable = np.zeros(len(place), dtype=bool)
    at = 0
    for part in parts:
        for table in part.groups(["embedding"]):
            found = vectors(table.column("embedding"))
            if matrix is None:
                matrix = Matrix(len(place), found.shape[1])
            rows = place[at : at + len(found)]
            matrix.rows[rows] = found
            norm = np.linalg.norm(found, axis=1)
            usable[rows] = np.isfinite(found).all(axis=1) & (norm > _NO_VECTOR)
            at += len(found)
    return matrix or Matrix(0, 0), usable


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
    from longctx.cluster.near_duplicates import prune_blocks
    from longctx.order import tours

    table, X = load_numbered(numbered)
    n = table.num_rows
    usable = np.flatnonzero(table.column("has_vector").to_numpy())
    tokens = table.column("n_tokens").fill_null(0).to_numpy()
    cover = table.column("emb_cover")
    dup_cos = op.dup_cos if op.dup_action == "drop" else None
    cells = None if found.cells is None else load_cells(found.cells)
    pruned = prune_blocks(
        X,
        partial(lists_in_blocks, found.lists),
        tokens[usable],
        max(2, op.graph_width()),  # two for the bound on adjacency
        dup_cos,
        None if cover.null_count == n else cover.fill_null(1).to_numpy()[usable],
        cells,
    )
    graph = tours.graph_of(
        X,
        pruned,
        usable,
        tokens,
        priorities(table.column("doc_key").to_numpy(), setting.seed),
        everything=op.places_all(),
        cells=cells,
    )
    arranged = op.arrange(graph, brought, setting)
    placed = tours.tour_table(table.column("doc_id"), usable, pruned, graph, arranged, op.k)
    for name in (ROW, PART):
        placed = placed.add_column(0, name, table.column(name))
    lonely = 0 if op.places_all() else n - len(usable)
    figures = {
        **tours.figures(graph, pruned, arranged, op.k),
        "neighbour_recall": found.recall,
        "bytes_per_document": round(pruned.nbytes / max(1, n), 1),
        "warnings": tours.warnings(pruned.top1[:, None], dup_cos, lonely, n),
    }
    return {"tours.parquet": Stats.attach(placed, figures)}


def mark_part(base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    """The part's rows of the tour table; near-duplicates and what the op left out leave."""
    status = brought.column("order_status")
    stays = pc.is_in(status, value_set=pa.array(_PLACED_STATUS))
    reasons = pc.if_else(stays, pa.scalar(None, pa.string()), status)
    return brought.drop_columns([ROW]).append_column(DROP_REASON, reasons)
