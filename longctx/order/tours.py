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
import pyarrow.compute as pc

from longctx.cluster.cells import Cells, cells_of
from longctx.cluster.near_duplicates import Pruned, top1_histogram
from longctx.cluster.similarity import F32, I32, I64, pair_similarities
from longctx.ids import U64
from longctx.order import metrics
from longctx.order.random import random_order

BINS = 40
# Codes of `order_status`, in the order of its words in `tour_table`.
_OK, _LONELY, _DUPLICATE, _LEFT = range(4)


@dataclass(frozen=True)
class Graph:
    """The documents that an order places, 0..n-1 in ascending order of doc_id, and their graph.

    `X` float32[n, d] unit rows (zeros without a vector); `lists` int32[n, k] and `sims`
    float32[n, k] the neighbours of each, best first, -1 and -inf where there are no more;
    `priority` uint64[n]; `tokens` int64[n] (0 where unknown); `row` int64[n] the place of each in
    the table of all living documents; `has_vector` bool[n]; `cells` where neighbours were searched
    in cells.
    """

    X: F32
    lists: I32
    sims: F32
    priority: U64
    tokens: I64
    row: I64
    has_vector: npt.NDArray[np.bool_]
    cells: Cells | None = None


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
    X: F32,
    pruned: Pruned,
    usable: I64,
    tokens: I64,
    priority: U64,
    *,
    everything: bool,
    cells: Cells | None = None,
) -> Graph:
    """The graph among the documents that stay; with `everything` also those without a vector.

    X float32[u, d] are the vectors of the documents `usable` int64[u] (rows of the table of all n),
    `pruned` what near-duplicate removal left of them, `tokens` int64[n], `priority` uint64[n],
    `cells` those of the u documents. X is copied only where documents left.
    """
    row = usable[pruned.keep]
    if not everything or len(usable) == len(tokens):
        vectors = X if len(row) == len(X) else X[pruned.keep]
        known = np.ones(len(row), dtype=bool)
        left = None if cells is None else cells_of(cells, pruned.keep)
        near = pruned.lists, pruned.sims
        return Graph(vectors, *near, priority[row], tokens[row], row, known, left)
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
    n, m = len(doc_ids), len(arranged.order)
    place = np.full(n, -1, dtype=np.int64)  # in the order; -1 for what has none
    place[graph.row[arranged.order]] = np.arange(m)
    first = np.zeros(m, dtype=bool)
    first[arranged.starts] = True
    status = _status(n, place >= 0, usable, pruned, graph, arranged)
    tours, rank = _seats(place, first, status)
    left = (status == _LEFT) | (status == _DUPLICATE)
    gone = np.flatnonzero(pruned.duplicates.kept_id >= 0)
    kept, kept_sim = np.full(n, -1, dtype=np.int64), np.full(n, np.nan, dtype=np.float32)
    kept[usable[gone]] = usable[pruned.duplicates.kept_id[gone]]
    kept_sim[usable[gone]] = pruned.duplicates.sim[gone]
    similarity, jump = _similarities(graph, arranged, first, k)
    seat = pa.array(place, mask=place < 0)
    jumped = pa.array(jump).take(seat).fill_null(False)
    names = pa.array([f"t{t:08d}" for t in range(int(first.sum()) + 1)], pa.string())
    words = _words("ok", "no_embedding", "order_dup", arranged.left)
    return pa.table(
        {
            "tour_id": names.take(pa.array(tours, mask=left)),
            "rank": pa.array(rank, pa.int64(), mask=left),
            "sim_prev": pa.array(similarity, mask=np.isnan(similarity)).take(seat),
            "jump": pc.if_else(pa.array(left), pa.scalar(None, pa.bool_()), jumped),
            "link": _links(arranged, first, jump).take(seat),
            "order_status": words.take(pa.array(status)),
            "order_kept_id": doc_ids.take(pa.array(kept, mask=kept < 0)).cast(pa.string()),
            "order_kept_sim": pa.array(kept_sim, mask=np.isnan(kept_sim)),
        }
    )


def _words(*words: str | None) -> pa.Array:
    return pa.array(words, pa.string())


def _status(
    n: int,
    placed: npt.NDArray[np.bool_],
    usable: I64,
    pruned: Pruned,
    graph: Graph,
    arranged: Arranged,
) -> npt.NDArray[np.int8]:
    """A code for each document: why it stands where it stands, or does not."""
    status = np.where(placed, _OK, _LONELY).astype(np.int8)
    if arranged.left:
        status[graph.row[~placed[graph.row]]] = _LEFT
    status[usable[pruned.duplicates.kept_id >= 0]] = _DUPLICATE
    return status


def _seats(
    place: I64, first: npt.NDArray[np.bool_], status: npt.NDArray[np.int8]
) -> tuple[I64, I64]:
    """Tour and rank there of each document, from its `place` in the order (-1 for none)."""
    begin = np.flatnonzero(first)
    tours, rank = np.full(len(place), len(begin), dtype=np.int64), np.zeros_like(place)
    placed = place >= 0
    tours[placed] = (np.cumsum(first) - 1)[place[placed]]
    rank[placed] = place[placed] - begin[tours[placed]]
    lonely = status == _LONELY
    rank[lonely] = np.arange(int(lonely.sum()))
    return tours, rank


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
) -> pa.Array:
    """How each document came to its place: the op's word for it, or what the graph says."""
    if arranged.link is None:
        link = _words("edge", "jump").take(pa.array(jump.astype(np.int8)))
    else:
        link = pa.array(arranged.link, pa.string())
    if arranged.named:
        return link
    return pc.if_else(pa.array(first), pa.scalar("start", pa.string()), link)


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
