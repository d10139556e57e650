"""The window rules that look at the documents' vectors: `similar` and `weighed` (ours).

`similar` takes the fitting piece of the buffer with the largest cosine to the window's
token-weighted sum of vectors (the earlier of equals). `weighed` adds 0.2 x the share of the window
that the piece would take, and lays the pieces of a window in tour order.

Why the size counts: what does not fit is passed over, so long pieces are left to open windows of
their own, where they meet whatever is left. A little weight on size takes them while there is room
and leaves the small ones, which fit anywhere, for the gaps: more coherence *and* more fill. Token-
weighted coherence / fill at 8,192 tokens along the path, look-ahead 256:

    weight of size    hier 20,000      flat 20,000      wiki2
    0   (similar)     .666 / .9965     .436 / .9965     .359 / .9944
    0.2 (weighed)     .679 / .9965     .464 / .9968     .373 / .9954
    0.5               .666 / .9968     .461 / .9968     .370 / .9944
    first             .651 / .9971     .444 / .9974     .309 / .9964

Similarities that decide are accumulated in float64 in an order that is written down, so windows do
not depend on the machine. A document without a vector has cosine 0 to all. O(pieces x look-ahead x
d) at worst: a piece that does not fit is not compared. Memory: the vectors, float32.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from longctx.cluster.similarity import frozen
from longctx.pack.buffer import emit, fill_room, fits, remove
from longctx.pack.frame import I64

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

SIZE_WEIGHT = 0.2


def known_vectors(vectors: F32) -> F32:
    """Vectors for the kernel in which a row that is not finite is a row of zeros: no vector."""
    usable: Flags = np.asarray(np.isfinite(vectors).all(axis=1))
    if not usable.all():
        vectors = np.where(usable[:, None], vectors, np.float32(0))
    return frozen(vectors)


@njit(cache=True, nogil=True)
def pack_alike(
    borders: I64,
    document: I64,
    start: I64,
    end: I64,
    length: int,
    look_ahead: int,
    fill: int,
    vectors: F32,
    size_weight: float,
    in_order: bool,
) -> tuple[I64, int]:
    """Placement as int64[4, rows] and the tokens lost to cropping; advances `start` in splits.

    As `window._pack`, with `vectors` float32[documents, d]. `in_order` lays the pieces of a window
    in stream order instead of the order in which they were taken.
    """
    n = len(document)
    after = np.arange(1, n + 1)
    before = np.arange(-1, n - 1)
    placed = np.zeros(n, dtype=np.bool_)
    table = np.empty((4, 2 * n + len(borders)), dtype=np.int64)
    taken = np.empty(min(n, length), dtype=np.int64)
    total = np.zeros(vectors.shape[1])
    score = np.empty(n)
    rows, window, cropped = 0, -1, 0
    for stream in range(len(borders) - 1):
        head, stop = borders[stream], borders[stream + 1]
        limit = min(head + look_ahead, stop)
        while head < stop:
            window += 1
            room = length
            total[:] = 0
            count = 0
            piece = head
            while piece < limit:
                size = end[piece] - start[piece]
                taken[count] = piece
                count += 1
                room -= size
                for i in range(len(total)):
                    total[i] += size * np.float64(vectors[document[piece], i])
                head = remove(piece, head, before, after, placed)
                limit = min(limit + 1, stop)
                piece = limit
                if room > 0:
                    norm = np.sqrt(_product(total, total))
                    scale = 1 / norm if norm > 0 else 0.0
                    piece = _best(
                        head,
                        limit,
                        room,
                        document,
                        start,
                        end,
                        after,
                        placed,
                        vectors,
                        total,
                        scale,
                        size_weight / length,
                        score,
                    )
            if in_order:
                taken[:count].sort()
            for i in range(count):
                piece = taken[i]
                rows = emit(table, rows, window, document[piece], start[piece], end[piece])
            if fill and room > 0 and head < stop:
                rows, lost = fill_room(table, rows, window, room, fill, head, document, start, end)
                cropped += lost
                if start[head] == end[head]:
                    head = remove(head, head, before, after, placed)
                    limit = min(limit + 1, stop)
    return table[:, :rows], cropped


@njit(cache=True, nogil=True)
def _best(
    head: int,
    limit: int,
    room: int,
    document: I64,
    start: I64,
    end: I64,
    after: I64,
    placed: Flags,
    vectors: F32,
    total: F64,
    scale: float,
    per_token: float,
    score: F64,
) -> int:
    """Fitting piece with the largest score (the earlier of equals), `limit` if none fits.

    The first pass lets the compiler add in any order, which is several times faster; whatever it
    puts within twice its rounding error of the best is then scored exactly.
    """
    highest = -np.inf
    piece = head
    while piece < limit:
        if fits(piece, room, document, start, end, placed):
            cosine = scale * _any_order(total, vectors[document[piece]])
            score[piece] = cosine + per_token * (end[piece] - start[piece])
            highest = max(highest, score[piece])
        else:
            score[piece] = -np.inf
        piece = after[piece]
    if highest == -np.inf:
        return limit
    # Unit vectors: the sum of d exact products is off by less than d / 2^52 in any order.
    threshold = highest - 4 * (len(total) + 4) / 2.0**52
    best, chosen = -np.inf, limit
    piece = head
    while piece < limit:
        if score[piece] >= threshold:
            cosine = scale * _product(total, vectors[document[piece]])
            exact = cosine + per_token * (end[piece] - start[piece])
            if exact > best:
                best, chosen = exact, piece
        piece = after[piece]
    return chosen


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _any_order(x, y):  # type: ignore[no-untyped-def]
    s = 0.0
    for i in range(len(x)):
        s += x[i] * np.float64(y[i])
    return s


@njit(cache=True, nogil=True)
def _product(x, y):  # type: ignore[no-untyped-def]
    """Inner product accumulated in float64 in eight lanes, in the order written here."""
    d = len(x)
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = d - d % 8
    for i in range(0, whole, 8):
        s0 += x[i] * np.float64(y[i])
        s1 += x[i + 1] * np.float64(y[i + 1])
        s2 += x[i + 2] * np.float64(y[i + 2])
        s3 += x[i + 3] * np.float64(y[i + 3])
        s4 += x[i + 4] * np.float64(y[i + 4])
        s5 += x[i + 5] * np.float64(y[i + 5])
        s6 += x[i + 6] * np.float64(y[i + 6])
        s7 += x[i + 7] * np.float64(y[i + 7])
    for i in range(whole, d):
        s0 += x[i] * np.float64(y[i])
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
