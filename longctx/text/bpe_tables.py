"""The tables of a vocabulary that compiled code looks tokens up in, and what fills them.

Keys of up to 15 bytes are two machine words with the length on top, so they are compared without
looking elsewhere; longer tokens are found by a hash and compared with their spelling. One table has
all pairs of tokens that join to a token. Before it stands a sieve of one bit a hash: most pairs do
not join, and the sieve, unlike the table, stays in the cache of a core. Words are read as
little-endian.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

SHORT = 15  # bytes of a key that is compared in place
PADDING = 24  # bytes behind a text that `key_of` may read
NEVER = 2**31 - 1  # the number of a pair that joins to no token
ID_BITS = 21
_PRIME, _OTHER_PRIME = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)


class Tables(NamedTuple):
    """A vocabulary of n tokens, numbered from 0, and the pieces that it is used on."""

    kinds: U8  # `bpe_pieces.character_kinds`
    digits: int
    spelled: U64  # bytes of all tokens, one after the other, and PADDING
    borders: I64  # [n + 1]: where each begins
    short: U64  # [slots, 3]: key in two words and number of tokens of at most SHORT bytes
    long: I32  # [slots]: numbers of longer ones by their hash, -1 where there is none
    single: I32  # [256]: tokens of one byte
    double: I32  # [65536]: tokens of two bytes, NEVER where there is none
    joins: U64  # [slots]: left, right and joint, ID_BITS each; 0 where there is none
    sieve: U64  # one bit for each hash of a pair that joins


@njit(cache=True, inline="always")
def slot_of(found: np.uint64, shift: int, slots: int) -> int:
    """The place of a hash without its lowest `shift` bits; `slots` is a power of two."""
    return int(np.int64(found >> np.uint64(shift))) & (slots - 1)


@njit(cache=True, inline="always")
def key_of(words: U64, start: int, size: int) -> tuple[np.uint64, np.uint64]:
    """`size` bytes from `start`, at most SHORT, and their number as two words."""
    i, shift, one_bit = start >> 3, np.uint64(8 * (start & 7)), np.uint64(1)
    one, two, three = words[i], words[i + 1], words[i + 2]
    low = one >> shift | (two << one_bit) << (np.uint64(63) - shift)
    high = two >> shift | (three << one_bit) << (np.uint64(63) - shift)
    if size < 8:
        low &= (one_bit << np.uint64(8 * size)) - one_bit
        high = np.uint64(0)
    else:
        high &= (one_bit << np.uint64(8 * size - 64)) - one_bit
    return low, high | np.uint64(size) << np.uint64(56)


@njit(cache=True, inline="always")
def hash_of(low: np.uint64, high: np.uint64) -> np.uint64:
    """Hash of a key."""
    found = (low ^ high * _PRIME) * _OTHER_PRIME
    found = (found ^ found >> np.uint64(32)) * _OTHER_PRIME
    return found ^ found >> np.uint64(32)


@njit(cache=True, inline="always")
def _mark(found: np.uint64, sieve: U64) -> None:
    bit = slot_of(found, 36, 64 * len(sieve))
    sieve[bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)


@njit(cache=True, inline="always")
def _marked(found: np.uint64, sieve: U64) -> bool:
    bit = slot_of(found, 36, 64 * len(sieve))
    return (sieve[bit >> 6] >> np.uint64(bit & 63) & np.uint64(1)) != np.uint64(0)


@njit(cache=True, inline="always")
def short_token(low: np.uint64, high: np.uint64, found: np.uint64, table: U64) -> int:
    """The token with this key and its hash, -1 if there is none."""
    slot = slot_of(found, 0, len(table))
    while table[slot, 1] != np.uint64(0):
        if table[slot, 0] == low and table[slot, 1] == high:
            return int(np.int64(table[slot, 2]))
        slot = (slot + 1) & (len(table) - 1)
    return -1


@njit(cache=True)
def _hash_long(data: U8, start: int, end: int) -> np.uint64:
    found = np.uint64(end - start)
    for i in range(start, end):
        found = (found ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
    return found ^ found >> np.uint64(32)


@njit(cache=True)
def long_token(data: U8, start: int, end: int, tables: Tables) -> int:
    """The token of more than SHORT bytes that data[start:end] is, -1 if it is none."""
    spelled, size, slots = tables.spelled.view(np.uint8), end - start, len(tables.long)
    slot = slot_of(_hash_long(data, start, end), 0, slots)
    while tables.long[slot] >= 0:
        token = int(np.int64(tables.long[slot]))
        first = tables.borders[token]
        if tables.borders[token + 1] - first == size:
            same = 0
            while same < size and spelled[first + same] == data[start + same]:
                same += 1
            if same == size:
                return token
        slot = (slot + 1) & (slots - 1)
    return -1


@njit(cache=True, inline="always")
def _pair(left: int, right: int) -> np.uint64:
    return np.uint64(left) << np.uint64(ID_BITS) | np.uint64(right)


@njit(cache=True, inline="always")
def joint_of(left: int, right: int, joins: U64, sieve: U64) -> np.int32:
    """The token that two tokens join to, NEVER if it is none."""
    pair = _pair(left, right)
    found = pair * _PRIME
    if not _marked(found, sieve):
        return np.int32(NEVER)
    slot = slot_of(found, 40, len(joins))
    while joins[slot] != np.uint64(0):
        if joins[slot] >> np.uint64(ID_BITS) == pair:
            return np.int32(joins[slot] & np.uint64(2**ID_BITS - 1))
        slot = (slot + 1) & (len(joins) - 1)
    return np.int32(NEVER)


@njit(cache=True)
def number_tokens(tables: Tables) -> None:
    """Fill `short`, `long`, `single` and `double` from what is spelled, and mark short tokens."""
    data, table = tables.spelled.view(np.uint8), tables.short
    for token in range(len(tables.borders) - 1):
        start, end = tables.borders[token], tables.borders[token + 1]
        size = end - start
        if size > SHORT:
            slot = slot_of(_hash_long(data, start, end), 0, len(tables.long))
            while tables.long[slot] >= 0:
                slot = (slot + 1) & (len(tables.long) - 1)
            tables.long[slot] = token
            continue
        if size == 1:
            tables.single[data[start]] = token
        elif size == 2:
            tables.double[np.int64(data[start]) << 8 | np.int64(data[start + 1])] = token
        low, high = key_of(tables.spelled, start, size)
        found = hash_of(low, high)
        _mark(found, tables.sieve)
        slot = slot_of(found, 0, len(table))
        while table[slot, 1] != np.uint64(0):
            slot = (slot + 1) & (len(table) - 1)
        table[slot, 0], table[slot, 1], table[slot, 2] = low, high, np.uint64(token)


@njit(cache=True, inline="always")
def _may_be_token(start: int, end: int, tables: Tables) -> bool:
    if end - start > SHORT:
        return True
    low, high = key_of(tables.spelled, start, end - start)
    return _marked(hash_of(low, high), tables.sieve)


@njit(cache=True, inline="always")
def _token(start: int, end: int, tables: Tables) -> int:
    """The token that these of the spelled bytes are, -1 if they are none."""
    if end - start > SHORT:
        return long_token(tables.spelled.view(np.uint8), start, end, tables)
    low, high = key_of(tables.spelled, start, end - start)
    return short_token(low, high, hash_of(low, high), tables.short)


@njit(cache=True)
def all_joins(tables: Tables) -> U64:
    """Every pair of tokens whose joint is a token, with that joint: what `joins` are filled with.

    Needs what `number_tokens` fills and marks.
    """
    joins = np.empty(len(tables.spelled) * 8, dtype=np.uint64)
    n = 0
    for token in range(len(tables.borders) - 1):
        start, end = tables.borders[token], tables.borders[token + 1]
        for middle in range(start + 1, end):
            # Before either is looked up: most are none, and the sieve says so at once.
            if not (_may_be_token(start, middle, tables) and _may_be_token(middle, end, tables)):
                continue
            left = _token(start, middle, tables)
            if left < 0:
                continue
            right = _token(middle, end, tables)
            if right < 0:
                continue
            joins[n] = _pair(left, right) << np.uint64(ID_BITS) | np.uint64(token)
            n += 1
    return joins[:n]


@njit(cache=True)
def fill_joins(pairs: U64, joins: U64, sieve: U64) -> None:
    """Put every pair at its place in `joins`; the sieve marks them, and no longer tokens."""
    sieve[:] = 0
    for pair in pairs:
        found = (pair >> np.uint64(ID_BITS)) * _PRIME
        _mark(found, sieve)
        slot = slot_of(found, 40, len(joins))
        while joins[slot] != np.uint64(0):
            slot = (slot + 1) & (len(joins) - 1)
        joins[slot] = pair
