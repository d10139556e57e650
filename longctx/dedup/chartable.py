"""The character tables with which the compiled kernel normalises text.

`norm_dedup` is a function of whole strings, but almost everywhere it acts on each character by
itself: f(c) = lower(NFC(NFD(c) without category Mn)). A table of f, one int32 per code point, is
what makes the kernel fast. The exceptions are computed from the Unicode database here, never
listed by hand, and the kernel sends a text that meets one through the Python reference instead:

- f(c) has several characters, or holds a capital sigma (its lower case depends on its neighbours);
- NFD(c) holds a character with a combining class that is not of category Mn (it may be reordered);
- a character that some composition absorbs (`ABSORBED`) stands after one that can absorb
  (`ABSORBS`): conjoining jamo, the two-part vowels of Indic scripts. Each alone is harmless.

Cost: 4.5 MB per table, about 0.6 s to build, once per process.
"""

import functools
import sys
import unicodedata

import numpy as np
import numpy.typing as npt

from longctx.text.normalise import UNSPACED_RANGES, Profile, without_marks

Table = npt.NDArray[np.int32]

N_CODE_POINTS = sys.maxunicode + 1

# An entry is f(c) in the low 21 bits, a kind above it, and two flags.
CODE_MASK = (1 << 21) - 1
KIND_SHIFT = 21
KIND_MASK = 7
LETTER, SINGLE, SPACE, DROP, DIGIT, POINT, UNSAFE = range(7)
ABSORBS = 1 << 24
ABSORBED = 1 << 25

_SIGMA = "\u03a3"
_JAMO_LEADING = range(0x1100, 0x1113)
_JAMO_VOWEL = range(0x1161, 0x1176)
_JAMO_TRAILING = range(0x11A8, 0x11C3)
_SYLLABLES = range(0xAC00, 0xD7A4)
_SYLLABLES_PER_LEADING_VOWEL = 28


@functools.lru_cache(maxsize=2)
def char_table(profile: Profile) -> Table:
    """Table of a profile, int32 of shape (0x110000,), read-only. Built once per process."""
    entry = {"text": _text_entries, "code": _code_entries}[profile]
    table = entry()
    image = table & CODE_MASK
    letter = (table >> KIND_SHIFT) & KIND_MASK == LETTER
    for low, high in UNSPACED_RANGES:
        table[letter & (low <= image) & (image <= high)] |= SINGLE << KIND_SHIFT
    table.flags.writeable = False
    return table


def _code_entries() -> Table:
    """Every character as it is; white space separates."""
    table = np.arange(N_CODE_POINTS, dtype=np.int32)
    spaces = [code for code in range(N_CODE_POINTS) if chr(code).isspace()]
    table[spaces] = SPACE << KIND_SHIFT
    return table


def _text_entries() -> Table:
    absorbing, absorbed = _compositions()
    table = np.full(N_CODE_POINTS, SPACE << KIND_SHIFT, dtype=np.int32)
    for code in range(N_CODE_POINTS):
        char = chr(code)
        if unicodedata.category(char)[0] != "C":
            table[code] = _text_entry(char, absorbing, absorbed)
    return table


def _text_entry(char: str, absorbing: set[str], absorbed: set[str]) -> int:
    bare = without_marks(char)
    if not bare:
        return DROP << KIND_SHIFT
    composed = unicodedata.normalize("NFC", bare)
    image = composed.lower()
    if len(image) > 1 or composed == _SIGMA or any(unicodedata.combining(c) for c in bare):
        return UNSAFE << KIND_SHIFT
    flags = ABSORBS * (composed[-1] in absorbing) | ABSORBED * (bare[0] in absorbed)
    return ord(image) | _kind(image) << KIND_SHIFT | flags


def _kind(image: str) -> int:
    category = unicodedata.category(image)
    if image in ".,":
        return POINT
    if category == "Nd":
        return DIGIT
    return SPACE if category[0] in "PSZC" else LETTER


def _compositions() -> tuple[set[str], set[str]]:
    """Characters that may absorb the next one when composed, and those that may be absorbed.

    Absorbed marks of category Mn are left out: they are dropped before composition. The sets are
    larger than needed (composition exclusions are ignored), which costs speed, never correctness.
    """
    syllables = _SYLLABLES[::_SYLLABLES_PER_LEADING_VOWEL]
    absorbing = {chr(code) for code in (*_JAMO_LEADING, *syllables)}
    absorbed = {chr(code) for code in (*_JAMO_VOWEL, *_JAMO_TRAILING)}
    for code in range(N_CODE_POINTS):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            first, second = (chr(int(part, 16)) for part in parts)
            if unicodedata.category(second) != "Mn":
                absorbing.add(first)
                absorbed.add(second)
    return absorbing, absorbed
