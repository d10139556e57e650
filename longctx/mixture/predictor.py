"""A fitted model of the losses of mixtures: one part per target, judged, and stored as JSON.

The kinds are laws (`laws.py`), trees (`regmix.py`) and planes (least squares). Which one (ours):
below 40 runs trees are refused, below 100 a law is taken, else both are fitted and the one with
the smaller error on held-out runs is. A stored model is JSON, trees as LightGBM's own text: reading
it runs no code. It carries its runs, so that its uncertainty can be measured later.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture.assess import (
    OVERALL,
    Assessment,
    held_out,
    mean_predictions,
    on_rows,
    own_source,
    refit,
)
from longctx.mixture.evaluate import F64, REPEATS, Fit, HeldOut, fit_ols, ols_coefficients, score
from longctx.mixture.laws import (
    REFUSALS,
    Law,
    Status,
    fit_law,
    fitter,
    law_from,
    law_status,
    predict,
)
from longctx.mixture.regmix import LEAST_ROWS, Tree, fit_tree, fit_tree_predictor
from longctx.mixture.tables import Runs

SCHEMA_VERSION = 2
KIND = "mixture-model"
KINDS = ("law", "lightgbm", "linear")
LAW_BELOW = 100
_WIDE_SPREAD = 1.0
_DELTAS = (0.02, 0.05)
# Held-out fits scan less: on the public runs they end in the same optimum, five times sooner.
_QUICK = (16, 2)


@dataclass(frozen=True)
class Plane:
    """Intercept and one slope per source, float64 [m + 1]."""

    coefficients: F64

    def predict(self, X: F64) -> F64:
        """Losses float64 [n] of shares float64 [n, m]."""
        found: F64 = self.coefficients[0] + X @ self.coefficients[1:]
        return found


Part = Law | Tree | Plane


@dataclass(frozen=True)
class Model:
    """One part per target, weights of the targets, the runs, and what was found out about it.

    `assessed` has an entry for every target and for `OVERALL`; `status` likewise for targets.
    `held` float64 [n, targets] is what was predicted for runs that were held out, NaN for those
    that never were.
    """

    kind: str
    parts: tuple[Part, ...]
    weights: F64
    runs: Runs
    seed: int
    held: F64
    assessed: Mapping[str, Assessment]
    status: Mapping[str, Status]
    stored: Mapping[str, Any] | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources in the order of shares."""
        return self.runs.sources

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets in the order of the parts."""
        return self.runs.targets

    def predict(self, X: F64) -> F64:
        """Losses float64 [n, targets] of shares float64 [n, m]."""
        return np.stack([predict_part(part, X) for part in self.parts], axis=1)

    def overall(self, X: F64) -> F64:
        """Weighted sum of the losses, float64 [n]."""
        found: F64 = self.predict(np.atleast_2d(X)) @ self.weights
        return found

    @property
    def refused(self) -> list[str]:
        """Why no optimum of it should be used, one sentence per target that is refused."""
        return [
            f"{target}: {' and '.join(REFUSALS[code] for code in status.refused)}"
            for target, status in self.status.items()
            if status.refused
        ]

    def assessment(self) -> dict[str, Any]:
        """What was found out about it, as JSON takes it."""
        if self.stored is not None:
            return dict(self.stored)
        return {name: one.as_dict() for name, one in self.assessed.items()}

    def as_dict(self) -> dict[str, Any]:
        """The model as JSON takes it; `model_from` reads it back."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "model": self.kind,
            "unit": "tokens",
            "by": "source",
            "sources": list(self.sources),
            "targets": list(self.targets),
            "target_weights": self.weights.tolist(),
            "seed": self.seed,
            "parts": [_stored_part(part) for part in self.parts],
            "status": {
                name: {"refused": list(s.refused), "warned": list(s.warned)}
                for name, s in self.status.items()
            },
            "assessment": self.assessment(),
            "runs": {
                "ids": list(self.runs.ids),
                "missing": list(self.runs.missing),
                "notes": list(self.runs.notes),
                "shares": self.runs.X.tolist(),
                "losses": self.runs.Y.tolist(),
                "held_out": [[None if v != v else v for v in row] for row in self.held.tolist()],
            },
        }


def predict_part(part: Part, X: F64) -> F64:
    """Losses float64 [n] of one target."""
    return predict(part, X) if isinstance(part, Law) else part.predict(X)


def delta_for(y: F64) -> float:
    """Where the Huber loss of a law turns linear: .02, or .05 where losses spread over 1 nat."""
    return _DELTAS[int(np.ptp(y) > _WIDE_SPREAD)]


def fitters(kind: str, Y: F64, delta: float | None = None) -> list[Fit]:
    """How each target is fitted again, on fewer rows, in hold-outs and resamples."""
    by_kind: dict[str, Callable[[F64], Fit]] = {
        "law": lambda y: fitter(delta or delta_for(y), *_QUICK),
        "lightgbm": lambda _: fit_tree_predictor,
        "linear": lambda _: fit_ols,
    }
    return [by_kind[kind](Y[:, j]) for j in range(Y.shape[1])]


def fit_model(
    runs: Runs,
    kind: str,
    *,
    weights: F64 | None = None,
    delta: float | None = None,
    repeats: int = REPEATS,
    seed: int = 0,
    tests: Sequence[tuple[str, Runs]] = (),
) -> Model:
    """Fit one part per target of `runs` and judge them.

    `weights` float64 [targets] (default: alike, scaled to sum 1), `delta` for laws (default:
    `delta_for`), `tests` other tables to score on, named. Raises RecipeError where a kind needs
    more runs.
    """
    k = len(runs.targets)
    s = np.full(k, 1 / k) if weights is None else np.asarray(weights) / np.sum(weights)
    if kind == "lightgbm" and int(0.8 * len(runs.X)) < LEAST_ROWS <= len(runs.X):
        raise RecipeError(
            f"{len(runs.X)} runs are too few for trees: with a fifth held out they need 50",
            remedy="fit a law (--model law)",
        )
    parts = tuple(_fit_part(kind, runs.X, runs.Y[:, j], delta) for j in range(k))
    found = refit(fitters(kind, runs.Y, delta), runs.X, runs.Y, repeats=repeats, seed=seed)
    held = mean_predictions(found, len(runs.X))
    model = Model(kind, parts, s, runs, seed, held, {}, {})
    pred = model.predict(runs.X)
    assessed, status = {}, {}
    for j, target in enumerate([*runs.targets, OVERALL]):
        own = own_source(target, runs.sources)
        w = s if target == OVERALL else np.eye(k)[j]
        holdout, rules = held_out(found, runs.X, runs.Y, w, own)
        others = {}
        for name, test in tests:
            rows = model.predict(test.X) @ w, test.X, test.Y @ w
            others[name] = on_rows(*rows, own, (runs.X, runs.Y @ w))
        assessed[target] = Assessment(score(pred @ w, runs.Y @ w), holdout, rules, others)
        if target != OVERALL:
            status[target] = _judge(parts[j], runs, j, holdout, rules["mean"], own, seed)
    judged = tuple(
        part.with_status(status[t]) if isinstance(part, Law) else part
        for t, part in zip(runs.targets, parts, strict=True)
    )
    return replace(model, parts=judged, assessed=assessed, status=status)


def _fit_part(kind: str, X: F64, y: F64, delta: float | None) -> Part:
    if kind == "law":
        return fit_law(X, y, delta or delta_for(y))
    return fit_tree(X, y) if kind == "lightgbm" else Plane(ols_coefficients(X, y))


def _judge(
    part: Part, runs: Runs, j: int, holdout: HeldOut, mean: HeldOut, own: int | None, seed: int
) -> Status:
    if isinstance(part, Law):
        return law_status(part, runs.X, runs.Y[:, j], own=own, holdout=holdout, seed=seed)
    ours, trivial = holdout.mean["mae"], mean.mean["mae"]
    bad = ours is None or trivial is None or ours >= 0.9 * trivial
    few = isinstance(part, Plane) and len(runs.X) < runs.X.shape[1] + 2
    refused = [code for code, holds in (("few_runs", few), ("no_signal", bad)) if holds]
    return Status(tuple(refused))


def choose_kind(runs: Runs) -> tuple[str, ...]:
    """Kinds worth fitting for this many runs; of several the better on held-out runs is taken."""
    return ("law",) if len(runs.X) < LAW_BELOW else ("law", "lightgbm")


def better(models: Sequence[Model]) -> Model:
    """The model with the smallest error of the weighted sum on held-out runs."""

    def error(model: Model) -> float:
        mae = model.assessed[OVERALL].holdout.mean["mae"]
        return float("inf") if mae is None else mae

    return min(models, key=error)


def overall_fitter(model: Model) -> Callable[[F64, F64], Callable[[F64], F64]]:
    """Fit all targets again on resampled runs: X, Y [n, targets] to the weighted sum."""
    fits = [
        fitter(part.delta, *_QUICK) if isinstance(part, Law) else again
        for part, again in zip(model.parts, fitters(model.kind, model.runs.Y), strict=True)
    ]

    def fit(X: F64, Y: F64) -> Callable[[F64], F64]:
        each = [one(X, Y[:, j]) for j, one in enumerate(fits)]
        return lambda shares: np.stack([p(shares) for p in each], axis=1) @ model.weights

    return fit


def model_from(stored: Any, name: str) -> Model:
    """The model that `Model.as_dict` stored; `name` is the file, for messages.

    Raises RecipeError for anything else.
    """
    if not isinstance(stored, dict) or stored.get("kind") != KIND:
        raise RecipeError(
            f'it is no stored model of mixtures (no "kind": "{KIND}")',
            where=name,
            remedy="give a file that `longctx mix fit --out` wrote",
        )
    if (version := stored.get("schema_version")) != SCHEMA_VERSION:
        raise RecipeError(
            f"its schema_version is {version!r}, this version reads {SCHEMA_VERSION}",
            where=name,
            remedy="fit it again with `longctx mix fit`",
        )
    try:
        return _model(stored)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecipeError(
            f"it is damaged or was changed by hand ({type(error).__name__}: {error})",
            where=name,
            remedy="fit it again with `longctx mix fit`",
        ) from None


def _model(stored: dict[str, Any]) -> Model:
    kept = stored["runs"]
    runs = Runs(
        ids=tuple(kept["ids"]),
        sources=tuple(stored["sources"]),
        targets=tuple(stored["targets"]),
        X=np.array(kept["shares"], dtype=np.float64),
        Y=np.array(kept["losses"], dtype=np.float64),
        missing=tuple(kept["missing"]),
        notes=tuple(kept["notes"]),
    )
    parts = tuple(_part(stored["model"], one) for one in stored["parts"])
    weights = np.array(stored["target_weights"], dtype=np.float64)
    k, n = len(runs.targets), len(runs.ids)
    held = np.array(kept["held_out"], dtype=np.float64)
    expected = ((n, len(runs.sources)), (n, k), (n, k), (k,), k)
    if (runs.X.shape, runs.Y.shape, held.shape, weights.shape, len(parts)) != expected:
        raise ValueError("its tables do not fit each other")
    status = {
        name: Status(tuple(one["refused"]), tuple(one["warned"]))
        for name, one in stored["status"].items()
    }
    assessment = dict(stored["assessment"])
    float(assessment[OVERALL]["holdout"]["mean"]["mae"])
    kind, seed = stored["model"], int(stored["seed"])
    return Model(kind, parts, weights, runs, seed, held, {}, status, assessment)


def _stored_part(part: Part) -> dict[str, object]:
    if isinstance(part, Law):
        return part.as_dict()
    if isinstance(part, Tree):
        return {"text": part.text, "rounds": part.rounds}
    return {"coefficients": part.coefficients.tolist()}


def _part(kind: str, stored: dict[str, Any]) -> Part:
    if kind == "law":
        return law_from(stored)
    if kind == "lightgbm":
        return Tree(str(stored["text"]), int(stored["rounds"]))
    if kind == "linear":
        return Plane(np.array(stored["coefficients"], dtype=np.float64))
    raise ValueError(f"unknown model {kind!r}")
