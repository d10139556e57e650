"""k-means on the engine: a sample drawn by priority, trained in one place, assigned per part.

Of more than `one_place_clusters` clusters every partition of the corpus trains its own
(`stages_apart.py`).
"""

from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from longctx.cluster.stages_apart import Share, aligned, points_of, points_schema, to_partition
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.rows import NO_VECTOR, PART, as_binary, from_binary, to_part, vectors
from longctx.engine.sampling import bound_step, sampled
from longctx.engine.steps import StepRef


class ClusterKMeans(Barrier):
    """Spherical k-means over the embeddings; `k` defaults to one cluster per `per_cluster` rows.

    More than `one_place_clusters` clusters are trained in partitions of at most about
    `partition_documents` similar documents; a document then joins a cluster of its own partition.
    """

    op: Literal["cluster.kmeans"]
    k: int | None = Field(None, ge=1)
    per_cluster: int = Field(50, ge=1)
    niter: int = Field(20, ge=1)
    seed: int = Field(1234, ge=0)
    one_place_clusters: int = Field(4096, ge=1)
    partition_documents: int = Field(250_000, ge=1)

    summary: ClassVar[str] = "spherical k-means over the embeddings"
    source: ClassVar[str] = "Lloyd 1982; FAISS 2401.08281"
    cost: ClassVar[str] = "training on 256 vectors per cluster, then rows x k x dim multiply-adds"
    code_version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("embedding",)
    writes: ClassVar[tuple[str, ...]] = ("cluster", "cluster_sim")
    limits: ClassVar[frozenset[str]] = frozenset({"one_place_clusters", "partition_documents"})

    def clusters(self, rows: int) -> int:
        return min(self.k or max(1, round(rows / self.per_cluster)), rows)

    def run(self, context: BarrierContext) -> None:
        k = self.clusters(context.rows)
        if k > self.one_place_clusters:
            self._apart(context, k)
            return
        centroids = train_centroids(context, k, self.niter, self.seed)
        context.sidecar(
            "",
            [],
            partial(assign_part, centroids, ("cluster", "cluster_sim")),
            pa.schema([("row", pa.int32())]),
            self.writes,
            columns=["embedding"],
            inputs=[centroids],
        )

    def _apart(self, context: BarrierContext, k: int) -> None:
        """The same in partitions: vectors go to theirs, and clusters home."""
        points = points_of(context, self.partition_documents, {"k", "per_cluster", "niter", "seed"})
        own = points.share(k, self.niter, self.seed)
        found = context.exchange(
            "placed",
            [(points.rows, to_partition)],
            partial(_clusters, own),
            points_schema(),
            buckets=points.partitions,
        )
        context.sidecar(
            "",
            [(found, to_part)],
            partial(_home, self.writes),
            pa.schema([(ROW, pa.int32()), ("cluster", pa.int32()), ("cluster_sim", pa.float32())]),
            self.writes,
        )


def _clusters(own: Share, table: pa.Table, setting: Setting) -> pa.Table:
    found = own.clustered(table)
    columns = {"cluster": found.cluster, "cluster_sim": found.similarity}
    return pa.table({PART: found.rows[PART], ROW: found.rows[ROW], **columns})


def _home(names: tuple[str, ...], base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    return aligned(list(names), base, brought)


def train_centroids(
    context: BarrierContext, k: int, niter: int, seed: int, ignore: tuple[str, ...] = ()
) -> StepRef:
    """Steps `sample` and `centroids`: float32 (at most k, dim), unit rows, in one small file."""
    from longctx.cluster.kmeans import PER_CENTROID

    size = bound_step(context, k * PER_CENTROID, ignore=ignore)
    sample = context.per_part(
        "sample",
        partial(sampled, size, seed),
        ["doc_id", "embedding"],
        inputs=[size],
        ignore=ignore,
    )
    rule = partial(_train, sample, k, niter, seed)
    return context.single("centroids", rule, [size, sample], ignore=ignore)


def _train(sample: StepRef, k: int, niter: int, seed: int, setting: Setting) -> dict[str, Any]:
    from longctx.cluster.kmeans import train

    drawn = sample.read().sort_by("priority").column("vector")
    matrix = from_binary(drawn, np.float32)
    centroids = train(matrix, min(k, len(matrix)), niter, seed) if len(matrix) else matrix
    return {"centroids.parquet": pa.table({"vector": as_binary(centroids)})}


def assign_part(
    centroids: StepRef,
    names: tuple[str, str],
    base: pa.Table,
    brought: pa.Table,
    setting: Setting,
) -> pa.Table:
    """Cluster (int32, null without a vector) and similarity to its centroid for a part's rows."""
    from longctx.cluster.kmeans import assign

    matrix = vectors(base.column("embedding"))
    centers = from_binary(centroids.read().column("vector"), np.float32)
    missing = np.linalg.norm(matrix, axis=1) <= NO_VECTOR
    cluster = np.zeros(len(matrix), dtype=np.int32)
    similarity = np.zeros(len(matrix), dtype=np.float32)
    if len(centers) and len(matrix):
        cluster, similarity = assign(matrix, centers)
    return pa.table(
        {
            names[0]: pa.array(cluster, pa.int32(), mask=missing),
            names[1]: pa.array(similarity, pa.float32(), mask=missing),
            DROP_REASON: pa.nulls(len(matrix), pa.string()),
        }
    )
