"""`c4.count_sentences` on UTF-8 where it lies: no line is built, so a line of 200 MB costs nothing.

Equal to the reference in `longctx.filter.c4` for every text. A line is walked once, citation marks
left out on the way; what decides about it and its sentences are counted together, and the count is
forgotten where the line is dropped. About 200 MB/s per core.
"""

import numpy as np
from numba import njit

from longctx.filter.c4 import MAX_WORD, MIN_WORDS, POLICY_PHRASES
from longctx.filter.phrases import START, States, automaton, step
from longctx.text.utf8 import DECIMAL, SPACE, U8, as_utf8, char_at, char_kinds, stripped

_PHRASES = ("javascript", *POLICY_PHRASES)
_MARKS = tuple(np.frombuffer(mark, np.uint8) for mark in (b"[edit]", b"[citation needed]"))
_EDIT, _NEEDED = _MARKS
_NEWLINE, _OPEN, _CLOSE, _DOT = (ord(c) for c in "\n[].")
_ENDS = tuple(map(ord, ".?!"))
_LINE_ENDS = tuple(map(ord, ".?!\"'"))
_CLOSERS = tuple(map(ord, "\"'”’»)]}"))


def count_sentences(text: str | U8) -> int:
    """Sentences that are left after `c4.clean`."""
    return _count(as_utf8(text), char_kinds(), automaton(_PHRASES))


@njit(cache=True, nogil=True)
def _count(data: U8, kinds: U8, phrases: States) -> int:
    total = start = 0
    while start < data.size:
        end = start
        while end < data.size and data[end] != _NEWLINE:
            end += 1
        total += _of_line(data, *stripped(data, start, end, kinds), kinds, phrases)
        start = end + 1
    return total


@njit(cache=True, nogil=True)
def _of_line(data: U8, pos: int, end: int, kinds: U8, phrases: States) -> int:
    """Sentences of a stripped line; 0 where C4 drops it."""
    sentences = words = run = dots = 0
    state, last, ended = START, 0, False  # `ended`: a sentence ends if white space follows
    found = phrases.shape[0] - 1
    while pos < end:
        code, after = char_at(data, pos)
        if code == _OPEN:
            after_mark = _after_mark(data, pos, end, kinds)
            if after_mark > pos:
                pos = after_mark
                continue
        pos = after
        last = code
        dots = dots + 1 if code == _DOT else 0
        state = step(phrases, state, code)
        if kinds[code] & SPACE:
            sentences += ended
            run, ended = 0, False
        else:
            words += run == 0
            run += 1
            ended = code in _ENDS or (ended and code in _CLOSERS)
        if run > MAX_WORD or state == found:
            return 0
    if words < MIN_WORDS or dots >= 3 or last not in _LINE_ENDS:
        return 0
    return sentences + ended


@njit(cache=True, nogil=True)
def _after_mark(data: U8, pos: int, end: int, kinds: U8) -> int:
    """Where the citation mark that begins at pos ends; pos if there is none."""
    at = pos + 1
    while at < end:
        code, after = char_at(data, at)
        if not kinds[code] & DECIMAL:
            if code == _CLOSE and at > pos + 1:
                return after
            break
        at = after
    for mark in (_EDIT, _NEEDED):
        if end - pos >= mark.size:
            same = True
            for k in range(mark.size):
                same &= data[pos + k] == mark[k]
            if same:
                return pos + mark.size
    return pos
