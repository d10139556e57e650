"""The page of rank correlations between all scores of a run."""

import math
from collections.abc import Sequence

from longctx.report.format import count, plural
from longctx.report.html import document
from longctx.report.layout import Section, code, folded, paragraph, table
from longctx.report.markup import Markup, join, tag, text
from longctx.report.scores.data import CorrelationData
from longctx.report.scores.page import heading, looked

_MATRIX = 32
_LEVELS = 5
_MEANING = (
    "A high correlation means that two scores put the documents into nearly the same order, so a "
    "cut by one is nearly a cut by the other; near 0 they judge different things."
)


def render(data: CorrelationData) -> str:
    """The page as text, to be written as UTF-8."""
    sections = [_matrix(data), _pairs(data)]
    title = "Correlations between scores"
    return document(f"{title} of {data.run}", heading(title, data.run), sections)


def _matrix(data: CorrelationData) -> Section:
    columns = data.main if len(data.names) > _MATRIX else list(range(len(data.names)))
    shown = columns[:_MATRIX]
    body = [
        tag("p", text(_MEANING), class_="lead"),
        paragraph(f"{looked(data.looked, 'of the run')} Nulls are left out pair by pair."),
        _heat(data, shown),
    ]
    if len(shown) < len(data.names):
        body.append(
            paragraph(
                f"Shown are {count(len(shown))} of {plural(len(data.names), 'column')}; the pairs "
                "below are of all."
            )
        )
    return Section("matrix", "Spearman's rho", join(body))


def _heat(data: CorrelationData, shown: Sequence[int]) -> Markup:
    """The matrix as a table of numbers, coloured by their size; columns go by number."""
    numbers = [tag("th", text(str(i)), scope="col", class_="num") for i in range(1, len(shown) + 1)]
    rows = [
        tag(
            "tr",
            tag(
                "th",
                tag("span", text(str(number)), class_="number"),
                text(" "),
                code(data.names[row]),
                tag("small", text(data.stages[row])),
                scope="row",
            ),
            *(_cell(float(data.found.rho[row, column]), row == column) for column in shown),
        )
        for number, row in enumerate(shown, start=1)
    ]
    caption = "Rank correlation of each score with each other"
    return tag(
        "div",
        tag(
            "table",
            tag("caption", text(caption)),
            tag("thead", tag("tr", tag("th", text("Score"), scope="col"), *numbers)),
            tag("tbody", *rows),
            class_="heat",
        ),
        class_="scroll",
        role="region",
        tabindex=0,
        aria_label=caption,
    )


def _cell(rho: float, itself: bool) -> Markup:
    if itself:
        return tag("td", text("1"), class_="num")
    if math.isnan(rho):
        return tag("td", text("-"), class_="num")
    level = round(abs(rho) * _LEVELS)
    tone = ("plus" if rho > 0 else "minus") + f"-{level}"
    return tag("td", text(_rho(rho)), class_=f"num {tone}" if level else "num")


def _rho(rho: float, digits: int = 2) -> str:
    """So many digits, a minus sign where it is below 0, and 1 only for what is 1."""
    size = min(abs(rho), 1 - 10.0**-digits) if abs(rho) < 1 - 1e-12 else 1.0
    written = f"{size:.{digits}f}"
    return f"−{written}" if rho < 0 and float(written) else written


def _pairs(data: CorrelationData) -> Section:
    """All pairs by the size of rho; those with other than main scores are folded away."""
    rho, main = data.found.rho, set(data.main)
    pairs = [
        (a, b)
        for a in range(len(data.names))
        for b in range(a + 1, len(data.names))
        if not math.isnan(rho[a, b])
    ]
    pairs.sort(key=lambda pair: (-abs(rho[pair]), pair))
    first = [pair for pair in pairs if main.issuperset(pair)]
    others = [pair for pair in pairs if not main.issuperset(pair)]
    if not pairs:
        return Section("pairs", "Pairs", paragraph("No two scores are there for three documents."))
    body = [_table(data, "Pairs of main scores by the size of rho", first)] if first else []
    if others:
        caption = "Pairs with other columns by the size of rho"
        body.append(folded(caption, _table(data, caption, others), unfold=not first))
    return Section("pairs", "Pairs", join(body))


def _table(data: CorrelationData, caption: str, pairs: Sequence[tuple[int, int]]) -> Markup:
    rows = [
        [
            _named(data, a),
            _named(data, b),
            text(_rho(float(data.found.rho[a, b]), 3)),
            text(count(int(data.found.n[a, b]))),
        ]
        for a, b in pairs
    ]
    return table(caption, ["Score", "Other score", "rho", "n"], rows, words=2)


def _named(data: CorrelationData, column: int) -> Markup:
    return join([code(data.names[column]), tag("small", text(data.stages[column]))])
