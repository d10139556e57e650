"""A long passage that two texts have in common. Pure.

Runs of 16 words of either text become numbers; where consecutive runs of one text stand
consecutively in the other, they are one passage, and the longest is shown. A run that a text has
several times is taken where it stands first, so a longer passage may exist. O(n log n), n words.
"""

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_RUN = 16
_WORDS = 100_000
_WORD = re.compile(r"\w+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Common(NamedTuple):
    """Characters start..end-1 of two texts with the same words, and how many words these are."""

    first: tuple[int, int]
    second: tuple[int, int]
    words: int


def common_passage(first: str, second: str) -> Common | None:
    """A long passage whose words, without case, stand in both texts; None without 16 such words.

    Of very long texts the first 100,000 words are compared.
    """
    a, b = _words(first), _words(second)
    numbers: dict[str, int] = {}
    x, y = (_runs([numbers.setdefault(w, len(numbers)) for w, _, _ in words]) for words in (a, b))
    if not len(x) or not len(y):
        return None
    known, places = np.unique(y, return_index=True)
    at = np.minimum(np.searchsorted(known, x), len(known) - 1)
    found = np.where(known[at] == x, places[at], -1)
    start, length = _longest(found)
    if not length:
        return None
    last = length + _RUN - 2
    begin, end = a[start][1], a[start + last][2]
    other = int(found[start])
    return Common((begin, end), (b[other][1], b[other + last][2]), length + _RUN - 1)


def _words(text: str) -> list[tuple[str, int, int]]:
    found = []
    for match in _WORD.finditer(text):
        found.append((match[0].lower(), match.start(), match.end()))
        if len(found) == _WORDS:
            break
    return found


def _runs(words: list[int]) -> npt.NDArray[np.uint64]:
    """A number for each run of 16 words."""
    values = np.array(words, dtype=np.uint64)
    count = max(0, len(values) - _RUN + 1)
    total = np.zeros(count, dtype=np.uint64)
    for shift in range(_RUN):
        total = total * _FACTOR + values[shift : shift + count] + np.uint64(1)
    return total


def _longest(places: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Start and length of the longest stretch of consecutive places; length 0 without any."""
    known = places >= 0
    joined = known[1:] & known[:-1] & (np.diff(places) == 1)
    starts = np.flatnonzero(np.concatenate([[True], ~joined]))
    lengths = np.where(known[starts], np.diff(np.append(starts, len(places))), 0)
    best = int(np.argmax(lengths))
    return int(starts[best]), int(lengths[best])
