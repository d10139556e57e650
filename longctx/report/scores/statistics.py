"""What the pages say of a score: quantiles, bins, deciles and rank correlations. Pure.

A null score is NaN and is left out of everything; nothing here is estimated beyond the rows given.
Correlations are Spearman's: Pearson's of average ranks, for each pair over the rows that have both.
Ranks are taken once for all columns that share their nulls. O(columns · n log n) where they share
them, at most O(columns² · n log n).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.report.data import Histogram

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

QUANTILES = (5, 25, 50, 75, 95)
DECILES = tuple(range(0, 101, 10))
_BINS = 24
_DOUBLINGS = 40
_SKEWED = 16.0
# Rows whose rank is this near a decile stand for it.
_NEAR = 0.005


class Spread(NamedTuple):
    """Quantiles at 5, 25, 50, 75 and 95 %, ascending."""

    p5: float
    p25: float
    p50: float
    p75: float
    p95: float


class Step(NamedTuple):
    """A document that stands for a share of the way from the worst score to the best."""

    share: float
    row: int


class Correlations(NamedTuple):
    """Spearman's rho and the rows it is of, for every pair of columns: float64, int64 [c, c].

    rho is NaN where fewer than three rows have both scores or where one of them does not vary.
    """

    rho: F64
    n: I64


def spread(values: F64) -> Spread | None:
    """Quantiles of the values that are no nulls; None if there are none."""
    known = values[~np.isnan(values)]
    return Spread(*np.percentile(known, QUANTILES).tolist()) if len(known) else None


def constant(values: F64) -> bool:
    """Whether all values that are no nulls are the same; also true of none at all."""
    known = values[~np.isnan(values)]
    return not len(known) or bool(known.min() == known.max())


def histogram(values: F64) -> tuple[Histogram, str]:
    """Bins that show a score's shape, and how they run: "whole", "doubling", "even" or "cut".

    Few whole numbers get a bin each; sizes with a long tail doubling bins; others about 24 bins of
    one width, and where a few values lie far away ("cut") one more bin at the end
    that holds them. Raises ValueError for values that do not vary.
    """
    known = values[np.isfinite(values)]
    if constant(known):
        raise ValueError("values that do not vary have no shape")
    low, high = float(known.min()), float(known.max())
    if high - low < _BINS and bool((known == np.round(known)).all()):
        return _counted(known, np.arange(low, high + 2)), "whole"
    middle, far = (float(q) for q in np.percentile(known, (50, 99)))
    if low >= 0 and far > max(_SKEWED * middle, _SKEWED) and middle > 0:
        return _counted(known, _doubling(known, high)), "doubling"
    inner = [float(q) for q in np.percentile(known, (0.5, 99.5))]
    if inner[0] == inner[1]:
        inner = [low, high]
    edges = _even(*inner)
    cut = high - low > 2 * (edges[-1] - edges[0])
    if not cut:
        edges = _even(low, high)
    ends = ([low] if low < edges[0] else [], [high] if high > edges[-1] else [])
    return _counted(known, np.array([*ends[0], *edges, *ends[1]])), "cut" if cut else "even"


def _counted(values: F64, edges: npt.NDArray[np.float64]) -> Histogram:
    # An edge may miss the value that it was made for by a rounding.
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return Histogram([float(e) for e in edges], [int(n) for n in counts], "")


def _doubling(values: F64, high: float) -> F64:
    """Powers of two up to the largest value, below them one bin from 0."""
    last = math.floor(math.log2(high)) + 1
    first = max(math.floor(math.log2(float(values[values > 0].min()))), last - _DOUBLINGS)
    powers = [2.0**i for i in range(first, last + 1)]
    return np.array([0.0, *powers] if (values < powers[0]).any() else powers)


def _even(low: float, high: float) -> F64:
    """Edges at round numbers, about 24 bins, from at most `low` to at least `high`."""
    rough = (high - low) / _BINS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step), math.floor(high / step) + 1
    return np.array([i * step for i in range(first, last + 1)])


def ladder(
    values: F64, ties: I64, groups: I64, used: set[int], *, ascending: bool, most: int
) -> list[Step]:
    """Two documents at either end of a score and one at each decile between, worst first.

    `ascending` puts low values first; equal scores go by `ties`, the rank of each row's id.
    `groups` says where the text of each row lies: of the rows that stand for a decile one in a
    group of `used` is taken, if there is any, and once `used` has `most` groups no other row is.
    Adds to `used`.
    """
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.lexsort((ties[known], values[known] if ascending else -values[known]))]
    last = len(order) - 1
    wanted = [0, 1, *(round(share * last / 100) for share in DECILES[1:-1]), last - 1, last]
    taken: dict[int, Step] = {}
    for rank in wanted:
        reach = 0 if rank in (0, last) else max(1, round(_NEAR * last))
        place = _nearest(rank, reach, groups[order], used, most, taken)
        if place is not None:
            taken[place] = Step(place / last if last else 0.0, int(order[place]))
            used.add(int(groups[order[place]]))
    return [taken[place] for place in sorted(taken)]


def _nearest(
    rank: int, reach: int, groups: I64, used: set[int], most: int, taken: dict[int, Step]
) -> int | None:
    """The place nearest to a rank whose text costs least to read; None if there is none."""
    full = len(used) >= most
    free = None
    for distance in range(len(groups) if full else reach + 1):
        for place in dict.fromkeys((rank - distance, rank + distance)):
            if not 0 <= place < len(groups) or place in taken:
                continue
            if int(groups[place]) in used:
                return place
            free = place if free is None else free
    return None if full else free


def ranks(values: F64) -> F64:
    """Average ranks 1..n of values without nulls."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse], np.float64)


def spearman(columns: Sequence[F64]) -> Correlations:
    """Spearman's rho of all pairs of columns, nulls left out pair by pair."""
    masks: dict[bytes, list[int]] = {}
    for index, column in enumerate(columns):
        masks.setdefault(np.isnan(column).tobytes(), []).append(index)
    kinds = list(masks.values())
    rho = np.full((len(columns), len(columns)), np.nan)
    n = np.zeros((len(columns), len(columns)), np.int64)
    for number, first in enumerate(kinds):
        for second in kinds[number:]:
            both = ~np.isnan(columns[first[0]]) & ~np.isnan(columns[second[0]])
            found = _correlated(
                [columns[i][both] for i in first], [columns[i][both] for i in second]
            )
            rho[np.ix_(first, second)], rho[np.ix_(second, first)] = found, found.T
            n[np.ix_(first, second)] = n[np.ix_(second, first)] = int(both.sum())
    return Correlations(rho, n)


def _correlated(first: list[F64], second: list[F64]) -> F64:
    """rho [a, b] of columns without nulls."""
    if len(first[0]) < 3:
        return np.full((len(first), len(second)), np.nan)
    a, b = _standard(first), _standard(second)
    return np.clip(a @ b.T, -1, 1)


def _standard(columns: list[F64]) -> F64:
    """Ranks of each column, centred, of length one; NaN where they do not vary."""
    found = np.stack([ranks(column) for column in columns])
    found -= found.mean(axis=1, keepdims=True)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.where(length > 0, length, np.nan), np.float64)


def nearest(
    values: F64, ties: I64, at: float, inclusive: bool, n: int
) -> tuple[list[int], list[int]]:
    """Rows next to a threshold, nearest first: n above it and n below.

    A value that equals the threshold is above it if that is `inclusive`, else below.
    """
    order = np.lexsort((ties, values))
    order = order[~np.isnan(values[order])]
    cut = int((values[order] < at if inclusive else values[order] <= at).sum())
    return order[cut : cut + n].tolist(), order[max(0, cut - n) : cut][::-1].tolist()
