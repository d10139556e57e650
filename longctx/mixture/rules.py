"""What a recipe may say about a mixture: weights, length rules, caps. Words and their checks only.

What a rule does stands in `upsample.py`, what a front end does in `weights.py`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from longctx.location import Location
from longctx.mixture.presets import PILE, SHARES, PresetName
from longctx.registry import did_you_mean

Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ByName = Annotated[dict[str, Weight], Field(min_length=1)]
LONG = 4096


class Words(BaseModel):
    """Frozen, and no field that the model does not name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NoRule(Words):
    """All lengths alike."""

    kind: Literal["none"]


class KeepBelow(Words):
    """Documents below `threshold` at `p` times the rate of the others."""

    kind: Literal["keep_below"]
    threshold: Positive = LONG
    p: float = Field(0.1, gt=0, le=1)


class TargetLongShare(Words):
    """As `keep_below`, with the p of each source that gives `share` to its long documents."""

    kind: Literal["target_long_share"]
    threshold: Positive = LONG
    share: float = Field(0.7, gt=0, lt=1)


class MinLength(Words):
    """No documents below `length`."""

    kind: Literal["min_length"]
    length: Positive


class SingleDocument(Words):
    """Windows of `window` with one document each; shorter documents and tails are not used."""

    kind: Literal["single_document"]
    window: Positive


class Cut(Words):
    """Documents cut into pieces of at most `piece`."""

    kind: Literal["cut"]
    piece: Positive


Length = Annotated[
    NoRule | KeepBelow | TargetLongShare | MinLength | SingleDocument | Cut,
    Field(discriminator="kind"),
]


class _FrontEnd(Words):
    """Shares by source; `boost` then replaces those of some sources and normalises again."""

    boost: dict[str, Weight] = Field(default_factory=dict)


class Natural(_FrontEnd):
    """Shares as the corpus has them."""

    kind: Literal["natural"]


class Effective(_FrontEnd):
    """Shares as the length rule leaves them."""

    kind: Literal["effective"]


class Fixed(_FrontEnd):
    """Shares by source, or a published preset by slot; values are normalised."""

    kind: Literal["fixed"]
    shares: ByName | None = None
    preset: PresetName | None = None

    @model_validator(mode="after")
    def _one(self) -> "Fixed":
        if (self.shares is None) == (self.preset is None):
            raise ValueError(f"give `shares` or `preset` ({', '.join(SHARES)})")
        if self.shares is not None and not any(self.shares.values()):
            raise ValueError("all shares are 0")
        return self


class FromFile(_FrontEnd):
    """Shares from a file that `longctx mix optimise` wrote."""

    kind: Literal["file"]
    path: Location


class Temperature(_FrontEnd):
    """Natural shares to the power 1 / tau: 1 is natural, a large tau uniform."""

    kind: Literal["temperature"]
    tau: float = Field(2.0, gt=0)


class UniMax(_FrontEnd):
    """As even as `epochs` of each source allow."""

    kind: Literal["unimax"]
    epochs: Positive = 4


class PileCopies(_FrontEnd):
    """So many copies of each source; without a budget exactly these."""

    kind: Literal["pile_copies"]
    copies: ByName | None = None
    preset: Literal["pile22"] | None = None

    @model_validator(mode="after")
    def _one(self) -> "PileCopies":
        if (self.copies is None) == (self.preset is None):
            raise ValueError(f"give `copies` or `preset` ({PILE})")
        if self.copies is not None and not any(self.copies.values()):
            raise ValueError("all copies are 0")
        return self


Weights = Annotated[
    Natural | Effective | Fixed | FromFile | Temperature | UniMax | PileCopies,
    Field(discriminator="kind"),
]


class RateBy(Words):
    """Rates multiplied by a factor of each value of a column, relative to the largest factor.

    `other` is the factor of values that are not named, null among them; None: they are an error.
    """

    column: str
    rates: ByName
    other: Weight | None = None

    @model_validator(mode="after")
    def _some(self) -> "RateBy":
        if not self.largest():
            raise ValueError("all rates are 0")
        return self

    def largest(self) -> float:
        """The factor that the others are relative to."""
        return max(*self.rates.values(), self.other or 0.0, 0.0)

    def factor(self, value: str | None) -> float:
        """The relative factor of a value, 0..1. Raises ValueError for one that is not named."""
        found = self.rates.get(value, self.other) if value is not None else self.other
        if found is None:
            shown = "null" if value is None else f"'{value}'"
            hint = did_you_mean(value or "", self.rates)
            raise ValueError(f"the column `{self.column}` holds {shown}, which has no rate{hint}")
        return found / self.largest()


class Settings(Words):
    """How much of which documents: what all mixtures have in common.

    `budget` in `unit` (tokens, UTF-8 bytes or documents), `by` the column with the sources.
    """

    budget: float | None = Field(None, gt=0)
    by: str = "source"
    unit: Literal["tokens", "bytes", "docs"] = "tokens"
    per_source: dict[str, Length] = Field(default_factory=dict)
    rate_by: RateBy | None = None
    slots: dict[str, list[str]] = Field(default_factory=dict)
    max_epochs: int = Field(4, ge=1)
    on_cap: Literal["fail", "redistribute", "shrink"] = "fail"
    calibrate: Literal["auto", "always", "never"] = "auto"
    holdout_fraction: float = Field(0.0, ge=0, lt=1)
    long_from: Positive | None = None


def words_of(rule: BaseModel) -> dict[str, Any]:
    """The parameters of a front end or a rule as plain values, without what is not used."""
    found = rule.model_dump(mode="json", exclude_none=True)
    return {k: v for k, v in found.items() if v != {}}
