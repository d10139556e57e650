"""Cells of similar documents, on the engine: the first steps of whatever divides a corpus.

A sample is drawn by hash and cells are trained on it in one place; every part assigns its documents
to cells; cells are counted. What is held in one place is the sample, 128·d bytes a cell for d
dimensions, and one count a cell and 256 parts.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Part
from longctx.engine.op import Setting
from longctx.engine.rows import as_binary, from_binary, usable, vectors
from longctx.engine.sampling import bound_step, numbers_of, sampled
from longctx.engine.steps import StepRef, read_table

PER_CELL = 32
_CELLS_PER_PARTITION = 32
_FEWEST_CELLS = 4
_CELLS = 16_384  # trained in a quarter of an hour; only more than 4,096 partitions take more
_COUNTED_FILES = 256


class Cells(NamedTuple):
    """The steps that find cells, for what reads them on.

    `size` holds the numbers of `numbers_of`: documents, sampled ones, cells wanted, and what the
    caller added; `homes` the cell of each living document of a part.
    """

    size: StepRef
    sample: StepRef
    centroids: StepRef
    homes: StepRef
    counts: StepRef

    @property
    def steps(self) -> list[StepRef]:
        """All of them, as inputs of a step that reads them all."""
        return list(self)

    def sampled(self) -> np.ndarray:
        """Vectors of the sample, float32[m, d], in the order of a random order of all documents."""
        return from_binary(self.sample.read().sort_by("priority").column("vector"), np.float32)

    def centers(self) -> np.ndarray:
        """Centroids of the cells, float32[c, d], unit norm."""
        return from_binary(self.centroids.read().column("vector"), np.float32)

    def numbers(self) -> list[int]:
        """The numbers of the step `size`."""
        return numbers_of(self.size)

    def counted(self, cells: int) -> tuple[np.ndarray, int]:
        """Documents in each of `cells` cells, int64[c], and how many have no vector."""
        by_cell = self.counts.read()
        has = by_cell.column("home").is_valid()
        held, lonely = by_cell.filter(has), by_cell.filter(pc.invert(has))
        number = np.bincount(
            held.column("home").to_numpy(),
            weights=held.column("count_all").to_numpy(),
            minlength=cells,
        ).astype(np.int64)
        return number, int(pc.sum(lonely.column("count_all")).as_py() or 0)


def cells_for(n: int, limit: int) -> int:
    """How many cells n documents are divided into, for partitions of at most `limit`."""
    partitions = -(-n // limit)
    most = max(_CELLS, _FEWEST_CELLS * partitions)
    return min(n, _CELLS_PER_PARTITION * partitions, most)


def find_cells(context: BarrierContext, cells: int, *numbers: int, ignore: set[str]) -> Cells:
    """The steps `size`, `sample`, `centroids`, `homes` and `counts` for about so many cells.

    `numbers` are kept in `size`; the op's fields in `ignore` decide nothing.
    """
    size = bound_step(context, PER_CELL * cells, cells, *numbers, ignore=ignore)
    sample = context.per_part(
        "sample",
        partial(sampled, size, None),
        ["doc_id", "embedding"],
        inputs=[size],
        ignore=ignore,
    )
    rule = partial(_centroids, size, sample)
    centroids = context.single("centroids", rule, [size, sample], ignore=ignore)
    homes = context.per_part(
        "homes", partial(_homes, centroids), ["embedding"], inputs=[centroids], ignore=ignore
    )
    parts = len(homes.units)
    ranges = [(at, min(at + _COUNTED_FILES, parts)) for at in range(0, parts, _COUNTED_FILES)]
    counts = context.spread("counts", partial(_counts, homes), ranges, [homes], ignore=ignore)
    return Cells(size, sample, centroids, homes, counts)


def _centroids(size: StepRef, sample: StepRef, setting: Setting) -> dict[str, Any]:
    from longctx.cluster.cells import ITERATIONS
    from longctx.cluster.kmeans import train

    matrix = from_binary(sample.read().sort_by("priority").column("vector"), np.float32)
    cells = min(numbers_of(size)[2], len(matrix))
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
