"""The tour table that every order writes, its figures, and what its reader should be told.

An order is data: each document gets a tour and a rank there, its similarity to the one before it,
whether that link is an edge of the neighbour graph, and why it stands where it stands. Documents
without a vector form the last tour; near-duplicates have no place and name the document that stays.
O(documents); similarities are exact.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.cluster.near_duplicates import Pruned, top1_histogram
from longctx.cluster.similarity import F32, I64, pair_similarities
from longctx.ids import U64
from longctx.order import metrics
from longctx.order.random import random_order

BINS = 40


class Arranged(NamedTuple):
    """An order of the documents 0..n-1 and the places in it where a tour begins, both int64."""

    order: I64
    starts: I64


def tour_table(
    doc_ids: pa.ChunkedArray,
    usable: I64,
    pruned: Pruned,
    arranged: Arranged,
    Y: F32,
    k: int,
) -> pa.Table:
    """One row for each document, in the order of `doc_ids` (n).

    `usable` are the documents with a vector, `pruned` what near-duplicate removal left of them,
    `arranged` the order of those that stayed, `Y` their vectors, `k` the neighbours in the graph.
    """
    n, ids = len(doc_ids), doc_ids.to_pylist()
    order = usable[pruned.keep[arranged.order]]
    first = np.zeros(len(order), dtype=bool)
    first[arranged.starts] = True
    tour, begin = np.cumsum(first) - 1, np.flatnonzero(first)
    status = np.full(n, "no_embedding", dtype=object)
    status[order] = "ok"
    gone = np.flatnonzero(pruned.duplicates.kept_id >= 0)
    status[usable[gone]] = "order_dup"
    rank, tours = np.zeros(n, dtype=np.int64), np.full(n, len(begin), dtype=np.int64)
    rank[order] = np.arange(len(order)) - begin[tour] if len(order) else 0
    tours[order] = tour
    lonely = np.flatnonzero(status == "no_embedding")
    rank[lonely] = np.arange(len(lonely))
    similarity, jump = _links(order, first, arranged, pruned, Y, n, k)
    kept_id, kept_sim = np.full(n, None, dtype=object), np.full(n, np.nan, dtype=np.float32)
    kept_id[usable[gone]] = [ids[usable[i]] for i in pruned.duplicates.kept_id[gone]]
    kept_sim[usable[gone]] = pruned.duplicates.sim[gone]
    left = status == "order_dup"
    return pa.table(
        {
            "tour_id": pa.array([f"t{t:08d}" for t in tours], pa.string(), mask=left),
            "rank": pa.array(rank, pa.int64(), mask=left),
            "sim_prev": pa.array(similarity, pa.float32(), mask=np.isnan(similarity)),
            "jump": pa.array(jump, pa.bool_(), mask=left),
            "order_status": pa.array(status.tolist(), pa.string()),
            "order_kept_id": pa.array(kept_id.tolist(), pa.string()),
            "order_kept_sim": pa.array(kept_sim, pa.float32(), mask=np.isnan(kept_sim)),
        }
    )


def _links(
    order: I64,
    first: npt.NDArray[np.bool_],
    arranged: Arranged,
    pruned: Pruned,
    Y: F32,
    n: int,
    k: int,
) -> tuple[F32, npt.NDArray[np.bool_]]:
    """Similarity to the document before (nan where a tour begins), and whether that is a jump."""
    similarity, jump = np.full(n, np.nan, dtype=np.float32), np.zeros(n, dtype=bool)
    if len(order) > 1:
        pairs = pair_similarities(Y, arranged.order[:-1], arranged.order[1:])
        similarity[order[1:]] = np.where(first[1:], np.nan, pairs)
        jump[order[1:]] = metrics.jump_flags(arranged.order, pruned.lists, k)
    return similarity, jump


def figures(Y: F32, pruned: Pruned, arranged: Arranged, priority: U64, k: int) -> dict[str, Any]:
    """Metrics of an order beside those of a random one, and histograms for the report."""
    order, random = arranged.order, random_order(priority)
    return {
        "documents": len(order),
        "tours": len(arranged.starts),
        "near_duplicates_dropped": int((pruned.duplicates.kept_id >= 0).sum()),
        "near_duplicates_reported": len(pruned.duplicates.reported[0]),
        "adjacency": metrics.adjacency(Y, order),
        "adjacency_random": metrics.adjacency(Y, random),
        "top2_bound": metrics.top2_bound(pruned.sims),
        "coherence": {str(w): metrics.coherence(Y, order, w) for w in (6, 16, 100)},
        "best_earlier": {str(w): metrics.best_earlier(Y, order, w) for w in (16, 100)},
        "jumps": metrics.jumps(order, pruned.lists, k),
        "histogram": histogram(Y, order),
        "histogram_random": histogram(Y, random),
    }


def histogram(Y: F32, order: I64) -> list[int]:
    """Cosines of consecutive documents in BINS equal bins from -1 to 1."""
    if len(order) < 2:
        return [0] * BINS
    sims = pair_similarities(Y, order[:-1], order[1:])
    counts, _ = np.histogram(np.clip(sims, -1, 1), bins=BINS, range=(-1, 1))
    return [int(c) for c in counts]


def warnings(sims: F32, dup_cos: float | None, without: int, n: int) -> dict[str, int]:
    """What the reader of a report should know before trusting the order, each with a 1.

    `dup_cos` is None when near-duplicates are kept; `without` of `n` documents have no vector.
    """
    found: list[str] = []
    if dup_cos is not None:
        suspicious, mean, _, _ = top1_histogram(sims, dup_cos)
        if suspicious:
            found.append(
                f"Nearest neighbours have a mean cosine of {mean:.3f}, so dup_cos {dup_cos:g} also "
                "removes ordinary neighbours: raise it, or use an encoder that tells these texts "
                "apart."
            )
    if without:
        found.append(
            f"{without:,} of {n:,} documents have no vector (no known words, or a language that "
            "the encoder does not know); they stand in a tour of their own, in the order of ids."
        )
    return dict.fromkeys(found, 1)
