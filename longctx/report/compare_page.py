"""`compare.html`: several packings of data under one yardstick, as one self-contained page.

Written for somebody who has never heard of document orders: what was found in sentences first, then
a figure and a table for each question, each column explained below its table.
"""

from collections.abc import Sequence
from dataclasses import replace

from longctx.compare.result import Comparison, Line
from longctx.credentials import masked
from longctx.report.compare_columns import (
    COPIES,
    CUT,
    CUT_SHORT,
    EARLIER,
    FILL,
    Column,
    Group,
    best,
    coherence,
    groups,
)
from longctx.report.compare_verdict import caveats, label, verdict
from longctx.report.figures import Bar, Segment, bars
from longctx.report.format import count, decimal, percent, plural
from longctx.report.gain_page import gain_section
from longctx.report.gain_words import gain_verdict
from longctx.report.html import document
from longctx.report.layout import Section, code, facts, figure, paragraph, prose, table
from longctx.report.markup import NOTHING, Markup, join, tag, text

_WHY = (
    "A model learns to use a long context when what stands earlier in it helps to predict what "
    "follows. Packing decides what stands there: the more related the documents of a window are, "
    "the more there is to use; room left empty, documents cut in two and copies are what a packing "
    "may pay for it. Similarity is the cosine of two documents' vectors, 1 for the same direction."
)


def render(comparison: Comparison) -> str:
    """The page as text, to be written as UTF-8."""
    related, waste, holds, bounds = groups(comparison)
    sections = [
        _summary(comparison),
        Section(
            "related",
            related.heading,
            join(
                [_related(comparison), *_figures(comparison, related), _floors(comparison, related)]
            ),
        ),
        *([gain_section(comparison.gain)] if comparison.gain else []),
        Section("waste", waste.heading, join([_waste(comparison), *_figures(comparison, waste)])),
        Section("holds", holds.heading, join(_figures(comparison, holds))),
        Section("bounds", bounds.heading, join(_figures(comparison, bounds))),
        _runs(comparison),
    ]
    names = ", ".join(label(line) for line in comparison.lines)
    return document(f"Comparison: {names}", _heading(comparison), sections)


def _heading(comparison: Comparison) -> Markup:
    number = len(comparison.lines)
    return tag(
        "header",
        tag("p", text("Comparison of packed windows"), class_="kicker"),
        tag("h1", text("Which data gives a model more context to use?")),
        tag("p", text(f"{plural(number, 'run')}: "), _listed(comparison.lines), class_="when"),
    )


def _listed(lines: Sequence[Line]) -> Markup:
    return join([tag("span", text(label(line)), class_="run") for line in lines], ", ")


def _summary(comparison: Comparison) -> Section:
    notes = (tag("li", prose(sentence)) for sentence in caveats(comparison))
    size = comparison.sizes[-1]
    glance = Group(
        "At a glance",
        [
            replace(
                coherence(size, len(comparison.sizes) - 1),
                name=f"similarity in {count(size)} tokens",
            ),
            EARLIER,
            FILL,
            CUT_SHORT,
            COPIES,
        ],
    )
    body = [
        *(
            tag("p", prose(sentence), class_="lead" if i == 0 else None)
            for i, sentence in enumerate(verdict(comparison))
        ),
        *([paragraph(" ".join(gain_verdict(comparison.gain)))] if comparison.gain else []),
        _table(comparison, glance),
        paragraph(_WHY),
        tag("div", tag("h3", text("Keep in mind")), tag("ul", *notes), class_="worries"),
    ]
    return Section("summary", "Summary", join(body))


def _figures(comparison: Comparison, group: Group) -> list[Markup]:
    terms = [
        (term, prose(f"{meaning[0].upper()}{meaning[1:]}."))
        for term, meaning in group.terms.items()
    ]
    return [_table(comparison, group), facts(terms)]


def _table(comparison: Comparison, group: Group) -> Markup:
    marked = any(best(comparison.lines, column) for column in group.columns)
    tied = any(len(best(comparison.lines, column)) > 1 for column in group.columns)
    caption = group.heading
    if marked:
        caption += "; best values are marked"
    if tied:
        caption += ", several where there is no clear difference"
    leaders = {column.name: best(comparison.lines, column) for column in group.columns}
    rows = [
        [
            text(label(line)),
            *(_cell(line, column, line in leaders[column.name]) for column in group.columns),
        ]
        for line in comparison.lines
    ]
    return table(caption, ["Run", *(column.name for column in group.columns)], rows)


def _cell(line: Line, column: Column, is_best: bool) -> Markup:
    shown = text(column.shown(line))
    margin = column.margin(line)
    value = tag("strong", tag("i", text("best ")), shown) if is_best else shown
    return join([value, tag("small", text(f"± {margin}")) if margin else NOTHING])


def _related(comparison: Comparison) -> Markup:
    """One bar for each context size of each run; what chance gives is drawn in another tone."""
    columns = [coherence(size, i) for i, size in enumerate(comparison.sizes)]
    values = [
        v for c in columns for line in comparison.lines if (v := c.estimate(line).value) is not None
    ]
    highest = max([*values, 1e-9])
    rows = [_bar(line, columns, highest) for line in comparison.lines]
    sentence = (
        "The longer a bar, the more the documents in a context have to do with each other. The "
        "grey part is what the same documents would have in random places: only what goes beyond "
        "it is the work of the order. Bars that grow shorter from small contexts to large ones "
        "belong to an order that drifts from topic to topic."
    )
    key = [("neutral", "in random places"), ("accent", "beyond that")]
    return tag(
        "div",
        tag("h3", text("Similarity of documents that share a context")),
        figure(bars(rows), sentence, key),
        class_="chart",
    )


def _bar(line: Line, columns: Sequence[Column], highest: float) -> Bar:
    lines, values = [], []
    for column in columns:
        reached = max(column.estimate(line).value or 0.0, 0.0)
        floor = max((column.floor(line) if column.floor else None) or 0.0, 0.0)
        below = min(floor, reached)
        said = f"{column.name}: {column.shown(line)}"
        lines.append(
            [
                Segment(below / highest, "neutral", f"in random places: {decimal(floor)}"),
                Segment((reached - below) / highest, "accent", said),
            ]
        )
        values.append(f"{column.shown(line)} in {column.name}")
    return Bar(label(line), lines, values)


def _waste(comparison: Comparison) -> Markup:
    rows = [
        Bar(
            label(line),
            [
                [Segment(1 - line.counts.fill, "contrast", f"empty: {_empty(line)}")],
                [_share(line, CUT, "soft")],
                [_share(line, COPIES, "neutral")],
            ],
            [
                f"{_empty(line)} empty",
                f"{CUT.shown(line)} cut",
                f"{COPIES.shown(line)} copies",
            ],
        )
        for line in comparison.lines
    ]
    sentence = (
        "Each bar is a share of the whole width: of the room, of the documents, of the windows. "
        "Shorter is better. Documents longer than a window are cut in every packing."
    )
    key = [
        ("contrast", "room left empty"),
        ("soft", "documents cut"),
        ("neutral", "windows with copies"),
    ]
    return tag("div", figure(bars(rows), sentence, key), class_="chart")


def _empty(line: Line) -> str:
    return percent(1 - line.counts.fill)


def _share(line: Line, column: Column, tone: str) -> Segment:
    value = column.estimate(line).value or 0.0
    return Segment(value, tone, f"{column.name}: {column.shown(line)}")


def _floors(comparison: Comparison, group: Group) -> Markup:
    """What chance gives, next to what was found."""
    found = [(column.name, column.floor) for column in group.columns if column.floor]
    rows = [
        [text(label(line)), *(text(decimal(floor(line))) for _, floor in found)]
        for line in comparison.lines
    ]
    header = ["Run", *(name for name, _ in found)]
    return table("The same documents in random places", header, rows)


def _runs(comparison: Comparison) -> Section:
    body = [
        tag(
            "div",
            tag("h3", text(label(line))),
            facts(
                [
                    ("Place", code(masked(line.place))),
                    ("Files", text(count(line.files))),
                    ("Documents by", text(line.boundaries)),
                    ("Tokenizer", text(_assumed(line.tokenizer, line.tokenizer_known))),
                    ("Window", text(_assumed(f"{count(line.length)} tokens", line.length_known))),
                ]
            ),
        )
        for line in comparison.lines
    ]
    return Section("runs", "Runs", join(body))


def _assumed(value: str, known: bool) -> str:
    return value if known else f"{value} (assumed)"
