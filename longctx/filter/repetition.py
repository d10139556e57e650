"""Exact n-gram repetition of Gopher (arXiv 2112.11446) over the numbers of words.

`top_n`: characters of the most frequent n-gram (joined by spaces; on a tie the one that occurs
first), times its count. `dup_n`: characters of n-grams seen before, scanning from the left, jumping
n words after each hit and one word otherwise; there n-grams are joined without spaces, so "ab c"
equals "a bc". Hashes only find candidates: every match is verified on words or characters, so
collisions cost time, never a result.

`dup_n` needs one hash table of 6.4 bytes a word. `top_n` counts n-grams in groups of hashes, so
many that the tables stay at 100 MB, and reads the words once for each group. About 30 MB/s per core
for all nine n; the first call in a fresh installation compiles for some seconds and is then cached
on disk.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from longctx.filter.words import BASE, U64, Words

TOP_N = (2, 3, 4)
DUP_N = (5, 6, 7, 8, 9, 10)

_GROUP = 1 << 23  # n-grams counted at a time
_BLOCK = 1 << 12  # places whose hashes are computed at a time, in the first-level cache
_POWERS = 1 << 10


class Hashes(NamedTuple):
    """Hash and characters of each entry of a vocabulary, and powers of the hashes' factor."""

    values: U64
    lengths: npt.NDArray[np.uint32]
    powers: U64


def repeated_characters(found: Words) -> dict[str, int]:
    """Characters in repeated n-grams: "top_2" … "top_4" and "dup_5" … "dup_10"."""
    known = found.vocabulary
    hashes = Hashes(known.hashes, known.lengths, _KNOWN_POWERS)
    tops = {f"top_{n}": int(_top(found.ids, hashes, n, _GROUP)) for n in TOP_N}
    dups = {f"dup_{n}": int(_dup(found.ids, known.text, known.bounds, hashes, n)) for n in DUP_N}
    return tops | dups


def _powers() -> U64:
    powers = np.full(_POWERS, BASE, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


_KNOWN_POWERS = _powers()


@njit(cache=True, nogil=True, inline="always")
def _power(powers, length):  # type: ignore[no-untyped-def]
    """BASE to the power of a number of characters."""
    if length < powers.size:
        return powers[length]
    power, factor = np.uint64(1), BASE
    while length:
        if length & 1:
            power *= factor
        factor *= factor
        length >>= 1
    return power


@njit(cache=True, nogil=True)
def _gram_hashes(ids, hashes, start, n, grams):  # type: ignore[no-untyped-def]
    """Hashes of the characters of n words as if written together, for each place from start on."""
    count = min(grams.size, ids.size - n + 1 - start)
    prefix, ends = np.zeros(count + n, np.uint64), np.zeros(count + n, np.int64)
    for j in range(count + n - 1):
        word = ids[start + j]
        length = np.int64(hashes.lengths[word])
        prefix[j + 1] = prefix[j] * _power(hashes.powers, length) + hashes.values[word]
        ends[j + 1] = ends[j] + length
    for j in range(count):
        h = prefix[j + n] - prefix[j] * _power(hashes.powers, ends[j + n] - ends[j])
        h ^= h >> np.uint64(32)
        h *= np.uint64(0xBF58476D1CE4E5B9)
        grams[j] = h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True, inline="always")
def _slot_of(h, slots):  # type: ignore[no-untyped-def]
    return np.int64(((h >> np.uint64(32)) * np.uint64(slots)) >> np.uint64(32))


@njit(cache=True, nogil=True, inline="always")
def _slots_for(entries):  # type: ignore[no-untyped-def]
    return max(16, entries + entries * 3 // 5)


@njit(cache=True, nogil=True, inline="always")
def _place_bits(n_grams):  # type: ignore[no-untyped-def]
    """Bits of a slot that hold a place + 1 (0: free); those above hold a part of the hash.

    So most entries that only share a slot are told apart without a look at their words.
    """
    bits = 1
    while (np.int64(1) << bits) <= n_grams:
        bits += 1
    return bits


@njit(cache=True, nogil=True, inline="always")
def _entry(h, i, bits):  # type: ignore[no-untyped-def]
    return np.uint32((h << np.uint64(bits)) | np.uint64(i + 1))


@njit(cache=True, nogil=True)
def _characters(ids, lengths, i, n):  # type: ignore[no-untyped-def]
    total = 0
    for w in range(i, i + n):
        total += int(np.int64(lengths[ids[w]]))
    return total


@njit(cache=True, nogil=True, inline="always")
def _same_words(ids, i, j, n):  # type: ignore[no-untyped-def]
    k = 0
    while k < n and ids[i + k] == ids[j + k]:
        k += 1
    return k == n


@njit(cache=True, nogil=True)
def _same_characters(ids, text, bounds, i, j, n):  # type: ignore[no-untyped-def]
    """Whether n words from i and from j are the same when written together."""
    if _same_words(ids, i, j, n):
        return True
    u = v = 0  # words, and places inside of them
    p, q = np.int64(bounds[ids[i]]), np.int64(bounds[ids[j]])
    while u < n and v < n:
        if text[p] != text[q]:
            return False
        p, q = p + 1, q + 1
        if p == bounds[ids[i + u] + 1]:
            u += 1
            p = np.int64(bounds[ids[i + u]]) if u < n else p
        if q == bounds[ids[j + v] + 1]:
            v += 1
            q = np.int64(bounds[ids[j + v]]) if v < n else q
    return u == n and v == n


@njit(cache=True, nogil=True)
def _largest_group(ids, hashes, n, groups):  # type: ignore[no-untyped-def]
    sizes = np.zeros(groups, np.int64)
    grams = np.empty(_BLOCK, np.uint64)
    for i in range(ids.size - n + 1):
        if i % _BLOCK == 0:
            _gram_hashes(ids, hashes, i, n, grams)
        sizes[grams[i % _BLOCK] % np.uint64(groups)] += 1
    return sizes.max()


@njit(cache=True, nogil=True)
def _top(ids, hashes, n, group_size):  # type: ignore[no-untyped-def]
    n_grams = ids.size - n + 1
    if n_grams < 1:
        return 0
    groups = (n_grams - 1) // group_size + 1
    slots = _slots_for(n_grams if groups == 1 else _largest_group(ids, hashes, n, groups))
    bits = _place_bits(n_grams)
    places = np.uint32((np.uint64(1) << np.uint64(bits)) - np.uint64(1))
    grams = np.empty(min(n_grams, _BLOCK), np.uint64)
    best, first_best = 0, n_grams
    for group in range(groups):
        table = np.zeros(slots, np.uint32)
        count = np.zeros(slots, np.uint32)
        for i in range(n_grams):
            if i % _BLOCK == 0:
                _gram_hashes(ids, hashes, i, n, grams)
            h = grams[i % _BLOCK]
            if groups > 1 and h % np.uint64(groups) != np.uint64(group):
                continue
            entry, slot = _entry(h, i, bits), _slot_of(h, slots)
            while table[slot]:
                alike = (table[slot] ^ entry) <= places
                if alike and _same_words(ids, np.int64(table[slot] & places) - 1, i, n):
                    break
                slot = slot + 1 if slot + 1 < slots else 0
            if not table[slot]:
                table[slot] = entry
            count[slot] += 1
        for slot in range(slots):
            first = int(np.int64(table[slot] & places)) - 1
            if count[slot] > best or (count[slot] == best and best and first < first_best):
                best, first_best = int(np.int64(count[slot])), first
    return (_characters(ids, hashes.lengths, first_best, n) + n - 1) * best


@njit(cache=True, nogil=True)
def _dup(ids, text, bounds, hashes, n):  # type: ignore[no-untyped-def]
    n_grams = ids.size - n + 1
    if n_grams < 1:
        return 0
    slots = _slots_for(n_grams)
    bits = _place_bits(n_grams)
    places = np.uint32((np.uint64(1) << np.uint64(bits)) - np.uint64(1))
    table = np.zeros(slots, np.uint32)
    grams = np.empty(min(n_grams, _BLOCK), np.uint64)
    repeated = i = known = first_known = 0  # hashes are known of places before `known`
    while i < n_grams:
        if i >= known:
            _gram_hashes(ids, hashes, i, n, grams)
            first_known, known = i, i + grams.size
        h = grams[i - first_known]
        entry, slot = _entry(h, i, bits), _slot_of(h, slots)
        seen = False
        while table[slot]:
            alike = (table[slot] ^ entry) <= places
            first = np.int64(table[slot] & places) - 1
            if alike and _same_characters(ids, text, bounds, first, i, n):
                seen = True
                break
            slot = slot + 1 if slot + 1 < slots else 0
        if seen:
            repeated += _characters(ids, hashes.lengths, i, n)
            i += n
        else:
            table[slot] = entry
            i += 1
    return repeated
