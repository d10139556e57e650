"""`dedup.semantic` on the engine: SemDeDup inside k-means clusters, cut by `eps` at the end.

The steps up to `scores` do not depend on eps, so another eps is a new cut of stored similarities.
"""

from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from longctx.cluster.stages import assign_part, train_centroids
from longctx.engine import summary
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.rows import ADDRESS, PART, addressed, as_binary, from_binary, to_part, vectors
from longctx.engine.steps import BUCKET, Stats

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
    paper's), `easy`, `random`, or `longest`. `k` defaults to one cluster per 2,000 documents.
    A document is only removed when its vector saw at least `min_cover` of its text: two long
    documents that share a beginning, or a style, are not copies.
    """

    op: Literal["dedup.semantic"]
    eps: float = Field(0.07, gt=0, lt=1)
    inclusive: bool = False
    min_cover: float = Field(0.5, ge=0, le=1)
    mode: Mode = "hard"
    k: int | None = Field(None, ge=1)
    niter: int = Field(100, ge=1)
    seed: int = Field(1234, ge=0)

    summary: ClassVar[str] = "remove near-duplicates by meaning (SemDeDup)"
    source: ClassVar[str] = "SemDeDup 2303.09540"
    cost: ClassVar[str] = "rows^2 / k x dim multiply-adds; exchange of the vectors"
    code_version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("embedding", "emb_cover")
    writes: ClassVar[tuple[str, ...]] = (
        "sd_cluster",
        "sd_rank",
        "sd_max_sim",
        "sd_max_id",
        DROP_REASON,
    )
    removes: ClassVar[bool] = True

    def clusters(self, rows: int) -> int:
        return min(self.k or max(1, -(-rows // 2000)), rows)

    def run(self, context: BarrierContext) -> None:
        k = self.clusters(context.rows)
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
        columns = ["doc_id", "text", "embedding", "sd_cluster", "sd_cos"]
        points = context.per_part("points", _points, columns, ignore=_CUT)
        buckets = min(k, max(_OWN_BUCKETS, context.buckets_for([points])))
        scored = context.exchange(
            "pairs",
            [(points, partial(_by_cluster, k, buckets))],
            partial(_pairs, self.mode),
            _POINTS,
            buckets=buckets,
            ignore=_CUT,
        )
        written = ("sd_rank", "sd_max_sim", "sd_max_id")
        context.sidecar("scores", [(scored, to_part)], _align, _SCORED, written, ignore=_CUT)
        context.sidecar(
            "",
            [],
            partial(_cut, self.eps, self.inclusive, self.min_cover),
            pa.schema([(ROW, pa.int32())]),
            self.writes,
            columns=["sd_cluster", "emb_cover", *written],
            removes=True,
        )


def _points(part: Part, setting: Setting) -> pa.Table:
    found = []
    for table in part.groups(["doc_id", "text", "embedding", "sd_cluster", "sd_cos"]):
        rows = addressed(part, table)
        cluster = table.column("sd_cluster")
        rows = rows.append_column("cluster", cluster)
        distance = 1 - table.column("sd_cos").fill_null(0).to_numpy()
        rows = rows.append_column("distance", pa.array(distance, pa.float32()))
        lengths = pc.utf8_length(table.column("text")).cast(pa.int64())
        rows = rows.append_column("length", lengths)
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
    starts = np.flatnonzero(np.diff(table.column("cluster").to_numpy(), prepend=-1))
    clusters = [table.slice(a, b - a) for a, b in pairwise([*starts, table.num_rows])]
    found = [Stats.detach(_pairs_of_one(mode, c)) for c in clusters or [table]]
    stats = summary.merge(s for _, s in found)
    return Stats.attach(pa.concat_tables([t for t, _ in found]), stats)


def _pairs_of_one(mode: Mode, table: pa.Table) -> pa.Table:
    """One cluster, in ascending order of document keys."""
    from longctx.dedup.semantic import CURVE_EPS, removal_curve, semdedup_pairs
    from longctx.ids import priorities

    table = table.combine_chunks()
    if table.num_rows == 0:
        width = 4
        matrix = np.zeros((0, 1), dtype=np.float32)
    else:
        width = len(table.column("vector")[0].as_py())
        column = table.column("vector").combine_chunks().cast(pa.binary(width))
        matrix = from_binary(pa.chunked_array([column]), np.float32)
    ids = table.column("doc_id").to_pylist()
    rank, similarity, earlier = semdedup_pairs(
        matrix,
        table.column("distance").to_numpy(),
        ids,
        mode,
        priority=priorities(table.column("doc_key").to_numpy(), 0),
        n_words=table.column("length").to_numpy(),
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
    rows = base.column(ROW).to_numpy()
    index = np.full(len(rows), -1, dtype=np.int64)
    index[np.searchsorted(rows, brought.column(ROW).to_numpy())] = np.arange(brought.num_rows)
    taken = brought.take(pa.array(index, mask=index < 0))
    return taken.select(["sd_rank", "sd_max_sim", "sd_max_id"])


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
