"""The cut: what a column of scores says about which rows to keep, per group and without the texts.

Pure functions on arrays; a null score is NaN, is left out of every statistic and is dropped or kept
by policy. Means and variances come from exact sums (`exact.py`), so they are the same for any order
of the rows and any division; moments in float64 can be merged (Chan, Golub and LeVeque 1983). Ties
are broken by `doc_id`, ascending, after the score, descending, so a cut does not depend on the
order of rows. O(n log n).
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.filter.exact import exact_sums

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Op = Literal["ge", "gt", "le", "lt"]

_COMPARE: dict[str, Callable[[F64, float], Mask]] = {
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
}
QUANTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)


class Moments(NamedTuple):
    """Count, mean and sum of squared deviations from it."""

    n: int
    mean: float
    m2: float

    @property
    def sd(self) -> float:
        """Sample standard deviation (n - 1); 0 for fewer than two values."""
        return float(np.sqrt(self.m2 / (self.n - 1))) if self.n > 1 else 0.0


def moments(x: npt.ArrayLike) -> Moments:
    """Moments of the finite values, in the same bits for any order; (0, 0, 0) if there is none."""
    sums = exact_sums(x)
    return Moments(sums.n, sums.mean, sums.m2)


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of two disjoint sets together."""
    n = a.n + b.n
    if not n:
        return Moments(0, 0.0, 0.0)
    delta = b.mean - a.mean
    return Moments(n, a.mean + delta * b.n / n, a.m2 + b.m2 + delta**2 * a.n * b.n / n)


def zscore(x: npt.ArrayLike, of: Moments | None = None) -> F64:
    """(x - mean) / sample sd, float64; 0 where that sd is 0. `of`: moments of the whole group."""
    values = np.asarray(x, np.float64)
    known = moments(values) if of is None else of
    scale = known.sd or np.inf
    return np.asarray((values - known.mean) / scale, np.float64)


def minmax(x: npt.ArrayLike, of: tuple[float, float] | None = None) -> F64:
    """x scaled to [0, 1]; 0.5 for a constant. Two extreme rows set it: for parity only.

    `of`: the smallest and the largest value of the whole group.
    """
    values = np.asarray(x, np.float64)
    low, high = extent(values) if of is None else of
    if high <= low:
        return np.where(np.isnan(values), np.nan, 0.5)
    return np.asarray((values - low) / (high - low), np.float64)


def extent(x: npt.ArrayLike) -> tuple[float, float]:
    """The smallest and the largest value that is not null; (inf, -inf) without any."""
    values = np.asarray(x, np.float64)
    return float(np.nanmin(values, initial=np.inf)), float(np.nanmax(values, initial=-np.inf))


def percent_rank(x: npt.ArrayLike) -> F64:
    """(average rank - 1) / (n - 1) in [0, 1], float64; 0.5 for a single value."""
    from scipy.stats import rankdata

    values = np.asarray(x, np.float64)
    n = int((~np.isnan(values)).sum())
    if n == 1:
        return np.where(np.isnan(values), np.nan, 0.5)
    ranks = rankdata(values, method="average", nan_policy="omit")
    return np.asarray((ranks - 1) / max(n - 1, 1), np.float64)


def within(
    normalise: Callable[[F64], F64], x: npt.ArrayLike, groups: Sequence[str] | npt.NDArray[np.str_]
) -> F64:
    """`normalise` applied to the values of each group on its own, in the order of the rows."""
    values = np.asarray(x, np.float64)
    out = np.full(len(values), np.nan)
    for rows in _rows_by_group(groups):
        out[rows] = normalise(values[rows])
    return out


def select(
    scores: npt.ArrayLike,
    doc_ids: Sequence[str],
    groups: Sequence[str],
    *,
    threshold: tuple[Op, float] | None = None,
    top_fraction: float | None = None,
    top_tokens: int | None = None,
    top_percent_for_budget: int | None = None,
    band: tuple[float, float] | None = None,
    tokens: npt.ArrayLike | None = None,
    null_policy: Literal["drop", "keep"] = "drop",
) -> Mask:
    """Rows to keep, bool of shape (n,), by exactly one mode, inside each group.

    - `threshold` (op, value): score op value.
    - `top_fraction` f in [0, 1]: the first ceil(f·n - 1e-9) rows; the guard keeps 0.07·100 at 7.
    - `top_tokens` T: the longest prefix of the order whose tokens sum to at most T, per group.
    - `top_percent_for_budget` T (LADM, arXiv 2503.02502): the first floor(n·p/100) rows of every
      group for the smallest whole p in 1 … 100 that gives more than T tokens in all, else p = 100;
      it keeps the shares of the groups.
    - `band` (lo, hi): percent rank in [lo, hi].

    n counts rows with a score. `tokens` (int, per row) is needed by the two budgets. Raises
    ValueError for another number of modes, missing tokens, or an unknown operator.
    """
    values = np.asarray(scores, np.float64)
    modes = (threshold, top_fraction, top_tokens, top_percent_for_budget, band)
    if sum(mode is not None for mode in modes) != 1:
        raise ValueError("select needs exactly one mode")
    if (top_tokens is not None or top_percent_for_budget is not None) and tokens is None:
        raise ValueError("a token budget needs `tokens`")
    counts = np.zeros(len(values), np.int64) if tokens is None else np.asarray(tokens, np.int64)
    null = np.isnan(values)
    orders = [_ordered(values, doc_ids, rows[~null[rows]]) for rows in _rows_by_group(groups)]
    keep = null & (null_policy == "keep")
    if threshold is not None:
        keep |= _passes(values, *threshold)
    elif band is not None:
        ranks = within(percent_rank, values, groups)
        keep |= (ranks >= band[0]) & (ranks <= band[1])
    else:
        if top_fraction is not None:
            lengths = [int(np.ceil(top_fraction * len(order) - 1e-9)) for order in orders]
        elif top_tokens is not None:
            lengths = [int((np.cumsum(counts[order]) <= top_tokens).sum()) for order in orders]
        else:
            lengths = _lengths_for_budget(orders, counts, top_percent_for_budget or 0)
        for order, length in zip(orders, lengths, strict=True):
            keep[order[:length]] = True
    return keep


def summary(scores: npt.ArrayLike) -> dict[str, float | int | None]:
    """n, nulls, mean, sd, min, max and quantiles (q0 … q100, per cent) of a group's scores."""
    values = np.asarray(scores, np.float64)
    known = values[~np.isnan(values)]
    m = moments(known)
    quantiles = np.percentile(known, QUANTILES).tolist() if m.n else [None] * len(QUANTILES)
    named = dict(zip((f"q{q}" for q in QUANTILES), quantiles, strict=True))
    some = bool(m.n)
    return {
        "n": m.n,
        "nulls": len(values) - m.n,
        "mean": m.mean if some else None,
        "sd": m.sd if some else None,
        "min": named["q0"],
        "max": named["q100"],
        **named,
    }


def closest(
    scores: npt.ArrayLike, doc_ids: Sequence[str], at: float, n: int = 20
) -> tuple[list[int], list[int]]:
    """Rows nearest to a threshold, nearest first: `n` at or above it, and `n` below."""
    values = np.asarray(scores, np.float64)
    order = _ordered(values, doc_ids, np.flatnonzero(~np.isnan(values)))
    above = [row for row in order.tolist() if values[row] >= at]
    below = [row for row in order.tolist() if values[row] < at]
    return above[::-1][:n], below[:n]


def _passes(values: F64, op: str, bound: float) -> Mask:
    if op not in _COMPARE:
        raise ValueError(f"unknown operator {op!r}; expected one of {', '.join(_COMPARE)}")
    return _COMPARE[op](values, bound)


def _rows_by_group(groups: Sequence[str] | npt.NDArray[np.str_]) -> list[npt.NDArray[np.int64]]:
    names, codes = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    order = np.argsort(codes, kind="stable").astype(np.int64)
    return np.split(order, np.cumsum(np.bincount(codes, minlength=len(names)))[:-1])


def _ordered(
    values: F64, doc_ids: Sequence[str], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The rows by score descending, then by id ascending."""
    ordered = sorted(rows.tolist(), key=lambda row: (-values[row], doc_ids[row]))
    return np.array(ordered, np.int64)


def _lengths_for_budget(
    orders: list[npt.NDArray[np.int64]], counts: npt.NDArray[np.int64], budget: int
) -> list[int]:
    sums = [np.concatenate(([0], np.cumsum(counts[order]))) for order in orders]
    for percent in range(1, 101):
        lengths = [len(order) * percent // 100 for order in orders]
        if sum(int(s[n]) for s, n in zip(sums, lengths, strict=True)) > budget:
            break
    return lengths
