"""RegMix: mixtures for proxy runs, trees from shares to loss, and a search of what they predict.

Liu and others, arXiv 2407.01492. Hundreds of small models are trained on random mixtures, a
regression learns their losses, and the answer is the mean of the mixtures with the lowest
predicted one (the mean because a tree's prediction is a plateau).

Ours: rounding keeps the sum at 1 (`quantise`; the published one does not), the strength is drawn
instead of one of fifteen vectors, no early stopping on the rows that are scored afterwards, and
by default the search draws from the sampler of the runs instead of Dirichlet(prior), which never
comes near a balanced mixture.

Cost: 0.3 s for a target with 512 runs of 17 sources, a minute for 1,000,000 draws with 600 trees.
Lost: trees know nothing beyond the shares they saw, and need about 40 runs to split at all.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from longctx.errors import RecipeError
from longctx.mixture.evaluate import F64, I64, Predict

GRID = 5000
MAX_USAGE = 15.0
TAU = 2.0
STRENGTHS = np.geomspace(0.1, 5, 15)
ROUNDS = 1000
LEARNING_RATE = 0.01
PATIENCE = 3
LEAST_ROWS = 40
SEED = 42
DRAWS = 1_000_000
BEST = 100
CHUNK = 100_000
_TRIES = 100  # draws per mixture that is wanted
_LEAST_GAMMA = 1e-300


def quantise(x: F64, grid: int = GRID) -> I64:
    """Shares in whole units of 1/grid, int64 of the same shape; each row sums to `grid`.

    Shares below one unit become 0, the rest is scaled to 1 again; units that rounding down leaves
    go to the largest remainders (the earlier source on a tie). A share is units / grid.
    """
    rows = np.atleast_2d(np.asarray(x, dtype=np.float64))
    kept = np.where(rows < 1 / grid, 0.0, rows)
    exact = kept / kept.sum(axis=1, keepdims=True) * grid
    units = np.floor(exact).astype(np.int64)
    # Equal remainders must not be told apart by the last bit of a division.
    remainder = np.where(kept > 0, np.round(exact - units, 9), -1.0)
    place = np.argsort(np.argsort(-remainder, axis=1, kind="stable"), axis=1, kind="stable")
    units += place < (grid - units.sum(axis=1))[:, None]
    return units.reshape(np.shape(x))


@dataclass(frozen=True)
class Sampler:
    """How mixtures are drawn: tempered Dirichlet of a drawn strength, under bounds.

    `prior` float64 [m] sums to 1. A share is at most `max_usage` times its prior and, where the
    corpus sets limits, `caps` float64 [m]; at least `min_share`.
    """

    prior: F64
    max_usage: float = MAX_USAGE
    tau: float = TAU
    min_share: float = 0.0
    caps: F64 | None = None
    least: F64 | None = None

    @property
    def upper(self) -> F64:
        """Largest share of each source."""
        bound = np.minimum(1.0, self.max_usage * self.prior)
        return bound if self.caps is None else np.minimum(bound, self.caps)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[F64, npt.NDArray[np.bool_]]:
        """`n` mixtures float64 [n, m], and which of them each bound allows, bool [n, m]."""
        tempered = self.prior ** (1 / self.tau)
        strength = STRENGTHS[rng.integers(0, len(STRENGTHS), n)]
        alpha = strength[:, None] * (tempered / tempered.sum())
        x = _dirichlet(alpha, rng)
        x = self.min_share + (1 - len(self.prior) * self.min_share) * x
        allowed = x <= self.upper
        if self.least is not None:
            allowed &= x >= self.least
        return x, allowed


def _dirichlet(alpha: F64, rng: np.random.Generator) -> F64:
    drawn = np.maximum(rng.standard_gamma(alpha), _LEAST_GAMMA)
    found: F64 = drawn / drawn.sum(axis=1, keepdims=True)
    return found


def _generator(name: str) -> np.random.Generator:
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "big")))


def checked_prior(prior: F64) -> F64:
    """The prior scaled to sum 1. Raises RecipeError unless it is above 0 everywhere."""
    prior = np.asarray(prior, dtype=np.float64)
    if prior.ndim != 1 or not len(prior) or not (np.isfinite(prior).all() and (prior > 0).all()):
        raise RecipeError(
            "a prior needs a share above 0 for every source",
            remedy="leave out sources that are never to be used",
        )
    return prior / prior.sum()


def sample_mixtures(
    prior: F64,
    n: int,
    seed: int,
    *,
    max_usage: float = MAX_USAGE,
    tau: float = TAU,
    min_share: float = 0.0,
    caps: F64 | None = None,
    grid: int = GRID,
    names: Sequence[str] | None = None,
) -> F64:
    """`n` distinct mixtures float64 [n, m] on the grid, sorted; the same for the same seed.

    `prior` float64 [m]; `tau` flattens it (the exponent is 1/tau), `caps` are upper bounds from the
    corpus, `names` the sources for messages. Raises RecipeError when `min_share` leaves no room,
    or the bounds leave fewer than `n` mixtures in 100 n draws (it names the bound that rejected
    most).
    """
    prior = checked_prior(prior)
    if not 0 <= min_share * len(prior) < 1:
        raise RecipeError(
            f"min_share {min_share:g} of {len(prior)} sources leaves nothing to draw",
            remedy=f"lower it below {1 / len(prior):.4g}; 0.5 / sources is a good start",
        )
    sampler = Sampler(prior, max_usage, tau, min_share, caps)
    rng = _generator(f"{seed}|mixture.design")
    x, allowed = sampler.draw(_TRIES * n, rng)
    kept = x[allowed.all(axis=1)]
    distinct = np.unique(quantise(kept, grid), axis=0) if len(kept) else np.empty((0, len(prior)))
    if len(distinct) < n:
        _too_few(sampler, n, len(distinct), ~allowed, names)
    chosen = rng.choice(len(distinct), n, replace=False)
    return np.asarray(distinct[np.sort(chosen)] / grid, dtype=np.float64)


def _too_few(
    sampler: Sampler,
    n: int,
    found: int,
    refused: npt.NDArray[np.bool_],
    names: Sequence[str] | None,
) -> None:
    worst = int(refused.sum(axis=0).argmax())
    name = f"'{names[worst]}'" if names else f"number {worst}"
    raise RecipeError(
        f"{_TRIES * n:,} draws gave {found:,} distinct mixtures within the bounds, {n:,} were "
        f"asked for; the bound {sampler.upper[worst]:.4g} of source {name} rejected "
        f"{refused[:, worst].mean():.1%} of the draws",
        remedy="raise max_usage or max_epochs, lower the token budget, ask for fewer mixtures, or "
        "use a finer grid",
    )


@dataclass(frozen=True)
class Tree:
    """A fitted LightGBM model as its own text, and how many rounds it kept."""

    text: str
    rounds: int

    @cached_property
    def _booster(self) -> Any:
        lightgbm = _lightgbm()
        try:
            return lightgbm.Booster(model_str=self.text)
        except lightgbm.basic.LightGBMError as error:
            raise RecipeError(
                f"the text of a tree is damaged ({error})",
                remedy="fit the model again with `longctx mix fit`",
            ) from None

    def predict(self, X: F64) -> F64:
        """Losses float64 [n] of shares float64 [n, m], on one thread."""
        rows = np.ascontiguousarray(X, dtype=np.float64)
        return np.asarray(self._booster.predict(rows, num_threads=1), dtype=np.float64)

    def __call__(self, X: F64) -> F64:
        return self.predict(X)


def fit_tree(X: F64, y: F64, eval_set: tuple[F64, F64] | None = None, rounds: int = ROUNDS) -> Tree:
    """LightGBM with the published settings on raw shares float64 [n, m], losses float64 [n].

    With `eval_set` rounds stop when the absolute or the squared error on it has not fallen for 3;
    rows that are scored afterwards must not be among them. Raises RecipeError for fewer than 40
    rows, or without LightGBM.
    """
    if len(X) < LEAST_ROWS:
        raise RecipeError(
            f"{len(X)} runs are too few for trees, expected at least {LEAST_ROWS}",
            remedy="fit a law (--model law), which needs two runs more than sources",
        )
    lightgbm = _lightgbm()
    settings = {
        "objective": "regression",
        # The published notebook watches both and stops at the first that has not fallen.
        "metric": ["l1", "l2"],
        "learning_rate": LEARNING_RATE,
        "seed": SEED,
        "num_threads": 1,
        # Else a stopwatch chooses how histograms are summed.
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    rows = lightgbm.Dataset(np.ascontiguousarray(X), label=np.asarray(y), free_raw_data=False)
    held = None if eval_set is None else rows.create_valid(*map(np.ascontiguousarray, eval_set))
    booster = lightgbm.train(
        settings,
        rows,
        num_boost_round=rounds,
        valid_sets=None if held is None else [held],
        callbacks=None if held is None else [lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    kept = booster.best_iteration if held is not None else booster.current_iteration()
    return Tree(booster.model_to_string(num_iteration=kept), int(kept))


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise RecipeError(
            "trees need LightGBM, which is not installed",
            remedy="pip install 'longctx[mix]', or fit a law (--model law)",
        ) from None
    return lightgbm


def fit_tree_predictor(X: F64, y: F64) -> Predict:
    """`fit_tree` in the form that hold-outs and resamples take."""
    return fit_tree(X, y).predict


Dist = Callable[[int, np.random.Generator], F64]


def design_draws(sampler: Sampler) -> Dist:
    """Draws of the sampler that keep its bounds; fewer than asked for where they refuse some."""

    def draw(n: int, rng: np.random.Generator) -> F64:
        x, allowed = sampler.draw(n, rng)
        return x[allowed.all(axis=1)]

    return draw


def prior_draws(prior: F64) -> Dist:
    """Draws of Dirichlet(prior), as published."""
    alpha = checked_prior(prior)
    return lambda n, rng: _dirichlet(np.broadcast_to(alpha, (n, len(alpha))), rng)


@dataclass(frozen=True)
class Found:
    """The mean of the best mixtures, their number, and how many were looked at."""

    shares: F64
    best: int
    predicted: int


def search(
    models: Sequence[Predict],
    target_weights: F64 | None = None,
    n: int = DRAWS,
    k: int = BEST,
    dist: Dist | None = None,
    seed: int = 0,
    *,
    prior: F64 | None = None,
) -> Found:
    """Mean of the `k` mixtures with the lowest predicted loss among `n` draws.

    `models` predict one target each, `target_weights` float64 weigh them (default: alike), `dist`
    draws (default: `design_draws` of the prior). Draws come in chunks of 100,000, which is part of
    the definition; of equal predictions the earlier draw wins. Raises RecipeError when the bounds
    leave fewer than `k`.
    """
    if dist is None:
        if prior is None:
            raise ValueError("search needs dist or prior")
        dist = design_draws(Sampler(checked_prior(prior)))
    rng = _generator(f"{seed}|mixture.search")
    chunks = (dist(min(CHUNK, n - at), rng) for at in range(0, n, CHUNK))
    return best_of(models, chunks, k, target_weights)


def best_of(
    models: Sequence[Predict], chunks: Any, k: int, target_weights: F64 | None = None
) -> Found:
    """`search` over mixtures that are given in chunks, float64 [any, m] each."""
    weights = np.full(len(models), 1 / len(models)) if target_weights is None else target_weights
    weights = np.asarray(weights, dtype=np.float64)
    best: F64 | None = None
    losses = np.empty(0)
    seen = 0
    for x in chunks:
        seen += len(x)
        if not len(x):
            continue
        loss = weights @ np.stack([model(x) for model in models])
        losses = np.concatenate([losses, loss])
        best = x if best is None else np.concatenate([best, x])
        order = np.argsort(losses, kind="stable")[:k]
        losses, best = losses[order], best[order]
    if best is None or len(best) < k:
        raise RecipeError(
            f"the bounds left {0 if best is None else len(best):,} mixtures, expected {k:,}",
            remedy="draw more mixtures, or widen the bounds",
        )
    return Found(best.mean(axis=0), k, seen)
