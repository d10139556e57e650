"""Groups of similar documents (or cells), none larger than a limit: k-means, cut and mended.

What we changed against k-means: a cluster above a limit of tokens is cut in two again and again
(without it, 8 clusters of 20,000 real texts held 707 to 3,705), and one of too few documents joins
the nearest that has room. A cut is 2-means; where one side would hold less than an eighth of the
documents (or all vectors are equal) it is made at half the tokens along the line between the two
centroids, ties by priority, so that cutting always ends.

Cost: k-means (`kmeans.py`), then about 20·m·d for each cut of m documents. Memory: the vectors and
one float64 vector a group.
"""

from typing import NamedTuple

import numba
import numpy as np

from longctx.cluster.kmeans import partition, train
from longctx.cluster.similarity import F32, I32, I64, frozen, nearest
from longctx.ids import U64

_CUT_NITER = 10
_SMALLEST_SIDE = 8
_CANDIDATES = 32
_NO_DIRECTION = 1e-6


class Groups(NamedTuple):
    """A partition of the documents 0..n-1 into groups, numbered by their first member.

    `members` int64[n] by (group, number), `starts` int64[groups] where each begins in it,
    `centroids` float32[groups, d], unit norm.
    """

    members: I64
    starts: I64
    centroids: F32

    def each(self) -> list[I64]:
        """The members of every group, ascending."""
        return np.split(self.members, self.starts[1:]) if len(self.starts) else []


def balanced_groups(
    X: F32,
    tokens: I64,
    priority: U64,
    k: int,
    *,
    max_tokens: int | None = None,
    min_docs: int = 2,
    niter: int = 20,
    seed: int = 0,
) -> Groups:
    """About k groups of similar documents, none above `max_tokens` unless it is one document.

    X float32[n, d], unit norm; `tokens` int64[n]; `priority` uint64[n]. A group of fewer than
    `min_docs` documents joins the one with the nearest centroid that has room for it, if there is
    one among the 32 nearest. `max_tokens` None sets no limit.
    """
    pieces: list[I64] = []
    for members in _by_label(partition(X, k, priority, niter, seed)):
        pieces += _within(X, tokens, priority, members, max_tokens, seed)
    groups = _groups(X, pieces)
    small = [i for i, members in enumerate(groups.each()) if len(members) < min_docs]
    if not small or len(groups.starts) == 1:
        return groups
    return _groups(X, _merged(groups, tokens, np.array(small), max_tokens, min_docs))


def _by_label(label: I32) -> list[I64]:
    order = np.argsort(label, kind="stable").astype(np.int64)
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1) if len(order) else []


def _within(
    X: F32, tokens: I64, priority: U64, members: I64, max_tokens: int | None, seed: int
) -> list[I64]:
    """The members in pieces of at most `max_tokens` each, or of one document."""
    fitting: list[I64] = []
    waiting = [members]
    while waiting:
        piece = waiting.pop()
        if max_tokens is None or len(piece) == 1 or tokens[piece].sum() <= max_tokens:
            fitting.append(piece)
        else:
            waiting += _cut(X[piece], tokens[piece], priority[piece], piece, seed)
    return fitting


def _cut(rows: F32, tokens: I64, priority: U64, members: I64, seed: int) -> tuple[I64, I64]:
    """Two parts of at least one document each: 2-means, or half the tokens if one is too small."""
    near, sims = nearest(rows, train(rows, 2, _CUT_NITER, seed), 2)
    left = near[:, 0] == 0
    if _SMALLEST_SIDE * min(left.sum(), (~left).sum()) >= len(rows):
        return members[left], members[~left]
    towards = np.where(left, sims[:, 0] - sims[:, 1], sims[:, 1] - sims[:, 0])
    order = np.lexsort((priority, -towards))
    passed = np.cumsum(tokens[order])
    at = min(max(int((2 * passed <= passed[-1]).sum()), 1), len(rows) - 1)
    return members[np.sort(order[:at])], members[np.sort(order[at:])]


def _merged(
    groups: Groups, tokens: I64, small: I64, max_tokens: int | None, min_docs: int
) -> list[I64]:
    """The groups after each small one, fewest documents first, joined the nearest with room."""
    pieces = groups.each()
    into = np.arange(len(pieces))
    load = np.add.reduceat(tokens[groups.members], groups.starts)
    size = np.diff(groups.starts, append=len(groups.members))
    C = groups.centroids
    candidates, _ = nearest(C[small], C, min(_CANDIDATES, len(C) - 1), small)
    for at in np.argsort(size[small], kind="stable"):
        own = _root(into, small[at])
        if size[own] >= min_docs:
            continue
        for candidate in candidates[at]:
            other = _root(into, candidate)
            if other != own and (max_tokens is None or load[own] + load[other] <= max_tokens):
                into[own] = other
                load[other] += load[own]
                size[other] += size[own]
                break
    joined: dict[int, list[I64]] = {}
    for number, members in enumerate(pieces):
        joined.setdefault(_root(into, number), []).append(members)
    return [np.sort(np.concatenate(parts)) for parts in joined.values()]


def _root(into: I64, group: int) -> int:
    while into[group] != group:
        group = into[group]
    return int(group)


def _groups(X: F32, pieces: list[I64]) -> Groups:
    """Groups from their members (each ascending), with the direction of their sum as centroid."""
    pieces = sorted(pieces, key=lambda members: int(members[0]))
    sizes = np.array([len(members) for members in pieces], dtype=np.int64)
    members = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    sums = np.zeros((len(pieces), X.shape[1]), dtype=np.float64)
    _add(frozen(X), frozen(members), frozen(np.repeat(np.arange(len(sizes)), sizes)), sums)
    norm = np.linalg.norm(sums, axis=1, keepdims=True)
    opposed = norm[:, 0] <= _NO_DIRECTION
    centroids = (sums / np.where(norm > 0, norm, 1)).astype(np.float32)
    centroids[opposed] = X[members[starts[opposed]]]
    return Groups(members, starts, centroids)


@numba.njit(cache=True, nogil=True)
def _add(X, members, group, sums):  # type: ignore[no-untyped-def]
    for i in range(members.shape[0]):
        row, total = X[members[i]], sums[group[i]]
        for j in range(row.shape[0]):
            total[j] += row[j]
