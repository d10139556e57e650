"""A fitted model of planted losses, what it recommends, and the file that this is written to."""

from functools import lru_cache
from typing import Any

import numpy as np

from longctx.mixture.optimise import caps_from, share_bounds
from longctx.mixture.predictor import Model, fit_model
from longctx.mixture.recommend import recommend
from longctx.mixture.tables import Runs

SLOPES = np.array([[-2, 0.3, -0.5], [0.4, -1.8, -0.2]])
TOKENS = np.array([8e9, 1e9, 3e9])


@lru_cache
def fitted(kind: str = "law", mark: str = "", runs: int = 30) -> Model:
    """A model of 3 sources and 2 targets; `mark` stands before every name."""
    rng = np.random.default_rng(0)
    X = 0.02 + 0.94 * rng.dirichlet(np.ones(3), runs)
    Y = 2 + np.exp(X @ SLOPES.T) + rng.normal(0, 0.003, (runs, 2))
    sources, targets = (
        tuple(mark + name for name in names)
        for names in (("web", "books", "code"), ("web", "books"))
    )
    made = Runs(tuple(f"{mark}m{i}" for i in range(runs)), sources, targets, X, Y)
    return fit_model(made, kind, repeats=4, tests=[(f"{mark}other", made)])


@lru_cache
def weights_file(kind: str = "law", mark: str = "") -> dict[str, Any]:
    """What `longctx mix optimise` writes for it, with a budget."""
    model = fitted(kind, mark)
    prior = TOKENS / TOKENS.sum()
    found = recommend(
        model,
        prior,
        share_bounds(model.runs.X, "observed", caps=caps_from(TOKENS, 8e9, 4)),
        prior_name=f"{mark}natural",
        lam=0.0,
        tokens=TOKENS,
        budget=8e9,
        draws=2_000,
        best=20,
        resamples=12,
    )
    return found.weights_file("2026-01-01")
