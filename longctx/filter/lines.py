"""Lines and paragraphs of a text in UTF-8, found and compared where they lie.

Ours; the measures are those of Gopher (arXiv 2112.11446) and FineWeb (2406.17557). A line is eight
bytes (its place), and six more while duplicates are looked for: as strings, lines of 20 characters
are four times their text. Duplicates are found by hash and verified by their bytes. About 300 MB/s
per core for each measure.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from longctx.filter.phrases import START, automaton, step
from longctx.text.utf8 import BREAK, SPACE, U8, char_at, char_before, char_count, char_kinds

U32 = npt.NDArray[np.uint32]

TERMINAL = tuple(".?!…\"'”’。！？」』؟।")

_TERMINALS = tuple(map(ord, TERMINAL))
_LOREM = ("lorem ipsum",)
_SHORT = 30
_NEWLINE, _DOT, _HASH, _BRACE, _RETURN = (ord(c) for c in "\n.#{\r")
_ELLIPSIS = ord("…")
_BULLETS = tuple(map(ord, "•-"))
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Figures(NamedTuple):
    """Counts over the characters of a text, and over its lines as `str.splitlines` cuts them.

    `ellipses` are "..." (without overlaps) and "…"; `longest` is the longest run without white
    space; `bullets` are lines that begin with "•" or "-", `trailing` lines that end in an ellipsis.
    """

    chars: int
    hashes: int
    braces: int
    newlines: int
    ellipses: int
    longest: int
    lorem: bool
    lines: int
    bullets: int
    trailing: int


class Spans(NamedTuple):
    """Stretches of a text: byte i of it is in stretch k where starts[k] <= i < ends[k]."""

    starts: U32
    ends: U32

    def __len__(self) -> int:
        return len(self.starts)


def figures(data: U8) -> Figures:
    """Counts over the characters and lines of a text."""
    return Figures(*_figures(data, char_kinds(), automaton(_LOREM)))


def spans_between(data: U8, start: int, end: int, newlines: int, strip: bool) -> Spans:
    """What stands between runs of at least so many newlines in data[start:end], none of it empty.

    With `strip`, without white space at their ends.
    """
    none = np.empty(0, np.uint32)
    count = _spans(data, start, end, newlines, strip, char_kinds(), none, none)
    spans = Spans(np.empty(count, np.uint32), np.empty(count, np.uint32))
    _spans(data, start, end, newlines, strip, char_kinds(), *spans)
    return spans


def duplicates(data: U8, spans: Spans) -> tuple[int, int]:
    """Stretches that are equal to an earlier one, and their characters."""
    return _duplicates(data, *spans)


def ended_and_short(data: U8, spans: Spans) -> tuple[int, int]:
    """Stretches that end in punctuation, and those of at most 30 characters."""
    return _ended_and_short(data, *spans)


@njit(cache=True, nogil=True)
def _figures(data, kinds, lorem):  # type: ignore[no-untyped-def]
    chars = hashes = braces = newlines = ellipses = longest = 0
    lines = bullets = trailing = 0
    run = dots = previous = pos = 0  # characters since white space, and dots, up to here
    at_start, ends_in_dots, begun, state = True, False, False, START
    while pos < data.size:
        code, pos = char_at(data, pos)
        kind = kinds[code]
        chars += 1
        state = step(lorem, state, code)
        hashes += code == _HASH
        braces += code == _BRACE
        newlines += code == _NEWLINE
        dots = dots + 1 if code == _DOT else 0
        ellipses += code == _ELLIPSIS or (dots > 0 and dots % 3 == 0)
        if kind & SPACE:
            longest, run = max(longest, run), 0
        else:
            run += 1
            bullets += at_start and code in _BULLETS
            at_start = False
            ends_in_dots = dots >= 3 or code == _ELLIPSIS
        if kind & BREAK:
            # "\\r\\n" is one end of a line.
            if not (code == _NEWLINE and previous == _RETURN):
                lines += 1
                trailing += ends_in_dots
            at_start, ends_in_dots, begun = True, False, False
        else:
            begun = True
        previous = code
    if begun:
        lines += 1
        trailing += ends_in_dots
    longest = max(longest, run)
    found = state == lorem.shape[0] - 1
    return (
        chars,
        hashes,
        braces,
        newlines,
        ellipses,
        longest,
        found,
        lines,
        bullets,
        trailing,
    )


@njit(cache=True, nogil=True)
def _spans(data, start, end, newlines, strip, kinds, starts, ends):  # type: ignore[no-untyped-def]
    """Write as many stretches as there is room for; returns how many there are."""
    count, pos = 0, start
    while pos < end:
        stop = pos  # of the stretch that begins here
        after = pos
        while after < end:
            if data[after] != _NEWLINE:
                after += 1
                stop = after
                continue
            run = after
            while run < end and data[run] == _NEWLINE:
                run += 1
            if run - after >= newlines:
                after = run
                break
            after = run
        last = stop
        if strip:
            while last > pos:
                code, before = char_before(data, last)
                if not kinds[code] & SPACE:
                    break
                last = before
        if last > pos:
            if count < starts.size:
                starts[count], ends[count] = pos, last
            count += 1
        pos = after
    return count


@njit(cache=True, nogil=True)
def _duplicates(data, starts, ends):  # type: ignore[no-untyped-def]
    slots = max(16, starts.size + starts.size * 3 // 5)
    table = np.zeros(slots, np.uint32)  # number of a stretch + 1, 0: free
    repeated = characters = 0
    for i in range(starts.size):
        start, end = int(np.int64(starts[i])), int(np.int64(ends[i]))
        h = np.uint64(0)
        for k in range(start, end):
            h = (h + np.uint64(data[k])) * _FACTOR
        h ^= h >> np.uint64(32)
        h *= _FACTOR
        slot = int(np.int64(((h >> np.uint64(32)) * np.uint64(slots)) >> np.uint64(32)))
        seen = False
        while table[slot] and not seen:
            first = int(np.int64(starts[table[slot] - 1]))
            seen = int(np.int64(ends[table[slot] - 1])) - first == end - start
            for k in range(end - start):
                if not seen or data[first + k] != data[start + k]:
                    seen = False
                    break
            slot = slot + 1 if slot + 1 < slots else 0
        if seen:
            repeated += 1
            characters += char_count(data, start, end)
        else:
            table[slot] = i + 1
    return repeated, characters


@njit(cache=True, nogil=True)
def _ended_and_short(data, starts, ends):  # type: ignore[no-untyped-def]
    ended = short = 0
    for i in range(starts.size):
        code, _ = char_before(data, int(np.int64(ends[i])))
        ended += code in _TERMINALS
        short += char_count(data, int(np.int64(starts[i])), int(np.int64(ends[i]))) <= _SHORT
    return ended, short
