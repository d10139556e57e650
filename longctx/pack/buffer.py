"""The buffer of remaining pieces that the window rules share: a linked list, in compiled code.

Pieces are numbered in stream order; `before` and `after` link those that are left, `placed` marks
those that are not. Removing one costs O(1), whatever the look-ahead. Kernels that call these
functions are compiled with them: after a change here clear their __pycache__.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from longctx.pack.frame import I64

Flags = npt.NDArray[np.bool_]
CROP = 2


@njit(cache=True, nogil=True)
def emit(table: I64, rows: int, window: int, document: int, start: int, end: int) -> int:
    """Append a span, or lengthen the last one if this continues it; the new number of rows."""
    last = rows - 1
    if (
        rows > 0
        and table[0, last] == window
        and table[1, last] == document
        and table[3, last] == start
    ):
        table[3, last] = end
        return rows
    table[0, rows] = window
    table[1, rows] = document
    table[2, rows] = start
    table[3, rows] = end
    return rows + 1


@njit(cache=True, nogil=True)
def remove(piece: int, head: int, before: I64, after: I64, placed: Flags) -> int:
    """Take a piece out of the list; the list's new head."""
    placed[piece] = True
    left, right = before[piece], after[piece]
    if right < len(before):
        before[right] = left
    if piece == head:
        return right
    after[left] = right
    return head


@njit(cache=True, nogil=True)
def fits(piece: int, room: int, document: I64, start: I64, end: I64, placed: Flags) -> bool:
    """Whether a piece fits and every earlier piece of its document has been placed."""
    if end[piece] - start[piece] > room:
        return False
    return piece == 0 or document[piece - 1] != document[piece] or placed[piece - 1]


@njit(cache=True, nogil=True)
def fill_room(
    table: I64,
    rows: int,
    window: int,
    room: int,
    fill: int,
    head: int,
    document: I64,
    start: I64,
    end: I64,
) -> tuple[int, int]:
    """Fill the room with the head's first tokens: the new number of rows, and tokens cropped.

    The rest stays in the head, or is lost where `fill` is CROP: the head is then empty.
    """
    cut = start[head] + room
    rows = emit(table, rows, window, document[head], start[head], cut)
    start[head] = cut
    if fill != CROP:
        return rows, 0
    lost = end[head] - cut
    start[head] = end[head]
    return rows, lost
