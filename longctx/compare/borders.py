"""Where the segments of windows of token ids lie, from any of the ways that packers tell it."""

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.compare.layout import ENDS, EOS, LENGTHS, NUMBERS, POSITIONS, SEGMENTS, Layout
from longctx.errors import RecipeError
from longctx.pack.frame import I64
from longctx.pack.windows import flatten_lists, list_values


@dataclass(frozen=True)
class Spans:
    """Segments as half-open ranges of the ids of all windows laid end to end, int64[segments].

    Window w has the segments borders[w]..borders[w + 1] - 1; `row` is the place of each segment
    among the entries of the boundary column, where those are segments themselves.
    """

    borders: I64
    start: I64
    end: I64
    row: I64


def without_padding(
    table: pa.Table, layout: Layout, ids: npt.NDArray[Any], offsets: I64, eos: int, where: str
) -> I64:
    """Tokens of each window before its padding, int64[windows].

    Padding is what `attention_mask` has zeros for and a trailing run of the token `layout.pad`; of
    a run of the separator itself (pad = eos) the first is kept, as the end of the last document.
    """
    size = np.diff(offsets)
    if layout.mask is not None:
        mask, mask_offsets = list_values(table[layout.mask])
        if not np.array_equal(mask_offsets, offsets):
            _refuse(layout.mask, "has another number of entries than there are tokens", where)
        size = _last(mask != 0, offsets)
        if int((mask != 0).sum()) != int(size.sum()):
            _refuse(layout.mask, "has zeros before ones; only padding at the end is known", where)
    if layout.pad is None:
        return size
    number = np.arange(len(ids)) - np.repeat(offsets[:-1], np.diff(offsets))
    inside = number < np.repeat(size, np.diff(offsets))
    kept = _last((ids != layout.pad) & inside, offsets)
    return np.minimum(kept + 1, size) if layout.pad == eos else kept


def _last(flags: npt.NDArray[np.bool_], offsets: I64) -> I64:
    """Entries of each window up to its last true one; 0 where there is none."""
    after = np.where(flags, np.arange(1, len(flags) + 1), 0)
    reached = np.concatenate([[0], np.maximum.accumulate(after)])[offsets[1:]]
    return np.asarray(np.maximum(reached - offsets[:-1], 0), dtype=np.int64)


def spans_of(
    table: pa.Table,
    layout: Layout,
    ids: npt.NDArray[Any],
    offsets: I64,
    room: I64,
    eos: int,
    where: str,
) -> Spans:
    """The segments of each window, cut to the `room` before its padding.

    `offsets` int64[windows + 1] are the borders of the windows in `ids`. Raises RecipeError where
    the column and the tokens do not fit each other.
    """
    if layout.form == SEGMENTS:
        return _segments(table[layout.boundaries], layout, offsets, room, where)
    if layout.form == EOS:
        ends = np.flatnonzero(ids == eos) + 1
        if layout.eos is None and len(ids) and not len(ends):
            raise RecipeError(
                f"nothing separates documents: no column of boundaries is known, and token {eos} "
                f"(end of text) does not occur; the columns are: {', '.join(table.column_names)}",
                where=where,
                remedy="name a column with --boundaries, or the separating token with --eos",
            )
        window = np.searchsorted(offsets, ends, side="left") - 1
        return _from_ends(window, ends - offsets[window], offsets, room)
    values, at = list_values(table[layout.boundaries])
    values = values.astype(np.int64)
    window = np.repeat(np.arange(len(offsets) - 1), np.diff(at))
    size = np.diff(offsets)
    form = layout.form
    if form == NUMBERS:
        form = _form_of(values, at, size, layout, where)
    if form == POSITIONS:
        if not np.array_equal(at, offsets):
            _refuse(layout.boundaries, "has another number of entries than there are tokens", where)
        starts = np.flatnonzero(values == 0)
        # Each segment ends where the next begins; the last one at the end of the window.
        return _from_ends(window[starts], starts - offsets[window[starts]], offsets, room)
    ends = values if form == ENDS else _within(values, at)
    _check_ends(values, ends, at, size, room, form, layout, where)
    return _from_ends(window, ends, offsets, room)


def _within(values: I64, at: I64) -> I64:
    """Running sums that begin again in each list."""
    total = np.concatenate([[0], np.cumsum(values)])
    return np.asarray(total[1:] - np.repeat(total[at[:-1]], np.diff(at)), dtype=np.int64)


def _form_of(values: I64, at: I64, size: I64, layout: Layout, where: str) -> str:
    """What the numbers of a column mean, from all rows of the table."""
    counts = np.diff(at)
    some = counts > 0
    if len(values) and bool((some == (size > 0)).all()):
        last = values[at[1:][some] - 1]
        if np.array_equal(last, size[some]) and _rises(values, at):
            return ENDS
        total = np.concatenate([[0], np.cumsum(values)])
        if values.min() >= 0 and np.array_equal(total[at[1:]] - total[at[:-1]], size):
            return LENGTHS
        if np.array_equal(counts, size) and bool((values[at[:-1][some]] == 0).all()):
            return POSITIONS
    raise RecipeError(
        f"the numbers in `{layout.boundaries}` are neither lengths that sum to the tokens of their "
        "window, nor ends that rise to them, nor positions",
        where=where,
        remedy="name another column with --boundaries, or the separating token with --eos",
    )


def _rises(values: I64, at: I64) -> bool:
    step = np.diff(values) >= 0
    step[at[1:-1][(at[1:-1] > 0) & (at[1:-1] < len(values))] - 1] = True
    return bool(step.all())


def _check_ends(
    values: I64, ends: I64, at: I64, size: I64, room: I64, form: str, layout: Layout, where: str
) -> None:
    """Ends must rise to the last token before the padding, and not lead beyond the window."""
    if form == LENGTHS and len(values) and values.min() < 0:
        _refuse(layout.boundaries, "has lengths below 0", where)
    if not _rises(ends, at):
        _refuse(layout.boundaries, "has ends that do not rise", where)
    reached = np.zeros(len(size), np.int64)
    some = np.diff(at) > 0
    reached[some] = ends[at[1:][some] - 1]
    wrong = np.flatnonzero((reached > size) | (reached < room))
    if len(wrong):
        row = int(wrong[0])
        raise RecipeError(
            f"row {row} has {int(size[row]):,} tokens, but `{layout.boundaries}` accounts for "
            f"{int(reached[row]):,}",
            where=where,
            remedy="name another column with --boundaries, or the padding token with --pad",
        )


def _from_ends(window: I64, ends: I64, offsets: I64, room: I64) -> Spans:
    """Spans between consecutive ends; ends inside the padding move to its beginning."""
    ends = np.minimum(ends, room[window])
    every = np.flatnonzero(room)
    absolute = np.concatenate([(offsets[window] + ends)[ends > 0], (offsets[:-1] + room)[every]])
    absolute = np.unique(absolute)
    owner = np.searchsorted(offsets, absolute, side="left") - 1
    start = np.maximum(np.concatenate([[0], absolute[:-1]]), offsets[owner])
    borders = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(room)))])
    return Spans(borders.astype(np.int64), start, absolute, np.arange(len(absolute)))


def _segments(
    column: pa.ChunkedArray, layout: Layout, offsets: I64, room: I64, where: str
) -> Spans:
    structs, at = flatten_lists(column)
    start, end = (
        pc.struct_field(structs, name).cast(pa.int64()).to_numpy(zero_copy_only=False)
        for name in ("start", "end")
    )
    if structs.null_count or np.isnan(start).any() or np.isnan(end).any():
        _refuse(layout.boundaries, "has segments without start or end", where)
    window = np.repeat(np.arange(len(room)), np.diff(at))
    size = np.diff(offsets)
    first = np.zeros(len(start), dtype=bool)
    first[at[:-1][np.diff(at) > 0]] = True
    before = np.where(first, 0, np.concatenate([[0], end[:-1]]))
    if bool(((start < before) | (end < start) | (end > size[window])).any()):
        _refuse(layout.boundaries, "has segments that overlap or leave their window", where)
    end = np.minimum(end, room[window])
    row = np.flatnonzero(start < end)
    borders = np.concatenate([[0], np.cumsum(np.bincount(window[row], minlength=len(room)))])
    base = offsets[window[row]]
    return Spans(borders.astype(np.int64), base + start[row], base + end[row], row)


def _refuse(column: str | None, complaint: str, where: str) -> NoReturn:
    raise RecipeError(
        f"the column `{column}` {complaint}",
        where=where,
        remedy="name another column with --boundaries, or the separating token with --eos",
    )
