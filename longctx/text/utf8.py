"""UTF-8 text for compiled code: characters, what kind each of them is, and how to walk over them.

A text is an array of bytes, so one that lies in Arrow memory is read in place; as a Python string
it would be a second copy, of four bytes a character where one of them is rare. The kinds are those
of Python's `re` and `str`, taken from them once per process (1.1 MB, 0.1 s).
"""

import functools
import re
import sys
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

WORD, ALPHA, SPACE, DECIMAL, BREAK = 1, 2, 4, 8, 16
_KINDS = {WORD: r"\w+", SPACE: r"\s+", DECIMAL: r"\d+"}
_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def as_utf8(text: str | U8) -> U8:
    """The bytes of a text, uint8 of shape (n_bytes,), read-only; an array is returned as it is."""
    if isinstance(text, str):
        return np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)
    return text


def utf8_rows(texts: pa.ChunkedArray) -> Iterator[U8]:
    """The bytes of every text of a column, read-only views of it (null: empty)."""
    for chunk in texts.chunks:
        data, offsets = utf8_of(chunk)
        yield from (data[start:end] for start, end in pairwise(offsets.tolist()))


def strings(texts: pa.ChunkedArray) -> Iterator[str]:
    """The texts of a column (null: empty), with the memory of one: `as_py` takes that of two."""
    return (str(data.data, "utf-8") for data in utf8_rows(texts))


def utf8_of(texts: pa.Array) -> tuple[U8, I64]:
    """Bytes and offsets of an Arrow string array, without a copy of the text (null: empty).

    uint8 of shape (n_bytes,) and int64 of shape (len(texts) + 1,).
    """
    texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    if len(texts) == 0 or data is None:
        return np.empty(0, dtype=np.uint8), np.zeros(len(texts) + 1, dtype=np.int64)
    within = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, dtype=np.uint8), within


@functools.lru_cache(maxsize=1)
def char_kinds() -> U8:
    r"""Flags of every code point, uint8 of shape (0x110000,), read-only.

    `WORD` is `\w`, `SPACE` `\s`, `DECIMAL` `\d`, `ALPHA` `str.isalpha`; `BREAK` marks the
    characters at which `str.splitlines` cuts.
    """
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    kinds = ALPHA * np.fromiter(map(str.isalpha, every), np.uint8, len(every))
    for flag, pattern in _KINDS.items():
        for run in re.finditer(pattern, every):
            kinds[run.start() : run.end()] |= flag
    kinds[list(map(ord, _BREAKS))] |= BREAK
    kinds.flags.writeable = False
    return kinds


@njit(nogil=True, cache=True, inline="always")
def decode(data: U8, pos: int, lead: int) -> tuple[int, int]:
    """Code point of the multi-byte UTF-8 sequence at pos and the position after it."""
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | (data[pos + 1] & 0x3F), pos + 2
    if lead < 0xF0:
        code = (lead & 0x0F) << 12 | (data[pos + 1] & 0x3F) << 6 | (data[pos + 2] & 0x3F)
        return code, pos + 3
    code = (lead & 0x07) << 18 | (data[pos + 1] & 0x3F) << 12
    return code | (data[pos + 2] & 0x3F) << 6 | (data[pos + 3] & 0x3F), pos + 4


@njit(nogil=True, cache=True, inline="always")
def char_at(data: U8, pos: int) -> tuple[int, int]:
    """Code point of the character at pos and the position after it."""
    code, after = int(np.int64(data[pos])), pos + 1
    if code >= 0x80:
        code, after = decode(data, pos, code)
    return code, after


@njit(nogil=True, cache=True, inline="always")
def char_before(data: U8, pos: int) -> tuple[int, int]:
    """Code point of the character that ends at pos and the position where it begins."""
    start = pos - 1
    while data[start] & 0xC0 == 0x80:
        start -= 1
    code, _ = char_at(data, start)
    return code, start


@njit(nogil=True, cache=True)
def stripped(data: U8, start: int, end: int, kinds: U8) -> tuple[int, int]:
    """What `str.strip` leaves of data[start:end], as a range; an empty one lies at `start`."""
    while end > start:
        code, before = char_before(data, end)
        if not kinds[code] & SPACE:
            break
        end = before
    while start < end:
        code, after = char_at(data, start)
        if not kinds[code] & SPACE:
            break
        start = after
    return start, end


@njit(nogil=True, cache=True)
def char_count(data: U8, start: int, end: int) -> int:
    """Characters of data[start:end]."""
    count = 0
    for i in range(start, end):
        count += (data[i] & 0xC0) != 0x80
    return count
