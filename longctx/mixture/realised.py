"""What a plan came to: planned against realised, by source and in all, and the checks on it.

The pass that writes copies counts documents and sizes of every cell again, so a census that is not
of these documents is found (`assert_census`). Sources whose copies follow hashes alone are judged
by z, the deviation over its standard deviation; above 4 is flagged and not fatal, because few
documents have heavy tails. A calibrated source has to be within half its largest document.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from longctx.errors import RunError
from longctx.mixture.census import Cell
from longctx.mixture.chance import I32, I64
from longctx.mixture.planned import Plan, SourcePlan

FLAGGED = 4.0
_ADDED = 5


class Taken(NamedTuple):
    """Of a cell: documents and size that are there, and documents, copies and size taken."""

    docs: int
    size: int
    used: int
    copies: int
    realised: int


Rows = Mapping[Cell, Taken]


def take(number: I64, cells: int, size: I64, copies: I32) -> I64:
    """Rows counted by cell, int64 [cells, 5] in the order of `Taken`.

    `number` int64 [n] is the cell of each row (-1: none), `size` what it holds.
    """
    inside = number >= 0
    number, size, many = number[inside], size[inside], copies[inside].astype(np.int64)
    found = np.zeros((cells, _ADDED), dtype=np.int64)
    for column, values in enumerate(
        (np.ones(len(number), np.int64), size, (many > 0).astype(np.int64), many, size * many)
    ):
        np.add.at(found[:, column], number, values)
    return found


def assert_census(plan: Plan, rows: Rows, where: str) -> None:
    """Raise RunError where documents or sizes of a cell are not those that were planned with."""
    for cell, (line, planned) in plan.cells().items():
        found = rows.get(cell, Taken(0, 0, 0, 0, 0))
        if (found.docs, found.size) != (planned.docs, planned.size):
            raise RunError(
                f"the census of the mixture does not hold: '{line.name}' from {planned.lo:,} on "
                f"has {found.docs:,} documents and {found.size:,} {plan.unit}, planned with "
                f"{planned.docs:,} and {planned.size:,}",
                where=where,
                remedy="this is a fault of longctx, please report it with run.json",
            )


def realised(plan: Plan, rows: Rows) -> dict[str, Any]:
    """Planned against realised as plain values: `sources` by name of the plan, and all together."""
    by_name: dict[str, list[tuple[int, Taken]]] = {}
    for cell, (line, planned) in plan.cells().items():
        if cell in rows:
            by_name.setdefault(line.name, []).append((planned.lo, rows[cell]))
    total = sum(t.realised for found in by_name.values() for _, t in found)
    sources = [_source(plan, s, by_name.get(s.name, []), total) for s in plan.sources]
    long = sum(s["long_share"] * s["size"] for s in sources)
    return {
        "size": total,
        "budget": plan.budget,
        "deviation": total / plan.budget - 1,
        "l1": sum(abs(s["share"] - s["share_planned"]) for s in sources),
        "off_target": sum(abs(s["size"] - s["target"]) for s in sources) / plan.budget,
        "docs": sum(s["docs"] for s in sources),
        "copies": sum(s["copies"] for s in sources),
        "long_share": long / total if total else 0.0,
        "long_share_planned": plan.long_share,
        "sources": sources,
    }


def _source(
    plan: Plan, line: SourcePlan, found: list[tuple[int, Taken]], total: int
) -> dict[str, Any]:
    size = sum(t.realised for _, t in found)
    cut = line.piece is not None and line.piece <= plan.long_from
    long = 0 if cut else sum(t.realised for lo, t in found if lo >= plan.long_from)
    sd = math.sqrt(line.variance)
    z = None if line.calibrated or not sd else (size - line.target) / sd
    return {
        "name": line.name,
        "source": line.source,
        "size": size,
        "target": line.target,
        "share": size / total if total else 0.0,
        "share_planned": line.weight,
        "docs": sum(t.used for _, t in found),
        "copies": sum(t.copies for _, t in found),
        "epochs": size / line.size if line.size else 0.0,
        "epochs_planned": line.epochs,
        "long_share": long / size if size else 0.0,
        "long_share_planned": line.planned_long_share,
        "calibrated": line.calibrated,
        "z": z,
        "flagged": z is not None and abs(z) > FLAGGED,
    }


def assert_calibrated(plan: Plan, found: Mapping[str, Any], used_up: set[str], where: str) -> None:
    """Raise RunError where a calibrated source is not within half its largest document.

    `used_up` names the sources whose documents are all taken as often as they may.
    """
    for line, told in zip(plan.sources, found["sources"], strict=True):
        largest = max((c.max for c in line.cells if c.rel > 0), default=0)
        off = abs(told["size"] - line.target)
        if line.calibrated and line.name not in used_up and off > largest / 2 * (1 + 1e-9):
            raise RunError(
                f"the mixture is not calibrated: '{line.name}' has {told['size']:,} "
                f"{plan.unit}, planned {line.target:,.0f}",
                where=where,
                remedy="this is a fault of longctx, please report it with run.json",
            )
