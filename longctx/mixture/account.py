"""What the record of a run says about its mixture: one object, of bounded size.

    plan        the plan (`planned.py`); cells only up to 200 in all
    realised    planned against realised (`realised.py`)
    natural     shares, long share and documents without any mixture, and the L1 of plan to natural
    strategies  what Fu et al.'s strategies would do with this corpus and budget
    evidence    of a file of weights, as it is, and its verdict

The whole plan stays in the step `plan`. Above 150 sources the largest are told, and how many are
left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from longctx.mixture.planned import Plan

CELLS, SOURCES = 200, 150


def account(
    plan: Plan,
    realised: Mapping[str, Any],
    natural: Mapping[str, Any],
    strategies: Sequence[Mapping[str, Any]],
    evidence: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The object, as plain values."""
    shares = plan.shares()
    whole = natural["sources"]
    l1 = sum(abs(shares.get(s, 0.0) - whole[s]["share"]) for s in whole)
    largest = sorted(whole, key=lambda s: (-shares.get(s, 0.0), -whole[s]["size"], s))
    kept = set(largest[:SOURCES])
    told = plan.as_dict(CELLS)
    told["sources"] = [s for s in told["sources"] if s["source"] in kept]
    told["unused"] = {s: v for s, v in told["unused"].items() if s in kept}
    rows = [
        {**row, "shares": {s: v for s, v in row["shares"].items() if s in kept}}
        if "shares" in row
        else dict(row)
        for row in strategies
    ]
    found: dict[str, Any] = {
        "plan": told,
        "realised": {
            **realised,
            "sources": [s for s in realised["sources"] if s["source"] in kept],
        },
        "natural": {
            **natural,
            "l1": l1,
            "sources": {s: v for s, v in whole.items() if s in kept},
        },
        "strategies": rows,
        "sources_left_out": len(whole) - len(kept),
    }
    if evidence is not None:
        found |= {"evidence": dict(evidence), "verdict": evidence.get("verdict")}
    return found
