r"""Where the pieces of a text end that BPE must not cross, for the cl100k family of patterns.

Vocabularies from cl100k through Llama 3 to Qwen 3.6 cut texts with one regular expression that
varies in two places: whether marks count as letters, and how many digits stand together.

    (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
    | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+

`piece_end` is that expression, written out over UTF-8 bytes: 40 ns a piece where an engine that
backtracks takes 200. What a letter, a number and white space are is asked of the engine itself
(`character_kinds`), because versions of Unicode differ between programs.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from longctx.text.utf8 import char_at

U8 = npt.NDArray[np.uint8]

LETTER, NUMBER, SPACE, BREAK = 1, 2, 4, 8
_TAKEN = LETTER | NUMBER | SPACE
# Planes in which Unicode assigns letters, numbers, marks or white space.
_ASKED = ((0, 0xD800), (0xE000, 0x40000), (0xE0000, 0xE1000))


class Pieces(NamedTuple):
    """What varies in the family: the class of letters, and the most digits of one piece."""

    letters: str
    digits: int


def _pattern(letters: str, digits: str) -> str:
    inner = letters.strip("[]")
    return (
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?{letters}+|{digits}"
        rf"| ?[^\s{inner}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


KNOWN = {
    _pattern(letters, digits): Pieces(letters, most)
    for letters in (r"\p{L}", r"[\p{L}\p{M}]")
    for digits, most in ((r"\p{N}", 1), (r"\p{N}{1,3}", 3))
}


@lru_cache(maxsize=2)
def character_kinds(letters: str) -> U8:
    """Flags of every code point as tiktoken sees it, uint8 of shape (0x110000,), read-only."""
    import tiktoken

    asked = np.concatenate([np.arange(*codes, dtype="<u4") for codes in _ASKED])
    every = asked.tobytes().decode("utf-32-le")
    ranks = {bytes([byte]): byte for byte in range(256)}
    kinds = np.zeros(0x110000, dtype=np.uint8)
    for flag, pattern in ((LETTER, letters), (NUMBER, r"\p{N}"), (SPACE, r"\s")):
        # With a token for each byte and nothing else, what is encoded is what matched.
        engine = tiktoken.Encoding(
            "kinds", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
        )
        found = engine.encode_to_numpy(every, disallowed_special=()).astype(np.uint8).tobytes()
        kinds[np.frombuffer(found.decode().encode("utf-32-le"), dtype=np.uint32)] |= flag
    kinds[[ord("\n"), ord("\r")]] |= BREAK
    kinds.flags.writeable = False
    return kinds


@njit(cache=True)
def piece_end(data: U8, pos: int, size: int, kinds: U8, digits: int) -> int:
    """Where the piece ends that begins at `pos` of the `size` bytes of a text.

    Alternatives stand in the order of the expression: the first that matches is taken.
    """
    code, after = char_at(data, pos)
    kind = kinds[code]
    if code == 39:
        end = _contraction_end(data, after, size)
        if end > 0:
            return end
    if kind & LETTER:
        return _run_end(data, after, size, kinds, LETTER)
    if kind & NUMBER:
        return _digits_end(data, after, size, kinds, digits - 1)
    follows = _TAKEN
    behind = after
    if after < size:
        code_after, behind = char_at(data, after)
        follows = kinds[code_after]
        if follows & LETTER and not kind & BREAK:
            return _run_end(data, behind, size, kinds, LETTER)
    if not kind & SPACE or (code == 32 and not follows & _TAKEN):
        end = _run_end(data, after, size, kinds, 0)
        while end < size and (data[end] == 10 or data[end] == 13):
            end += 1
        return end
    return _space_end(data, pos, size, kinds)


@njit(cache=True)
def _contraction_end(data: U8, pos: int, size: int) -> int:
    """The end of s, t, m, d, re, ve or ll in any case at `pos`, 0 if none is there.

    Of all other characters only the long s (U+017F) is one of these letters in another case.
    """
    if pos >= size:
        return 0
    one = data[pos] | 0x20
    if one == 115 or one == 116 or one == 109 or one == 100:
        return pos + 1
    if pos + 1 >= size:
        return 0
    if data[pos] == 0xC5 and data[pos + 1] == 0xBF:
        return pos + 2
    two = data[pos + 1] | 0x20
    if (two == 101 and (one == 114 or one == 118)) or (two == 108 and one == 108):
        return pos + 2
    return 0


@njit(cache=True)
def _run_end(data: U8, pos: int, size: int, kinds: U8, wanted: int) -> int:
    """The end of the run of letters at `pos` or, with `wanted` 0, of what is none of the kinds."""
    while pos < size:
        code, after = char_at(data, pos)
        if (kinds[code] & _TAKEN) != wanted:
            return pos
        pos = after
    return pos


@njit(cache=True)
def _digits_end(data: U8, pos: int, size: int, kinds: U8, most: int) -> int:
    for _ in range(most):
        if pos >= size:
            return pos
        code, after = char_at(data, pos)
        if not kinds[code] & NUMBER:
            return pos
        pos = after
    return pos


@njit(cache=True)
def _space_end(data: U8, pos: int, size: int, kinds: U8) -> int:
    """White space up to its last line break; without one, all of it but what leads a word."""
    last_break = last = 0
    end = pos
    while end < size:
        code, after = char_at(data, end)
        kind = kinds[code]
        if not kind & SPACE:
            break
        last, end = end, after
        if kind & BREAK:
            last_break = after
    if last_break > 0:
        return last_break
    return last if end < size and last > pos else end
