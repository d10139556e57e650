"""Dividing documents into partitions of similar ones, on the engine: the first half of an order.

Cells are found (`cluster/stages_cells.py`) and grouped into partitions (`partitions.py`), and every
part says which of its documents go where. `stages_partitions.py` arranges them, and says what each
process holds.
"""

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.cluster.stages_cells import Cells, cells_for, find_cells
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Part
from longctx.engine.op import Setting
from longctx.engine.rows import ADDRESS, addressed, as_binary, vectors
from longctx.engine.steps import Stats, StepRef, read_table
from longctx.ids import priorities
from longctx.order.stages_semantic import OPTIONAL

if TYPE_CHECKING:
    from longctx.cluster.division import Grouping

PARTITION = "partition"
POINTS = pa.schema([*ADDRESS, *OPTIONAL, (PARTITION, pa.int32()), ("vector", pa.large_binary())])


def divide(context: BarrierContext, limit: int, fields: set[str]) -> tuple[StepRef, StepRef]:
    """The steps `partitions` (read by `grouping_of`) and `points`, rows of POINTS for each part.

    A partition holds at most about `limit` documents; none of the op's `fields` decides anything.
    """
    cells = find_cells(context, cells_for(context.rows, limit), limit, ignore=fields)
    known = [cells.size, cells.sample, cells.centroids, cells.counts]
    group = partial(_partitions, cells)
    partitions = context.single("partitions", group, known, ignore=fields)
    small = [c for c in OPTIONAL.names if context.corpus.has(c)]
    points = context.per_part(
        "points",
        partial(_points, cells.homes, partitions),
        ["doc_id", "embedding", *small],
        inputs=[cells.homes, partitions],
        ignore=fields,
    )
    return partitions, points


def _partitions(cells: Cells, setting: Setting) -> dict[str, Any]:
    """Which partitions the documents of each cell go to, and what a random order is worth."""
    from longctx.order.metrics import adjacency
    from longctx.order.partitions import group_cells
    from longctx.order.tours import histogram

    *_, limit = cells.numbers()
    centers = cells.centers()
    number, without = cells.counted(len(centers))
    grouping = group_cells(centers, number, limit, setting.seed)
    table = pa.table({"first": grouping.first, "shares": grouping.shares})
    matrix = cells.sampled()
    random = np.arange(len(matrix), dtype=np.int64)
    figures = {
        "count": grouping.partitions + -(-without // limit),
        "with_vectors": grouping.partitions,
        "without_vector": without,
        "most_documents": limit,
        "adjacency_random": adjacency(matrix, random),
        "histogram_random": histogram(matrix, random),
    }
    said = pa.table({"figures": [json.dumps(figures)]})
    return {"partitions.parquet": Stats.attach(table, figures), "figures.parquet": said}


def grouping_of(partitions: StepRef) -> tuple["Grouping", dict[str, Any]]:
    """Which partitions the cells go to, and the figures of the division."""
    from longctx.cluster.division import Grouping

    table, said = (read_table(partitions.run_dir, ref) for ref in partitions.files)
    figures = json.loads(said.column("figures")[0].as_py())
    first, shares = (table.column(n).to_numpy() for n in ("first", "shares"))
    return Grouping(first, shares, figures["with_vectors"]), figures


def _points(homes: StepRef, partitions: StepRef, part: Part, setting: Setting) -> pa.Table:
    """All that a partition must know of the documents of a part, with the partition of each."""
    from longctx.cluster.division import dealt, partition_of

    grouping, figures = grouping_of(partitions)
    home = read_table(homes.run_dir, homes.files[part.index]).column("home")
    small = [c for c in OPTIONAL.names if c in part.columns()]
    found, at = [POINTS.empty_table()], 0
    for table in part.groups(["doc_id", "embedding", *small]):
        rows = addressed(part, table)
        for field in OPTIONAL:
            known = table.column(field.name) if field.name in small else pa.nulls(len(table))
            rows = rows.append_column(field, known.cast(field.type))
        cell = home.slice(at, len(table))
        at += len(table)
        priority = priorities(rows.column("doc_key").to_numpy(), setting.seed)
        placed = cell.is_valid().to_numpy()
        own = grouping.partitions + dealt(priority, figures["count"] - grouping.partitions)
        own[placed] = partition_of(cell.drop_null().to_numpy(), priority[placed], grouping)
        vector = as_binary(vectors(table.column("embedding"))).cast(pa.large_binary())
        vector = pc.if_else(pa.array(placed), vector, pa.scalar(None, pa.large_binary()))
        rows = rows.append_column(PARTITION, pa.array(own)).append_column("vector", vector)
        found.append(rows.cast(POINTS))
    return pa.concat_tables(found)
