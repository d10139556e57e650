"""Data Mixing Laws: a small formula from the shares of a mixture to a loss.

Ye and others, arXiv 2403.16952, ICLR 2025, law M4: L(r) = c + k exp(t . r). The shares r sum to 1,
so k and a shift of t are the same thing; ours fixes k = 1, which leaves one number per source and
one more. One law per target, combined with known weights: the published fit with implicit domains
was worse on honest splits.

The published fit tries thousands of random starts. Ours scans c, solves t by least squares of
log(y - c), and polishes the best few: deterministic, about a second for 512 runs of 17 sources.
It may end in a local optimum; on public runs 25 random starts found nothing lower.

A law fits 20 to 60 runs, transfers across sizes better than trees and makes the best mixture a
convex problem (`optimise.py`). Lost is what no exponential can follow: the jump of a target's loss
where the share of its own source is 0, interactions of sources, and noise, which a law fits as
readily as a signal. `law_status` refuses what shows no signal.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture.evaluate import F64, HeldOut, Predict, mean_of_fit, repeated_holdout, score
from longctx.mixture.one_thread import one_thread
from longctx.mixture.scaling import critical_share as critical_share
from longctx.mixture.scaling import fit_power as fit_power
from longctx.mixture.scaling import fit_two_domain as fit_two_domain
from longctx.mixture.scaling import huber

DELTA = 0.02
GRID = 64
TOP = 6
TOLERANCE = 0.01
_LEAST_T = -1000.0
_TOP_T = 100.0  # at a pure mixture a law predicts at most c + 100 times the largest loss
_LEAST_C = 1e-6
_EXPONENTS = (-60.0, 30.0)
_NO_SIGNAL = 0.9
_NO_SLOPE = 1e-6
_ARRAYS = ("t", "lo", "hi", "zeros")

REFUSALS = {
    "few_runs": "fewer runs than unknowns",
    "flat": "the fitted losses hardly differ, so any mixture is as good as another",
    "no_signal": "on held-out runs it is hardly better than the mean loss",
}
WARNINGS = {
    "few_runs": "fewer than 3 runs per unknown",
    "boundary": "some runs have none of the target's own source, and the loss jumps there",
}


@dataclass(frozen=True)
class Status:
    """What speaks against a law: codes of `REFUSALS` and of `WARNINGS`."""

    refused: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against it."""
        return not (self.refused or self.warned)

    def words(self) -> list[str]:
        """Every code with what it means."""
        said = [f"refused ({code}): {REFUSALS[code]}" for code in self.refused]
        return said + [f"warning ({code}): {WARNINGS[code]}" for code in self.warned]


@dataclass(frozen=True)
class Law:
    """L(r) = c + exp(t . r), with what it was fitted to.

    `t` float64 [m]; `huber`, `mae` and `r2` are in sample, `lo`, `hi` and `zeros` the smallest and
    largest share of each source in the runs and the part of its shares that are 0.
    """

    c: float
    t: F64
    n: int
    delta: float
    huber: float
    mae: float
    r2: float | None
    lo: F64
    hi: F64
    zeros: F64
    status: Status = Status()

    def with_status(self, status: Status) -> "Law":
        """The same law, judged."""
        return replace(self, status=status)

    def as_dict(self) -> dict[str, object]:
        """The same as JSON takes it."""
        found = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}
        return found | {"status": {k: list(v) for k, v in asdict(self.status).items()}}


def law_from(stored: dict[str, object]) -> Law:
    """The law that `Law.as_dict` stored. Raises KeyError or TypeError for anything else."""
    values = dict(stored)
    arrays = {name: np.asarray(values.pop(name), dtype=np.float64) for name in _ARRAYS}
    status = values.pop("status")
    if not isinstance(status, dict):
        raise TypeError("status")
    judged = Status(*(tuple(map(str, status[name])) for name in ("refused", "warned")))
    return Law(**arrays, **values, status=judged)  # type: ignore[arg-type]


def renormalised(X: F64) -> F64:
    """Rows with sum 1. Raises RecipeError where one is off by more than .01 or not finite."""
    X = np.atleast_2d(np.asarray(X, dtype=np.float64))
    sums = X.sum(axis=1)
    if len(bad := np.flatnonzero(~(np.abs(sums - 1) <= TOLERANCE) | (X < 0).any(axis=1))):
        raise RecipeError(
            f"the shares of row {bad[0] + 1} sum to {sums[bad[0]]:.6g}, expected 1 and none "
            "below 0",
            remedy="give shares of all sources, which sum to 1 within .01",
        )
    return X / sums[:, None]


def fit_law(X: F64, y: F64, delta: float = DELTA, n_grid: int = GRID, top: int = TOP) -> Law:
    """Fit c and t to shares float64 [n, m] and losses float64 [n] by the mean Huber loss.

    `delta` is in the unit of the loss (.05 where losses spread over several nats). Raises
    RecipeError for shares that do not sum to 1 and losses that are not above 0.
    """
    X, y = renormalised(X), _losses(y)
    if len(X) != len(y):
        raise ValueError(f"{len(X)} mixtures and {len(y)} losses")
    top_t = float(np.log(_TOP_T * y.max()))
    with one_thread():
        starts = _starts(X, y, delta, n_grid, top_t)[:top]
        polished = [_polish(X, y, delta, start, top_t) for start in starts]
    _, c, t = min(polished, key=lambda one: one[0])
    fitted = c + np.exp(X @ t)
    found = score(fitted, y)
    return Law(
        c=c,
        t=t,
        n=len(y),
        delta=delta,
        huber=float(huber(fitted - y, delta).mean()),
        mae=float(np.abs(fitted - y).mean()),
        r2=found.r2,
        lo=X.min(axis=0),
        hi=X.max(axis=0),
        zeros=(X == 0).mean(axis=0),
    )


def _losses(y: F64) -> F64:
    y = np.asarray(y, dtype=np.float64)
    if len(bad := np.flatnonzero(~(np.isfinite(y) & (y > 0)))):
        raise RecipeError(
            f"the loss of row {bad[0] + 1} is {y[bad[0]]}, expected a number above 0",
            remedy="leave runs without a loss out",
        )
    return y


def _starts(X: F64, y: F64, delta: float, n_grid: int, top_t: float) -> list[F64]:
    """(c, t) for every c of the scan, the best first."""
    gaps = 0.9999 * y.min() * np.geomspace(1e-4, 1, n_grid)
    c = y.min() - gaps
    logs = np.log(y[:, None] - c)
    t = np.linalg.lstsq(X, logs, rcond=None)[0].clip(_LEAST_T, top_t)
    error = c + np.exp((X @ t).clip(*_EXPONENTS)) - y[:, None]
    order = np.argsort(huber(error, delta).mean(axis=0), kind="stable")
    return [np.concatenate([[c[i]], t[:, i]]) for i in order]


def _polish(X: F64, y: F64, delta: float, start: F64, top_t: float) -> tuple[float, float, F64]:
    """L-BFGS-B from a start on (log c, t): mean Huber, c, t."""
    from scipy.optimize import minimize

    n, m = X.shape

    def value(z: F64) -> tuple[float, F64]:
        c = np.exp(z[0])
        powers = X @ z[1:]
        grown = np.exp(powers.clip(*_EXPONENTS))
        error = c + grown - y
        slope = error.clip(-delta, delta) / n
        # Where the exponent is clipped the prediction does not move.
        moved = slope * grown * ((powers > _EXPONENTS[0]) & (powers < _EXPONENTS[1]))
        gradient = np.concatenate([[c * slope.sum()], moved @ X])
        return float(huber(error, delta).mean()), gradient

    log_c = (float(np.log(_LEAST_C)), float(np.log(y.max())))
    z = np.concatenate([[np.log(max(start[0], _LEAST_C))], start[1:]])
    found = minimize(
        value,
        z,
        jac=True,
        method="L-BFGS-B",
        bounds=[log_c, *[(_LEAST_T, top_t)] * m],
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000, "maxfun": 50_000},
    )
    return float(found.fun), float(np.exp(found.x[0])), np.asarray(found.x[1:], dtype=np.float64)


def predict(law: Law, X: F64) -> F64:
    """Losses float64 [n] of shares float64 [n, m] (rows renormalised, as in the fit)."""
    return law.c + np.exp(renormalised(X) @ law.t)


def fitter(delta: float = DELTA, n_grid: int = GRID, top: int = TOP) -> "_Fitter":
    """`fit_law` in the form that hold-outs and resamples take."""
    return _Fitter(delta, n_grid, top)


@dataclass(frozen=True)
class _Fitter:
    delta: float
    n_grid: int
    top: int

    def __call__(self, X: F64, y: F64) -> Predict:
        law = fit_law(X, y, self.delta, self.n_grid, self.top)
        return lambda shares: predict(law, shares)


def law_status(
    law: Law,
    X: F64,
    y: F64,
    *,
    prior: F64 | None = None,
    own: int | None = None,
    holdout: HeldOut | None = None,
    seed: int = 0,
    n_grid: int = GRID,
    top: int = TOP,
) -> Status:
    """Judge a law on its runs: X float64 [n, m], y float64 [n]. Ours, not in the paper.

    `prior` is where the slope is looked at (default: the mean mixture of the runs), `own` the
    number of the source that is also the target, `holdout` what `repeated_holdout` found (else it
    is made here with `n_grid` and `top`: 20 fits).
    """
    X, y = renormalised(X), np.asarray(y, dtype=np.float64)
    n, m = X.shape
    refused, warned = [], []
    if n < m + 2:
        refused.append("few_runs")
    elif n < 3 * (m + 1):
        warned.append("few_runs")
    if own is not None and (X[:, own] == 0).any():
        warned.append("boundary")
    if _is_flat(law, X, X.mean(axis=0) if prior is None else np.asarray(prior)):
        refused.append("flat")
    if n >= 3 and _has_no_signal(law, X, y, holdout, seed, n_grid, top):
        refused.append("no_signal")
    return Status(tuple(refused), tuple(warned))


def _is_flat(law: Law, X: F64, prior: F64) -> bool:
    fitted = law.c + np.exp(X @ law.t)
    gradient = law.t * np.exp(prior @ law.t)
    # A shift of t changes nothing, so only what differs between sources counts.
    slope = float(np.linalg.norm(gradient - gradient.mean()))
    return float(np.ptp(fitted)) < law.mae or slope < _NO_SLOPE


def _has_no_signal(
    law: Law, X: F64, y: F64, holdout: HeldOut | None, seed: int, n_grid: int, top: int
) -> bool:
    if holdout is None:
        holdout = repeated_holdout(fitter(law.delta, n_grid, top), X, y, seed=seed)
    trivial = repeated_holdout(
        mean_of_fit, X, y, repeats=holdout.repeats, fraction=holdout.fraction, seed=seed
    )
    ours, mean = holdout.mean["mae"], trivial.mean["mae"]
    return ours is None or mean is None or ours >= _NO_SIGNAL * mean


def overall(laws: Sequence[Law], weights: F64, X: F64) -> F64:
    """Weighted sum of the laws' losses, float64 [n]; `weights` float64 [targets]."""
    return np.asarray(weights) @ np.stack([predict(law, X) for law in laws])
