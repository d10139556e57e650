"""What a mixture asks of the stream: documents in pieces, documents in windows of their own.

`mix_max_piece` M cuts a document into pieces of at most M text tokens, each then framed and packed
as a document of its own (the baseline `cut4k` of Fu et al., 2402.10171; ours: the last, shorter
piece is kept). `mix_window` L gives it floor(text / L) windows of exactly L framed tokens that hold
nothing else (ProLong 2410.02660); its tail is dropped and counted. Where windows are longer than L,
those pieces are packed as documents, several to a window, as ProLong packs 64K into 512K.

Spans of documents (`order.neighbours`) are copied and cut with their document, but fill no windows
alone: a quoted sentence has no window to fill. O(rows); a piece costs what a row costs.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.errors import RunError
from longctx.pack.frame import I64, SentenceEnds, framed_lengths
from longctx.pack.stream import ALONE, FRAMED, MAX_PIECE, SHIFT, TAIL, TARGET, Stream


def cut_pieces(stream: Stream, prefix: int, separator: int) -> Stream:
    """The stream with rows longer than their `mix_max_piece` cut into rows of their own.

    `prefix` and `separator` are numbers of tokens; every piece gets both.
    """
    most, size = stream.numbers(MAX_PIECE, 0), stream.numbers("size", 0)
    if not ((most > 0) & (size > most)).any():
        return stream
    limit = np.where(most > 0, most, np.maximum(size, 1))
    count = np.maximum(1, -(-size // limit))
    row, nth = _repeated(count)
    offset = nth * limit[row]
    held = np.minimum(size[row] - offset, limit[row])
    ends = stream.ends and _ends_of_pieces(stream.ends, limit, count, offset, prefix)
    found = stream._replace(ends=None).of(row)
    rows = _with(found.rows, "origin", found.numbers("origin", 0) + offset)
    rows = _with(rows, "size", held)
    return found._replace(rows=rows, lengths=framed_lengths(held, prefix, separator), ends=ends)


def _ends_of_pieces(
    ends: SentenceEnds, limit: I64, count: I64, offset: I64, prefix: int
) -> SentenceEnds:
    """Sentence ends of the pieces; each belongs to the one piece that holds its last token."""
    row = np.repeat(np.arange(len(limit)), np.diff(ends.offsets))
    first = np.cumsum(count) - count
    piece = first[row] + (ends.values - prefix - 1) // limit[row]
    sizes = np.bincount(piece, minlength=len(offset))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return SentenceEnds(offsets, ends.values - offset[piece])


def stand_alone(stream: Stream, rooms: list[int], where: str) -> Stream:
    """The stream with documents that have a `mix_window` L as floor(text / L) rows of L tokens.

    `rooms` are the tokens that windows of each length take. A row goes to the smallest room that
    holds it; where that is L itself, it fills the window. Framed tokens behind the last row are
    told in its column `tail`; a document shorter than L is one row without tokens and all tail.
    Raises RunError, `where` naming the stage, for an L that no window holds.
    """
    asked = np.where(stream.numbers("is_span", 0) > 0, 0, stream.numbers(ALONE, 0))
    alone = (asked > 0) & (stream.lengths > 0)
    if not alone.any():
        return stream
    largest = int(asked[alone].max())
    if largest > max(rooms):
        raise RunError(
            f"the mixture gives documents windows of {largest:,} tokens alone, but the longest "
            f"that `pack` makes holds {max(rooms):,}",
            where=where,
            remedy=f"let `pack` make windows of {largest:,} tokens (and `reserve`), or name the "
            "tokens that its windows hold in the mixture",
        )
    limit = np.where(alone, asked, 1)
    windows = np.where(alone, stream.numbers("size", 0) // limit, 1)
    row, nth = _repeated(np.maximum(1, windows))
    shift = np.where(alone[row], nth * limit[row], 0)
    used = np.where(alone, windows * limit, stream.lengths)
    is_last = np.append(row[1:] != row[:-1], True)
    by_room = np.argsort(rooms, kind="stable")
    at = np.searchsorted(np.asarray(rooms)[by_room], limit)
    target = np.where(alone, by_room[np.minimum(at, len(rooms) - 1)], -1)
    found = stream._replace(ends=stream.ends and _ends_without(stream.ends, alone)).of(row)
    rows = found.rows
    for name, values in (
        (SHIFT, shift),
        (FRAMED, stream.lengths[row]),
        (TAIL, np.where(is_last, (stream.lengths - used)[row], 0)),
        (TARGET, target[row]),
    ):
        rows = rows.append_column(name, pa.array(values, pa.int64()))
    lengths = np.where(alone[row], np.minimum(limit, used)[row], stream.lengths[row])
    return found._replace(rows=rows, lengths=lengths)


def _ends_without(ends: SentenceEnds, removed: npt.NDArray[np.bool_]) -> SentenceEnds:
    """The ends of rows that may still be cut."""
    sizes = np.diff(ends.offsets)
    kept = np.where(removed, 0, sizes)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    return SentenceEnds(offsets, ends.values[np.repeat(~removed, sizes)])


def _repeated(count: I64) -> tuple[I64, I64]:
    """For each of `count[i]` new rows its old row i and its number among them."""
    row = np.repeat(np.arange(len(count)), count)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)


def _with(rows: pa.Table, name: str, values: I64) -> pa.Table:
    at = rows.column_names.index(name)
    return rows.set_column(at, name, pa.array(values, rows.schema.field(name).type))
