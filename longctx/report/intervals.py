"""Intervals with their means on a common axis, as inline SVG without a script or a fixed width.

Rows, names and values stand as in `figures.bars`; positions are percentages of the width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from longctx.compare.bootstrap import Interval
from longctx.report.figures import percentage
from longctx.report.markup import Markup, tag, text

_LINE = 22  # as the lines of values beside it
_THICK, _MEAN = 10, 16


@dataclass(frozen=True)
class Whisker:
    """One interval: its tone, what its tooltip says, and the value as text."""

    found: Interval
    tone: str
    label: str
    value: str


@dataclass(frozen=True)
class WhiskerRow:
    """A named row with one interval a line."""

    name: str
    lines: list[Whisker]


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float

    def at(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


def whiskers(rows: Sequence[WhiskerRow]) -> Markup:
    """All rows on one axis that holds every interval and 0, which a line marks."""
    found = [line.found for row in rows for line in row.lines]
    values = [v for one in found for v in (one.value, one.low, one.high) if v is not None]
    low, high = min([0.0, *values]), max([0.0, *values])
    # Room at both ends, so that nothing ends at the edge.
    room = 0.04 * (high - low) or 1.0
    axis = _Axis(low - room, high + room)
    return tag("ul", *(_row(row, axis) for row in rows), class_="bars")


def _row(row: WhiskerRow, axis: _Axis) -> Markup:
    height = _LINE * len(row.lines)
    zero = percentage(axis.at(0.0))
    svg = tag(
        "svg",
        tag("title", text(row.name)),
        tag("desc", text("; ".join(line.label for line in row.lines))),
        *(part for number, line in enumerate(row.lines) for part in _line(line, number, axis)),
        tag("line", x1=zero, x2=zero, y1=0, y2=height, class_="base"),
        role="img",
        width="100%",
        height=height,
    )
    name = tag("span", text(row.name), class_="name")
    values = tag("span", *(tag("span", text(line.value)) for line in row.lines), class_="value")
    return tag("li", name, values, svg)


def _line(line: Whisker, number: int, axis: _Axis) -> list[Markup]:
    middle = number * _LINE + _LINE / 2
    found = line.found
    drawn = [tag("rect", y=middle - _THICK / 2, width="100%", height=_THICK, class_="track")]
    if found.low is not None and found.high is not None:
        drawn.append(
            tag(
                "rect",
                tag("title", text(line.label)),
                x=percentage(axis.at(found.low)),
                y=middle - _THICK / 2,
                width=percentage(axis.at(found.high) - axis.at(found.low)),
                height=_THICK,
                class_=f"tone-{line.tone}",
                opacity=0.55,
            )
        )
    if found.value is not None:
        drawn.append(
            tag(
                "rect",
                tag("title", text(line.label)),
                x=percentage(axis.at(found.value)),
                y=middle - _MEAN / 2,
                width=3,
                height=_MEAN,
                transform="translate(-1.5 0)",
                class_=f"tone-{line.tone}",
            )
        )
    return drawn
