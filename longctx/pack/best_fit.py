"""Best-fit-decreasing: "Fewer Truncations" (Ding et al., arXiv 2404.10830).

Fewest cuts at almost full fill where order does not matter: rows for fine-tuning, or a baseline. It
destroys the order. Pieces go by decreasing length to the open window with the smallest room that
still holds them, or open one; at most 11/9 of the fewest possible windows and four. Ours: the ties,
so that a plan is one plan (earlier document, older window), and any window length.

Lengths are sorted by counting. Rooms with open windows are the leaves of a tree of flags over
0..L; the windows of one room are a skew heap by age. O(pieces log L); about 60 bytes a piece and 9
bytes a token of L, so 10^8 pieces fit one process.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from longctx.cluster.similarity import frozen
from longctx.pack.frame import I32, I64, Placement, Plan, SentenceEnds, pieces, streams
from longctx.pack.inner import joined

Flags = npt.NDArray[np.bool_]


def pack_best_fit(
    lengths: I64,
    tour: I32,
    length: int,
    *,
    cross_tours: bool = True,
    separator: int = 0,
    min_tail: int = 1,
    long_documents: str = "split",
    ends: SentenceEnds | None = None,
) -> Plan:
    """Plan windows of at most `length` tokens over framed `lengths` int64[n], `tour` int32[n].

    Options as for `pack_window`. Windows in order of creation, pieces in order of placement.
    """
    parts, counts = pieces(
        lengths,
        length,
        separator=separator,
        min_tail=min_tail,
        long_documents=long_documents,
        ends=ends,
    )
    size = frozen(parts.end - parts.start)
    borders = frozen(streams(np.asarray(tour)[parts.document], cross_tours))
    order = _decreasing(size, borders, length)
    window = _place(borders, size, frozen(order), length)
    rows = order[np.argsort(window[order], kind="stable")]
    placement = joined(
        Placement(window[rows], parts.document[rows], parts.start[rows], parts.end[rows])
    )
    counts["tokens_placed"] = placement.tokens
    return Plan(placement, counts)


@njit(cache=True, nogil=True)
def _decreasing(size: I64, borders: I64, length: int) -> I64:
    """Pieces of each stream by (size descending, position): a counting sort, int64[n]."""
    order = np.empty(len(size), dtype=np.int64)
    at = np.zeros(length + 2, dtype=np.int64)
    for stream in range(len(borders) - 1):
        first, stop = borders[stream], borders[stream + 1]
        if stop - first <= length:
            order[first:stop] = first + np.argsort(-size[first:stop], kind="mergesort")
            continue
        at[:] = 0
        for piece in range(first, stop):
            at[length - size[piece] + 1] += 1
        for k in range(1, length + 2):
            at[k] += at[k - 1]
        for piece in range(first, stop):
            key = length - size[piece]
            order[first + at[key]] = piece
            at[key] += 1
    return order


@njit(cache=True, nogil=True)
def _place(borders: I64, size: I64, order: I64, length: int) -> I64:
    """Window of each piece, int64[n]."""
    leaves = 1
    while leaves <= length:
        leaves *= 2
    occupied = np.zeros(2 * leaves, dtype=np.bool_)
    oldest = np.full(length + 1, -1, dtype=np.int64)
    n = len(order)
    # Skew heaps: the children of each open window among windows of the same room.
    left, right = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    room = np.empty(n, dtype=np.int64)
    window = np.empty(n, dtype=np.int64)
    count = 0
    for stream in range(len(borders) - 1):
        first_window = count
        for piece in order[borders[stream] : borders[stream + 1]]:
            found = _smallest(occupied, leaves, size[piece])
            if found < 0:
                chosen = count
                room[chosen] = length - size[piece]
                count += 1
            else:
                chosen = oldest[found]
                oldest[found] = _merged(left[chosen], right[chosen], left, right)
                if oldest[found] < 0:
                    _clear(occupied, leaves + found)
                left[chosen] = right[chosen] = -1
                room[chosen] = found - size[piece]
            window[piece] = chosen
            free = room[chosen]
            if free > 0:
                oldest[free] = _merged(oldest[free], chosen, left, right)
                node = leaves + free
                while node > 0 and not occupied[node]:
                    occupied[node] = True
                    node //= 2
        for closed in range(first_window, count):
            if oldest[room[closed]] >= 0:
                oldest[room[closed]] = -1
                _clear(occupied, leaves + room[closed])
    return window


@njit(cache=True, nogil=True)
def _smallest(occupied: Flags, leaves: int, room: int) -> int:
    """Smallest room of at least this size that some open window has, -1 if none."""
    node = leaves + room
    if occupied[node]:
        return room
    while node > 1:
        if node % 2 == 0 and occupied[node + 1]:
            node += 1
            while node < leaves:
                node = 2 * node if occupied[2 * node] else 2 * node + 1
            return node - leaves
        node //= 2
    return -1


@njit(cache=True, nogil=True)
def _clear(occupied: Flags, node: int) -> None:
    occupied[node] = False
    node //= 2
    while node > 0 and not (occupied[2 * node] or occupied[2 * node + 1]):
        occupied[node] = False
        node //= 2


@njit(cache=True, nogil=True)
def _merged(a: int, b: int, left: I64, right: I64) -> int:
    """Root of two skew heaps of windows as one, oldest on top; -1 is an empty heap.

    Without recursion: the right spines are merged downwards and every node on the way has its
    children swapped.
    """
    if a < 0:
        return b
    if b < 0:
        return a
    if b < a:
        a, b = b, a
    root = a
    while True:
        below = right[a]
        right[a] = left[a]
        if below < 0:
            left[a] = b
            return root
        if b < below:
            below, b = b, below
        left[a] = below
        a = below
