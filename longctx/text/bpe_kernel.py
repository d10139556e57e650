"""Byte-level BPE in compiled code: the ids of a text.

What makes it fast: nine pieces of ten are found whole, as a token or as a word met before, and no
object is made for any of them. Words are remembered in slots that later ones take over, so nothing
grows and nothing is cleared.
"""

import numpy as np
from numba import njit

from longctx.text.bpe_merge import ROOM, merged, work_for
from longctx.text.bpe_pieces import piece_end
from longctx.text.bpe_tables import (
    I32,
    SHORT,
    U64,
    Tables,
    hash_of,
    key_of,
    long_token,
    short_token,
    slot_of,
)

_EMPTY = 0xFFFFFFFF
_WORK = 1024


@njit(cache=True, inline="always")
def _recall(known: U64, slot: int, out: I32, n: int) -> int:
    for word in range(2, 4):
        for shift in (0, 32):
            token = known[slot, word] >> np.uint64(shift) & np.uint64(_EMPTY)
            if token == np.uint64(_EMPTY):
                return n
            out[n] = np.int32(token)
            n += 1
    return n


@njit(cache=True, inline="always")
def _remember(
    known: U64, slot: int, low: np.uint64, high: np.uint64, out: I32, first: int, n: int
) -> None:
    """Put the tokens of a word in its slot, whatever was there, if they are at most four."""
    if n - first > 4:
        return
    known[slot, 0], known[slot, 1] = low, high
    for word in range(2):
        found = np.uint64(0)
        for half in range(2):
            at = first + 2 * word + half
            token = np.uint64(out[at]) if at < n else np.uint64(_EMPTY)
            found |= token << np.uint64(32 * half)
        known[slot, 2 + word] = found


# The interpreter is not let go, because threads that share a tokenizer share the words it knows.
@njit(cache=True)
def encode(words: U64, size: int, tables: Tables, known: U64, out: I32) -> int:
    """Ids of a text of `size` bytes in `out`, int32 of at least that length; how many they are.

    `words` hold the text and PADDING; `known` uint64[slots, 4], zeros at first, keeps the tokens of
    words of at most SHORT bytes from one call to the next.
    """
    data = words.view(np.uint8)
    work = work_for(_WORK)
    pos = n = 0
    while pos < size:
        end = piece_end(data, pos, size, tables.kinds, tables.digits)
        length = end - pos
        if length + ROOM > len(work.joints):
            work = work_for(length)
        if length == 1:
            out[n] = tables.single[data[pos]]
            n += 1
        elif length <= SHORT:
            low, high = key_of(words, pos, length)
            found = hash_of(low, high)
            token = short_token(low, high, found, tables.short)
            slot = slot_of(found, 20, len(known))
            if token >= 0:
                out[n] = token
                n += 1
            elif known[slot, 0] == low and known[slot, 1] == high:
                n = _recall(known, slot, out, n)
            else:
                first = n
                n = merged(data, pos, length, tables, work, out, n)
                _remember(known, slot, low, high, out, first, n)
        else:
            token = long_token(data, pos, end, tables)
            if token >= 0:
                out[n] = token
                n += 1
            else:
                n = merged(data, pos, length, tables, work, out, n)
        pos = end
    return n
