"""The neighbour graph: k nearest documents by cosine, one table for every semantic order.

As in In-Context Pretraining (arXiv 2310.10638), with our choices: exact search here (`cells.py`
where that is too slow), similarities that do not depend on blocks (`similarity.py`), the document
itself removed by its number (with exact copies it is not at rank 0), and each pair of the graph
once.

A table is computed in blocks of queries, and against blocks of documents joined by `merge_lists`
(associative), so any number of workers gives the same lists. "Number" is the position of a document
in ascending order of `doc_id`; callers sort by it first.

Cost: n²·d multiply-adds (20,000 x 384: about 6 CPU-seconds) and one 64 MiB block. Table: 8 bytes an
entry. Edges are sorted as packed 64-bit keys, 28 bytes an edge while it lasts; `edge_parts` makes
them in parts of falling similarity.
"""

from collections.abc import Iterator

import numpy as np

from longctx.cluster.similarity import F32, I32, I64, empty_lists, extend, nearest
from longctx.ids import U64

EDGES_AT_ONCE = 4_000_000
MOST_PARTS = 16
_BINS = 2**16  # of (1 - similarity), which reaches 2
_DOCUMENT_BLOCK = 65_536

Edges = tuple[I32, I32, F32]


def search(
    X: F32, start: int, stop: int, k_search: int = 32, *, among: tuple[int, int] | None = None
) -> tuple[I32, F32]:
    """Neighbour lists of the documents start..stop-1, exactly.

    X float32[n, d], unit norm, all documents. Returns numbers int32[stop - start, k_search] and
    similarities float32 of the same shape, sorted by (similarity descending, number ascending),
    without the document itself; a list shorter than k_search ends in number -1, similarity -inf.
    `among` = (from, to) searches only that range of documents, for `merge_lists`.
    """
    own = np.arange(start, stop, dtype=np.int64)
    low, high = among if among is not None else (0, len(X))
    inside = (own >= low) & (own < high)
    lists, sims = nearest(X[start:stop], X[low:high], k_search, np.where(inside, own - low, -1))
    lists[lists >= 0] += low
    return lists, sims


def search_rows(X: F32, rows: I64, k: int, members: I64 | None = None) -> tuple[I32, F32]:
    """What `search` gives, for any documents `rows` int64[m] and only among `members` (ascending).

    `members` are copied 65,536 at a time.
    """
    members = np.arange(len(X), dtype=np.int64) if members is None else members
    lists, Q = empty_lists(len(rows), k), X[rows]
    at = np.arange(len(rows))
    for first in range(0, len(members), _DOCUMENT_BLOCK):
        block = members[first : first + _DOCUMENT_BLOCK]
        extend(lists, at, Q, block, X[block], places_in(block, rows))
    return lists.numbers, lists.sims


def search_within(X: F32, chosen: I64, k: int) -> tuple[I32, F32]:
    """Neighbour lists of the documents `chosen` int64[m] (ascending) among one another, exactly.

    The lists hold positions in `chosen`.
    """
    lists, sims = search_rows(X, chosen, k, chosen)
    return positions(chosen, lists), sims


def positions(chosen: I64, lists: I32) -> I32:
    """Lists of numbers out of `chosen` (ascending) as positions in it; -1 stays."""
    return np.where(lists >= 0, np.searchsorted(chosen, lists), -1).astype(np.int32)


def places_in(members: I64, rows: I64) -> I64:
    """Place of each of `rows` among `members` (ascending, not empty), -1 where it is not."""
    place = np.minimum(np.searchsorted(members, rows), len(members) - 1)
    return np.where(members[place] == rows, place, -1)


def merge_lists(a: tuple[I32, F32], b: tuple[I32, F32], k: int) -> tuple[I32, F32]:
    """The k best of two partial tables of the same queries over disjoint ranges of documents."""
    lists, sims = np.hstack([a[0], b[0]]), np.hstack([a[1], b[1]])
    best = np.lexsort((lists, -sims), axis=1)[:, :k]
    return np.take_along_axis(lists, best, axis=1), np.take_along_axis(sims, best, axis=1)


def undirected_edges(lists: I32, sims: F32, k: int, start: int = 0) -> Edges:
    """Edges (u < v, similarity) of the first k neighbours of each row, each pair once.

    Row r of `lists` belongs to document start + r. Sorted as `sort_edges` does.
    """
    return _edges_where(lists[:, :k], sims[:, :k], lists[:, :k] >= 0, start)


def edge_parts(lists: I32, sims: F32, k: int, at_once: int = EDGES_AT_ONCE) -> Iterator[Edges]:
    """What `undirected_edges` gives, in parts of falling similarity.

    A part holds about `at_once` list entries, or a sixteenth of all where that is more (each part
    reads the whole table); entries of one similarity lie in one part.
    """
    dst, sims = lists[:, :k], sims[:, :k]
    place = np.where(dst >= 0, np.clip((1 - sims) * (_BINS // 2), 0, _BINS), -1).astype(np.int32)
    counts = np.bincount(place[place >= 0], minlength=_BINS + 1)
    size = max(at_once, -(-int(counts.sum()) // MOST_PARTS))
    part = np.maximum(np.cumsum(counts) - 1, 0) // size  # of each bin; a bin is never divided
    for number in np.unique(part[counts > 0]):
        bins = np.flatnonzero((part == number) & (counts > 0))
        yield _edges_where(dst, sims, (place >= bins[0]) & (place <= bins[-1]), 0)


def _edges_where(dst: I32, sims: F32, chosen: np.ndarray, start: int) -> Edges:
    row, column = np.nonzero(chosen)
    a, b = (row + start).astype(np.int32), dst[row, column]
    return sort_edges(np.minimum(a, b), np.maximum(a, b), sims[row, column])


def sort_edges(u: I32, v: I32, sim: F32) -> Edges:
    """Edges without repetition, sorted by (similarity descending, u, v).

    A pair's similarity must be the same wherever it occurs: exact similarities are. Edges of
    several shards are joined by concatenating them first.
    """
    pair = u.astype(np.uint64) << np.uint64(32) | v.astype(np.uint64)
    order = np.argsort(pair)
    pair = pair[order]
    new = np.ones(len(pair), dtype=bool)
    new[1:] = pair[1:] != pair[:-1]
    pair, sim = pair[new], sim[order[new]]
    ranked = _falling(sim) << np.uint64(32) | np.arange(len(sim), dtype=np.uint64)
    ranked.sort()
    best = (ranked & np.uint64(0xFFFFFFFF)).astype(np.int64)
    pair = pair[best]
    low = (pair & np.uint64(0xFFFFFFFF)).astype(np.int32)
    return (pair >> np.uint64(32)).astype(np.int32), low, sim[best]


def _falling(sim: F32) -> U64:
    """Keys of 32 bits that ascend as the similarity falls; 0.0 and -0.0 are the same."""
    bits = (sim + np.float32(0)).view(np.uint32)
    flipped = np.where(bits >> np.uint32(31), bits, ~bits & np.uint32(0x7FFFFFFF))
    return flipped.astype(np.uint64)
