"""What a page of scores shows, as plain data: gathered by `collect`, drawn by the pages.

Nothing here knows the file system. Texts are short passages, whose places are marked and whose
personal data is already masked.
"""

from dataclasses import dataclass, field

from longctx.report.data import Histogram
from longctx.report.scores.catalogue import Better
from longctx.report.scores.statistics import Correlations, Spread

# The folder of the pages beside `report.html`.
PAGES = "report"
CORRELATIONS = "correlations"


def page_of(name: str) -> str:
    """The file of a page, relative to `report.html`."""
    return f"{PAGES}/{name}.html"


@dataclass(frozen=True)
class Piece:
    """A stretch of text; a marked one has a label, and one that was masked holds no text."""

    text: str
    label: str = ""
    masked: bool = False


@dataclass(frozen=True)
class Passage:
    """Consecutive pieces of a document, from the character `start` on."""

    start: int
    pieces: list[Piece]


@dataclass(frozen=True)
class Shown:
    """A document to read: what is known of it, and passages of its text in their order."""

    doc_id: str
    source: str
    tokens: int | None
    score: float
    fate: str
    chars: int
    passages: list[Passage]
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rung:
    """A document on the way from the worst score (share 0) to the best (1)."""

    share: float
    document: Shown


@dataclass(frozen=True)
class SourceSpread:
    """A score in one source: rows that have it, those that have not by reason, its quantiles."""

    source: str
    n: int
    nulls: dict[str, int]
    spread: Spread | None


@dataclass(frozen=True)
class ScoreColumn:
    """A column in full: all rows first, then by source, and documents from worst to best.

    `bins` says how the bins of the histogram run (`statistics.histogram`); it is null for a score
    that does not vary.
    """

    name: str
    meaning: str
    better: Better
    whole: SourceSpread
    sources: list[SourceSpread]
    histogram: Histogram | None = None
    bins: str = ""
    ladder: list[Rung] = field(default_factory=list)


@dataclass(frozen=True)
class Words:
    """A column of words (a class, a language): rows by source and word, nulls as ""."""

    name: str
    counts: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Looked:
    """What was looked at: `rows` of the stage's `rows_all`, from `parts` of `parts_all`."""

    rows: int
    rows_all: int
    parts: int
    parts_all: int

    @property
    def whole(self) -> bool:
        """Whether nothing was left out."""
        return self.rows == self.rows_all


@dataclass(frozen=True)
class BesideBound:
    """A threshold with the documents of the sample that are next to it, nearest first.

    `said` is the condition under which a row is kept: "n_tokens >= 64".
    """

    said: str
    source: str
    kept: list[Shown]
    dropped: list[Shown]


@dataclass(frozen=True)
class CutGroup:
    """What a rule of `keep` did to a group: rows with a score, rows and tokens kept, its border.

    Rows with a score of `low` and more, and of `high` and less, are kept.
    """

    group: str
    n: int
    nulls: int
    tokens: int
    kept: int
    kept_tokens: int
    low: float | None
    high: float | None
    rule: str


@dataclass(frozen=True)
class Closest:
    """A document next to a border; null `document` where its text was not read."""

    group: str
    edge: str
    kept: bool
    doc_id: str
    score: float
    document: Shown | None


@dataclass(frozen=True)
class Cut:
    """A rule of `keep` by one score, of all rows; `per` says which rows were compared."""

    name: str
    per: str
    groups: list[CutGroup]
    closest: list[Closest] = field(default_factory=list)


@dataclass(frozen=True)
class Match:
    """A piece of a document that an evaluation set has, too, and the item that has it."""

    name: str
    row: int
    field: str
    doc_id: str
    source: str
    text: str
    item: str


@dataclass(frozen=True)
class Matches:
    """What was found of each evaluation set (documents, places), and some of it to read."""

    sets: dict[str, tuple[int, int]]
    shown: list[Match]


@dataclass(frozen=True)
class Pair:
    """A document of which another one holds a share of the words, and a passage of both."""

    doc_id: str
    other_id: str
    share: float
    words: int
    common: int
    text: list[Piece] = field(default_factory=list)
    other: list[Piece] = field(default_factory=list)


@dataclass(frozen=True)
class Pairs:
    """The largest of the pairs in some of the files that hold them."""

    shown: list[Pair]
    files: int
    files_all: int


@dataclass(frozen=True)
class StageScores:
    """All that the page of a score stage shows.

    `marks` says what is marked in the texts. `removed` counts the rows of the sample that the stage
    dropped, by source and reason. What only some ops have (`bounds`, `cuts`, `matches`, `pairs`) is
    empty for the others.
    """

    run: str
    stage: str
    op: str
    looked: Looked
    columns: list[ScoreColumn]
    others: list[ScoreColumn] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)
    missing_sources: int = 0
    marks: str = ""
    removed: dict[str, dict[str, int]] = field(default_factory=dict)
    bounds: list[BesideBound] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    matches: Matches | None = None
    pairs: Pairs | None = None


@dataclass(frozen=True)
class CorrelationData:
    """Rank correlations of all numeric score columns: names as stage and column."""

    run: str
    looked: Looked
    stages: list[str]
    names: list[str]
    main: list[int]
    found: Correlations


@dataclass(frozen=True)
class ScorePages:
    """Everything that is drawn beside `report.html`."""

    stages: list[StageScores] = field(default_factory=list)
    correlations: CorrelationData | None = None
