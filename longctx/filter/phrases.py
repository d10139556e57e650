"""Looking for phrases whatever their case, character by character, in compiled code.

An automaton of Aho and Corasick (Communications of the ACM 18(6), 1975): one step a character, so a
text is never lower-cased as a whole. Equal to `phrase in text.lower()` for phrases of ASCII
characters that do not end in "i": only "K" (Kelvin sign) and "İ" have ASCII in their lower case,
and that of the latter goes on after its "i".
"""

import functools

import numpy as np
import numpy.typing as npt
from numba import njit

States = npt.NDArray[np.int16]

START = 0
_KELVIN = 0x212A


@functools.lru_cache(maxsize=8)
def automaton(phrases: tuple[str, ...]) -> States:
    """Next state for each state and lower-case ASCII character, int16 of shape (n, 128).

    State 0 is the start; the last state means found, and is never left.
    """
    prefixes = sorted({p[:k] for p in phrases for k in range(len(p))}, key=lambda p: (len(p), p))
    number = {prefix: i for i, prefix in enumerate(prefixes)}
    found = len(prefixes)
    states = np.zeros((found + 1, 128), np.int16)
    for prefix, row in zip(prefixes, states, strict=False):
        for code in range(128):
            read = prefix + chr(code)
            tails = (read[k:] for k in range(len(read) + 1))
            ends = any(read.endswith(p) for p in phrases)
            row[code] = found if ends else next(number[t] for t in tails if t in number)
    states[found] = found
    states.flags.writeable = False
    return states


@njit(cache=True, nogil=True, inline="always")
def step(states, state, code):  # type: ignore[no-untyped-def]
    """State after a character in any case."""
    if code >= 0x80:
        if code != _KELVIN:
            # A character outside of all phrases: back to the start, unless found.
            return state if state == states.shape[0] - 1 else START
        code = 0x6B
    elif 0x41 <= code <= 0x5A:
        code += 0x20
    return np.int64(states[state, code])
