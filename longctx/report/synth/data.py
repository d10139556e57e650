"""What the page of rows that a language model made shows, as plain data.

Texts are short and already masked: documents and replies may hold personal data, and reports are
passed on. `collect` makes all of it, the other modules draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from longctx.report.data import Histogram
from longctx.report.scores.data import Looked, Piece

OPS = ("synth.", "prefer.")
# "figure" is a number that nothing was asked of.
Verdict = Literal["holds", "fails", "too few rows", "not looked at", "figure"]


@dataclass(frozen=True)
class Used:
    """What the calls of a stage took; `usd` is None without a known price."""

    requests: int
    hits: int
    calls: int
    read: int
    written: int
    usd: float | None


@dataclass(frozen=True)
class StageMade:
    """A step that asked a model or made rows: rows in = ok + rejects; `used` None without calls."""

    name: str
    rows_in: int
    ok: int
    rejects: dict[str, int]
    used: Used | None


@dataclass(frozen=True)
class Example:
    """A document that came to nothing: where, why, and the beginning of the reply, "" for none."""

    stage: str
    code: str
    detail: str
    row_id: str
    reply: str
    finish: str


@dataclass(frozen=True)
class Check:
    """A check of all rows together, in a sentence."""

    name: str
    sentence: str
    verdict: Verdict


@dataclass(frozen=True)
class Quota:
    """Documents of a language and of `least` to `most` tokens: wanted, there, and taken."""

    lang: str
    least: int
    most: int
    wanted: int
    available: int
    reached: int


@dataclass(frozen=True)
class Gap:
    """What was left out of a context: about so many tokens, and pieces of evidence among them."""

    tokens: int
    evidence: int = 0


@dataclass(frozen=True)
class Excerpt:
    """A context around its evidence.

    `places` are where the evidence stands, as shares of the context from its beginning; `parts`
    are stretches of text and what was left out between them.
    """

    tokens: int
    places: list[tuple[float, float]]
    parts: list[list[Piece] | Gap]


@dataclass(frozen=True)
class Grid:
    """A small table of a sample; the last `numbers` columns are numbers."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 0


@dataclass(frozen=True)
class Passages:
    """Numbered passages; `gold` marks those with the evidence, `text` is their beginning."""

    caption: str
    entries: Sequence[tuple[str, str, bool]]


@dataclass(frozen=True)
class Lengths:
    """Planned against written, one line a step; `note` says how the two compare in all."""

    caption: str
    steps: Sequence[tuple[str, int, int]]
    note: str


@dataclass(frozen=True)
class Said:
    """A named text of a sample."""

    name: str
    text: str


Block = Grid | Passages | Lengths | Said


@dataclass(frozen=True)
class Sample:
    """A row to read: what is known of it, its context, and the pieces of its conversation."""

    row_id: str
    source: str
    lang: str
    tokens: int
    kind: str
    context: Excerpt | None
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Dimension:
    """Marks of one dimension, or scores in all: of the chosen and of the rejected texts."""

    name: str
    chosen: Histogram
    rejected: Histogram


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, and why the one is preferred.

    `marks` are the dimensions with the marks of both; `where` says what stands before the prompt.
    """

    row_id: str
    source: str
    lang: str
    prompt: str
    where: str
    prefix: str
    chosen: str
    rejected: str
    second: str
    reason: str
    margin: float | None
    marks: list[tuple[str, float | None, float | None]]
    checks: list[tuple[str, bool]]


@dataclass(frozen=True)
class Tree:
    """The candidates of one prompt as a search left them, rows of `tree-*.parquet`, masked."""

    prompt_id: str
    nodes: list[dict[str, Any]]


@dataclass(frozen=True)
class JudgeControl:
    """What a judge was asked that a sound one cannot fail; `passed` is None without a case."""

    name: str
    value: float | None
    passed: bool | None
    cases: int
    hard: bool
    wanted: str


@dataclass(frozen=True)
class PairsData:
    """What a page of pairs draws instead of lengths and evidence."""

    dimensions: list[Dimension] = field(default_factory=list)
    margins: Histogram | None = None
    pairs: list[Pair] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)


@dataclass(frozen=True)
class SynthData:
    """Everything that the page draws; where the rows are not to be had, `why` says it.

    `depths` counts where evidence stands, in tenths of the context, and is null for systems that
    know of none. `pairs` is what ops of preferences have instead of lengths, depths and samples.
    `items` is what was chosen, one of them: documents, or what a table holds.
    """

    run: str
    stage: str
    op: str
    title: str
    model: str
    prompts: str
    chosen: int
    rows: int
    rejects: dict[str, int]
    stages: list[StageMade]
    checks: list[Check]
    quotas: list[Quota]
    without_language: int
    models: list[str]
    files: int
    bytes: int
    items: str = "document"
    why: str = ""
    read: Looked | None = None
    examples: list[Example] = field(default_factory=list)
    tokens: Histogram | None = None
    bins: str = ""
    depths: Histogram | None = None
    samples: list[Sample] = field(default_factory=list)
    judge: str = ""
    controls: list[JudgeControl] = field(default_factory=list)
    pairs: PairsData | None = None

    @property
    def of_documents(self) -> bool:
        """Whether every document became a row or a reject; of some ops it becomes several."""
        return self.rows + sum(self.rejects.values()) == self.chosen

    @property
    def asked_none(self) -> bool:
        """Whether rows were made without a language model."""
        return self.model == "none" and not self.used.calls

    @property
    def used(self) -> Used:
        """All stages together; without a price where one of them has none."""
        told = [s.used for s in self.stages if s.used is not None]
        costs = [u.usd for u in told]
        return Used(
            requests=sum(u.requests for u in told),
            hits=sum(u.hits for u in told),
            calls=sum(u.calls for u in told),
            read=sum(u.read for u in told),
            written=sum(u.written for u in told),
            usd=None if None in costs or not told else sum(c for c in costs if c is not None),
        )
