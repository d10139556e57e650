"""Dividing documents into partitions of similar ones, on the engine: the first half of an order.

A sample is drawn by hash and cells are trained on it in one place; every part assigns its
documents to cells; the cells are counted, grouped into partitions (`partitions.py`), and every part
says which of its documents go where. `stages_partitions.py` arranges them, and says what each
process holds.
"""

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Part
from longctx.engine.op import Setting
from longctx.engine.rows import ADDRESS, addressed, as_binary, from_binary, usable, vectors
from longctx.engine.sampling import bound_step, numbers_of, sampled
from longctx.engine.steps import Stats, StepRef, read_table
from longctx.ids import priorities
from longctx.order.stages_semantic import OPTIONAL

if TYPE_CHECKING:
    from longctx.order.partitions import Grouping

_CELLS_PER_PARTITION = 32
_FEWEST_CELLS = 4
_CELLS = 16_384  # trained in a quarter of an hour; only more than 4,096 partitions take more
_PER_CELL = 32
_COUNTED_FILES = 256
PARTITION = "partition"
POINTS = pa.schema([*ADDRESS, *OPTIONAL, (PARTITION, pa.int32()), ("vector", pa.large_binary())])


def divide(context: BarrierContext, limit: int, fields: set[str]) -> tuple[StepRef, StepRef]:
    """The steps `partitions` (read by `grouping_of`) and `points`, rows of POINTS for each part.

    A partition holds at most about `limit` documents; none of the op's `fields` decides anything.
    """
    n = context.rows
    cells = cells_for(n, limit)
    size = bound_step(context, _PER_CELL * cells, cells, limit, ignore=fields)
    sample = context.per_part(
        "sample",
        partial(sampled, size, None),
        ["doc_id", "embedding"],
        inputs=[size],
        ignore=fields,
    )
    rule = partial(_centroids, size, sample)
    centroids = context.single("centroids", rule, [size, sample], ignore=fields)
    homes = context.per_part(
        "homes", partial(_homes, centroids), ["embedding"], inputs=[centroids], ignore=fields
    )
    parts = len(homes.units)
    ranges = [(at, min(at + _COUNTED_FILES, parts)) for at in range(0, parts, _COUNTED_FILES)]
    counts = context.spread("counts", partial(_counts, homes), ranges, [homes], ignore=fields)
    known = [size, sample, centroids, counts]
    group = partial(_partitions, size, sample, centroids, counts)
    partitions = context.single("partitions", group, known, ignore=fields)
    small = [c for c in OPTIONAL.names if context.corpus.has(c)]
    points = context.per_part(
        "points",
        partial(_points, homes, partitions),
        ["doc_id", "embedding", *small],
        inputs=[homes, partitions],
        ignore=fields,
    )
    return partitions, points


def cells_for(n: int, limit: int) -> int:
    """How many cells n documents are divided into, for partitions of at most `limit`."""
    partitions = -(-n // limit)
    most = max(_CELLS, _FEWEST_CELLS * partitions)
    return min(n, _CELLS_PER_PARTITION * partitions, most)


def _sampled(sample: StepRef) -> np.ndarray:
    """Vectors of the sample, float32[m, d], in the order of a random order of all documents."""
    return from_binary(sample.read().sort_by("priority").column("vector"), np.float32)


def _centroids(size: StepRef, sample: StepRef, setting: Setting) -> dict[str, Any]:
    from longctx.cluster.cells import ITERATIONS
    from longctx.cluster.kmeans import train

    matrix = _sampled(sample)
    _, _, wanted, _ = numbers_of(size)
    cells = min(wanted, len(matrix))
    centroids = train(matrix, cells, ITERATIONS, setting.seed) if cells else matrix
    return {"centroids.parquet": pa.table({"vector": as_binary(centroids)})}


def _homes(centroids: StepRef, part: Part, setting: Setting) -> pa.Table:
    """The cell of each living document of a part; null without a vector."""
    from longctx.cluster.kmeans import assign

    centers = from_binary(centroids.read().column("vector"), np.float32)
    found = []
    for table in part.groups(["embedding"]):
        matrix = vectors(table.column("embedding"))
        placed = usable(matrix) & (len(centers) > 0)
        home = np.zeros(len(matrix), dtype=np.int32)
        if placed.any():
            home[placed], _ = assign(matrix[placed], centers)
        found.append(pa.table({"home": pa.array(home, mask=~placed)}))
    return pa.concat_tables(found)


def _counts(homes: StepRef, files: tuple[int, int], setting: Setting) -> pa.Table:
    """Documents by cell in some of the parts; those without a vector under null."""
    found = [read_table(homes.run_dir, ref) for ref in homes.files[slice(*files)]]
    counted = pa.concat_tables(found).group_by("home").aggregate([([], "count_all")])
    return counted.sort_by("home")


def _partitions(
    size: StepRef, sample: StepRef, centroids: StepRef, counts: StepRef, setting: Setting
) -> dict[str, Any]:
    """Which partitions the documents of each cell go to, and what a random order is worth."""
    from longctx.order.metrics import adjacency
    from longctx.order.partitions import group_cells
    from longctx.order.tours import histogram

    *_, limit = numbers_of(size)
    centers = from_binary(centroids.read().column("vector"), np.float32)
    by_cell = counts.read()
    has = by_cell.column("home").is_valid()
    held, lonely = by_cell.filter(has), by_cell.filter(pc.invert(has))
    number = np.bincount(
        held.column("home").to_numpy(),
        weights=held.column("count_all").to_numpy(),
        minlength=len(centers),
    ).astype(np.int64)
    without = int(pc.sum(lonely.column("count_all")).as_py() or 0)
    grouping = group_cells(centers, number, limit, setting.seed)
    table = pa.table({"first": grouping.first, "shares": grouping.shares})
    matrix = _sampled(sample)
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
    from longctx.order.partitions import Grouping

    table, said = (read_table(partitions.run_dir, ref) for ref in partitions.files)
    figures = json.loads(said.column("figures")[0].as_py())
    first, shares = (table.column(n).to_numpy() for n in ("first", "shares"))
    return Grouping(first, shares, figures["with_vectors"]), figures


def _points(homes: StepRef, partitions: StepRef, part: Part, setting: Setting) -> pa.Table:
    """All that a partition must know of the documents of a part, with the partition of each."""
    from longctx.order.partitions import dealt, partition_of

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
