"""The columns of a comparison: names in plain words, what each means, and which value is best.

The terminal and the page show the same columns. A best value is marked only where it is clear: a
similarity has to lead by more than two standard errors of the difference, a counted figure has to
differ as shown; several marks are several runs that cannot be told apart.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from longctx.compare.likeness import Estimate
from longctx.compare.result import Comparison, Line
from longctx.report.format import compact, count, decimal, percent

UNKNOWN = "n/a"
_ERRORS = 2.0  # standard errors of a difference that is called a lead


@dataclass(frozen=True)
class Column:
    """One figure: `value` takes it from a line, `show` writes it; `better` is "more" or "less".

    `term` is what the explanation calls it, where several columns share one; `floor` takes from a
    line what the same documents would give in random places.
    """

    name: str
    meaning: str
    value: Callable[[Line], Estimate | float | None]
    show: Callable[[float | None], str]
    better: str = ""
    term: str = ""
    floor: Callable[[Line], float | None] | None = None

    def estimate(self, line: Line) -> Estimate:
        """The figure with its standard error, which a counted one does not have."""
        found = self.value(line)
        return found if isinstance(found, Estimate) else Estimate(found)

    def shown(self, line: Line) -> str:
        """The figure as text; "n/a" where the run does not tell it."""
        value = self.estimate(line).value
        return UNKNOWN if value is None else self.show(value)

    def margin(self, line: Line) -> str:
        """Two standard errors as text, or nothing."""
        error = self.estimate(line).error
        return "" if not error else self.show(_ERRORS * error)


@dataclass(frozen=True)
class Group:
    """Columns that answer one question."""

    heading: str
    columns: list[Column]

    @property
    def terms(self) -> dict[str, str]:
        """What each column means."""
        return {column.term or column.name: column.meaning for column in self.columns}


def coherence(size: int, index: int) -> Column:
    """Similarity of all documents that share a context of `size` tokens."""
    return Column(
        f"{size:,} tokens",
        "mean similarity of all documents that share a context of so many tokens",
        lambda line: line.likeness.coherence[index],
        decimal,
        "more",
        term="N tokens",
        floor=lambda line: line.likeness.random_coherence[index],
    )


NEIGHBOURS = Column(
    "neighbours",
    "mean similarity of documents that stand next to each other in a window",
    lambda line: line.likeness.adjacency,
    decimal,
    "more",
    floor=lambda line: line.likeness.random,
)
EARLIER = Column(
    "best earlier",
    "similarity of a document to the most similar one before it in its context, which is what a "
    "model that reads from left to right can use",
    lambda line: line.likeness.best_earlier,
    decimal,
    "more",
    floor=lambda line: line.likeness.random_best_earlier,
)
FILL = Column(
    "fill",
    "share of the windows' room that holds tokens; the rest is padding that is paid for",
    lambda line: line.counts.fill,
    percent,
    "more",
)
CUT = Column(
    "cut", "share of documents that lie in several pieces", lambda line: line.counts.split, percent
)
CUT_SHORT = Column(
    "cut short",
    "the same among documents that would fit into one window: cuts that were avoidable",
    lambda line: line.counts.split_short,
    percent,
    "less",
)
COPIES = Column(
    "copies",
    "share of windows with the same text twice, or two texts at a cosine of 0.95 or more",
    lambda line: line.likeness.duplicates,
    percent,
    "less",
)
_REACHED = Column(
    "of bound",
    "how far neighbours are on the way from random places (0 %) to the highest similarity that "
    "the same documents allow (100 %)",
    lambda line: line.likeness.seams.reached,
    percent,
)
_INSIDE = Column(
    "inside",
    "the same for the order within single windows: what is missing could be gained by re-arranging "
    "each window",
    lambda line: line.likeness.inside.reached,
    percent,
)
_MAKE_UP = [
    Column("windows", "windows of the run", lambda line: line.counts.windows, count),
    Column("tokens", "tokens in them", lambda line: line.counts.tokens, compact),
    Column("documents", "different documents", lambda line: line.counts.documents, count),
    Column("docs", "documents in a window, mean", lambda line: line.counts.docs_mean, decimal),
    Column("median", "the same, median", lambda line: line.counts.docs_median, decimal),
    Column(
        "sources",
        "sources that a window mixes, mean",
        lambda line: line.counts.sources_mean,
        decimal,
    ),
]
_READ = [
    Column(
        "compared",
        "windows whose similarity was measured",
        lambda line: line.likeness.windows,
        count,
    ),
    Column(
        "left out",
        "share of their documents without a vector: other languages, no words",
        lambda line: line.likeness.unknown / max(1, line.likeness.segments),
        percent,
    ),
]


def groups(comparison: Comparison) -> list[Group]:
    """All columns, by the question that they answer."""
    contexts = [coherence(size, i) for i, size in enumerate(comparison.sizes)]
    return [
        Group("Related context", [NEIGHBOURS, *contexts, EARLIER]),
        Group("Waste, cuts and copies", [FILL, CUT, CUT_SHORT, COPIES]),
        Group("What the windows hold", _MAKE_UP),
        Group("Bounds and sample", [_REACHED, _INSIDE, *_READ]),
    ]


def best(lines: Sequence[Line], column: Column) -> list[Line]:
    """The lines that lead in a column; none where all do, or where less than two are known."""
    known = [line for line in lines if column.estimate(line).value is not None]
    if not column.better or len(known) < 2:
        return []
    first = max(known, key=lambda line: _rank(line, column))
    led = [line for line in known if not leads(first, line, column)]
    return [] if len(led) == len(known) else led


def leads(first: Line, second: Line, column: Column) -> bool:
    """Whether one line is better than another by more than chance, as far as it is shown."""
    one, two = column.estimate(first), column.estimate(second)
    if one.value is None or two.value is None or column.shown(first) == column.shown(second):
        return False
    error = math.hypot(one.error or 0.0, two.error or 0.0)
    return _rank(first, column) - _rank(second, column) > _ERRORS * error


def _rank(line: Line, column: Column) -> float:
    value = column.estimate(line).value
    if value is None:
        return -math.inf
    return value if column.better == "more" else -value
