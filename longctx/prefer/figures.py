"""Checks over all pairs of a job that hold for every system of this room.

Bounds that each pair was built by are looked at again over what was written, beside how margins and
lengths are spread: a lead that is always small, or a chosen side that is always longer, is what a
trainer learns instead of quality. Linear in the pairs; nothing is lost.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from longctx.prefer.pairs import histogram, length_ratio
from longctx.synth.rows import Row

Facts = Mapping[str, Any]
_RATIOS = (0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0)
# Of a job with so many pairs the chosen side should not be the longer one in nearly all.
_LEAST_ROWS, _ONE_SIDED = 20, 0.9


def pair_facts(row: Row) -> dict[str, Any]:
    """What `pair_figures` has to know of a pair."""
    ratio = length_ratio(row["chosen"], row["rejected"])
    return {"id": row["id"], "ratio": ratio, "margin": row["margin"]}


def pair_figures(
    facts: Sequence[Facts], max_ratio: float, least_margin: float, edges: Sequence[float]
) -> dict[str, Any]:
    """Checks by name, each a mapping with `ok`; `edges` part the histogram of margins."""
    if not facts:
        return {}
    ratios = [f["ratio"] for f in facts]
    margins = [f["margin"] for f in facts if f["margin"] is not None]
    within = all(1 / max_ratio <= r <= max_ratio for r in ratios)
    longer = sum(r > 1 for r in ratios) / len(ratios)
    return {
        "distinct_ids": {"ok": len({f["id"] for f in facts}) == len(facts), "n": len(facts)},
        "length_ratio": {
            "ok": within,
            "median": _median(ratios),
            "histogram": histogram(ratios, _RATIOS),
        },
        "chosen_longer": {
            "ok": None if len(ratios) < _LEAST_ROWS else longer <= _ONE_SIDED,
            "share": longer,
            "n": len(ratios),
        },
        "margin": {
            "ok": all(m >= least_margin for m in margins) if margins else None,
            "mean": math.fsum(margins) / len(margins) if margins else None,
            "histogram": histogram(margins, edges),
        },
    }


def _median(values: Sequence[float]) -> float:
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
