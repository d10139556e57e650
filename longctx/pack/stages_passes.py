"""Windows of `pack` from a stream: pass by pass and length by length, numbered over all passes.

How passes flow says `pack.passes`. A stream is a whole order (`stages_plan.py`) or a block of one
(`stages_blocks.py`).
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from longctx.engine.corpus import ROW
from longctx.engine.rows import PART
from longctx.pack.stream import COPIES, SHIFT, TARGET, Stream

if TYPE_CHECKING:
    from longctx.pack.frame import I64, Placement, Plan
    from longctx.pack.stages import Pack


class Packed(NamedTuple):
    """The windows of one length: a row for each placed span, sums that add up over lengths and
    blocks, the number of windows, and what the look-ahead of pass 0 was chosen by."""

    table: pa.Table
    sums: dict[str, Any]
    windows: int
    choice: dict[str, Any] | None


class _Laid(NamedTuple):
    """One pass in the windows of one length; documents are rows of the stream."""

    placement: "Placement"
    sums: dict[str, Any]
    choice: dict[str, Any] | None


def planned(
    op: "Pack",
    stream: Stream,
    documents: pa.Table,
    separator: int,
    seed: int,
    where: str,
    *,
    block: bool = False,
) -> dict[int, Packed]:
    """The windows of every length of a stream, whose rows are of `documents`.

    `window` is the number under which a window is written. Of a `block` of a longer stream it is
    the number in the order of packing, and where windows are shuffled they are sorted by `key`.
    """
    from longctx.pack import audit
    from longctx.pack.mixed import stand_alone
    from longctx.pack.passes import copied_tokens, pass_rows

    asked = copied_tokens(stream)
    stream = stand_alone(stream, [length - op.reserve for length in op.windows], where)
    laid: dict[int, list[_Laid]] = {length: [] for length in op.windows}
    for at in pass_rows(stream):
        target = _dealt(op, stream, at, seed)
        for k, length in enumerate(op.windows):
            laid[length].append(
                _laid(op, stream, at[target == k], length - op.reserve, separator, seed)
            )
    found = {
        length: _packed(op, stream, length, passes, documents, seed, block)
        for length, passes in laid.items()
    }
    audit.assert_copies(asked, sum(p.sums["tokens_in"] for p in found.values()))
    return found


def _dealt(op: "Pack", stream: Stream, at: "I64", seed: int) -> "I64":
    """Index into the op's window lengths of each of some rows of the stream."""
    from longctx.pack.lengths import STRETCH, deal

    if op.lengths is None:
        return np.zeros(len(at), dtype=np.int64)
    rooms = [length - op.reserve for length in op.windows]
    return deal(
        stream.lengths[at],
        rooms,
        [w.share for w in op.lengths],
        seed,
        STRETCH * max(op.windows),
        fixed=stream.numbers(TARGET, -1)[at],
    )


def _laid(op: "Pack", stream: Stream, at: "I64", room: int, separator: int, seed: int) -> _Laid:
    """The windows of one pass and one length: the rows `at` of the stream in `room` tokens each."""
    from longctx.pack import audit
    from longctx.pack.frame import Placement
    from longctx.pack.inner import inner_order
    from longctx.pack.passes import with_windows_alone

    own = stream.of(at)
    if TARGET in own.rows.column_names:
        fills = (own.numbers(TARGET, -1) >= 0) & (own.lengths == room)
        rest = np.flatnonzero(~fills)
        plan, choice = _strategy(op, own.of(rest), room, separator)
        plan = with_windows_alone(plan, rest, np.flatnonzero(fills), own)
    else:
        plan, choice = _strategy(op, own, room, separator)
    keys = own.rows.column("doc_key").to_numpy()
    placement = inner_order(plan.placement, op.inner_order, keys, seed)
    sums = {**plan.counts, **audit.placement_partial(placement, own.framed, room)}
    in_stream = Placement(placement.window, at[placement.document], placement.start, placement.end)
    return _Laid(in_stream, sums, choice)


def _packed(
    op: "Pack",
    stream: Stream,
    length: int,
    laid: list[_Laid],
    documents: pa.Table,
    seed: int,
    block: bool,
) -> Packed:
    """The windows of one length over all passes, as rows for the parts that hold their tokens."""
    from longctx.pack import audit
    from longctx.pack.numbering import window_keys, window_numbers
    from longctx.pack.passes import assert_copies_apart, joined_passes

    rows = stream.rows
    placement, passes = joined_passes([one.placement for one in laid])
    mixed = COPIES in rows.column_names
    if mixed:
        assert_copies_apart(placement, passes)
    in_documents = rows.column("document").to_numpy()
    doc_ids = documents.column("doc_id").take(pa.array(in_documents))
    origin, shift = rows.column("origin").to_numpy(), stream.numbers(SHIFT, 0)
    shuffled = seed if op.shuffle_windows and not block else None
    number = window_numbers(placement, doc_ids, shuffled, origin + shift, passes)
    row = placement.document
    address = documents.select([PART, ROW]).take(pa.array(in_documents[row]))
    first = np.diff(placement.window, prepend=-1) != 0
    starts = np.flatnonzero(first)
    seq = np.arange(len(first)) - np.repeat(starts, np.diff([*starts, len(first)]))
    table = pa.table(
        {
            PART: address.column(PART),
            ROW: address.column(ROW),
            "document": in_documents[row],
            "target": pa.array(np.full(len(first), length), pa.int32()),
            "window": number,
            "seq": pa.array(seq, pa.int32()),
            "tour_id": rows.column("tour_id").take(pa.array(row)),
            "origin": origin[row],
            "start": placement.start + shift[row],
            "end": placement.end + shift[row],
            "length": stream.framed[row],
        }
    )
    if mixed:
        table = table.append_column("pass", pa.array(passes))
    if block and op.shuffle_windows:
        keys = window_keys(placement, doc_ids, seed, origin + shift, passes)
        table = table.append_column("key", pa.array(keys))
    sums = audit.merge(_sums(one, k, mixed) for k, one in enumerate(laid))
    return Packed(table, sums, len(starts), laid[0].choice)


def _sums(laid: _Laid, k: int, mixed: bool) -> dict[str, Any]:
    """The sums of one pass; where a mixture copies documents, by pass too."""
    if not mixed:
        return laid.sums
    windows = int(laid.placement.window[-1]) + 1 if len(laid.placement.window) else 0
    by_pass = {"windows_by_pass": {str(k): windows}}
    return {**laid.sums, **by_pass, "tokens_by_pass": {str(k): laid.placement.tokens}}


def _strategy(
    op: "Pack", stream: Stream, room: int, separator: int
) -> tuple["Plan", dict[str, Any] | None]:
    """The plan by the op's strategy, and what the look-ahead was chosen by."""
    from longctx.pack.lookahead import plan_look_ahead
    from longctx.pack.plan import plan_windows

    shared: dict[str, Any] = {"cross_tours": op.cross_tours, "long_documents": op.long_documents}
    where = (stream.lengths, stream.tour, room)
    if op.strategy == "concat":
        return plan_windows("concat", *where, **shared, drop_last=op.drop_last), None
    shared |= {"separator": separator, "min_tail": op.min_tail, "ends": stream.ends}
    if op.strategy == "best_fit":
        return plan_windows("best_fit", *where, **shared), None
    return plan_look_ahead(
        *where,
        rule=op.rule,
        look_ahead=op.look_ahead,
        vectors=stream.vectors,
        fill_policy=op.fill_policy,
        **shared,
    )
