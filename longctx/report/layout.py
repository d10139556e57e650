"""The pieces every section of the page is made of: sections, figures, tables, tiles, lists."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from longctx.report.figures import legend
from longctx.report.histogram import Axes, Mark, Series, numbers, plot
from longctx.report.markup import NOTHING, Markup, join, tag, text

_TABLE_ROWS = 200
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|[kMBTsdh]\b|min\b|times\b))")


@dataclass(frozen=True)
class Section:
    """A section of the page: its anchor, its heading and what stands below."""

    anchor: str
    heading: str
    body: Markup


def section(part: Section) -> Markup:
    return tag("section", tag("h2", text(part.heading)), part.body, id=part.anchor)


def figure(drawing: Markup, sentence: str, key: Sequence[tuple[str, str]] = ()) -> Markup:
    """A drawing with its legend above and, below, one sentence that says how to read it."""
    return tag(
        "figure",
        legend(key) if key else NOTHING,
        drawing,
        tag("figcaption", prose(sentence)),
    )


def chart(
    series: Sequence[Series], axes: Axes, sentence: str, marks: Sequence[Mark] = ()
) -> Markup:
    """A histogram figure with its heading and, folded away, the table of its numbers."""
    key = [(s.tone, s.name) for s in series] if len(series) > 1 else []
    header, rows = numbers(series, axes)
    body = [[text(cell) for cell in row] for row in rows]
    return tag(
        "div",
        tag("h3", text(axes.title)),
        figure(plot(series, axes, marks), sentence, key),
        numbers_behind(table(axes.title, header, body)),
        class_="chart",
    )


def table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[Markup]], words: int = 1
) -> Markup:
    """A real table that scrolls inside its own box; all but the first `words` columns are numbers.

    Rows beyond the first 200 are left out, and the table says so.
    """
    head = tag(
        "tr",
        *(
            tag("th", text(name), scope="col", class_=None if i < words else "num")
            for i, name in enumerate(header)
        ),
    )
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(
                tag("td", cell, class_=None if i < words else "num")
                for i, cell in enumerate(row[1:], start=1)
            ),
        )
        for row in rows[:_TABLE_ROWS]
    ]
    more = len(rows) - _TABLE_ROWS
    return tag(
        "div",
        tag(
            "table",
            tag("caption", text(caption)),
            tag("thead", head),
            tag("tbody", *body),
        ),
        paragraph(f"{more:,} more rows are left out here.") if more > 0 else NOTHING,
        class_="scroll",
        role="region",
        tabindex=0,
        aria_label=caption,
    )


def folded(summary: str, body: Markup, *, unfold: bool = False) -> Markup:
    """A part that the reader opens with a click, or one that is open to begin with."""
    return tag("details", tag("summary", text(summary)), body, open="" if unfold else None)


def numbers_behind(drawn: Markup) -> Markup:
    """The table behind a figure, folded away and not printed."""
    return tag("div", folded("Numbers of this figure", drawn), class_="numbers")


def tiles(entries: Sequence[tuple[str, str, str]]) -> Markup:
    """Key figures: name, value, and a remark that may be empty."""
    return tag(
        "dl",
        *(
            tag(
                "div",
                tag("dt", text(name)),
                tag("dd", text(value)),
                tag("dd", text(remark), class_="remark") if remark else NOTHING,
            )
            for name, value, remark in entries
        ),
        class_="tiles",
    )


def facts(entries: Sequence[tuple[str, Markup]]) -> Markup:
    """Names and values, one below the other."""
    pairs = (join([tag("dt", text(name)), tag("dd", value)]) for name, value in entries)
    return tag("dl", *pairs, class_="facts")


def paragraph(sentence: str) -> Markup:
    return tag("p", prose(sentence))


def prose(sentence: str) -> Markup:
    """A sentence whose numbers stay on one line with their units."""
    return text(_BEFORE_UNIT.sub("\u00a0", sentence))


def code(value: object) -> Markup:
    """An id, a path, a name: isolated, so that its script direction stays its own."""
    return tag("code", text(value))
