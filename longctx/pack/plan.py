"""Packing strategies by name, and the plan of a whole order cut into pack blocks.

`concat` fills every window and cuts anywhere; `window` keeps short documents whole. A strategy is a
function of lengths alone, chosen from a dict: framed lengths int64[n] and tour numbers int32[n] in
tour order, the window length and its own keyword options give a `Plan`. It never sees a token, so
planning costs bytes per document and tokens move once, when windows are filled.

Blocks (`frame.pack_blocks`) are cut by token position, never by worker: planning them here in one
loop or each in a task of its own gives the same windows. Concat across tours needs no blocks,
because prefix sums place every document alone.
"""

from collections.abc import Callable, Iterable

import numpy as np

from longctx.pack.concat import pack_concat
from longctx.pack.frame import I32, I64, Placement, Plan, pack_blocks
from longctx.pack.window import pack_window

STRATEGIES: dict[str, Callable[..., Plan]] = {"concat": pack_concat, "window": pack_window}


def plan_windows(
    strategy: str,
    lengths: I64,
    tour: I32,
    length: int,
    *,
    block_tokens: int | None = None,
    **options: object,
) -> Plan:
    """Plan all windows of an order: every block packed alone, then numbered through.

    `options` are those of the strategy; KeyError for a name that is not in STRATEGIES.
    """
    pack = STRATEGIES[strategy]
    if strategy == "concat" and options.get("cross_tours", True):
        return pack(lengths, tour, length, **options)
    block = pack_blocks(lengths, length, block_tokens=block_tokens)
    borders = np.flatnonzero(np.diff(block)) + 1
    rows = zip(np.split(lengths, borders), np.split(tour, borders), strict=True)
    return join((pack(part, part_tour, length, **options), len(part)) for part, part_tour in rows)


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
