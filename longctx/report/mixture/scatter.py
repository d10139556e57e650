"""Predicted against measured values as inline SVG, with the line on which both are the same.

Both axes have the same range. Horizontal positions are percentages of the width, vertical ones are
pixels, as in `figures`, so the line of equal values runs from corner to corner at any width.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from longctx.report.figures import percentage
from longctx.report.markup import Markup, tag, text

_AXIS = 22
_ROOM = 0.04
_RADIUS = 3
_TICKS = 5


def linear_ticks(low: float, high: float, most: int = _TICKS) -> list[float]:
    """Up to `most` + 1 round numbers within low..high; those two where the range is empty."""
    if not high > low:
        return [low]
    step = round_step((high - low) / most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def round_step(least: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is not below `least`, above 0."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= least * 0.999)


def decimals(step: float) -> int:
    """How many decimals tell numbers apart that are multiples of `step`, above 0."""
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    # A step of 0.25 needs one more than one of 0.2.
    return digits + (abs(step * 10**digits - round(step * 10**digits)) > 1e-6)


def scatter(
    name: str, x: Sequence[float], y: Sequence[float], axes: tuple[str, str], height: int
) -> Markup:
    """Points of as many x as y values; `axes` names both, `height` in pixels is the plot's."""
    low, high = min([*x, *y]), max([*x, *y])
    room = _ROOM * (high - low) or max(abs(low) * _ROOM, 1e-6)
    low, high = low - room, high + room

    def place(value: float) -> float:
        return (value - low) / (high - low)

    ticks = linear_ticks(low, high)
    digits = decimals(min((b - a for a, b in pairwise(ticks)), default=high - low))
    top = _RADIUS
    drawn = [
        part
        for i, value in enumerate(ticks)
        for part in _tick(place(value), f"{value:.{digits}f}", top, height, wide=i % 2 == 1)
    ]
    points = (
        tag(
            "circle",
            cx=percentage(place(a)),
            cy=top + height * (1 - place(b)),
            r=_RADIUS,
            class_="tone-accent",
            fill_opacity=0.55,
        )
        for a, b in zip(x, y, strict=True)
    )
    svg = tag(
        "svg",
        tag("title", text(name)),
        tag("desc", text(f"{axes[1]} against {axes[0].lower()} of {len(x):,} runs.")),
        *drawn,
        tag(
            "line",
            x1="0%",
            x2="100%",
            y1=top + height,
            y2=top,
            class_="mark line-neutral",
        ),
        tag("line", x1="0%", x2="100%", y1=top + height, y2=top + height, class_="base"),
        *points,
        role="img",
        width="100%",
        height=top + height + _AXIS,
    )
    return tag(
        "div",
        tag("p", text(axes[1]), class_="axis"),
        svg,
        tag("p", text(axes[0]), class_="axis end"),
        class_="plot",
    )


def _tick(place: float, label: str, top: int, height: int, *, wide: bool) -> list[Markup]:
    """Grid lines of both axes at one value, and its labels."""
    x, y = percentage(place), round(top + height * (1 - place)) + 0.5
    floor = top + height
    return [
        tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="grid"),
        tag("line", x1=x, x2=x, y1=top, y2=floor, class_="grid"),
        tag("text", text(label), x=-8, y=y + 4, text_anchor="end"),
        tag(
            "text",
            text(label),
            x=x,
            y=floor + 17,
            text_anchor="middle",
            class_="wide" if wide else None,
        ),
    ]
