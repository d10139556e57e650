"""What the page of a mixture shows, as plain data; all shares are of tokens, in 0..1."""

from dataclasses import dataclass

from longctx.report.mixture.evidence import Evidence

OPS = ("mix.weights", "mix.upsample")


@dataclass(frozen=True)
class Amount:
    """Tokens of a source at one moment, what part of all they are, and the long ones among them."""

    tokens: float
    share: float
    long_share: float | None
    documents: int | None = None


@dataclass(frozen=True)
class SourceMix:
    """A source as it was, as it was planned, and as it came out.

    `epochs` and `copies` are realised; `z` is how many standard deviations of the draw lie between
    target and result, None where the copies were calibrated to the target.
    """

    name: str
    before: Amount
    target: Amount
    after: Amount
    copies: int
    epochs: float
    most_copies: float
    keep_asked: float | None
    keep_used: float | None
    z: float | None
    calibrated: bool


@dataclass(frozen=True)
class Bucket:
    """Tokens of documents from `low` up to below `high` tokens (None: of any length above)."""

    low: int
    high: int | None
    before: float
    after: float


@dataclass(frozen=True)
class Strategy:
    """What another way to mix the same documents would give."""

    name: str
    shares: dict[str, float]
    to_natural: float | None
    long_share: float | None
    most_epochs: float | None
    most_tokens: float | None
    note: str = ""


@dataclass(frozen=True)
class MixtureData:
    """Everything that the page of a mixture draws.

    `natural` and `planned` are shares by source of the corpus, of which `sources` may hold several
    lines; `to_target` and `to_natural` are L1 distances of the planned shares. `before`, `budget`
    and `after` count all sources, also those that are `left_out` because there are very many.
    """

    run: str
    stage: str
    op: str
    by: str
    unit: str
    before: float
    budget: float
    after: float
    sources: list[SourceMix]
    buckets: list[Bucket]
    strategies: list[Strategy]
    unused: list[str]
    warnings: list[str]
    settings: list[tuple[str, str]]
    to_target: float
    to_natural: float
    left_out: int
    long_from: int
    long_before: float
    long_after: float
    natural: dict[str, float]
    planned: dict[str, float]
    evidence: Evidence | None = None
    foreign: bool = False
