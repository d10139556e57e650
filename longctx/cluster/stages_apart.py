"""Clusters of more documents than one process can train, on the engine: partition by partition.

Training k clusters takes 256·k vectors in one thread, and its time grows with k². So for many
clusters documents are divided into cells of similar ones (`stages_cells.py`), cells are grouped
into partitions, an exchange brings each partition and its vectors together, and clusters are
trained inside it, as many as its share of the documents. A document joins a cluster of its own
partition, never a nearer one beyond the border: of 40,000 documents in 800 clusters, 12 partitions
keep 97 % of the closeness to the centroid where topics are far smaller than a cell, and all of it
where topics lie inside broader ones.

What one process holds: a partition and its vectors, 8·d + 200 bytes for each of at most about
`partition_documents` documents, and the sample of the cells, 128·d bytes for each.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.cluster.stages_cells import Cells, cells_for, find_cells
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.rows import ADDRESS, addressed, as_binary, from_binary, home_of, vectors
from longctx.engine.steps import BUCKET, Stats, StepRef, read_table
from longctx.errors import RunError
from longctx.ids import priorities

PARTITION = "partition"
VECTOR = ("vector", pa.large_binary())
_MOST_NUMBER = 2**31

# A part's rows -> the op's own columns of each.
Columns = Callable[[pa.Table], dict[str, pa.Array]]


class Points(NamedTuple):
    """The step whose rows are documents with their partition and vector, and what it is made of.

    `partitions` of at most about `largest` documents; `documents` with a vector in all, at least 1.
    """

    rows: StepRef
    partitions: int
    documents: int
    largest: int

    def share(self, k: int, niter: int, seed: int) -> "Share":
        """How each partition finds its own of `k` clusters.

        Raises RunError where numbers of 32 bits do not suffice for the clusters of all.
        """
        width = 2 * (-(-k * self.largest // self.documents) + 1)
        if width * self.partitions >= _MOST_NUMBER:
            raise RunError(
                f"{k:,} clusters in {self.partitions:,} partitions are more than can be numbered",
                where="cluster",
                remedy="lower `k`, or raise `partition_documents` on nodes with more memory",
            )
        return Share(k, self.documents, width, niter, seed)


class Partition(NamedTuple):
    """Documents of a partition by ascending key: `rows`, vectors `X` float32[m, d], `cluster`
    int32[m] and `similarity` float32[m] to its centroid."""

    rows: pa.Table
    X: np.ndarray
    cluster: np.ndarray
    similarity: np.ndarray


class Share(NamedTuple):
    """The clusters of one partition among `k` over all `documents`; each has `width` numbers."""

    k: int
    documents: int
    width: int
    niter: int
    seed: int

    def clustered(self, table: pa.Table) -> Partition:
        """Clusters of the rows that an exchange brought to a partition."""
        from longctx.cluster.kmeans import clustered

        table = table.take(pc.sort_indices(table.column("doc_key"))).combine_chunks()
        X, m = matrix_of(table), table.num_rows
        own = min(self.width, max(1, (2 * self.k * m + self.documents) // (2 * self.documents)))
        priority = priorities(table.column("doc_key").to_numpy(), self.seed)
        label, similarity = clustered(X, own, priority, self.niter, self.seed)
        first = int(table.column(PARTITION)[0].as_py()) * self.width if m else 0
        number = (label + first).astype(np.int32)
        return Partition(table.drop_columns(["vector"]), X, number, similarity)


def points_of(
    context: BarrierContext,
    limit: int,
    ignore: set[str],
    columns: Sequence[str] = (),
    own: Columns | None = None,
) -> Points:
    """The steps that divide documents into partitions of at most about `limit`.

    `columns` of the parts are what `own` reads to add its columns; the op's fields in `ignore`
    decide nothing here.
    """
    found = find_cells(context, cells_for(context.rows, limit), limit, ignore=ignore)
    known = [found.size, found.centroids, found.counts]
    group = partial(_partitions, found)
    partitions = context.single("partitions", group, known, ignore=ignore)
    rows = context.per_part(
        "points",
        partial(_points, found.homes, partitions, list(columns), own),
        ["doc_id", "embedding", *columns],
        inputs=[found.homes, partitions],
        ignore=ignore,
    )
    stats = context.step_stats["partitions"]
    return Points(rows, max(1, stats["count"]), max(1, stats["documents"]), limit)


def _partitions(cells: Cells, setting: Setting) -> dict[str, Any]:
    from longctx.cluster.division import numbered, similar_cells

    *_, limit = cells.numbers()
    centers = cells.centers()
    counts, without = cells.counted(len(centers))
    groups = similar_cells(centers, counts, limit, setting.seed)
    grouping = numbered(groups, counts, limit, np.arange(len(groups.starts)))
    table = pa.table({"first": grouping.first, "shares": grouping.shares})
    stats = {"count": grouping.partitions, "documents": int(counts.sum()), "without": without}
    return {"partitions.parquet": Stats.attach(table, stats)}


def _points(
    homes: StepRef,
    partitions: StepRef,
    columns: list[str],
    own: Columns | None,
    part: Part,
    setting: Setting,
) -> pa.Table:
    """Rows of a part that have a cell: address, the op's `own` columns, vector and partition."""
    from longctx.cluster.division import Grouping, partition_of

    table = partitions.read()
    first, shares = (table.column(n).to_numpy() for n in ("first", "shares"))
    grouping = Grouping(first, shares, int(shares.sum()))
    home = read_table(homes.run_dir, homes.files[part.index]).column("home")
    found, at = [], 0
    for group in part.groups(["doc_id", "embedding", *columns]):
        rows = addressed(part, group)
        cell = home.slice(at, len(group))
        at += len(group)
        for name, column in own(group).items() if own else ():
            rows = rows.append_column(name, column)
        matrix = as_binary(vectors(group.column("embedding"))).cast(VECTOR[1])
        rows = rows.append_column("vector", matrix).filter(cell.is_valid())
        priority = priorities(rows.column("doc_key").to_numpy(), setting.seed)
        own_partition = partition_of(cell.drop_null().to_numpy(), priority, grouping)
        found.append(rows.append_column(PARTITION, pa.array(own_partition, pa.int32())))
    return pa.concat_tables(found)


def points_schema(*own: tuple[str, pa.DataType]) -> pa.Schema:
    """What an exchange of `Points.rows` brings."""
    return pa.schema([*ADDRESS, *own, VECTOR, (PARTITION, pa.int32())])


def to_partition(table: pa.Table, setting: Setting) -> pa.Table:
    """Prepare for `exchange`: every partition is a bucket."""
    return table.append_column(BUCKET, table.column(PARTITION))


def matrix_of(table: pa.Table) -> np.ndarray:
    """The column `vector` of a bucket as float32[n, d]; d is 1 where there are no rows."""
    if table.num_rows == 0:
        return np.zeros((0, 1), dtype=np.float32)
    width = len(table.column("vector")[0].as_py())
    column = table.column("vector").combine_chunks().cast(pa.binary(width))
    return from_binary(pa.chunked_array([column]), np.float32)


def aligned(names: list[str], base: pa.Table, brought: pa.Table) -> pa.Table:
    """What was brought for the rows of a part; null for those without a vector."""
    return brought.take(home_of(base.column(ROW).to_numpy(), brought)).select(names)
