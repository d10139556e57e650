"""Quantiles of many groups on one scale, as inline SVG: two sources or forty, one below the other.

Each strip is a thin line from the 5 % to the 95 % quantile, a block from 25 % to 75 % and a tick at
the median. Positions are percentages of whatever width the page has, as in `figures`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from longctx.report.figures import percentage
from longctx.report.markup import Markup, tag, text
from longctx.report.scores.statistics import Spread

_HEIGHT, _LINE, _BLOCK, _TICK = 22, 4, 12, 18


@dataclass(frozen=True)
class Strip:
    """A named group with its quantiles and the value that stands beside it."""

    name: str
    spread: Spread
    value: str


@dataclass(frozen=True)
class Scale:
    """From the lowest to the highest value that is drawn; `doubling` is logarithmic."""

    low: float
    high: float
    doubling: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, in 0..1."""
        if self.high <= self.low:
            return 0.5
        share = (self._along(value) - self._along(self.low)) / (
            self._along(self.high) - self._along(self.low)
        )
        return min(max(share, 0.0), 1.0)

    def _along(self, value: float) -> float:
        return math.log2(max(value, self.low)) if self.doubling else value

    def value(self, share: float) -> float:
        """The value at a place in 0..1."""
        low, high = self._along(self.low), self._along(self.high)
        along = low + share * (high - low)
        return 2.0**along if self.doubling else along


def scale_of(spreads: Sequence[Spread], *, doubling: bool) -> Scale:
    """The scale on which these quantiles fit; `doubling` where they are above 0."""
    low, high = min(s.p5 for s in spreads), max(s.p95 for s in spreads)
    if doubling:
        above = [q for s in spreads for q in s if q > 0]
        low = min(above, default=1.0)
    return Scale(low, max(high, low), doubling)


def strips(rows: Sequence[Strip], scale: Scale, written: Callable[[float], str]) -> Markup:
    """A list of strips with their names and values, and the scale below them."""
    drawn = (
        tag(
            "li",
            tag("span", text(row.name), class_="name"),
            tag("span", tag("span", text(row.value)), class_="value"),
            _strip(row, scale, written),
        )
        for row in rows
    )
    return tag("ul", *drawn, _axis(scale, written), class_="bars strips")


def _strip(row: Strip, scale: Scale, written: Callable[[float], str]) -> Markup:
    spread = row.spread
    low, begin, middle, end, high = (scale.place(value) for value in spread)
    said = f"5 % {written(spread.p5)}, 25 % {written(spread.p25)}, median {written(spread.p50)}, "
    said += f"75 % {written(spread.p75)}, 95 % {written(spread.p95)}"
    return tag(
        "svg",
        tag("title", text(row.name)),
        tag("desc", text(said)),
        _bar(0.0, 1.0, 1, "track"),
        _bar(low, high, _LINE, "tone-soft"),
        _bar(begin, end, _BLOCK, "tone-accent"),
        tag(
            "line",
            x1=percentage(middle),
            x2=percentage(middle),
            y1=(_HEIGHT - _TICK) / 2,
            y2=(_HEIGHT + _TICK) / 2,
            class_="middle",
        ),
        role="img",
        width="100%",
        height=_HEIGHT,
    )


def _bar(start: float, end: float, thick: int, class_: str) -> Markup:
    return tag(
        "rect",
        x=percentage(start),
        y=(_HEIGHT - thick) / 2,
        width=percentage(end - start),
        height=thick,
        class_=class_,
    )


def _axis(scale: Scale, written: Callable[[float], str]) -> Markup:
    """The values at both ends and in the middle of the scale."""
    ends = ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    labels = (
        tag(
            "text",
            text(written(scale.value(share))),
            x=percentage(share),
            y=14,
            text_anchor=anchor,
            class_="wide" if anchor == "middle" else None,
        )
        for share, anchor in ends
    )
    return tag(
        "li",
        tag("svg", *labels, width="100%", height=_HEIGHT),
        class_="scale",
        aria_hidden="true",
    )
