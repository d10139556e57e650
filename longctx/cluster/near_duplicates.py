"""Near-duplicates among the pairs of the neighbour graph, removed before any semantic order.

In-Context Pretraining (arXiv 2310.10638) is worse than a random order without this step (Wikipedia
perplexity 8.3 against 7.3 with it). The paper gives no threshold; 0.95 is ours and belongs to
geometries like those of sentence-transformers, which `top1_histogram` lets the caller check.

What we changed: not connected components, where one chain of near-pairs collapses a topic, but a
greedy visit, longest document first, that drops a document only for a partner that stays. A vector
that saw less than half of its text (`emb_cover`) proves nothing: such pairs are reported only.

Cost: linear in the pairs; rows that lost more than half of their list are searched again. The table
is read in blocks and never held: similarities are computed anew where they matter, and of each list
only the first few neighbours that stay are kept, 8 bytes each. Lost: pairs that the neighbour lists
do not contain are not seen.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from longctx.cluster.cells import Cells, Mask, search_again
from longctx.cluster.knn import Edges, sort_edges
from longctx.cluster.similarity import F32, I32, I64, dot, frozen, pair_similarities

MIN_COVER = 0.5

Blocks = Callable[[], Iterable[tuple[I64, I32]]]


class Duplicates(NamedTuple):
    """`kept_id` int64[n]: -1 for a document that stays, else the one it was dropped for; `sim`
    float32[n] to that one (nan where it stays); `reported`: pairs not acted upon (low cover)."""

    kept_id: I64
    sim: F32
    reported: Edges


class Pruned(NamedTuple):
    """What `prune` leaves: `keep` int64 (old numbers, ascending), the table among them under their
    new numbers, `duplicates` under the old numbers, and `top1` float32[n], the best similarity of
    each document before anything was dropped."""

    keep: I64
    lists: I32
    sims: F32
    duplicates: Duplicates
    top1: F32

    @property
    def nbytes(self) -> int:
        """Memory of all that."""
        arrays = (self.keep, self.lists, self.sims, self.duplicates.kept_id, self.duplicates.sim)
        return self.top1.nbytes + sum(array.nbytes for array in arrays)


@numba.njit(cache=True, nogil=True)
def _visit(order, indptr, partner, sim, kept_id, kept_sim):  # type: ignore[no-untyped-def]
    kept = np.zeros(order.shape[0], dtype=np.bool_)
    for i in order:
        for e in range(indptr[i], indptr[i + 1]):
            if kept[partner[e]]:  # partners come most similar first
                kept_id[i], kept_sim[i] = partner[e], sim[e]
                break
        kept[i] = kept_id[i] < 0


def greedy_duplicates(
    pairs: Edges,
    n_tokens: I64,
    dup_cos: float = 0.95,
    emb_cover: npt.NDArray[np.floating] | None = None,
) -> Duplicates:
    """Which documents to drop as near-duplicates of a kept one.

    `pairs` (u, v, similarity), each once; `n_tokens` int64[n]; `emb_cover` [n] in 0..1, the share
    of each text that its vector saw. Documents are visited by (n_tokens descending, number
    ascending) and dropped if a partner at cos >= dup_cos was kept before; the most similar one
    (tie: smaller number) is named.
    """
    u, v, sim = pairs
    n = len(n_tokens)
    near = sim >= np.float32(dup_cos)
    low = np.zeros(len(u), dtype=bool)
    if emb_cover is not None:
        low = near & (np.minimum(emb_cover[u], emb_cover[v]) < MIN_COVER)
    acted = near & ~low
    src = np.concatenate([u[acted], v[acted]])
    dst = np.concatenate([v[acted], u[acted]])
    both = np.concatenate([sim[acted], sim[acted]])
    order = np.lexsort((dst, -both, src))
    indptr = np.zeros(n + 1, dtype=np.int64)
    indptr[1:] = np.cumsum(np.bincount(src, minlength=n))
    kept_id = np.full(n, -1, dtype=np.int64)
    kept_sim = np.full(n, np.nan, dtype=np.float32)
    visits = np.lexsort((np.arange(n), -np.asarray(n_tokens, dtype=np.int64)))
    _visit(visits, indptr, dst[order], both[order], kept_id, kept_sim)
    return Duplicates(kept_id, kept_sim, (u[low], v[low], sim[low]))


@numba.njit(cache=True, nogil=True)
def _near(X, rows, lists, threshold, top1, u, v, sims):  # type: ignore[no-untyped-def]
    """Write the pairs of at least `threshold`, and each row's best similarity; returns how many."""
    found = 0
    for i in range(rows.shape[0]):
        for at in range(lists.shape[1]):
            j = lists[i, at]
            if j < 0:
                break
            sim = dot(X[rows[i]], X[j])
            if at == 0:
                top1[i] = sim
            if sim < threshold:  # lists are sorted
                break
            u[found], v[found], sims[found] = min(rows[i], j), max(rows[i], j), sim
            found += 1
    return found


def near_pairs(X: F32, rows: I64, lists: I32, dup_cos: float) -> tuple[Edges, F32]:
    """Pairs (u < v) at cos >= dup_cos in the lists of `rows`, and the best similarity of each row.

    A pair that two rows list comes twice; a row without a neighbour has -inf.
    """
    top1 = np.full(len(rows), -np.inf, dtype=np.float32)
    u, v = np.empty(lists.size, dtype=np.int32), np.empty(lists.size, dtype=np.int32)
    sims = np.empty(lists.size, dtype=np.float32)
    threshold = np.float32(dup_cos)
    count = _near(frozen(X), frozen(rows), frozen(lists), threshold, top1, u, v, sims)
    return (u[:count].copy(), v[:count].copy(), sims[:count].copy()), top1


@numba.njit(cache=True, nogil=True)
def _living_first(X, rows, lists, living, place, out, sims):  # type: ignore[no-untyped-def]
    """The first living neighbours of each row, renumbered, with their similarities."""
    for i in range(rows.shape[0]):
        filled = 0
        for j in lists[i]:
            if j < 0 or filled == out.shape[1]:
                break
            if living[j]:
                here = place[rows[i]]
                out[here, filled], sims[here, filled] = place[j], dot(X[rows[i]], X[j])
                filled += 1


class _Table:
    """The lists as they are now: what was searched first, and fresh lists of some rows."""

    def __init__(self, blocks: Blocks, n: int) -> None:
        self._blocks = blocks
        self._place = np.full(n, -1, dtype=np.int32)
        self._fresh: list[I32] = []

    def __iter__(self) -> Iterator[tuple[I64, I32]]:
        fresh = np.concatenate(self._fresh) if self._fresh else None
        for rows, lists in self._blocks():
            place = self._place[rows]
            if fresh is not None and (place >= 0).any():
                lists = np.where((place >= 0)[:, None], fresh[place], lists)
            yield rows, lists

    def replace(self, rows: I64, lists: I32) -> None:
        first = sum(map(len, self._fresh))
        self._place[rows] = np.arange(first, first + len(rows), dtype=np.int32)
        self._fresh.append(lists)

    def losers(self, before: Mask, living: Mask) -> tuple[I64, I32]:
        """Living rows that lost more than half of the list they had `before`, with that list."""
        found: list[tuple[I64, I32]] = []
        for rows, lists in self:
            real = lists >= 0
            had, has = (real & before[lists]).sum(axis=1), (real & living[lists]).sum(axis=1)
            lost = living[rows] & (2 * (had - has) > had)
            found.append((rows[lost], lists[lost]))
        rows = np.concatenate([r for r, _ in found])
        return rows, np.concatenate([x for _, x in found])


def prune(
    X: F32,
    lists: I32,
    sims: F32,
    n_tokens: I64,
    dup_cos: float = 0.95,
    emb_cover: npt.NDArray[np.floating] | None = None,
) -> Pruned:
    """`prune_blocks` of a table that is at hand whole, at its full width, searched again exactly.

    X float32[n, d]; `lists`, `sims` [n, k]; `n_tokens` int64[n].
    """
    rows = np.arange(len(X), dtype=np.int64)

    def blocks() -> Iterator[tuple[I64, I32]]:
        yield rows, lists

    return prune_blocks(X, blocks, n_tokens, lists.shape[1], dup_cos, emb_cover)


def prune_blocks(
    X: F32,
    blocks: Blocks,
    n_tokens: I64,
    width: int,
    dup_cos: float | None = 0.95,
    emb_cover: npt.NDArray[np.floating] | None = None,
    cells: Cells | None = None,
) -> Pruned:
    """Drop near-duplicates until the table among the kept documents shows none.

    `blocks()` yields the table as (rows int64[m], lists int32[m, k]); it is read once more in each
    round and once at the end. Of the lists that are left the first `width` are kept. X
    float32[n, d], `n_tokens` int64[n]; nothing is dropped with `dup_cos` None.

    A row that lost more than half of its list is searched again among the survivors (in `cells`
    where they are given), which can bring new pairs to light, so the greedy visit is repeated.
    Where the document named in `kept_id` falls in a later round, its own survivor is named instead,
    with the similarity to that one.
    """
    n = len(X)
    table = _Table(blocks, n)
    living = np.ones(n, dtype=bool)
    kept_id = np.full(n, -1, dtype=np.int64)
    top1 = np.full(n, -np.inf, dtype=np.float32)
    threshold = 2.0 if dup_cos is None else dup_cos
    found = [_empty_edges()]
    for rows, lists in table:
        pairs, top1[rows] = near_pairs(X, rows, lists, threshold)
        found.append(pairs)
    reported: list[Edges] = []
    while True:
        visited = greedy_duplicates(_joined(found), n_tokens, threshold, emb_cover)
        reported.append(visited.reported)
        dropped = visited.kept_id >= 0
        if not dropped.any():
            break
        kept_id[dropped] = visited.kept_id[dropped]
        before, living = living, living & ~dropped
        again, old = table.losers(before, living)
        fresh = search_again(X, again, old, living, cells) if len(again) else old
        table.replace(again, fresh)
        found = [near_pairs(X, again, fresh, threshold)[0]]
    keep = np.flatnonzero(living)
    lists, sims = _first_neighbours(X, table, living, width)
    duplicates = _settled(X, kept_id, _among(_joined(reported), living))
    return Pruned(keep, lists, sims, duplicates, top1)


def _first_neighbours(X: F32, table: "_Table", living: Mask, width: int) -> tuple[I32, F32]:
    """The first `width` living neighbours of the living documents, under their new numbers."""
    place = np.cumsum(living, dtype=np.int32) - np.int32(1)
    out = np.full((int(living.sum()), width), -1, dtype=np.int32)
    sims = np.full(out.shape, -np.inf, dtype=np.float32)
    for rows, lists in table:
        own = living[rows]
        chosen = frozen(rows[own]), frozen(lists[own])
        _living_first(frozen(X), *chosen, frozen(living), frozen(place), out, sims)
    return out, sims


def _settled(X: F32, kept_id: I64, reported: Edges) -> Duplicates:
    """Every document that was dropped, named for one that stayed to the end."""
    gone = np.flatnonzero(kept_id >= 0)
    while len(gone) and (kept_id[kept_id[gone]] >= 0).any():
        target = kept_id[gone]
        kept_id[gone] = np.where(kept_id[target] >= 0, kept_id[target], target)
    sim = np.full(len(X), np.nan, dtype=np.float32)
    sim[gone] = pair_similarities(X, gone, kept_id[gone])
    return Duplicates(kept_id, sim, reported)


def _empty_edges() -> Edges:
    return np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32)


def _joined(parts: list[Edges]) -> Edges:
    u, v, sim = (np.concatenate(column) for column in zip(*parts, strict=True))
    return sort_edges(u, v, sim)


def _among(edges: Edges, living: Mask) -> Edges:
    u, v, sim = edges
    both = living[u] & living[v]
    return u[both], v[both], sim[both]


def top1_histogram(sims: F32, dup_cos: float = 0.95) -> tuple[bool, float, I64, F32]:
    """Whether the threshold cuts into ordinary neighbours, and the evidence.

    Returns (mean top-1 similarity > dup_cos - 0.03, that mean, counts int64[20], edges float32[21]
    over 0..1) of a neighbour table; rows without a neighbour do not count.
    """
    top1 = sims[:, 0][np.isfinite(sims[:, 0])] if sims.shape[1] else sims.reshape(-1)
    mean = float(top1.mean(dtype=np.float64)) if len(top1) else 0.0
    counts, edges = np.histogram(np.clip(top1, 0, 1), bins=20, range=(0, 1))
    return mean > dup_cos - 0.03, mean, counts.astype(np.int64), edges.astype(np.float32)
