"""Neighbours among a million documents and more: vectors in cells, and one look further.

An inverted file with flat lists, as in billion-scale search (arXiv 1702.08734): spherical k-means
makes 4·ceil(√n) cells, each document belongs to the nearest, and is compared with the members of
the `probed` cells that lie nearest to it. Then each is compared once more with the neighbours of
its neighbours, the step of NN-Descent (Dong, Moses and Li, WWW 2011).

What we changed: the queries of a block that look into a cell are compared with its members in one
float32 matrix product, several times faster than a scan of lists query by query. What is found is
decided by exact similarities (`similarity.extend`) and depends on the cells alone, so any number of
workers, shards and blocks gives the same lists. Recall is measured against exact search, after the
second step, and `probed` doubled until recall@10 reaches 0.9. The second step is there because
k-means cannot tell 20,000 equal topics apart with 4,000 cells: on such data (`flat`, n = 1,000,000)
16 cells give recall 0.79 and the step makes it 0.93, for which cells alone need about 200.

Cost for n documents of d dimensions and c cells: training on 32 documents a cell for 10 iterations,
640·c²·d floating-point operations in one thread (n = 1,000,000, d = 384: a CPU-minute); assignment
2·n·c·d, twice (stored would be 64 bytes a document); search 2·n·d·(n·probed/c); the second step
about 200 exact similarities a document. Memory: 12 bytes a document, 4·`REFINED` for the second
step, one block of queries and one cell. Lost: up to a tenth of the true neighbours; on data without
any clusters `probed` grows until everything is compared.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.cluster.kmeans import train, training_sample
from longctx.cluster.knn import places_in, positions, search_rows
from longctx.cluster.knn import search_within as exact_within
from longctx.cluster.similarity import F32, I32, I64, Lists, empty_lists, extend, nearest, rerank
from longctx.ids import U64, priorities

PER_CELL = 32
ITERATIONS = 10
FIRST_PROBED = 16
REFINED = 16
MIN_RECALL = 0.9
RECALL_ROWS = 1000
RECALL_K = 10
EXACT_AMONG = 20_000
_MEMBER_BLOCK = 65_536
_REFINE_BLOCK = 8192

Mask = npt.NDArray[np.bool_]
Found = tuple[I32, F32]


class Cells(NamedTuple):
    """Documents by cell: `home` int32[n] the cell of each; `order` int32[n] the documents grouped
    by cell, ascending inside; `bounds` int64[c + 1] where each group begins and ends there;
    `centroids` float32[c, d]; `probed` how many cells a document looks into."""

    home: I32
    order: I32
    bounds: I64
    centroids: F32
    probed: int = FIRST_PROBED


def number_of_cells(n: int) -> int:
    """4·ceil(√n), at most one for each document."""
    return min(n, 4 * int(np.ceil(np.sqrt(n))))


def train_cells(X: F32, keys: U64, seed: int, count: int | None = None) -> F32:
    """Centroids float32[c, d] of the cells of X float32[n, d] (unit norm), n > 0.

    `keys` uint64[n] choose the sample: the documents of smallest priority.
    """
    count = number_of_cells(len(X)) if count is None else min(count, len(X))
    sample = training_sample(keys, seed, count, PER_CELL)
    return train(X[sample], count, niter=ITERATIONS, seed=seed)


def group(home: I32, centroids: F32, probed: int = FIRST_PROBED) -> Cells:
    """Cells from the cell of each document, int32[n]."""
    order = np.argsort(home, kind="stable").astype(np.int32)
    bounds = np.zeros(len(centroids) + 1, dtype=np.int64)
    bounds[1:] = np.cumsum(np.bincount(home, minlength=len(centroids)))
    return Cells(home, order, bounds, centroids, min(probed, len(centroids)))


def cells_of(cells: Cells, keep: I64) -> Cells:
    """The cells of the documents `keep` (ascending) alone, renumbered 0..len(keep)-1."""
    return group(cells.home[keep], cells.centroids, cells.probed)


def widened(cells: Cells, probed: int) -> Cells:
    """The same cells, of which each document looks into `probed` (at most all)."""
    return cells._replace(probed=min(probed, len(cells.centroids)))


def search_cells(X: F32, cells: Cells, rows: I64, k: int, living: Mask | None = None) -> Found:
    """Neighbour lists of the documents `rows` int64[m], from the cells near to each.

    X float32[n, d]. Numbers int32[m, k] and similarities float32[m, k] as `knn.search` gives them.
    With `living` bool[n] only those documents are found.
    """
    lists, Q = empty_lists(len(rows), k), X[rows]
    near, _ = nearest(Q, cells.centroids, cells.probed)
    # The own cell of all comes first: a list that is full of near ones turns most others away.
    for ranks in (near[:, :1], near[:, 1:]):
        _visit(X, cells, rows, Q, ranks, living, lists)
    return lists.numbers, lists.sims


def _visit(
    X: F32, cells: Cells, rows: I64, Q: F32, near: I32, living: Mask | None, lists: Lists
) -> None:
    """Compare each query with the members of the cells `near` int32[m, .] to it, cell by cell."""
    visits = np.argsort(near.ravel(), kind="stable")
    bounds = np.searchsorted(near.ravel()[visits], np.arange(len(cells.centroids) + 1))
    for cell in np.flatnonzero(np.diff(bounds)):
        at = visits[bounds[cell] : bounds[cell + 1]] // near.shape[1]
        members = cells.order[cells.bounds[cell] : cells.bounds[cell + 1]].astype(np.int64)
        if living is not None:
            members = members[living[members]]
        for first in range(0, len(members), _MEMBER_BLOCK):
            block = members[first : first + _MEMBER_BLOCK]
            extend(lists, at, Q[at], block, X[block], places_in(block, rows[at]))


def refine(X: F32, rows: I64, lists: I32, first: I32, known: I64 | None = None) -> Found:
    """Lists of `rows` int64[m], improved by the neighbours of their neighbours.

    `lists` int32[m, k] as found so far; `first` int32[., r] the first r neighbours of every
    document, or of the documents `known` (ascending), which must hold all neighbours of `rows`.
    """
    k, r = lists.shape[1], first.shape[1]
    out = empty_lists(len(rows), k)
    for at in range(0, len(rows), _REFINE_BLOCK):
        block = slice(at, at + _REFINE_BLOCK)
        own = lists[block, :r]
        place = np.where(own >= 0, own, 0) if known is None else np.searchsorted(known, own)
        further = np.where(own[:, :, None] >= 0, first[place], -1).reshape(len(own), -1)
        candidates = np.hstack([lists[block], further])
        out.numbers[block], out.sims[block] = rerank(X, rows[block], candidates, k)
    return out.numbers, out.sims


def tune_probed(
    X: F32, cells: Cells, keys: U64, seed: int, k: int, rows: int = RECALL_ROWS
) -> tuple[Cells, float]:
    """Cells of which each document looks into enough, and the recall@10 that is reached.

    Measured on the `rows` documents of smallest priority, with lists of `k` that `refine` improves;
    the number of cells is doubled until recall is 0.9, at the latest when it is that of all cells.
    """
    chosen = np.sort(np.argsort(priorities(keys, seed), kind="stable")[:rows])
    true, _ = search_rows(X, chosen, min(RECALL_K, k))
    while True:
        recall = _recall(true, _searched(X, cells, chosen, k))
        if recall >= MIN_RECALL or cells.probed == len(cells.centroids):
            return cells, recall
        cells = widened(cells, 2 * cells.probed)


def _searched(X: F32, cells: Cells, rows: I64, k: int) -> I32:
    """What both steps give for a few documents."""
    lists, _ = search_cells(X, cells, rows, k)
    known = np.unique(lists[:, :REFINED]).astype(np.int64)
    known = known[known >= 0]
    first, _ = search_cells(X, cells, known, min(REFINED, k))
    return refine(X, rows, lists, first, known)[0] if len(known) else lists


def _recall(true: I32, found: I32) -> float:
    """Share of the true neighbours that were found; 1.0 when there is nothing to find."""
    wanted = true >= 0
    found = found[:, : true.shape[1]]
    hits = ((true[:, :, None] == found[:, None, :]).any(axis=2) & wanted).sum()
    return float(hits / wanted.sum()) if wanted.any() else 1.0


def search_again(X: F32, rows: I64, lists: I32, living: Mask, cells: Cells | None = None) -> I32:
    """Fresh lists of `rows` among the `living` documents, for rows that lost most of their list.

    `lists` int32[m, k] are the old ones, of which the living stay. Exact without `cells`.
    """
    k = lists.shape[1]
    if cells is None:
        return search_rows(X, rows, k, np.flatnonzero(living))[0]
    fresh, _ = search_cells(X, cells, rows, k, living)
    left = np.where((lists >= 0) & living[lists], lists, -1)
    return rerank(X, rows, np.hstack([fresh, left]), k)[0]


def search_within(X: F32, cells: Cells) -> Callable[[I64, int], Found]:
    """`knn.search_within` from cells, for the ends of `path.join_fragments`.

    Up to 20,000 documents it is exact. Of fewer documents fewer lie in a cell, so more cells are
    searched: as many as hold the candidates that a document has among all.
    """

    def search(chosen: I64, k: int) -> Found:
        if len(chosen) <= EXACT_AMONG:
            return exact_within(X, chosen, k)
        living = np.zeros(len(X), dtype=bool)
        living[chosen] = True
        wide = widened(cells, -(-cells.probed * len(X) // len(chosen)))
        lists, sims = search_cells(X, wide, chosen, k, living)
        return positions(chosen, lists), sims

    return search
