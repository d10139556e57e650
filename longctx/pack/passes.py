"""Passes over one order: copy k of a document is packed in pass k (ours; `mixture.md`, 0.7).

How a pass flows. The order is made once, over documents with at least one copy. The stream of its
rows is cut first where the mixture says so (`pack.mixed`). Pass k is that stream without the rows
whose documents have copies <= k. It is dealt to the window lengths, planned, and its windows are
put in order inside, all by itself, so two copies of a document can never share a window. Only then
the windows of all passes of one length are numbered together: by the order of packing pass after
pass, or shuffled over all passes, because a trainer that read pass after pass would see the sources
of many copies at the end. A window's name is that of what it holds and, from pass 1 on, of its pass
(`pack.windows.window_id`); pass 0, and so a recipe without a mixture, has the names and bytes that
it would have alone. Windows say their pass in a column `pass` where a mixture was in the recipe.

Costs one plan a pass (later passes are shorter) and a placement for every copy. Lost: every pass
leaves one last window of each length partly filled, and `auto` chooses its look-ahead in each.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from longctx.errors import RunError
from longctx.pack.frame import I32, I64, Placement, Plan
from longctx.pack.stream import COPIES, TAIL, Stream


def pass_rows(stream: Stream) -> Iterator[I64]:
    """Rows of each pass, int64, ascending; pass k + 1 is a part of pass k. At least one pass."""
    copies = stream.numbers(COPIES, 1)
    for k in range(max(1, int(copies.max(initial=0)))):
        yield np.flatnonzero(copies > k)


def copied_tokens(stream: Stream) -> int:
    """Framed tokens of all copies of all rows: what has to be placed or dropped for a reason."""
    return int((stream.lengths * np.maximum(0, stream.numbers(COPIES, 1))).sum())


def with_windows_alone(plan: Plan, packed: I64, alone: I64, stream: Stream) -> Plan:
    """A plan of the rows `packed` of a stream and, behind its windows, one for each row `alone`.

    Tokens behind the last window of a document (`stand_alone`) are counted as dropped.
    """
    p = plan.placement
    first = int(p.window[-1]) + 1 if len(p.window) else 0
    sizes = stream.lengths[alone]
    zeros = np.zeros(len(alone), dtype=np.int64)
    placement = Placement(
        np.concatenate([p.window, first + np.arange(len(alone))]),
        np.concatenate([packed[p.document], alone]),
        np.concatenate([p.start, zeros]),
        np.concatenate([p.end, sizes]),
    )
    counts, more, tail = dict(plan.counts), int(sizes.sum()), int(stream.numbers(TAIL, 0).sum())
    counts["tokens_in"] += more + tail
    counts["tokens_placed"] += more
    counts["dropped_window_tail"] = tail
    return Plan(placement, counts)


def joined_passes(placements: Sequence[Placement]) -> tuple[Placement, I32]:
    """The placements of all passes, windows numbered through, and the pass of each row.

    Documents keep their numbers: all passes are over one stream.
    """
    windows = [int(p.window[-1]) + 1 if len(p.window) else 0 for p in placements]
    first = np.cumsum([0, *windows[:-1]])
    window = [p.window + start for p, start in zip(placements, first.tolist(), strict=True)]
    columns = [
        np.concatenate([getattr(p, name) for p in placements])
        for name in ("document", "start", "end")
    ]
    number = np.repeat(np.arange(len(placements)), [len(p.window) for p in placements])
    return Placement(np.concatenate(window), *columns), number.astype(np.int32)


def assert_copies_apart(placement: Placement, passes: I32) -> None:
    """Raise RunError if a window holds rows of two passes, or some token of a row twice.

    `passes` int32 of the placement's rows.
    """
    if not len(passes):
        return
    same_window = placement.window[1:] == placement.window[:-1]
    mixed = same_window & (passes[1:] != passes[:-1])
    order = np.lexsort((placement.start, placement.document, placement.window))
    window, document, start, end = (c[order] for c in vars(placement).values())
    again = (window[1:] == window[:-1]) & (document[1:] == document[:-1]) & (start[1:] < end[:-1])
    if mixed.any() or again.any():
        row = int(mixed.argmax()) if mixed.any() else int(order[again.argmax()])
        raise RunError(
            f"window {int(placement.window[row])} of the plan holds two copies of one document, "
            "or two passes",
            where="pack",
            remedy="this is a defect of the packing; keep the run folder and report it",
        )
