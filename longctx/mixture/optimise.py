"""The mixture with the lowest predicted loss that the corpus can feed.

    minimise  sum_i s_i (c_i + exp(t_i . r)) + lambda KL(r || prior),  sum r = 1,  lo <= r <= hi

Laws (`laws.py`) make this convex, so one local solution is the best one; the KL term and the
number of epochs as a bound follow Olmix (arXiv 2602.12237). Ours: shares stay within what the runs
have seen unless asked otherwise, because a law extrapolates without shame: on the public runs of
RegMix the free optimum takes a quarter from a source that no run gave more than 2.6 %.

SciPy's SLSQP solves it (milliseconds); where its optimality conditions are not met,
`exponentiated_gradient`, slower and without any library, does. Trees have no gradient: search
them (`regmix.search`) within the same bounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture.evaluate import F64
from longctx.mixture.laws import Law

LAMBDA = 0.05
MAX_EPOCHS = 4
KKT = 1e-5
AT_BOUND = 1e-7
_FLOOR = 1e-12
_STEP = 2.0
_LONGEST = 100.0
_ROUNDS = 200_000


@dataclass(frozen=True)
class Problem:
    """What is minimised: c [k], t [k, m], weights s [k], prior [m], lo and hi [m], lambda."""

    c: F64
    t: F64
    weights: F64
    prior: F64
    lo: F64
    hi: F64
    lam: float

    def loss(self, r: F64) -> float:
        """Predicted loss without the KL term."""
        return float(self.weights @ (self.c + np.exp(self.t @ r)))

    def objective(self, r: F64) -> float:
        """Loss + lambda KL."""
        return self.loss(r) + (self.lam * kl(r, self.prior) if self.lam else 0.0)

    def gradient(self, r: F64) -> F64:
        """Gradient of the objective, float64 [m]."""
        found: F64 = (self.weights * np.exp(self.t @ r)) @ self.t
        if self.lam:
            prior = np.maximum(self.prior, _FLOOR)
            found = found + self.lam * (np.log(np.maximum(r, _FLOOR) / prior) + 1)
        return found


@dataclass(frozen=True)
class Solution:
    """The optimum: shares [m], loss, objective (loss + lambda KL), KL to the prior.

    `kkt` is how far the conditions of an optimum are missed, `at_lo` and `at_hi` the numbers of
    the sources at a bound, `method` which solver it came from.
    """

    shares: F64
    loss: float
    objective: float
    kl: float
    kkt: float
    at_lo: tuple[int, ...]
    at_hi: tuple[int, ...]
    method: str


def kl(r: F64, prior: F64) -> float:
    """Σ r log(r / prior) in nats; 0 log 0 is 0, infinite where the prior is 0 and r is not."""
    r, prior = np.asarray(r, dtype=np.float64), np.asarray(prior, dtype=np.float64)
    used = r > 0
    if (prior[used] <= 0).any():
        return float("inf")
    return float(np.sum(r[used] * np.log(r[used] / prior[used])))


def solve(
    laws: Sequence[Law],
    weights: F64 | None = None,
    prior: F64 | None = None,
    lam: float = LAMBDA,
    lo: F64 | None = None,
    hi: F64 | None = None,
    *,
    names: Sequence[str] | None = None,
    force: bool = False,
) -> Solution:
    """The best shares under laws of the targets.

    `weights` float64 [targets] (default: alike), `prior` float64 [m] (default: uniform), bounds
    float64 [m] (default: 0 and 1), `names` the sources for messages. Raises RecipeError for a
    refused law (unless `force`) and for bounds that no mixture keeps.
    """
    if not force and (bad := [i for i, law in enumerate(laws) if law.status.refused]):
        raise RecipeError(
            f"{len(bad)} of {len(laws)} laws were refused: " + laws[bad[0]].status.words()[0],
            remedy="make more runs, or solve it all the same with force",
        )
    k, m = len(laws), len(laws[0].t)
    problem = Problem(
        c=np.array([law.c for law in laws]),
        t=np.stack([law.t for law in laws]),
        weights=np.full(k, 1 / k) if weights is None else np.asarray(weights, dtype=np.float64),
        prior=np.full(m, 1 / m) if prior is None else np.asarray(prior, dtype=np.float64),
        lo=np.zeros(m) if lo is None else np.asarray(lo, dtype=np.float64),
        hi=np.ones(m) if hi is None else np.asarray(hi, dtype=np.float64),
        lam=lam,
    )
    return solve_problem(problem, names)


def solve_problem(problem: Problem, names: Sequence[str] | None = None) -> Solution:
    """`solve` for coefficients as arrays."""
    problem = _without_forbidden(problem)
    check_bounds(problem.lo, problem.hi, names)
    shares, method = _slsqp(problem), "SLSQP"
    residual = kkt_residual(problem, shares)
    if residual > KKT * max(1.0, problem.lam):
        other = exponentiated_gradient(problem)
        rest = kkt_residual(problem, other)
        if problem.objective(other) <= problem.objective(shares) or rest < residual:
            shares, residual, method = other, rest, "exponentiated gradient"
    free = problem.hi - problem.lo > AT_BOUND
    return Solution(
        shares=shares,
        loss=problem.loss(shares),
        objective=problem.objective(shares),
        kl=kl(shares, problem.prior),
        kkt=residual,
        at_lo=tuple(np.flatnonzero(free & (shares - problem.lo <= AT_BOUND)).tolist()),
        at_hi=tuple(np.flatnonzero(problem.hi - shares <= AT_BOUND).tolist()),
        method=method,
    )


def _without_forbidden(problem: Problem) -> Problem:
    """A source without prior would cost infinitely much KL: its share is 0."""
    if not problem.lam or (problem.prior > 0).all():
        return problem
    hi = np.where(problem.prior > 0, problem.hi, 0.0)
    return Problem(**(vars(problem) | {"hi": hi, "lo": np.minimum(problem.lo, hi)}))


def check_bounds(lo: F64, hi: F64, names: Sequence[str] | None = None) -> None:
    """Raise RecipeError, naming the tightest bounds, when no mixture lies within them."""
    if not (np.isfinite(lo).all() and np.isfinite(hi).all() and (lo >= 0).all()):
        raise ValueError("bounds must be finite and not below 0")
    called = [str(i) for i in range(len(lo))] if names is None else list(names)
    if len(bad := np.flatnonzero(lo > hi)):
        i = int(bad[0])
        raise RecipeError(
            f"source '{called[i]}' needs at least {lo[i]:.4g} and may have at most {hi[i]:.4g}",
            remedy="raise max_epochs, lower the token budget, or use --bounds simplex",
        )
    for side, total, wrong in (("most", hi.sum(), hi.sum() < 1), ("least", lo.sum(), lo.sum() > 1)):
        # Sums of shares from tables are off by rounding.
        if wrong and abs(total - 1) > 1e-9:
            order = np.argsort(hi if side == "most" else -lo, kind="stable")[:3]
            shown = ", ".join(
                f"'{called[i]}' {(hi if side == 'most' else lo)[i]:.4g}" for i in order
            )
            raise RecipeError(
                f"the bounds leave no mixture: the {side} that all sources may have together is "
                f"{total:.4g}, expected {'at least' if side == 'most' else 'at most'} 1 (first: "
                f"{shown})",
                remedy="raise max_epochs, lower the token budget, or use --bounds simplex",
            )


def _slsqp(problem: Problem) -> F64:
    from scipy.optimize import minimize

    lo, hi = problem.lo, problem.hi
    room = float((hi - lo).sum())
    start = lo + (hi - lo) * min(1.0, (1 - lo.sum()) / room) if room > 0 else lo.copy()
    ones = np.ones(len(lo))
    # A large lambda would leave the solver's tolerances no meaning.
    scale = max(1.0, problem.lam)
    found = minimize(
        lambda r: problem.objective(r) / scale,
        start,
        jac=lambda r: problem.gradient(r) / scale,
        method="SLSQP",
        bounds=list(zip(lo, hi, strict=True)),
        constraints=[{"type": "eq", "fun": lambda r: r.sum() - 1, "jac": lambda _: ones}],
        options={"ftol": 1e-15, "maxiter": 5000},
    )
    shares = found.x if np.isfinite(found.x).all() else start
    return _project_sum(np.clip(shares, lo, hi), lo, hi)


def _project_sum(r: F64, lo: F64, hi: F64) -> F64:
    """Take away what rounding left of the sum, from sources that have room."""
    rest = 1 - r.sum()
    room = hi - r if rest > 0 else r - lo
    return r if room.sum() <= 0 else np.clip(r + rest * room / room.sum(), lo, hi)


def kkt_residual(problem: Problem, r: F64) -> float:
    """How far `r` misses the conditions of an optimum: 0 at one, in the unit of the loss.

    Free sources must have the same gradient, those at a lower bound a larger and those at an upper
    bound a smaller one. Sources whose bounds coincide say nothing.
    """
    gradient = problem.gradient(r)
    loose = problem.hi - problem.lo > AT_BOUND
    low = loose & (r - problem.lo <= AT_BOUND)
    high = loose & ~low & (problem.hi - r <= AT_BOUND)
    free = loose & ~low & ~high
    if not free.any():
        if not (low.any() and high.any()):
            return 0.0
        return max(0.0, float(gradient[high].max() - gradient[low].min()))
    level = gradient[free].mean()
    missed = np.concatenate(
        [np.abs(gradient[free] - level), level - gradient[low], gradient[high] - level]
    )
    return max(0.0, float(missed.max()))


def exponentiated_gradient(problem: Problem) -> F64:
    """The optimum by multiplicative steps, float64 [m]; no library, so also a check of the other.

    r <- r exp(-step (G - G . r)), back to the bounds by the nearest mixture in KL; the step begins
    at 2 (less where gradients are huge) and halves whenever the objective would rise.
    """
    lo, hi = problem.lo, problem.hi
    r = kl_projection(np.full(len(lo), 1 / len(lo)), lo, hi)
    # A first step that underflows would forget all sources but one.
    step = min(_STEP, _LONGEST / max(float(np.ptp(problem.gradient(r))), _FLOOR))
    value = problem.objective(r)
    for _ in range(_ROUNDS):
        gradient = problem.gradient(r)
        powers = -step * (gradient - gradient @ r)
        tried = kl_projection(r * np.exp(powers - powers.max()), lo, hi)
        found = problem.objective(tried)
        if found > value:
            step /= 2
            if step < _FLOOR:
                break
            continue
        moved = float(np.abs(tried - r).max())
        r, value = tried, found
        if moved < _FLOOR:
            break
    return r


def kl_projection(p: F64, lo: F64, hi: F64) -> F64:
    """The mixture within the bounds that is nearest to p in KL: clip(f p, lo, hi) that sums to 1.

    p float64 [m] above 0 where hi is; f is found exactly among the places where a bound begins to
    hold.
    """
    p = np.maximum(np.asarray(p, dtype=np.float64), 1e-300)
    turns = np.unique(np.concatenate([lo / p, hi / p]))
    sums = np.clip(turns[:, None] * p, lo, hi).sum(axis=1)
    at = int(np.searchsorted(sums, 1.0))
    if at >= len(turns):
        return hi.copy()
    if at == 0:
        return np.clip(turns[0] * p, lo, hi)
    middle = (turns[at - 1] + turns[at]) / 2 * p
    free = (middle > lo) & (middle < hi)
    fixed = np.where(middle >= hi, hi, lo)
    factor = (1 - fixed[~free].sum()) / p[free].sum() if free.any() else turns[at]
    return np.where(free, np.clip(factor * p, lo, hi), fixed)


@dataclass(frozen=True)
class Bounds:
    """Smallest and largest share of each source, and where the largest comes from."""

    lo: F64
    hi: F64
    why: tuple[str, ...]


def share_bounds(
    X: F64,
    kind: str = "observed",
    *,
    caps: F64 | None = None,
) -> Bounds:
    """Bounds of the shares from the runs X float64 [n, m] and from what the corpus can feed.

    `kind` "observed" keeps to the shares of the runs, "simplex" to 0..1; `caps` float64 [m] as
    `caps_from` makes them. `why` names for each source what sets its upper bound.
    """
    m = X.shape[1]
    lo = X.min(axis=0) if kind == "observed" else np.zeros(m)
    seen = X.max(axis=0) if kind == "observed" else np.ones(m)
    cap = np.ones(m) if caps is None else np.minimum(1.0, caps)
    hi = np.minimum(seen, cap)
    # A source that is too small for what every run gave it gets what there is of it.
    lo = np.minimum(lo, hi)
    why = tuple("tokens" if c < s else kind for c, s in zip(cap, seen, strict=True))
    return Bounds(lo, hi, why)


def caps_from(tokens: F64, budget: float, max_epochs: float = MAX_EPOCHS) -> F64:
    """Largest share that no more than `max_epochs` passes over the tokens of a source can fill."""
    return np.asarray(max_epochs * np.asarray(tokens, dtype=np.float64) / budget)
