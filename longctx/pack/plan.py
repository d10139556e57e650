"""Packing strategies by name, and the plan of a whole order cut into pack blocks.

`concat` fills every window and cuts anywhere; `window` keeps short documents whole and near their
neighbours; `best_fit` keeps them whole and drops the order. A strategy is a function of lengths
(and of vectors, where a rule asks for them), chosen from a dict: framed lengths int64[n] and tour
numbers int32[n] in tour order, the window length and its own keyword options give a `Plan`. It
never sees a token, so planning costs bytes per document and tokens move once, when windows are
filled.

Blocks (`frame.pack_blocks`) are cut by token position, never by worker: planning them here in one
loop or each in a task of its own gives the same windows. Concat across tours needs no blocks,
because prefix sums place every document alone; best-fit has none, because it looks at all lengths.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from longctx.pack.best_fit import pack_best_fit
from longctx.pack.concat import pack_concat
from longctx.pack.frame import I32, I64, Placement, Plan, SentenceEnds, pack_blocks
from longctx.pack.similarity import F32
from longctx.pack.window import pack_window

STRATEGIES: dict[str, Callable[..., Plan]] = {
    "concat": pack_concat,
    "window": pack_window,
    "best_fit": pack_best_fit,
}


def plan_windows(
    strategy: str,
    lengths: I64,
    tour: I32,
    length: int,
    *,
    block_tokens: int | None = None,
    vectors: F32 | None = None,
    ends: SentenceEnds | None = None,
    **options: Any,
) -> Plan:
    """Plan all windows of an order: every block packed alone, then numbered through.

    `vectors` float32[n, d], `ends` and `options` are those of the strategy; KeyError for a name
    that is not in STRATEGIES.
    """
    pack = STRATEGIES[strategy]
    if strategy == "concat" and options.get("cross_tours", True):
        return pack(lengths, tour, length, **options)
    inner = np.zeros(0, dtype=np.int64)
    if strategy != "best_fit":
        block = pack_blocks(lengths, length, block_tokens=block_tokens)
        inner = np.flatnonzero(np.diff(block)) + 1

    def packed(rows: slice) -> Plan:
        if vectors is not None and strategy == "window":
            options["vectors"] = vectors[rows]
        if ends is not None:
            options["ends"] = ends.of(rows)
        return pack(lengths[rows], tour[rows], length, **options)

    borders = pairwise([0, *inner.tolist(), len(lengths)])
    return join((packed(slice(first, stop)), stop - first) for first, stop in borders)


def join(plans: Iterable[tuple[Plan, int]]) -> Plan:
    """One plan from the plans of consecutive blocks, each with its number of documents."""
    columns: list[Placement] = []
    counts: dict[str, int] = {}
    windows = documents = 0
    for plan, n_documents in plans:
        p = plan.placement
        columns.append(Placement(p.window + windows, p.document + documents, p.start, p.end))
        windows += int(p.window[-1]) + 1 if len(p.window) else 0
        documents += n_documents
        counts = {k: counts.get(k, 0) + v for k, v in plan.counts.items()}
    joined = (np.concatenate(c) for c in zip(*(vars(p).values() for p in columns), strict=True))
    return Plan(Placement(*joined), counts)
