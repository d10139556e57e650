"""Laws of one variable: two sources, training steps, model sizes.

From Data Mixing Laws (Ye and others, arXiv 2403.16952). Two sources: L = c + exp(k r + b) of the
share r of the old one, which says how much of it continued training needs (`critical_share`).
Steps and sizes: L = E + B (x / mean x)^-alpha with one alpha for all columns. The exponents are
bounded, because free ones collapse towards 0 and promise losses that are too low; what such laws
extrapolate ranks mixtures, it does not forecast their losses.

Cost: milliseconds.
"""

from dataclasses import dataclass

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture.evaluate import F64

DELTA = 0.02
POWER_DELTA = 0.05
_C_GRID = 1000
_ALPHA_GRID = 41
_POLISHED = 4
_LEAST_E = 1e-3
_LEAST_B = 1e-6


def huber(error: F64, delta: float) -> F64:
    """e²/2 within delta, beyond it delta (|e| - delta/2); element by element."""
    size = np.abs(error)
    return np.where(size <= delta, 0.5 * error**2, delta * (size - delta / 2))


@dataclass(frozen=True)
class TwoDomain:
    """L = c + exp(k r + b) of the share r of the old source.

    `degenerate` when the best c is the first that was tried: the runs do not bend.
    """

    c: float
    k: float
    b: float
    huber: float
    degenerate: bool

    def predict(self, r: F64) -> F64:
        """Losses of shares, same shape."""
        found: F64 = self.c + np.exp(self.k * np.asarray(r, dtype=np.float64) + self.b)
        return found


def fit_two_domain(r: F64, y: F64, delta: float = DELTA) -> TwoDomain:
    """Fit shares float64 [n] and losses float64 [n] of one target, as published.

    c maximises |corr(r, log(y - c))| over 1,000 values below min y, then k and b by the mean Huber
    loss. Raises RecipeError for fewer than three runs, equal shares, or losses not above 0.
    """
    from scipy.optimize import minimize

    r, y = np.asarray(r, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(r) < 3 or np.ptp(r) == 0 or not (np.isfinite(y) & (y > 0)).all() or np.ptp(y) == 0:
        raise RecipeError(
            "a law of two sources needs three runs with different shares and losses above 0",
            remedy="make more runs with other shares",
        )
    grid = np.linspace(0, y.min(), _C_GRID)[:-1]
    logs = np.log(y[None, :] - grid[:, None])
    centred = logs - logs.mean(axis=1, keepdims=True)
    away = r - r.mean()
    correlation = np.abs(centred @ away) / np.linalg.norm(centred, axis=1)
    best = int(correlation.argmax())
    c = float(grid[best])

    def value(z: F64) -> tuple[float, F64]:
        grown = np.exp((z[0] * r + z[1]).clip(-60, 30))
        error = c + grown - y
        slope = error.clip(-delta, delta) * grown / len(y)
        return float(huber(error, delta).mean()), np.array([slope @ r, slope.sum()])

    start = np.polyfit(r, logs[best], 1)
    options = {"ftol": 1e-15, "gtol": 1e-12, "maxiter": 5000}
    found = minimize(value, start, jac=True, method="L-BFGS-B", options=options)
    k, b = map(float, found.x)
    return TwoDomain(c, k, b, float(found.fun), best == 0)


def critical_share(L0: float, c: float, k: float, b: float) -> float:
    """Share of old data at which continued training keeps the old loss `L0`.

    Raises RecipeError where the law reaches that loss at no share.
    """
    if not (c < L0 and k != 0):
        raise RecipeError(
            f"a law with c {c:.6g} and k {k:.6g} never reaches the loss {L0:.6g}",
            remedy="the loss must lie above c, and k must not be 0",
        )
    return float((np.log(L0 - c) - b) / k)


@dataclass(frozen=True)
class Power:
    """Y[:, g] = E_g + B_g (x / scale)^-alpha; E and B float64 [g]."""

    alpha: float
    E: F64
    B: F64
    scale: float
    huber: float

    def predict(self, x: F64) -> F64:
        """Losses float64 [n, g] of x float64 [n]."""
        ratio = np.asarray(x, dtype=np.float64)[:, None] / self.scale
        found: F64 = self.E + self.B * ratio**-self.alpha
        return found


def fit_power(x: F64, Y: F64, lo: float, hi: float, delta: float = POWER_DELTA) -> Power:
    """Fit steps or sizes float64 [n] and losses float64 [n, g] with alpha in [lo, hi].

    41 values of alpha with least squares for E and B, the best 4 polished by the mean Huber loss.
    Raises RecipeError for fewer than three different x, or any that is not above 0.
    """
    x, Y = np.asarray(x, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    if len(np.unique(x)) < 3 or not (x > 0).all() or not np.isfinite(Y).all():
        raise RecipeError(
            "a power law needs losses at three different steps or sizes above 0",
            remedy="keep more checkpoints, or train more sizes",
        )
    scale = float(np.exp(np.log(x).mean()))
    starts = [_start(x / scale, Y, alpha, delta) for alpha in np.linspace(lo, hi, _ALPHA_GRID)]
    starts.sort(key=lambda one: one[0])
    polished = [_polish(x / scale, Y, z, lo, hi, delta) for _, z in starts[:_POLISHED]]
    value, z = min(polished, key=lambda one: one[0])
    g = Y.shape[1]
    return Power(float(z[-1]), np.exp(z[:g]), np.exp(z[g : 2 * g]), scale, value)


def _start(ratio: F64, Y: F64, alpha: float, delta: float) -> tuple[float, F64]:
    design = np.column_stack([np.ones(len(ratio)), ratio**-alpha])
    E, B = np.linalg.lstsq(design, Y, rcond=None)[0]
    E, B = np.maximum(E, _LEAST_E), np.maximum(B, _LEAST_B)
    error = design @ np.stack([E, B]) - Y
    return float(huber(error, delta).mean()), np.concatenate([np.log(E), np.log(B), [alpha]])


def _polish(ratio: F64, Y: F64, z: F64, lo: float, hi: float, delta: float) -> tuple[float, F64]:
    from scipy.optimize import minimize

    g = Y.shape[1]
    logs = np.log(ratio)

    def value(z: F64) -> tuple[float, F64]:
        E, B = np.exp(z[:g]), np.exp(z[g : 2 * g])
        fallen = ratio[:, None] ** -z[-1]
        error = E + B * fallen - Y
        slope = error.clip(-delta, delta) / Y.size
        by_b = (slope * fallen).sum(axis=0) * B
        by_alpha = float(-(slope * B * fallen * logs[:, None]).sum())
        gradient = np.concatenate([slope.sum(axis=0) * E, by_b, [by_alpha]])
        return float(huber(error, delta).mean()), gradient

    free = [(None, None)] * (2 * g)
    found = minimize(
        value,
        z,
        jac=True,
        method="L-BFGS-B",
        bounds=[*free, (lo, hi)],
        options={"ftol": 1e-16, "gtol": 1e-12, "maxiter": 5000, "maxfun": 50_000},
    )
    return float(found.fun), np.asarray(found.x, dtype=np.float64)
