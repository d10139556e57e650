"""The mixture that a model recommends, beside what would do without it.

Laws are solved exactly (`optimise.py`); trees and planes are searched within the same bounds
(`regmix.search`). The predicted loss of the answer never stands alone: with it come those of the
prior, of the uniform mixture and of the best mixture that was really measured, the bounds that
hold, and how the gain over the prior varies when runs are drawn again (`bootstrap_gap`).

Cost: milliseconds for laws, a minute for 1,000,000 draws of one target with trees; then one fit of
every target per resample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture.assess import OVERALL
from longctx.mixture.evaluate import F64, RESAMPLES, Gap, bootstrap_gap
from longctx.mixture.evidence import fit_evidence, gaps_evidence
from longctx.mixture.laws import Law
from longctx.mixture.optimise import AT_BOUND, LAMBDA, Bounds, check_bounds, kl, solve
from longctx.mixture.predictor import Model, overall_fitter
from longctx.mixture.regmix import BEST, Sampler, checked_prior, design_draws, search

SCHEMA_VERSION = 1
KIND = "weights"
DRAWS = 100_000


@dataclass(frozen=True)
class Plain:
    """A mixture that needs no model, and the loss that the model predicts for it."""

    name: str
    predicted: float
    measured: float | None = None


@dataclass(frozen=True)
class Recommendation:
    """Shares float64 [m], what is predicted for them and for others, and what holds them back.

    `plain` begins with the prior; `epochs` float64 [m] are None without a token budget, `objective`
    where the mixture was searched.
    """

    model: Model
    shares: F64
    prior: F64
    prior_name: str
    predicted: float
    objective: float | None
    method: str
    plain: tuple[Plain, ...]
    kl: float
    lam: float
    bounds: Bounds
    bounds_kind: str
    at_lo: tuple[str, ...]
    at_hi: tuple[str, ...]
    epochs: F64 | None
    gap: Gap
    forced: tuple[str, ...]

    @property
    def gain(self) -> float:
        """Predicted loss of the prior minus that of the recommendation."""
        return self.plain[0].predicted - self.predicted

    def weights_file(self, date: str) -> dict[str, Any]:
        """The weights as `mix.weights` reads them, with the evidence for them."""
        sources = self.model.sources
        shares = dict(zip(sources, self.shares.tolist(), strict=True))
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "unit": "tokens",
            "by": "source",
            "weights": shares,
            "evidence": {
                "method": {
                    "model": self.model.kind,
                    "solver": self.method,
                    "lambda": self.lam,
                    "prior": self.prior_name,
                    "prior_shares": dict(zip(sources, self.prior.tolist(), strict=True)),
                    "targets": list(self.model.targets),
                    "target_weights": self.model.weights.tolist(),
                    "forced": list(self.forced),
                },
                "runs": len(self.model.runs.ids),
                "predicted": {
                    "shares": shares,
                    "loss": self.predicted,
                    "gain": self.gain,
                    "kl": self.kl if np.isfinite(self.kl) else None,
                    "bootstrap": self.gap.as_dict(),
                },
                "baselines": {
                    one.name: {"predicted": one.predicted, "measured": one.measured}
                    for one in self.plain
                },
                "holdout": self.model.assessment()[OVERALL],
                "bounds": {
                    "kind": self.bounds_kind,
                    "lo": dict(zip(sources, self.bounds.lo.tolist(), strict=True)),
                    "hi": dict(zip(sources, self.bounds.hi.tolist(), strict=True)),
                    "at_lo": list(self.at_lo),
                    "at_hi": list(self.at_hi),
                    "why": dict(zip(sources, self.bounds.why, strict=True)),
                    "epochs": None
                    if self.epochs is None
                    else dict(zip(sources, self.epochs.tolist(), strict=True)),
                },
                "verdict": self.gap.verdict,
                "fit": fit_evidence(self.model),
                "gaps": gaps_evidence(self.gap),
                "date": date,
            },
        }


def recommend(
    model: Model,
    prior: F64,
    bounds: Bounds,
    *,
    prior_name: str,
    bounds_kind: str = "observed",
    lam: float = LAMBDA,
    tokens: F64 | None = None,
    budget: float | None = None,
    draws: int = DRAWS,
    best: int = BEST,
    resamples: int = RESAMPLES,
    seed: int = 0,
    force: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Recommendation:
    """Find the mixture and everything that has to be shown beside it.

    `prior` float64 [m] in the order of the model's sources, `tokens` float64 [m] and `budget` for
    epochs; `tell` hears what takes long. Raises RecipeError when targets of the model are refused
    (unless `force`), and for bounds that no mixture keeps.
    """
    if model.refused and not force:
        raise RecipeError(
            f"{len(model.refused)} of {len(model.targets)} targets are refused; "
            + "; ".join(model.refused[:3]),
            remedy="make more runs or other targets; --force solves it all the same, for a look",
        )
    check_bounds(bounds.lo, bounds.hi, model.sources)
    objective = None
    if all(isinstance(part, Law) for part in model.parts):
        laws = [part for part in model.parts if isinstance(part, Law)]
        solved = solve(
            *(laws, model.weights, prior, lam, bounds.lo, bounds.hi),
            names=model.sources,
            force=True,
        )
        shares, objective, method = solved.shares, solved.objective, solved.method
    else:
        tell(f"searching {draws:,} mixtures; trees take half a minute per million and target")
        sampler = Sampler(
            checked_prior(np.maximum(prior, AT_BOUND)), caps=bounds.hi, least=bounds.lo
        )
        shares = search(
            [model.overall], np.ones(1), draws, best, design_draws(sampler), seed
        ).shares
        method = f"mean of the best {best} of {draws:,} draws"
    tell(f"fitting {resamples} times again on resampled runs, to see how sure the gain is")
    mae = model.assessment()[OVERALL]["holdout"]["mean"]["mae"]
    fit = overall_fitter(model)
    X, Y = model.runs.X, model.runs.Y
    gap = bootstrap_gap(X, Y, shares, prior, resamples, seed, fit=fit, holdout_mae=mae)
    loose = bounds.hi - bounds.lo > AT_BOUND
    low = loose & (shares - bounds.lo <= AT_BOUND)
    high = bounds.hi - shares <= AT_BOUND
    return Recommendation(
        model=model,
        shares=shares,
        prior=prior,
        prior_name=prior_name,
        predicted=float(model.overall(shares)[0]),
        objective=objective,
        method=method,
        plain=_plain(model, prior, prior_name),
        kl=kl(shares, prior),
        lam=lam if objective is not None else 0.0,
        bounds=bounds,
        bounds_kind=bounds_kind,
        at_lo=_named(model, low),
        at_hi=_named(model, high),
        epochs=_epochs(shares, tokens, budget),
        gap=gap,
        forced=tuple(model.refused),
    )


def _plain(model: Model, prior: F64, prior_name: str) -> tuple[Plain, ...]:
    m = len(model.sources)
    measured = model.runs.Y @ model.weights
    at = int(measured.argmin())
    fitted = float(model.overall(model.runs.X[at])[0])
    return (
        Plain(prior_name, float(model.overall(prior)[0])),
        Plain("uniform", float(model.overall(np.full(m, 1 / m))[0])),
        Plain(f"best run ({model.runs.ids[at]})", fitted, float(measured[at])),
    )


def _named(model: Model, chosen: Any) -> tuple[str, ...]:
    return tuple(s for s, one in zip(model.sources, chosen, strict=True) if one)


def _epochs(shares: F64, tokens: F64 | None, budget: float | None) -> F64 | None:
    if tokens is None or budget is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(shares > 0, budget * shares / tokens, 0.0)
