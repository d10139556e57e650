"""The tour table that every order writes, its figures, and what its reader should be told.

An order is data: each document gets a tour and a rank there, its similarity to the one before it,
whether that link is an edge of the neighbour graph, and why it stands where it stands. Documents
without a vector form the last tour; near-duplicates have no place and name the document that stays.
O(documents); similarities are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.cluster.near_duplicates import Pruned, top1_histogram
from longctx.cluster.similarity import F32, I32, I64, pair_similarities
from longctx.ids import U64
from longctx.order import metrics
from longctx.order.random import random_order

BINS = 40


@dataclass(frozen=True)
class Graph:
    """The documents that an order places, 0..n-1 in ascending order of doc_id, and their graph.

    `X` float32[n, d] unit rows (zeros without a vector); `lists` int32[n, k] and `sims`
    float32[n, k] the neighbours of each, best first, -1 and -inf where there are no more;
    `priority` uint64[n]; `tokens` int64[n] (0 where unknown); `row` int64[n] the place of each in
    the table of all living documents; `has_vector` bool[n].
    """

    X: F32
    lists: I32
    sims: F32
    priority: U64
    tokens: I64
    row: I64
    has_vector: npt.NDArray[np.bool_]


class Arranged(NamedTuple):
    """An order of the documents 0..n-1 and the places in it where a tour begins, both int64.

    `link` says for each place how the document came behind the one before it (a word or two); by
    default an `edge` of the graph or a `jump`. The first of a tour is a `start`, unless the op's
    words name the tour (`named`). With `left` the order may lack documents; they leave the corpus,
    and that is the reason.
    """

    order: I64
    starts: I64
    link: Sequence[str | None] | None = None
    named: bool = False
    left: str | None = None


def graph_of(
    X: F32, pruned: Pruned, usable: I64, tokens: I64, priority: U64, *, everything: bool
) -> Graph:
    """The graph among the documents that stay; with `everything` also those without a vector.

    X float32[u, d] are the vectors of the documents `usable` int64[u] (rows of the table of all n),
    `pruned` what near-duplicate removal left of them, `tokens` int64[n], `priority` uint64[n].
    """
    row = usable[pruned.keep]
    if not everything or len(usable) == len(tokens):
        vectors = np.ascontiguousarray(X[pruned.keep])
        known = np.ones(len(row), dtype=bool)
        return Graph(vectors, pruned.lists, pruned.sims, priority[row], tokens[row], row, known)
    missing = np.setdiff1d(np.arange(len(tokens)), usable)
    members = np.union1d(row, missing)
    at = np.searchsorted(members, row)
    vectors = np.zeros((len(members), X.shape[1]), dtype=np.float32)
    vectors[at] = X[pruned.keep]
    lists = np.full((len(members), pruned.lists.shape[1]), -1, dtype=np.int32)
    sims = np.full(lists.shape, -np.inf, dtype=np.float32)
    lists[at] = np.where(pruned.lists >= 0, at[pruned.lists], -1)
    sims[at] = pruned.sims
    known = np.zeros(len(members), dtype=bool)
    known[at] = True
    return Graph(vectors, lists, sims, priority[members], tokens[members], members, known)


def tour_table(
    doc_ids: pa.ChunkedArray, usable: I64, pruned: Pruned, graph: Graph, arranged: Arranged, k: int
) -> pa.Table:
    """One row for each document, in the order of `doc_ids` (n).

    `usable` are the documents with a vector, `pruned` what near-duplicate removal left of them,
    `arranged` the order of the documents of `graph`, `k` the neighbours that count as edges.
    """
    n, ids = len(doc_ids), doc_ids.to_pylist()
    order = graph.row[arranged.order]
    first = np.zeros(len(order), dtype=bool)
    first[arranged.starts] = True
    tour, begin = np.cumsum(first) - 1, np.flatnonzero(first)
    status = np.full(n, "no_embedding", dtype=object)
    if arranged.left:
        status[graph.row] = arranged.left
    status[order] = "ok"
    gone = np.flatnonzero(pruned.duplicates.kept_id >= 0)
    status[usable[gone]] = "order_dup"
    rank, tours = np.zeros(n, dtype=np.int64), np.full(n, len(begin), dtype=np.int64)
    rank[order] = np.arange(len(order)) - begin[tour] if len(order) else 0
    tours[order] = tour
    lonely = np.flatnonzero(status == "no_embedding")
    rank[lonely] = np.arange(len(lonely))
    similarity, jump = _similarities(graph, arranged, first, k)
    link = np.full(n, None, dtype=object)
    link[order] = _links(arranged, first, jump)
    sim_prev, jumped = np.full(n, np.nan, dtype=np.float32), np.zeros(n, dtype=bool)
    sim_prev[order], jumped[order] = similarity, jump
    kept_id, kept_sim = np.full(n, None, dtype=object), np.full(n, np.nan, dtype=np.float32)
    kept_id[usable[gone]] = [ids[usable[i]] for i in pruned.duplicates.kept_id[gone]]
    kept_sim[usable[gone]] = pruned.duplicates.sim[gone]
    left = np.isin(status, ["order_dup", arranged.left or "order_dup"])
    return pa.table(
        {
            "tour_id": pa.array([f"t{t:08d}" for t in tours], pa.string(), mask=left),
            "rank": pa.array(rank, pa.int64(), mask=left),
            "sim_prev": pa.array(sim_prev, pa.float32(), mask=np.isnan(sim_prev)),
            "jump": pa.array(jumped, pa.bool_(), mask=left),
            "link": pa.array(link.tolist(), pa.string()),
            "order_status": pa.array(status.tolist(), pa.string()),
            "order_kept_id": pa.array(kept_id.tolist(), pa.string()),
            "order_kept_sim": pa.array(kept_sim, pa.float32(), mask=np.isnan(kept_sim)),
        }
    )


def _similarities(
    graph: Graph, arranged: Arranged, first: npt.NDArray[np.bool_], k: int
) -> tuple[F32, npt.NDArray[np.bool_]]:
    """For each place: similarity to the document before, and whether that step is a jump.

    The similarity is nan where a tour begins and where either document has no vector.
    """
    order = arranged.order
    similarity, jump = np.full(len(order), np.nan, dtype=np.float32), np.zeros(len(order), bool)
    if len(order) > 1:
        known = graph.has_vector[order]
        pairs = pair_similarities(graph.X, order[:-1], order[1:])
        similarity[1:] = np.where(first[1:] | ~known[1:] | ~known[:-1], np.nan, pairs)
        jump[1:] = metrics.jump_flags(order, graph.lists, k)
    return similarity, jump


def _links(
    arranged: Arranged, first: npt.NDArray[np.bool_], jump: npt.NDArray[np.bool_]
) -> npt.NDArray[np.object_]:
    """How each document came to its place: the op's word for it, or what the graph says."""
    if arranged.link is None:
        link = np.where(jump, "jump", "edge").astype(object)
    else:
        link = np.array(list(arranged.link), dtype=object)
    if not arranged.named:
        link[first] = "start"
    return link


def figures(graph: Graph, pruned: Pruned, arranged: Arranged, k: int) -> dict[str, Any]:
    """Metrics of an order beside those of a random one, and histograms for the report.

    Documents without a vector are left out of all but the number of documents.
    """
    known = graph.has_vector
    order = arranged.order[known[arranged.order]]
    random = random_order(graph.priority)
    random = random[known[random]]
    Y = graph.X
    return {
        "documents": len(arranged.order),
        "tours": len(arranged.starts),
        "near_duplicates_dropped": int((pruned.duplicates.kept_id >= 0).sum()),
        "near_duplicates_reported": len(pruned.duplicates.reported[0]),
        "adjacency": metrics.adjacency(Y, order),
        "adjacency_random": metrics.adjacency(Y, random),
        "top2_bound": metrics.top2_bound(pruned.sims),
        "coherence": {str(w): metrics.coherence(Y, order, w) for w in (6, 16, 100)},
        "best_earlier": {str(w): metrics.best_earlier(Y, order, w) for w in (16, 100)},
        "jumps": metrics.jumps(order, graph.lists, k),
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
