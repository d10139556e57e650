"""What the report relies on in the record of a mixture: the plan, what it came to, and comparisons.

`longctx.mixture.planned`, `realised` and `strategies` say what the fields mean. A record may come
from anybody, so it is read as strictly as the rest of `run.json` (`run_shape.py`); the evidence of
a file of weights stays as it is, because any file may be given.
"""

from typing import Annotated, Any

from pydantic import Field

from longctx.report.mixture.evidence import Form, Name, Names
from longctx.report.run_shape import Count, Number

Amount = Annotated[Number, Field(ge=0)]
Lines = Field(max_length=100_000)


class Cell(Form):
    """Documents of one line of the plan between two lengths, and how often they are taken."""

    lo: Count
    hi: Count | None
    size: Count
    rate: Amount


class Line(Form):
    """A source of the plan, or its documents for windows of one length."""

    name: Name
    source: Name
    docs: Count
    size: Count
    long_size: Count
    weight: Amount
    target: Amount
    p_asked: Amount
    p_used: Amount
    max_rate: Amount
    planned_long_share: Amount
    cells: Annotated[list[Cell], Lines] | None = None


class Plan(Form):
    """What was planned, and from what."""

    seed: int
    unit: Name
    by: Name
    budget_asked: Amount | None
    budget: Amount
    front_end: dict[str, Any]
    length: dict[str, Any]
    per_source: dict[str, dict[str, Any]]
    rate_by: dict[str, Any] | None
    max_epochs: Count
    on_cap: Name
    calibrate: Name
    long_from: Count
    sources: Annotated[list[Line], Lines]
    unused: dict[str, Any]
    warnings: Names
    holdout_fraction: Amount = 0.0


class Came(Form):
    """What one line of the plan came to."""

    name: Name
    size: Count
    share: Amount
    docs: Count
    copies: Count
    epochs: Amount
    long_share: Amount
    calibrated: bool
    z: Number | None


class Realised(Form):
    """What all of it came to; `l1` is the distance of shares from the planned ones."""

    size: Count
    l1: Amount
    long_share: Amount
    sources: Annotated[list[Came], Lines]


class NaturalSource(Form):
    """A source as the corpus has it."""

    share: Amount


class Natural(Form):
    """The corpus as it is; `l1` is the distance of its shares to the planned ones."""

    size: Count
    long_share: Amount
    l1: Amount
    sources: dict[str, NaturalSource]


class Strategy(Form):
    """A row of the comparison; one that the corpus does not allow has a status alone."""

    strategy: Name
    status: Name
    shares: dict[str, Amount] = Field(default_factory=dict)
    l1: Amount | None = None
    long_share: Amount | None = None
    max_epochs: Amount | None = None
    b_max: Amount | None = None


class Mixture(Form):
    """All that a stage says of its mixture; of many sources the small ones are left out."""

    plan: Plan
    realised: Realised
    natural: Natural
    strategies: Annotated[list[Strategy], Field(max_length=100, default_factory=list)]
    sources_left_out: Count = 0
    evidence: Any = None
