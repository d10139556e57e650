"""BPE of one piece: the pair with the smallest joint is joined, the leftmost of equals, over again.

That is the rule of tiktoken. The smallest joint is kept of every 32 places, of every 32 of those
and so on: a piece of n bytes takes O(n log n), and half a megabyte without a border costs no more a
byte than a word does.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from longctx.text.bpe_tables import I32, I64, NEVER, U8, Tables, joint_of

_FAN = 32
_MOST_LEVELS = 16
ROOM = _FAN * _MOST_LEVELS


class Work(NamedTuple):
    """Room to merge in, int32[at least the bytes of a piece + ROOM] each.

    Of each token that is left, at the place of its first byte: the `joints` with the next one, and
    where the next one (`after`) and the last one (`before`) begin.
    """

    joints: I32
    after: I32
    before: I32
    least: I32  # the least joints of groups of places, and of groups of those, level by level
    begins: I64  # where the levels begin in `least`


@njit(cache=True, inline="always")
def _least(numbers: I32, first: int) -> int:
    found = numbers[first]
    for i in range(first + 1, first + _FAN):
        found = min(found, numbers[i])
    return found


@njit(cache=True, inline="always")
def _levels(size: int, least: I32, begins: I64) -> int:
    """Lay the levels above `size` places out in `least`, whole groups each; how many there are."""
    count, levels, begins[0] = size, 0, 0
    while levels == 0 or count > 1:
        count = (count + _FAN - 1) // _FAN
        end = begins[levels] + (count + _FAN - 1) // _FAN * _FAN
        least[begins[levels] + count : end] = NEVER
        levels += 1
        begins[levels] = end
    return levels


@njit(cache=True, inline="always")
def _refresh(joints: I32, least: I32, begins: I64, levels: int, first: int, last: int) -> None:
    """Find the least joints again above the places from `first` to `last`."""
    for group in range(first // _FAN, last // _FAN + 1):
        least[group] = _least(joints, group * _FAN)
    for level in range(1, levels):
        first, last = first // _FAN, last // _FAN
        for group in range(first // _FAN, last // _FAN + 1):
            least[begins[level] + group] = _least(least, begins[level - 1] + group * _FAN)


@njit(cache=True, inline="always")
def _place(joints: I32, least: I32, begins: I64, levels: int, wanted: int) -> int:
    """The first place with the joint `wanted`, which is the least of all."""
    at = 0
    for level in range(levels - 2, -1, -1):
        at *= _FAN
        while least[begins[level] + at] != wanted:
            at += 1
    at *= _FAN
    while joints[at] != wanted:
        at += 1
    return at


@njit(cache=True)
def work_for(size: int) -> Work:
    """Room for pieces of `size` bytes."""
    room = np.empty((4, size + ROOM), dtype=np.int32)
    return Work(room[0], room[1], room[2], room[3], np.empty(_MOST_LEVELS, dtype=np.int64))


@njit(cache=True)
def merged(data: U8, start: int, size: int, tables: Tables, work: Work, out: I32, n: int) -> int:
    """Merge the `size` bytes from `start` into tokens at `out[n:]`; where those end."""
    joints, after, before, least, begins = work
    levels = _levels(size, least, begins)
    for i in range(size):
        out[n + i] = tables.single[data[start + i]]
        after[i], before[i] = i + 1, i - 1
    for i in range(size - 1):
        joints[i] = tables.double[np.int64(data[start + i]) << 8 | np.int64(data[start + i + 1])]
    joints[size - 1 : (size + _FAN - 1) // _FAN * _FAN] = NEVER
    _refresh(joints, least, begins, levels, 0, size - 1)
    top = begins[levels - 1]
    while least[top] != NEVER:
        best = least[top]
        at = _place(joints, least, begins, levels, best)
        gone, left = after[at], before[at]
        right = after[gone]
        out[n + at], after[at] = best, right
        joints[at] = joints[gone] = NEVER
        if right < size:
            before[right] = at
            joints[at] = joint_of(best, out[n + right], tables.joins, tables.sieve)
        if left >= 0:
            joints[left] = joint_of(out[n + left], best, tables.joins, tables.sieve)
        _refresh(joints, least, begins, levels, max(left, 0), gone)
    i = 0
    end = n
    while i < size:
        out[end] = out[n + i]
        end += 1
        i = after[i]
    return end
