"""Coefficients of the cost model from what finished runs recorded about their steps.

Every figure is a straight line over what its step grows with, fitted to at least two sizes. Errors
count relative to the value, so a small run has as much to say as a large one; where a line would
fall, or begin below zero, the line through the origin is taken. Memory of a unit is a line over
the bytes of one unit, because neither documents nor workers may change it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from longctx.cost.laws import LAWS, Size, held_by, laws_of


class Line(NamedTuple):
    """at + slope · x, neither below zero."""

    at: float
    slope: float


@dataclass(frozen=True)
class Seen:
    """One step of one run: how much it got, and what its units took together (bytes, seconds).

    `place` is "part", "block", "bucket" or "one"; `unit_bytes` are those of the largest unit (text
    of a part, bytes brought to a bucket), `peak` its resident memory and `grown` the growth of it.
    """

    size: Size
    place: str
    units: int
    cpu: float
    stored: float
    received: float
    peak: float
    grown: float
    unit_bytes: float


@dataclass(frozen=True)
class Coefficients:
    """What a step costs: `fixed` + `cpu` seconds per unit of `law`, bytes per unit of `volume`.

    `held` bytes in one process per unit of `laws.held_by` (`place` "one", else zero), mostly per
    document; a worker holds `worker` bytes and `per_byte` for each byte of the unit it works on.
    """

    law: str
    volume: str
    place: str
    cpu: float
    fixed: float
    stored: float
    received: float
    held: float
    worker: float
    per_byte: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, numbers rounded to four digits."""
        return {
            k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in asdict(self).items()
        }


def line(points: Iterable[tuple[float, float]]) -> Line:
    """The line of least squared relative error through points (x >= 0, y).

    A constant where every x is 0. ValueError without points.
    """
    found = [(x, y) for x, y in points]
    if not found:
        raise ValueError("a line needs at least one point")
    weighed = [(x, y, 1 / (y * y)) for x, y in found if y > 0]
    if not weighed:
        return Line(0.0, 0.0)
    w, wx, wy, wxx, wxy = (
        sum(f(x, y) * v for x, y, v in weighed)
        for f in (
            lambda x, y: 1.0,
            lambda x, y: x,
            lambda x, y: y,
            lambda x, y: x * x,
            lambda x, y: x * y,
        )
    )
    spread = w * wxx - wx * wx
    if len({x for x, _, _ in weighed}) > 1 and spread > 0:
        slope = (w * wxy - wx * wy) / spread
        at = (wy - slope * wx) / w
        if slope >= 0 and at >= 0:
            return Line(at, slope)
        if slope < 0:
            return Line(wy / w, 0.0)
    return Line(0.0, wxy / wxx) if wxx else Line(wy / w, 0.0)


def growing(points: Iterable[tuple[float, float]]) -> Line:
    """The line through points of something that must grow; where noise hid that, in proportion.

    Proportion to the largest point is an upper bound.
    """
    found = sorted(points)
    fitted = line(found)
    x, y = found[-1]
    return fitted if fitted.slope > 0 or not x else Line(0.0, y / x)


def coefficients(op: str, step: str, seen: Sequence[Seen]) -> Coefficients:
    """The coefficients of a step that was seen at some sizes, all at the same place."""
    law, volume = laws_of(op, step)
    place = seen[0].place
    cpu = growing((LAWS[law](s.size), s.cpu) for s in seen)
    stored = growing((LAWS[volume](s.size), s.stored) for s in seen)
    received = growing((LAWS[volume](s.size), s.received) for s in seen)
    alone = place == "one"
    holds = LAWS[held_by(op, step)]
    held = line((holds(s.size), s.grown) for s in seen) if alone else Line(0.0, 0.0)
    before = max(s.peak - s.grown for s in seen)
    own = Line(held.at, 0.0) if alone else line((s.unit_bytes, s.grown) for s in seen)
    return Coefficients(
        law,
        volume,
        place,
        cpu.slope,
        cpu.at,
        stored.slope,
        received.slope,
        held.slope,
        before + own.at,
        own.slope,
    )
