"""What no order of the same documents can pass: at the seams, and inside each window.

Ours. `seams`: every segment has at most two seams, so S seams cannot have more similarity than the
2S largest half-edges among each segment's two best similarities, divided by 2S. `inside`: the
Held-Karp bound of the best order within each window of a sample, that is, what another arrangement
of the same windows could gain; its floor is the mean over all pairs of a window, which a random
arrangement gives.

Cost: `seams` n^2 d for the n <= 30,000 segments that it looks at, `inside` 120 steps of k^2 for a
window of k segments.
"""

from dataclasses import dataclass

import numpy as np

from longctx.cluster.similarity import nearest
from longctx.compare.sample import Sample, known_segments
from longctx.order.bounds import hk_bound
from longctx.order.metrics import adjacency, coherence
from longctx.pack.frame import I64
from longctx.pack.similarity import F32, Similarity

BOUND_SEGMENTS = 30_000
INSIDE_WINDOWS, INSIDE_LEAST, INSIDE_MOST = 100, 4, 200
_SPARE = 6


@dataclass(frozen=True)
class Bounded:
    """Mean similarity in some windows, its upper bound, and how far it is from chance to there."""

    windows: int
    found: float | None = None
    bound: float | None = None
    reached: float | None = None


def seams(sample: Sample, whole: Similarity, random: float | None) -> Bounded:
    """Similarity at the seams of as many windows as the bound is computed for."""
    ends = np.searchsorted(sample.window, np.arange(sample.windows), side="right")
    windows = int(np.searchsorted(ends, BOUND_SEGMENTS, side="right"))
    number = int(whole.adjacent[:windows].sum())
    if number == 0:
        return Bounded(windows)
    rows = known_segments(sample)
    rows = rows[sample.window[rows] < windows]
    half = np.sort(_best_two(sample, rows).ravel().astype(np.float64))[::-1]
    found = float(whole.adjacent_cos[:windows].sum()) / number
    bound = float(half[: 2 * number].sum()) / (2 * number)
    return Bounded(windows, found, bound, _reached(found, random, bound))


def _best_two(sample: Sample, rows: I64) -> F32:
    """The two best similarities of each segment to others that are not the same document."""
    X = np.ascontiguousarray(sample.vectors[sample.document[rows]])
    identity = sample.identity[rows]
    lists, sims = nearest(X, X, 2 + _SPARE, np.arange(len(rows)))
    other = (lists >= 0) & (identity[lists] != identity[:, None])
    best = -np.sort(-np.where(other, sims, -np.inf), axis=1)[:, :2]
    # A document in many pieces may fill its own list: look at all others of these rows.
    for row in np.flatnonzero(((lists >= 0).all(axis=1)) & (other.sum(axis=1) < 2)).tolist():
        cos = (X @ X[row])[identity != identity[row]]
        found = np.sort(cos)[::-1][:2]
        best[row] = -np.inf
        best[row, : len(found)] = found
    return best


def inside(sample: Sample) -> Bounded:
    """The order inside windows against the best one: the floor is any order of the same windows."""
    sums = np.zeros(3)
    weight = windows = 0
    known = np.isin(np.arange(len(sample.window)), known_segments(sample))
    for rows in np.split(np.arange(len(sample.window)), np.flatnonzero(np.diff(sample.window)) + 1):
        k = len(rows)
        distinct = len(np.unique(sample.document[rows])) == k
        if not (INSIDE_LEAST <= k <= INSIDE_MOST and distinct and known[rows].all()):
            continue
        X = np.ascontiguousarray(sample.vectors[sample.document[rows]])
        path = np.arange(k, dtype=np.int64)
        figures = (adjacency(X, path), hk_bound(X, path), coherence(X, path, k))
        sums += (k - 1) * np.array(figures, dtype=np.float64)
        weight += k - 1
        windows += 1
        if windows == INSIDE_WINDOWS:
            break
    if not windows:
        return Bounded(0)
    found, bound, floor = (sums / weight).tolist()
    return Bounded(windows, found, bound, _reached(found, floor, bound))


def _reached(found: float, floor: float | None, bound: float) -> float | None:
    return None if floor is None or bound <= floor else (found - floor) / (bound - floor)
