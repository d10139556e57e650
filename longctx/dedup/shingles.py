"""Word shingles: sets of n consecutive tokens, each one 64-bit number.

A shingle's value is mix64 of the polynomial acc = acc * 9E3779B97F4A7C15 + H64(token) over its
tokens, left to right, mod 2^64 (the scheme is ours: each distinct token is hashed once and the rest
is n shifted array operations, where hashing the joined strings costs one hash per shingle). A text
shorter than n tokens is one shingle over all of them; one without tokens has none.

`shingles` is the reference on tokens. `text_shingles` gives the same set from a text at more than
30 MB/s; `token_hashes` and `shingle_values` are its halves for callers that need positions.
"""

import numpy as np
import numpy.typing as npt

from longctx.dedup.chartable import Table, char_table
from longctx.dedup.kernel import PRIME, SLICE, scan, token_cache
from longctx.ids import h64, mix64
from longctx.text.normalise import Profile, norm_dedup, pieces
from longctx.text.utf8 import utf8_of as utf8_of

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

PIECE = 1 << 20  # characters


def shingles(tokens: list[str], n: int) -> U64:
    """The set of shingles of `tokens`: sorted distinct values, uint64."""
    hash_of = {token: h64(token.encode()) for token in set(tokens)}
    hashes = np.fromiter((hash_of[token] for token in tokens), np.uint64, len(tokens))
    return np.unique(shingle_values(hashes, n))


def shingle_values(hashes: U64, n: int) -> U64:
    """Value of the shingle at each position of `hashes` (repeats kept), in order.

    uint64 of shape (max(1, len(hashes) - n + 1),), or (0,) without tokens. ValueError if n < 1.
    """
    if n < 1:
        raise ValueError(f"a shingle needs at least one token, got n={n}")
    if hashes.size == 0:
        return np.empty(0, dtype=np.uint64)
    width = min(n, hashes.size)
    count = hashes.size - width + 1
    value = np.zeros(count, dtype=np.uint64)
    for i in range(width):
        value = value * PRIME + hashes[i : i + count]
    return mix64(value)


def text_shingles(text: str, n: int, profile: Profile = "text") -> U64:
    """`shingles(dedup_tokens(text, profile), n)`, by the compiled scanner."""
    return np.unique(shingle_values(token_hashes(text, profile), n))


def token_hashes(text: str, profile: Profile = "text") -> U64:
    """H64 of every token of `dedup_tokens(text, profile)` in order, by the compiled scanner."""
    hashes = _scan_text(text, char_table(profile))
    if hashes is None:
        hashes = _scan_text(normalise_by_reference(text, profile), normalised_table())
    assert hashes is not None, "the table for normalised text has no unsafe character"
    return hashes


def normalise_by_reference(text: str, profile: Profile, piece: int = PIECE) -> str:
    """`norm_dedup(text, profile)` for the kernel's exceptions, `piece` characters at a time."""
    return " ".join(filter(None, (norm_dedup(p, profile) for p in pieces(text, piece))))


def normalised_table() -> Table:
    """The table for text that is already normalised: it only has to be cut into tokens."""
    return char_table("code")


def token_buffer(longest: int) -> U8:
    """Room for the longest possible token of a text of `longest` bytes, padded to words.

    Normalising lengthens a character by at most half in UTF-8. The pages are touched only as far
    as a token really reaches, so a long text does not cost its own size again.
    """
    return np.empty((longest * 3 // 2 + 64) // 8 * 8, dtype=np.uint8)


def _scan_text(text: str, table: Table) -> U64 | None:
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    token, cache = token_buffer(data.size), token_cache()
    room = np.empty(SLICE, dtype=np.uint64)
    parts: list[U64] = []
    pos = 0
    while pos < data.size:
        pos, filled = scan(data, pos, data.size, table, token, cache, room, 0)
        if pos < 0:
            return None
        parts.append(room[:filled].copy())
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)
