"""`dedup.semantic` on the engine: SemDeDup inside k-means clusters, cut by `eps` at the end.

The steps up to `scores` do not depend on eps, so another eps is a new cut of stored similarities.
"""

from functools import partial
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from longctx.cluster.stages import assign_part, train_centroids
from longctx.cluster.stages_apart import (
    Share,
    aligned,
    matrix_of,
    points_of,
    points_schema,
    to_partition,
)
from longctx.engine import summary
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.rows import ADDRESS, PART, addressed, as_binary, to_part, vectors
from longctx.engine.steps import BUCKET, Stats, StepRef

F32 = npt.NDArray[np.float32]
Mode = Literal["hard", "easy", "random", "longest"]
_POINTS = pa.schema(
    [
        *ADDRESS,
        ("cluster", pa.int32()),
        ("distance", pa.float32()),
        ("length", pa.int64()),
        ("vector", pa.large_binary()),
    ]
)
_SCORED = pa.schema(
    [
        (ROW, pa.int32()),
        ("sd_rank", pa.int64()),
        ("sd_max_sim", pa.float32()),
        ("sd_max_id", pa.string()),
    ]
)
_CUT = ("eps", "inclusive", "min_cover")
# Up to so many clusters each is a bucket of its own; of more, a bucket holds several.
_OWN_BUCKETS = 4096


class DedupSemantic(Barrier):
    """Removes a document when an earlier one of its cluster has cosine above 1 - eps.

    The order inside a cluster decides who is earlier: `hard` (farthest from the centroid first, the
    paper's), `easy`, `random`, or `longest`. `k` defaults to one cluster per `per_cluster` rows;
    more than `one_place_clusters` are trained in partitions of at most about `partition_documents`
    similar documents. A document is only removed when its vector saw at least `min_cover` of its
    text: two long documents that share a beginning, or a style, are not copies.
    """

    op: Literal["dedup.semantic"]
    eps: float = Field(0.07, gt=0, lt=1)
    inclusive: bool = False
    min_cover: float = Field(0.5, ge=0, le=1)
    mode: Mode = "hard"
    k: int | None = Field(None, ge=1)
    per_cluster: int = Field(2000, ge=1)
    niter: int = Field(100, ge=1)
    seed: int = Field(1234, ge=0)
    one_place_clusters: int = Field(4096, ge=1)
    partition_documents: int = Field(250_000, ge=1)

    summary: ClassVar[str] = "remove near-duplicates by meaning (SemDeDup)"
    source: ClassVar[str] = "SemDeDup 2303.09540"
    cost: ClassVar[str] = "rows^2 / k x dim multiply-adds; exchange of the vectors"
    code_version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = ("embedding", "emb_cover")
    writes: ClassVar[tuple[str, ...]] = (
        "sd_cluster",
        "sd_rank",
        "sd_max_sim",
        "sd_max_id",
        DROP_REASON,
    )
    removes: ClassVar[bool] = True
    limits: ClassVar[frozenset[str]] = frozenset({"one_place_clusters", "partition_documents"})

    def clusters(self, rows: int) -> int:
        return min(self.k or max(1, -(-rows // self.per_cluster)), rows)

    def run(self, context: BarrierContext) -> None:
        k = self.clusters(context.rows)
        if k > self.one_place_clusters:
            found, brought = self._apart(context, k)
        else:
            found, brought = self._together(context, k)
        written = tuple(n for n in brought.names if n.startswith("sd_"))
        context.sidecar("scores", [(found, to_part)], _align, brought, written, ignore=_CUT)
        context.sidecar(
            "",
            [],
            partial(_cut, self.eps, self.inclusive, self.min_cover),
            pa.schema([(ROW, pa.int32())]),
            self.writes,
            columns=["emb_cover", *self.writes[:-1]],
            removes=True,
        )

    def _measured(self) -> list[str]:
        """Texts are the most that a part holds, and only one order asks for their lengths."""
        return ["text"] if self.mode == "longest" else []

    def _together(self, context: BarrierContext, k: int) -> tuple[StepRef, pa.Schema]:
        """Clusters trained in one place; documents meet by cluster."""
        centroids = train_centroids(context, k, self.niter, self.seed, ignore=(*_CUT, "mode"))
        context.sidecar(
            "assigned",
            [],
            partial(assign_part, centroids, ("sd_cluster", "sd_cos")),
            pa.schema([(ROW, pa.int32())]),
            ("sd_cluster", "sd_cos"),
            columns=["embedding"],
            inputs=[centroids],
            ignore=(*_CUT, "mode"),
        )
        columns = ["doc_id", "embedding", "sd_cluster", "sd_cos", *self._measured()]
        points = context.per_part("points", partial(_points, columns), columns, ignore=_CUT)
        buckets = min(k, max(_OWN_BUCKETS, context.buckets_for([points])))
        scored = context.exchange(
            "pairs",
            [(points, partial(_by_cluster, k, buckets))],
            partial(_pairs, self.mode),
            _POINTS,
            buckets=buckets,
            ignore=_CUT,
        )
        return scored, _SCORED

    def _apart(self, context: BarrierContext, k: int) -> tuple[StepRef, pa.Schema]:
        """Documents meet by partition, where clusters are trained and their documents compared."""
        fields = {"k", "per_cluster", "niter", "seed", *_CUT}
        points = points_of(context, self.partition_documents, fields, self._measured(), _lengths)
        share = points.share(k, self.niter, self.seed)
        scored = context.exchange(
            "placed",
            [(points.rows, to_partition)],
            partial(_pairs_apart, self.mode, share),
            points_schema(("length", pa.int64())),
            buckets=points.partitions,
            ignore=_CUT,
        )
        return scored, _SCORED.append(pa.field("sd_cluster", pa.int32()))


def _lengths(table: pa.Table) -> dict[str, pa.Array]:
    """Characters of each text; null where no order asks for them and no text was read."""
    if "text" not in table.column_names:
        return {"length": pa.nulls(table.num_rows, pa.int64())}
    return {"length": pc.utf8_length(table.column("text")).cast(pa.int64())}


def _points(columns: list[str], part: Part, setting: Setting) -> pa.Table:
    found = []
    for table in part.groups(columns):
        rows = addressed(part, table)
        cluster = table.column("sd_cluster")
        rows = rows.append_column("cluster", cluster)
        distance = 1 - table.column("sd_cos").fill_null(0).to_numpy()
        rows = rows.append_column("distance", pa.array(distance, pa.float32()))
        rows = rows.append_column("length", _lengths(table)["length"])
        matrix = as_binary(vectors(table.column("embedding"))).cast(pa.large_binary())
        found.append(rows.append_column("vector", matrix).filter(cluster.is_valid()))
    return pa.concat_tables(found)


def _by_cluster(k: int, buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    cluster = table.column("cluster").to_numpy().astype(np.int64)
    return table.append_column(BUCKET, pa.array(cluster * buckets // k, pa.int32()))


def _pairs(mode: Mode, table: pa.Table, setting: Setting) -> pa.Table:
    """The clusters of a bucket: each document's rank and its best earlier neighbour."""
    order = [("cluster", "ascending"), ("doc_key", "ascending")]
    table = table.sort_by(order).combine_chunks()
    return _pairs_of_each(mode, table.drop_columns(["vector"]), matrix_of(table))


def _pairs_apart(mode: Mode, share: Share, table: pa.Table, setting: Setting) -> pa.Table:
    """The same for a partition, whose clusters are found first."""
    found = share.clustered(table)
    order = np.argsort(found.cluster, kind="stable")
    rows = found.rows.append_column("cluster", pa.array(found.cluster))
    rows = rows.append_column("distance", pa.array(1 - found.similarity)).take(pa.array(order))
    scored = _pairs_of_each(mode, rows, found.X[order])
    return scored.append_column("sd_cluster", rows.column("cluster"))


def _pairs_of_each(mode: Mode, table: pa.Table, X: F32) -> pa.Table:
    """All clusters of a table whose rows and vectors are sorted by cluster and document key."""
    starts = np.flatnonzero(np.diff(table.column("cluster").to_numpy(), prepend=-1))
    ends = [*starts[1:], table.num_rows]
    found = [
        Stats.detach(_pairs_of_one(mode, table.slice(a, b - a), X[a:b]))
        for a, b in (zip(starts, ends, strict=True) if len(starts) else [(0, 0)])
    ]
    stats = summary.merge(s for _, s in found)
    return Stats.attach(pa.concat_tables([t for t, _ in found]), stats)


def _pairs_of_one(mode: Mode, table: pa.Table, X: F32) -> pa.Table:
    """One cluster, in ascending order of document keys."""
    from longctx.dedup.semantic import CURVE_EPS, removal_curve, semdedup_pairs
    from longctx.ids import priorities

    ids = table.column("doc_id").to_pylist()
    rank, similarity, earlier = semdedup_pairs(
        X,
        table.column("distance").to_numpy(),
        ids,
        mode,
        priority=priorities(table.column("doc_key").to_numpy(), 0),
        n_words=table.column("length").to_numpy() if mode == "longest" else None,
    )
    found = pa.table(
        {
            PART: table.column(PART),
            ROW: table.column(ROW),
            "sd_rank": rank,
            "sd_max_sim": pa.array(similarity, pa.float32()),
            "sd_max_id": pa.array([ids[i] if i >= 0 else None for i in earlier], pa.string()),
        }
    )
    removed = np.rint(removal_curve(similarity) * len(similarity)).astype(int)
    curve = {f"{e:g}": int(n) for e, n in zip(CURVE_EPS, removed, strict=True)}
    return Stats.attach(found, {"removed_at_eps": curve, "clusters": 1})


def _align(base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    """Scores for the rows that have any; a document without a vector has none."""
    own = [n for n in brought.column_names if n.startswith("sd_")]
    return aligned(own, base, brought)


def _cut(
    eps: float,
    inclusive: bool,
    min_cover: float,
    base: pa.Table,
    brought: pa.Table,
    setting: Setting,
) -> pa.Table:
    from longctx.dedup.semantic import semdedup_keep

    similarity = base.column("sd_max_sim").fill_null(0).to_numpy()
    cover = base.column("emb_cover").fill_null(0).to_numpy()
    keep = semdedup_keep(similarity, eps, inclusive) | (cover < min_cover)
    table = base.select(["sd_cluster", "sd_rank", "sd_max_sim", "sd_max_id"])
    reasons = pa.array([None if k else "semdedup" for k in keep], pa.string())
    return table.append_column(DROP_REASON, reasons)
