"""Look-ahead first-fit along the tour (ours): the default packing.

Next-fit along a tour keeps its locality but leaves 16 % of the windows empty; best-fit-decreasing
(arXiv 2404.10830) fills them and destroys the order. Here a window starts with the next piece of
the stream and takes what fits among the next W pieces (`look_ahead`), so that only documents longer
than a window are cut. Which of them it takes is the `rule`: `first` (in stream order), `largest`,
or by the documents' vectors (`pack.alike`): `similar`, and `weighed`, which looks at size too. How
far to look ahead is a trade of coherence for fill: `pack.lookahead` chooses it by measuring.

`fill_policy="split"` fills the last .4 % of the room with almost as many cuts as concat: with W = 1
it is concat, byte for byte.

`first` is one pass over the buffer a window; `largest` is O(pieces x W), the others O(pieces x W x
d). The remaining pieces form a linked list, so that removing one costs O(1).
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from longctx.cluster.similarity import frozen
from longctx.pack.alike import SIZE_WEIGHT, known_vectors, pack_alike
from longctx.pack.buffer import emit, fill_room, fits, remove
from longctx.pack.frame import I32, I64, Placement, Plan, SentenceEnds, pieces, streams

F32 = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

FIRST, LARGEST, SIMILAR, WEIGHED = range(4)
RULES = {"first": FIRST, "largest": LARGEST, "similar": SIMILAR, "weighed": WEIGHED}
FILL_POLICIES = {"none": 0, "split": 1, "crop": 2}


def pack_window(
    lengths: I64,
    tour: I32,
    length: int,
    *,
    look_ahead: int = 64,
    rule: str = "first",
    fill_policy: str = "none",
    cross_tours: bool = True,
    separator: int = 0,
    min_tail: int = 1,
    long_documents: str = "split",
    ends: SentenceEnds | None = None,
    vectors: F32 | None = None,
) -> Plan:
    """Plan windows of at most `length` tokens over framed `lengths` int64[n], `tour` int32[n].

    Documents are in tour order, `separator` is the number of separator tokens in each framed
    length, `ends` where documents longer than a window may better be cut. Pieces of one document
    are placed in order. The rules `similar` and `weighed` need `vectors` float32[n, d] of unit
    norm; a row of zeros is a document without a vector. Raises ValueError for a look-ahead below 1,
    a rule or policy not in RULES, FILL_POLICIES, or missing vectors.
    """
    if look_ahead < 1:
        raise ValueError(f"look_ahead counts pieces and is at least 1, got {look_ahead}")
    if rule not in RULES or fill_policy not in FILL_POLICIES:
        raise ValueError(
            f"rule={rule!r} must be one of {list(RULES)}, "
            f"fill_policy={fill_policy!r} one of {list(FILL_POLICIES)}"
        )
    parts, counts = pieces(
        lengths,
        length,
        separator=separator,
        min_tail=min_tail,
        long_documents=long_documents,
        ends=ends,
    )
    borders = streams(np.asarray(tour)[parts.document], cross_tours)
    document, end = frozen(parts.document), frozen(parts.end)
    where = (frozen(borders), document, parts.start.copy(), end, length, look_ahead)
    fill = FILL_POLICIES[fill_policy]
    if RULES[rule] in (SIMILAR, WEIGHED):
        if vectors is None:
            raise ValueError(f"rule={rule!r} needs the documents' vectors")
        weighs = RULES[rule] == WEIGHED
        table, cropped = pack_alike(
            *where, fill, known_vectors(vectors), SIZE_WEIGHT if weighs else 0.0, weighs
        )
    else:
        table, cropped = _pack(*where, fill, RULES[rule])
    placement = Placement(*(np.ascontiguousarray(column) for column in table))
    counts["dropped_crop"] = int(cropped)
    counts["tokens_placed"] = placement.tokens
    return Plan(placement, counts)


@njit(cache=True, nogil=True)
def _pack(
    borders: I64,
    document: I64,
    start: I64,
    end: I64,
    length: int,
    look_ahead: int,
    fill: int,
    rule: int,
) -> tuple[I64, int]:
    """Placement as int64[4, rows] and the tokens lost to cropping; advances `start` in splits.

    The buffer is the part of the linked list below `limit`: removing a piece lets `limit` grow by
    one, which is the refill.
    """
    n = len(document)
    after = np.arange(1, n + 1)
    before = np.arange(-1, n - 1)
    placed = np.zeros(n, dtype=np.bool_)
    # Every window takes at least its head, a whole piece, and a fill adds one row to it.
    table = np.empty((4, 2 * n + len(borders)), dtype=np.int64)
    rows, window, cropped = 0, -1, 0
    for stream in range(len(borders) - 1):
        head, stop = borders[stream], borders[stream + 1]
        limit = min(head + look_ahead, stop)
        while head < stop:
            window += 1
            room = length
            piece = head
            while piece < limit:
                rows = emit(table, rows, window, document[piece], start[piece], end[piece])
                room -= end[piece] - start[piece]
                head = remove(piece, head, before, after, placed)
                limit = min(limit + 1, stop)
                if rule == LARGEST:
                    piece = _largest(head, limit, room, document, start, end, after, placed)
                else:
                    # What was passed over did not fit a larger room or waits for a later piece.
                    piece = _first(after[piece], limit, room, document, start, end, after, placed)
            if fill and room > 0 and head < stop:
                rows, lost = fill_room(table, rows, window, room, fill, head, document, start, end)
                cropped += lost
                if start[head] == end[head]:
                    head = remove(head, head, before, after, placed)
                    limit = min(limit + 1, stop)
    return table[:, :rows], cropped


@njit(cache=True, nogil=True)
def _first(
    piece: int,
    limit: int,
    room: int,
    document: I64,
    start: I64,
    end: I64,
    after: I64,
    placed: Flags,
) -> int:
    """First piece from `piece` on that fits, `limit` if none does."""
    if room == 0:
        return limit
    while piece < limit and not fits(piece, room, document, start, end, placed):
        piece = after[piece]
    return min(piece, limit)


@njit(cache=True, nogil=True)
def _largest(
    piece: int,
    limit: int,
    room: int,
    document: I64,
    start: I64,
    end: I64,
    after: I64,
    placed: Flags,
) -> int:
    """Largest piece from `piece` on that fits (the earlier of equals), `limit` if none does."""
    best, best_size = limit, 0
    while room > 0 and piece < limit:
        size = end[piece] - start[piece]
        if size > best_size and fits(piece, room, document, start, end, placed):
            best, best_size = piece, size
        piece = after[piece]
    return best
