"""Exact n-gram repetition of Gopher (arXiv 2112.11446) over integer arrays, in one pass per n.

`top_n`: characters of the most frequent n-gram (joined by spaces; on a tie the one that occurs
first), times its count. `dup_n`: characters of n-grams seen before, scanning from the left, jumping
n words after each hit and one word otherwise; there n-grams are joined without spaces, so "ab c"
equals "a bc". Both need one hash table of at most 2·(words) slots per n. Hashes only find
candidates: every match is verified on words or characters, so collisions cost time, never a result.

Words become ids and character codes once (`Words.of`), and any run of them (a window) is then a
slice. About 20 MB/s per core for all nine n; the first call in a fresh installation compiles for
some seconds and is then cached on disk.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from longctx.text.normalise import is_symbol, words

TOP_N = (2, 3, 4)
DUP_N = (5, 6, 7, 8, 9, 10)
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

_SLICE = 1 << 20
_NO_IDS = np.zeros(0, np.int32)
_STOP_INDEX = {word: index for index, word in enumerate(STOP_WORDS)}
_SPACE = re.compile(r"\s")
_BASE = np.uint64(0x9E3779B97F4A7C15)
_IS_SPACE = np.array([chr(code).isspace() for code in range(0x3002)])


@dataclass(frozen=True)
class Words:
    """The words of a text as arrays; `ids` and the flags have one entry per word.

    `codes` (uint32) are its non-space characters and `bounds` (int64, one more entry than words)
    the place of each word there: every such character belongs to exactly one word. `starts`
    (int64) are character offsets in the text. `symbol` marks words without an alphanumeric
    character, `alpha` those with a letter; `stop` is the index in STOP_WORDS, else -1.
    """

    ids: npt.NDArray[np.int32]
    codes: npt.NDArray[np.uint32]
    bounds: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    symbol: npt.NDArray[np.bool_]
    alpha: npt.NDArray[np.bool_]
    stop: npt.NDArray[np.int8]

    @classmethod
    def of(cls, text: str) -> "Words":
        """Words of `text`; strings live only for one slice of about 1 M characters at a time."""
        vocabulary: dict[str, int] = {}
        ids, codes, starts = [_NO_IDS], [np.zeros(0, np.uint32)], [np.zeros(0, np.int64)]
        offset = 0
        for piece in slices_at_spaces(text):
            found = words(piece)
            for word in dict.fromkeys(found):
                vocabulary.setdefault(word, len(vocabulary))
            ids.append(np.fromiter(map(vocabulary.__getitem__, found), np.int32, len(found)))
            piece_codes, filled = _non_space(piece)
            lengths = np.fromiter(map(len, found), np.int64, len(found))
            codes.append(piece_codes)
            starts.append(filled[np.cumsum(lengths) - lengths] + offset)
            offset += len(piece)
        all_ids = np.concatenate(ids)
        lengths, symbol, alpha, stop = _describe(vocabulary)
        bounds = np.zeros(len(all_ids) + 1, np.int64)
        np.cumsum(lengths[all_ids], out=bounds[1:])
        return cls(
            all_ids,
            np.concatenate(codes),
            bounds,
            np.concatenate(starts),
            symbol[all_ids],
            alpha[all_ids],
            stop[all_ids],
        )

    def slice(self, first: int, last: int) -> "Words":
        """Words first … last-1, as views."""
        return Words(
            self.ids[first:last],
            self.codes,
            self.bounds[first : last + 1],
            self.starts[first:last],
            self.symbol[first:last],
            self.alpha[first:last],
            self.stop[first:last],
        )

    def __len__(self) -> int:
        return len(self.ids)


def repeated_characters(text_words: Words) -> dict[str, int]:
    """Characters in repeated n-grams: "top_2" … "top_4" and "dup_5" … "dup_10"."""
    hashes, powers = _word_hashes(text_words.codes, text_words.bounds)
    tops = {
        f"top_{n}": int(_top(text_words.ids, text_words.bounds, hashes, powers, n)) for n in TOP_N
    }
    dups = {
        f"dup_{n}": int(_dup(text_words.codes, text_words.bounds, hashes, powers, n)) for n in DUP_N
    }
    return tops | dups


def slices_at_spaces(text: str) -> Iterator[str]:
    """Pieces of about 1 M characters, each begun by white space: no word is in two of them."""
    start = 0
    while space := _SPACE.search(text, start + _SLICE):
        yield text[start : space.start()]
        start = space.start()
    yield text[start:]


def _describe(vocabulary: Iterable[str]) -> tuple[npt.NDArray[Any], ...]:
    """Length, symbol flag, letter flag and stop index of each distinct word."""
    rows = [
        (len(w), False, True, _STOP_INDEX.get(w, -1))
        if w.isalpha()
        else (len(w), is_symbol(w), any(map(str.isalpha, w)), -1)
        for w in vocabulary
    ]
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    kinds = (np.int64, np.bool_, np.bool_, np.int8)
    return tuple(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True))


def _non_space(text: str) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Codes of the non-space characters and their offsets."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    # No character above the table is white space: its last entry, U+3001, is none either.
    filled = np.flatnonzero(~_IS_SPACE[np.minimum(codes, len(_IS_SPACE) - 1)])
    return codes[filled], filled


@njit(cache=True, nogil=True)
def _word_hashes(codes, bounds):  # type: ignore[no-untyped-def]
    n = len(bounds) - 1
    hashes = np.zeros(n, np.uint64)
    powers = np.ones(n, np.uint64)
    for w in range(n):
        h, p = np.uint64(0), np.uint64(1)
        for c in range(bounds[w], bounds[w + 1]):
            h = h * _BASE + np.uint64(codes[c]) + np.uint64(1)
            p = p * _BASE
        hashes[w], powers[w] = h, p
    return hashes, powers


@njit(cache=True, nogil=True, inline="always")
def _slot_of(hashes, powers, i, n, bits):  # type: ignore[no-untyped-def]
    # Hash of the characters of n words as if written together, spread over the table.
    h = np.uint64(0)
    for w in range(i, i + n):
        h = h * powers[w] + hashes[w]
    h ^= h >> np.uint64(32)
    h *= np.uint64(0xBF58476D1CE4E5B9)
    return h >> np.uint64(64 - bits)


@njit(cache=True, nogil=True)
def _table_bits(n_words):  # type: ignore[no-untyped-def]
    bits = 4
    while (1 << bits) < 2 * n_words:
        bits += 1
    return bits


@njit(cache=True, nogil=True)
def _top(ids, bounds, hashes, powers, n):  # type: ignore[no-untyped-def]
    n_grams = len(ids) - n + 1
    if n_grams < 1:
        return 0
    bits = _table_bits(n_grams)
    mask = (1 << bits) - 1
    table = np.full(1 << bits, -1, np.int32)
    count = np.zeros(n_grams, np.int32)  # at the first occurrence of each n-gram
    for i in range(n_grams):
        slot = np.int64(_slot_of(hashes, powers, i, n, bits))
        while True:
            first = table[slot]
            if first < 0:
                table[slot] = first = i
            same = True
            for k in range(n):
                if ids[first + k] != ids[i + k]:
                    same = False
                    break
            if same:
                count[first] += 1
                break
            slot = (slot + 1) & mask
    best = np.argmax(count)  # the first maximum: the n-gram that occurs first
    return (bounds[best + n] - bounds[best] + n - 1) * count[best]


@njit(cache=True, nogil=True)
def _dup(codes, bounds, hashes, powers, n):  # type: ignore[no-untyped-def]
    n_grams = len(bounds) - n
    if n_grams < 1:
        return 0
    bits = _table_bits(n_grams)
    mask = (1 << bits) - 1
    table = np.full(1 << bits, -1, np.int32)
    repeated, i = 0, 0
    while i < n_grams:
        slot = np.int64(_slot_of(hashes, powers, i, n, bits))
        start, length = bounds[i], bounds[i + n] - bounds[i]
        seen = False
        while table[slot] >= 0 and not seen:
            first = table[slot]
            seen = bounds[first + n] - bounds[first] == length
            for c in range(length):
                if not seen or codes[bounds[first] + c] != codes[start + c]:
                    seen = False
                    break
            slot = (slot + 1) & mask
        if seen:
            repeated += length
            i += n
        else:
            table[slot] = i
            i += 1
    return repeated
