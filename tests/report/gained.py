"""Gains made up for tests of words, tables and pages."""

from typing import Any

from longctx.compare.bootstrap import Interval
from longctx.compare.gain import GROUPS, Difference, GainLine, Group
from longctx.compare.result import Gain

SHARES = {"all": 1.0, "same": 0.6, "other": 0.1, "both": 0.3}


def around(value: float | None, width: float | None = 0.002) -> Interval:
    if value is None or width is None:
        return Interval(value)
    return Interval(value, value - width, value + width)


def gain_line(
    name: str,
    score: float = 0.01,
    *,
    more: dict[str, float] | None = None,
    width: float | None = 0.002,
    shares: dict[str, float] = SHARES,
    **changes: Any,
) -> GainLine:
    """A run of 32 windows; `more` is what it has more than the first one, by group."""

    def group(name: str) -> Group:
        held = round(40_000 * shares[name])
        scored = [around(score * factor if held else None, width) for factor in (1, 2, 0.1)]
        return Group(held, shares[name], 32 if held else 0, *scored)

    told: dict[str, Any] = {
        "held": 500,
        "looked": 32,
        "units": 32,
        "unknown": 0.0,
        "groups": {name: group(name) for name in GROUPS},
        "difference": None,
        "shared": None,
        "shared_first": None,
        "scored": [],
    }
    if more is not None:
        told["difference"] = {
            name: Difference(*(around(more.get(name, 0.0) * f, width) for f in (1, 2, 0.1)))
            for name in GROUPS
        }
        told["shared"] = told["shared_first"] = 1.0
    return GainLine(name=name, **{**told, **changes})


def gain_of(*lines: GainLine, of: str = "windows", model: str = "smollm2") -> Gain:
    return Gain(of, 32, model, "bfloat16", 2048, 256, 0, list(lines))


def gained() -> Gain:
    """A baseline, an order that has clearly more in other documents, and one without difference."""
    return gain_of(
        gain_line("random"),
        gain_line("path", 0.014, more={"all": 0.004, "other": 0.008}),
        gain_line("source", 0.0101, more={"all": 0.0001, "same": -0.005}),
    )
