"""Shares within their bounds, one source a line: two ticks on a band, as inline SVG.

Rows, names and values stand as in `figures.bars`; positions are percentages of the width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from longctx.report.figures import percentage
from longctx.report.markup import Markup, tag, text

_LINE = 22  # as the lines of values beside it
_TRACK, _BAND, _TICK = 4, 10, 16


@dataclass(frozen=True)
class Range:
    """A named share, the one that it is compared with, and the band that it may lie in.

    All are shares in 0..1, null where unknown; `values` stand beside it as text, one a line.
    """

    name: str
    share: float
    other: float | None
    band: tuple[float, float] | None
    label: str
    values: list[str]


def ranges(rows: Sequence[Range]) -> Markup:
    """All rows on one axis from 0 to a little above the largest share; bands end at its edge."""
    most = max([1e-9, *(r.share for r in rows), *(r.other or 0.0 for r in rows)])
    scale = 1 / min(1.2 * most, max(most, 1.0))
    return tag("ul", *(_row(row, scale) for row in rows), class_="bars")


def _row(row: Range, scale: float) -> Markup:
    drawn = [_bar(0.0, 1.0, _TRACK, "track")]
    if row.band is not None:
        low, high = (min(max(end * scale, 0.0), 1.0) for end in row.band)
        drawn.append(_bar(low, max(high - low, 0.0), _BAND, "tone-soft", opacity=0.45))
    if row.other is not None:
        drawn.append(_tick(row.other * scale, "tone-neutral"))
    drawn.append(_tick(row.share * scale, "tone-accent"))
    svg = tag(
        "svg",
        tag("title", text(row.name)),
        tag("desc", text(row.label)),
        *drawn,
        role="img",
        width="100%",
        height=_LINE,
    )
    name = tag("span", text(row.name), class_="name")
    values = tag("span", *(tag("span", text(value)) for value in row.values), class_="value")
    return tag("li", name, values, svg)


def _bar(
    start: float, width: float, thick: int, class_: str, opacity: float | None = None
) -> Markup:
    return tag(
        "rect",
        x=percentage(start),
        y=(_LINE - thick) / 2,
        width=percentage(width),
        height=thick,
        class_=class_,
        opacity=opacity,
    )


def _tick(place: float, class_: str) -> Markup:
    return tag(
        "rect",
        x=percentage(min(max(place, 0.0), 1.0)),
        y=(_LINE - _TICK) / 2,
        width=4,
        height=_TICK,
        transform="translate(-2 0)",
        class_=class_,
    )
