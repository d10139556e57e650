"""Documents that one process holds, in their places: what an order in one place and each of its
partitions have in common."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.engine.corpus import ROW
from longctx.engine.op import Setting
from longctx.engine.rows import PART
from longctx.engine.steps import StepRef
from longctx.ids import priorities

if TYPE_CHECKING:
    from longctx.cluster.lists import Searched
    from longctx.order.stages_semantic import SemanticOrder

F32 = npt.NDArray[np.float32]


class Seated(NamedTuple):
    """Documents in their places: the rows of the tour table, and what is to be said of the order.

    `ends` float32[2, d] are the vectors of the first and the last document (empty for none) and
    `top1` float32[n] the best similarity of each before near-duplicates were dropped.
    """

    table: pa.Table
    figures: dict[str, Any]
    ends: F32
    top1: F32


def seat(
    op: "SemanticOrder",
    table: pa.Table,
    X: F32,
    found: "Searched",
    brought: list[StepRef],
    setting: Setting,
) -> Seated:
    """Drop near-duplicates among the documents of `table` and arrange the others by the op's rule.

    `table` has the columns of `load_numbered`; X are the vectors of the documents that have one,
    and `found` their neighbours.
    """
    from longctx.cluster.near_duplicates import prune_blocks
    from longctx.order import tours

    n = table.num_rows
    usable = np.flatnonzero(table.column("has_vector").to_numpy())
    tokens = table.column("n_tokens").fill_null(0).to_numpy()
    cover = table.column("emb_cover")
    pruned = prune_blocks(
        X,
        found.blocks,
        tokens[usable],
        max(2, op.graph_width()),  # two for the bound on adjacency
        op.dup_cos if op.dup_action == "drop" else None,
        None if cover.null_count == n else cover.fill_null(1).to_numpy()[usable],
        found.cells,
    )
    graph = tours.graph_of(
        X,
        pruned,
        usable,
        tokens,
        priorities(table.column("doc_key").to_numpy(), setting.seed),
        everything=op.places_all(),
        cells=found.cells,
    )
    arranged = op.arrange(graph, brought, setting)
    placed = tours.tour_table(table.column("doc_id"), usable, pruned, graph, arranged, op.k)
    for name in (ROW, PART):
        placed = placed.add_column(0, name, table.column(name))
    figures = {
        **tours.figures(graph, pruned, arranged, op.k),
        "neighbour_recall": found.recall,
        "bytes_per_document": round(pruned.nbytes / max(1, n), 1),
    }
    ends = graph.X[arranged.order[[0, -1]]] if len(arranged.order) else graph.X[:0]
    return Seated(placed, figures, ends, pruned.top1)
