"""What a file of weights says for itself, read into types: the fit, the optimum, the sure gain.

`longctx mix optimise` writes it, a run that uses the weights carries it on in its record. Either
file may come from anybody, so it is read as strictly as the rest of `run.json` (`run_shape.py`).
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from longctx.report.run_shape import Count, Number

Name = Annotated[str, Field(max_length=2_000)]
Numbers = Annotated[list[Number], Field(max_length=20_000)]
BySource = Annotated[dict[str, Number], Field(max_length=20_000)]
Names = Annotated[list[str], Field(max_length=20_000)]


class Form(BaseModel):
    """A part of a stored object; fields that it does not name may hold anything."""

    model_config = ConfigDict(strict=True, frozen=True)


class Pair(Form):
    """Rank correlation and mean absolute error, None where one has no meaning."""

    rho: Number | None = None
    mae: Number | None = None


class TargetFit(Form):
    """A target or the weighted sum: losses of held-out runs, and scores beside those of rules.

    `runs` of them were held out, `observed` and `predicted` may be of a part of these.
    """

    target: Name
    status: Literal["ok", "warned", "refused"]
    remarks: Names = []
    runs: Count
    observed: Numbers
    predicted: Numbers
    rho: Number | None
    mae: Number | None
    rho_sd: Number | None = None
    mae_sd: Number | None = None
    rules: dict[str, Pair] = {}

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.observed) != len(self.predicted):
            raise ValueError("observed and predicted are no pairs")
        return self


class Fit(Form):
    """How well every target is predicted by a model of this kind."""

    model: Name
    targets: Annotated[list[TargetFit], Field(min_length=1, max_length=2_000)]


class Method(Form):
    """How the weights were found."""

    model: Name
    solver: Name
    lam: Number = Field(alias="lambda")
    prior: Name
    prior_shares: BySource
    targets: Names
    forced: Names = []


class Resampled(Form):
    """Gains over resamples of the runs, and the error on held-out runs beside them."""

    resamples: Count
    mean: Number
    low: Number
    high: Number
    holdout_mae: Number


class Predicted(Form):
    """What is predicted for the optimum; `kl` is None where the prior lacks one of its sources."""

    shares: Annotated[BySource, Field(min_length=1)]
    loss: Number
    gain: Number
    kl: Number | None
    bootstrap: Resampled


class Plain(Form):
    """Losses of a mixture that needed no model."""

    predicted: Number
    measured: Number | None = None


class Bounds(Form):
    """Within which the optimum was looked for; `why` says what sets the upper ones."""

    kind: Name
    lo: BySource
    hi: BySource
    at_lo: Names
    at_hi: Names
    why: dict[str, str] = {}
    epochs: BySource | None = None


class Evidence(Form):
    """Why a file holds the weights that it holds."""

    method: Method
    runs: Count
    predicted: Predicted
    baselines: Annotated[dict[str, Plain], Field(min_length=1, max_length=100)]
    bounds: Bounds
    verdict: Name
    fit: Fit | None = None
    gaps: Numbers = []
    date: Name = ""


class Share(Form):
    """A source in the optimum: shares in 0..1, `held` where a bound holds it ("most", "least")."""

    source: str
    prior: float | None
    share: float
    lo: float | None
    hi: float | None
    held: str
    why: str
    epochs: float | None


def evidence_of(stored: Any) -> Evidence | None:
    """The evidence in an object; None where `longctx mix optimise` writes no such one."""
    try:
        return Evidence.model_validate(stored)
    except ValidationError:
        return None


def shares(evidence: Evidence) -> list[Share]:
    """All sources of the optimum, the largest share first."""
    bounds = evidence.bounds
    held = {**dict.fromkeys(bounds.at_lo, "least"), **dict.fromkeys(bounds.at_hi, "most")}
    return [
        Share(
            source=source,
            prior=evidence.method.prior_shares.get(source),
            share=share,
            lo=bounds.lo.get(source),
            hi=bounds.hi.get(source),
            held=held.get(source, ""),
            why=bounds.why.get(source, ""),
            epochs=None if bounds.epochs is None else bounds.epochs.get(source),
        )
        for source, share in sorted(evidence.predicted.shares.items(), key=lambda item: -item[1])
    ]
