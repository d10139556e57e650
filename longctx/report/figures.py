"""Horizontal bars as inline SVG, without a script and without a fixed width.

Horizontal positions are percentages of whatever width the page has and vertical ones are pixels,
so a figure narrows on a phone while its text keeps its size; `histogram` does the same. Colours
come from the page's CSS variables by class (`tone-...`) and follow its theme.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from longctx.report.markup import Markup, tag, text

_LINE = 22  # pixels of one line of bars: the line height of the values beside it in style.css
_THICK = 12


@dataclass(frozen=True)
class Segment:
    """A stretch of a bar: `share` of the full width in 0..1, and what its tooltip says."""

    share: float
    tone: str
    label: str


@dataclass(frozen=True)
class Bar:
    """A named row of a bar chart: one or more stacked lines, each with its value as text."""

    name: str
    lines: list[list[Segment]]
    values: list[str]


def percentage(share: float) -> str:
    """A position or width along the figure, from a share in 0..1."""
    return f"{share * 100:.4g}%"


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Tones and their names, in the order given."""
    items = (tag("li", tag("i", class_=f"tone-{tone}"), text(name)) for tone, name in entries)
    return tag("ul", *items, class_="legend")


def bars(rows: Sequence[Bar]) -> Markup:
    """A list of bars; each is one SVG, its name and values are text of the page."""
    return tag("ul", *(_bar(row) for row in rows), class_="bars")


def _bar(row: Bar) -> Markup:
    svg = tag(
        "svg",
        tag("title", text(row.name)),
        tag("desc", text("; ".join(s.label for line in row.lines for s in line))),
        *(part for number, line in enumerate(row.lines) for part in _stack(line, number)),
        role="img",
        width="100%",
        height=_LINE * len(row.lines),
    )
    name = tag("span", text(row.name), class_="name")
    values = tag("span", *(tag("span", text(value)) for value in row.values), class_="value")
    return tag("li", name, values, svg)


def _stack(line: Sequence[Segment], number: int) -> list[Markup]:
    y = number * _LINE + (_LINE - _THICK) / 2
    drawn = [tag("rect", y=y, width="100%", height=_THICK, class_="track")]
    left = 0.0
    for segment in line:
        share = min(max(segment.share, 0.0), 1.0 - left)
        if share > 0:
            drawn.append(
                tag(
                    "rect",
                    tag("title", text(segment.label)),
                    x=percentage(left),
                    y=y,
                    width=percentage(share),
                    height=_THICK,
                    class_=f"tone-{segment.tone}",
                )
            )
        left += share
    return drawn
