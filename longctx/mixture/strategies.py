"""The natural mix, and what the strategies of Fu et al. would do, from one census.

Table 5 of arXiv 2402.10171 compares these strategies; here each gets a row for the corpus at hand,
without a second pass over it. Caps are shown and enforce nothing. (The table is ours.)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from longctx.mixture.caps import Question, unbounded
from longctx.mixture.census import Census
from longctx.mixture.chance import F64, I64
from longctx.mixture.rules import LONG
from longctx.mixture.supply import Supply, plain_supplies
from longctx.mixture.upsample import STRATEGIES, Strategy, boosts, raised_values
from longctx.mixture.weights import boosted, natural


def natural_mix(census: Census, long_from: int) -> dict[str, Any]:
    """Shares, long shares and documents of the corpus as it is, by source and in all."""
    low, own = census.low(), census.own.size
    total = int(own.sum())
    by_source = {}
    for source, at in census.by_source().items():
        size = int(own[at].sum())
        by_source[source] = {
            "docs": int(census.docs[at].sum()),
            "size": size,
            "share": size / total if total else 0.0,
            "long_share": _long(own[at], low[at], long_from),
        }
    return {
        "size": total,
        "docs": int(census.docs.sum()),
        "long_share": _long(own, low, long_from),
        "sources": by_source,
    }


def _long(sizes: I64, low: I64, long_from: int) -> float:
    total = int(sizes.sum())
    return int(sizes[low >= long_from].sum()) / total if total else 0.0


def compare_strategies(
    census: Census,
    budget: float,
    strategies: Sequence[str] = tuple(STRATEGIES),
    *,
    slots: Mapping[str, list[str]] | None = None,
    max_epochs: int = 4,
    unit: str = "tokens",
) -> list[dict[str, Any]]:
    """One row a strategy: shares by source, L1 to the natural ones, long share, epochs, budget.

    `slots` say which sources are code, books and arXiv; without them strategies that raise these
    have `status` "no sources" and no numbers. `max_epochs` of a row is the highest rate, `b_max`
    the largest budget that keeps its shares with the given `max_epochs`.
    """
    return [_row(census, budget, name, slots or {}, max_epochs, unit) for name in strategies]


def _row(
    census: Census,
    budget: float,
    name: str,
    slots: Mapping[str, list[str]],
    max_epochs: int,
    unit: str,
) -> dict[str, Any]:
    strategy = STRATEGIES[name]
    raised = boosts(strategy, slots)
    if not all(raised.values()):
        needed = [slot for slot, named in raised.items() if not named]
        return {"strategy": name, "status": f"no source is named for {', '.join(needed)}"}
    given = plain_supplies(census, strategy.length)
    own = natural(np.array([float(s.own.sum()) for s in given]))
    weights = _weights(strategy, given, own, raised)
    question = Question(given, weights, budget, max_epochs, not strategy.weights_follow, unit)
    found = unbounded(question)
    rates = [found.rate(i, s) for i, s in enumerate(given)]
    long = sum(s.in_long(r, LONG) for s, r in zip(given, rates, strict=True))
    top = max(float(r[s.size > 0].max(initial=0.0)) for r, s in zip(rates, given, strict=True))
    return {
        "strategy": name,
        "status": "ok" if top <= max_epochs * (1 + 1e-9) else "above max_epochs",
        "shares": {s.entry.source: float(w) for s, w in zip(given, weights, strict=True)},
        "l1": float(np.abs(weights - own).sum()),
        "long_share": long / float(found.target.sum()),
        "max_epochs": top,
        "b_max": question.largest_budget,
    }


def _weights(
    strategy: Strategy, given: Sequence[Supply], own: F64, raised: Mapping[str, Sequence[str]]
) -> F64:
    if strategy.weights_follow:
        return natural(np.array([s.effective(s.p) for s in given]))
    sources = [s.entry.source for s in given]
    return boosted(
        own, raised_values(raised, dict(zip(sources, own.tolist(), strict=True))), sources
    )
