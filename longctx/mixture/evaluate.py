"""How good a prediction of losses is, and what a trivial rule would have given.

On the public runs of RegMix (arXiv 2407.01492) the share of Pile-CC alone ranks the 1B models by
their Pile-CC loss better than the trees do, and a correlation in sample says nothing about new
mixtures. So a score never stands alone: `baselines` are measured on the same rows,
`repeated_holdout` on rows that the fit did not see, and `bootstrap_gap` says whether a gain is
larger than what other runs would have shown. All of it is ours; the measures are the field's.

Splits and resamples follow from a seed and their number alone, so neither the order of calls nor
workers change them. Cost: `repeats` or `n` fits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import numpy.typing as npt

from longctx.ids import rng_for
from longctx.mixture.one_thread import one_thread

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Predict = Callable[[F64], F64]
Fit = Callable[[F64, F64], Predict]

REPEATS = 20
FRACTION = 0.2
RESAMPLES = 50
GAIN = "gain"
UNCLEAR = "not distinguishable"
CONSTANT_PREDICTION = "constant prediction"
CONSTANT_LOSS = "constant loss"
NOT_A_LOSS = "not in units of the loss"


@dataclass(frozen=True)
class Score:
    """Measures of a prediction on `n` rows; None where one has no meaning, `note` says why.

    `spearman` in -1..1; `mae`, `rmse` and `regret` in the unit of the loss: `regret` is the loss
    of the mixture that the prediction prefers, minus the least one.
    """

    n: int
    spearman: float | None
    mae: float | None
    rmse: float | None
    r2: float | None
    regret: float | None
    note: str = ""

    def as_dict(self) -> dict[str, float | int | str | None]:
        """The same as JSON takes it."""
        return asdict(self)


MEASURES = ("spearman", "mae", "rmse", "r2", "regret")


@dataclass(frozen=True)
class HeldOut:
    """Means and standard deviations of every measure over `repeats` splits."""

    repeats: int
    fraction: float
    mean: Mapping[str, float | None]
    sd: Mapping[str, float | None]
    note: str = ""

    def as_dict(self) -> dict[str, object]:
        """The same as JSON takes it."""
        return {name: getattr(self, name) for name in (f.name for f in fields(self))}


@dataclass(frozen=True)
class Gap:
    """How much lower the predicted loss of one mixture is than that of another, over resamples.

    `verdict` is "gain" where the 5 % quantile is above 0 and the mean exceeds the error on held-out
    rows, else "not distinguishable". `gaps` holds that of every resample.
    """

    resamples: int
    mean: float
    low: float
    high: float
    holdout_mae: float
    verdict: str
    gaps: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """The same as JSON takes it, without the single gaps."""
        return {name: value for name, value in asdict(self).items() if name != "gaps"}


def ranks(values: F64) -> F64:
    """Ranks from 1, equal values share the mean of theirs; float64 [n]."""
    values = np.asarray(values, dtype=np.float64)
    _, at, size = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(size)
    return (last - (size - 1) / 2)[at].astype(np.float64)


def spearman(a: F64, b: F64) -> float | None:
    """Rank correlation with average ranks; None where either side is constant."""
    x, y = (r - r.mean() for r in (ranks(a), ranks(b)))
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return None if scale == 0 else float(x @ y) / scale


def score(pred: F64, y: F64) -> Score:
    """Score a prediction, float64 [n], against losses, float64 [n]; ties of argmin: the first.

    Raises ValueError for other shapes, no rows, or values that are not finite.
    """
    pred, y = np.asarray(pred, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if pred.shape != y.shape or y.ndim != 1 or not len(y):
        raise ValueError(f"{pred.shape} predictions and {y.shape} losses are no pairs")
    if not (np.isfinite(pred).all() and np.isfinite(y).all()):
        raise ValueError("predictions and losses must be finite")
    error = pred - y
    spread = float(np.sum((y - y.mean()) ** 2))
    constant = float(np.ptp(y)) == 0
    note = CONSTANT_LOSS if constant else CONSTANT_PREDICTION if np.ptp(pred) == 0 else ""
    return Score(
        n=len(y),
        spearman=spearman(pred, y),
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt((error**2).mean())),
        r2=None if constant else 1 - float(error @ error) / spread,
        regret=float(y[np.argmin(pred)] - y.min()),
        note=note,
    )


def fit_ols(X: F64, y: F64) -> Predict:
    """Least squares with intercept on raw shares; of all solutions the one of least norm."""
    coefficients = ols_coefficients(X, y)
    return lambda shares: coefficients[0] + np.asarray(shares, dtype=np.float64) @ coefficients[1:]


def ols_coefficients(X: F64, y: F64) -> F64:
    """Intercept, then one slope per source, float64 [m + 1]."""
    X = np.asarray(X, dtype=np.float64)
    with one_thread():
        found = np.linalg.lstsq(np.column_stack([np.ones(len(X)), X]), np.asarray(y), rcond=None)
    return np.asarray(found[0], dtype=np.float64)


def baselines(
    X: F64, y: F64, own: int | None = None, *, fit_on: tuple[F64, F64] | None = None
) -> dict[str, Score]:
    """What needs no model, on the rows (X, y); `fit_on` are the rows of the fit (default: these).

    `mean` predicts the mean loss of the fit (MAE only), `own_share` minus the share of source
    number `own` (rank correlation and regret only; left out without `own`), `ols` a plane.
    """
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    X_fit, y_fit = fit_on or (X, y)
    flat = score(np.full(len(y), float(np.mean(y_fit))), y)
    found = {"mean": Score(flat.n, None, flat.mae, None, None, None, CONSTANT_PREDICTION)}
    if own is not None:
        by_share = score(-X[:, own], y)
        found["own_share"] = Score(
            *(by_share.n, by_share.spearman, None, None, None, by_share.regret),
            by_share.note or NOT_A_LOSS,
        )
    found["ols"] = score(fit_ols(X_fit, y_fit)(X), y)
    return found


def mean_of_fit(X: F64, y: F64) -> Predict:
    """The mean loss of the fit for every mixture."""
    level = float(np.mean(y))
    return lambda shares: np.full(len(shares), level)


def splits(rows: int, repeats: int, fraction: float, seed: int) -> list[tuple[I64, I64]]:
    """Row numbers (fit, validation) of each repeat: a permutation whose first rows validate."""
    held = max(1, int(fraction * rows))
    found: list[tuple[I64, I64]] = []
    for i in range(repeats):
        order = rng_for(seed, "mixture.holdout_split", str(i)).permutation(rows)
        found.append((order[held:], order[:held]))
    return found


def repeated_holdout(
    fit: Fit,
    X: F64,
    y: F64,
    repeats: int = REPEATS,
    fraction: float = FRACTION,
    seed: int = 0,
) -> HeldOut:
    """Fit without a part of the rows and score on it, `repeats` times.

    A measure that had no meaning in a split (one row, a constant prediction) is left out of its
    mean; None where it had none in any. Raises ValueError with fewer than two rows.
    """
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(y) < 2:
        raise ValueError("a hold-out needs at least two rows")
    scores = [
        score(fit(X[seen], y[seen])(X[held]), y[held])
        for seen, held in splits(len(y), repeats, fraction, seed)
    ]
    return summary(scores, fraction)


def summary(scores: Sequence[Score], fraction: float = FRACTION) -> HeldOut:
    """Mean and standard deviation of every measure over scores of splits, one each."""
    mean: dict[str, float | None] = {}
    sd: dict[str, float | None] = {}
    for name in MEASURES:
        known = [v for s in scores if (v := getattr(s, name)) is not None]
        mean[name] = float(np.mean(known)) if known else None
        sd[name] = float(np.std(known, ddof=1)) if len(known) > 1 else None
    notes = sorted({s.note for s in scores if s.note})
    return HeldOut(len(scores), fraction, mean, sd, "; ".join(notes))


def bootstrap_gap(
    X: F64,
    Y: F64,
    r_opt: F64,
    r_base: F64,
    n: int = RESAMPLES,
    seed: int = 0,
    *,
    fit: Fit,
    holdout_mae: float,
) -> Gap:
    """How far the gain L(r_base) - L(r_opt) hangs on which runs were made.

    Rows (X [n, m], Y [n] or [n, targets]) are drawn with replacement and `fit` again; what it
    returns predicts the overall loss. `holdout_mae` is the error of that loss on held-out rows.
    """
    X, Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    both = np.stack([np.asarray(r, dtype=np.float64) for r in (r_base, r_opt)])
    gaps = np.empty(n)
    for i in range(n):
        rows = rng_for(seed, "mixture.bootstrap", str(i)).integers(0, len(X), len(X))
        base, best = fit(X[rows], Y[rows])(both)
        gaps[i] = base - best
    mean = float(gaps.mean())
    low, high = (float(q) for q in np.quantile(gaps, (0.05, 0.95)))
    clear = low > 0 and mean > holdout_mae
    verdict = GAIN if clear else UNCLEAR
    return Gap(n, mean, low, high, holdout_mae, verdict, tuple(gaps.tolist()))
