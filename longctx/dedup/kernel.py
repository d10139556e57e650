"""The compiled path from UTF-8 to token hashes, shingles and MinHash signatures.

One pass over the bytes, in slices that stay in the first-level cache: `_scan` normalises and cuts
tokens with a table of `longctx.dedup.chartable`, `_token_hash` looks each token up in a cache of
BLAKE2b values, `rolled` rolls the polynomial of `longctx.dedup.shingles` over the hashes and
`minhash` takes the minima. Nothing grows with the text but the buffer of the longest token,
so a document of 200 MB needs no more memory than a page.

Single-threaded and without the GIL: parallelism belongs to whoever holds the parts.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from longctx.dedup.blake2b import blake2b8
from longctx.dedup.chartable import (
    ABSORBED,
    ABSORBS,
    CODE_MASK,
    DIGIT,
    DROP,
    KIND_MASK,
    KIND_SHIFT,
    LETTER,
    POINT,
    SINGLE,
    UNSAFE,
    Table,
)
from longctx.text.utf8 import decode

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Buffers = tuple[U8, U64, U64, U64, U32]  # token, cache, hashes, values, bases

SLICE = 4096  # tokens hashed, shingled and minimised at a time
EMPTY = np.uint32(0xFFFFFFFF)  # a signature's value before the first shingle
PRIME = np.uint64(0x9E3779B97F4A7C15)  # the shingle polynomial's multiplier

_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_MURMUR_1 = np.uint32(0x85EBCA6B)
_MURMUR_2 = np.uint32(0xC2B2AE35)

# A slot of the token cache is one cache line: 6 words of token, its length (0: free), its hash.
_KEY_WORDS = 6
_LENGTH = 6
_HASH = 7
_CACHE_BITS = 16
_PROBES = 4
_ZERO = 0x30
_ASCII_END = 0x80
_NO_NUMBER, _IN_NUMBER, _AFTER_POINT = 0, 1, 2


def token_cache() -> U64:
    """An empty token cache, uint64 of shape (65536, 8): 4 MB, never grows."""
    return np.zeros((1 << _CACHE_BITS, _KEY_WORDS + 2), dtype=np.uint64)


@njit(nogil=True, cache=True)
def _token_hash(token: U8, words: U64, word: np.uint64, length: int, cache: U64) -> np.uint64:
    """BLAKE2b of token[:length], remembered where the token fits a slot of the cache.

    `words` is the same memory in words; `word` is the last one where it is incomplete.
    """
    if length & 7:
        words[length >> 3] = word
    if length > 8 * _KEY_WORDS:
        return blake2b8(token, length)
    n_words = (length + 7) >> 3
    key = np.uint64(length)
    for i in range(n_words):
        key = (key ^ words[i]) * PRIME
        key ^= key >> np.uint64(32)
    home = key >> np.uint64(64 - _CACHE_BITS)
    slot = home
    for probe in range(_PROBES):
        at = (home + np.uint64(probe)) & np.uint64((1 << _CACHE_BITS) - 1)
        if cache[at, _LENGTH] == 0:
            slot = at
            break
        if cache[at, _LENGTH] == np.uint64(length):
            same = True
            for i in range(n_words):
                same &= cache[at, i] == words[i]
            if same:
                return cache[at, _HASH]
    # Neither found nor free within the probes: the home slot is overwritten, so memory is bounded.
    for i in range(n_words):
        cache[slot, i] = words[i]
    cache[slot, _LENGTH] = length
    cache[slot, _HASH] = blake2b8(token, length)
    return cache[slot, _HASH]


@njit(nogil=True, cache=True, inline="always")
def _append(code: int, words: U64, word: np.uint64, length: int) -> tuple[np.uint64, int]:
    """Append a code point to the token as UTF-8; returns its open word and its new length.

    The last, incomplete word of the token stays in a register: a word read back right after single
    bytes were written to it stalls the processor, which doubled the cost of a token.
    """
    if code < 0x80:
        utf8, size = code, 1
    elif code < 0x800:
        utf8, size = 0x80C0 | code >> 6 | (code & 0x3F) << 8, 2
    elif code < 0x10000:
        utf8, size = 0x8080E0 | code >> 12 | (code >> 6 & 0x3F) << 8 | (code & 0x3F) << 16, 3
    else:
        utf8 = 0x808080F0 | code >> 18 | (code >> 12 & 0x3F) << 8
        utf8, size = utf8 | (code >> 6 & 0x3F) << 16 | (code & 0x3F) << 24, 4
    shift = (length & 7) * 8
    word = word | np.uint64(utf8) << np.uint64(shift)
    length += size
    if shift + 8 * size >= 64:
        words[(length >> 3) - 1] = word
        word = np.uint64(utf8) >> np.uint64(64 - shift)
    return word, length


@njit(nogil=True, cache=True)
def scan(
    data: U8,
    pos: int,
    end: int,
    table: Table,
    token: U8,
    cache: U64,
    hashes: U64,
    filled: int,
) -> tuple[int, int]:
    """Hash the tokens of data[pos:end] into hashes[filled:] until the text or the room ends.

    Returns the position reached and the new fill; position -1 for a text that needs the
    reference normalisation (see chartable). It stops only between tokens, so a call with the
    returned position goes on exactly there. `token` must hold the longest token, padded to words.
    """
    words = token.view(np.uint64)
    room = hashes.size - 2  # one character can end one token and be another
    word = np.uint64(0)
    length = 0
    number = _NO_NUMBER
    previous = 0
    while pos < end:
        if length == 0 and filled > room:
            return pos, filled
        code, after = int(np.int64(data[pos])), pos + 1
        if code >= 0x80:
            code, after = decode(data, pos, code)
        entry = int(table[code])
        if entry < _ASCII_END and number != _AFTER_POINT:
            # By far the most frequent: a letter whose image is ASCII. LETTER is 0, no flag is set.
            word |= np.uint64(entry) << np.uint64((length & 7) * 8)
            length += 1
            if length & 7 == 0:
                words[(length >> 3) - 1] = word
                word = np.uint64(0)
            number, previous, pos = _NO_NUMBER, entry, after
            continue
        kind = entry >> KIND_SHIFT & KIND_MASK
        if kind == DROP:
            pos = after
            continue
        if number == _AFTER_POINT and kind != DIGIT:
            # The point was no part of the number but a separator: end the token, look again.
            hashes[filled] = _token_hash(token, words, word, length, cache)
            filled, word, length, number = filled + 1, np.uint64(0), 0, _NO_NUMBER
            continue
        pos = after
        if kind == LETTER:
            if entry & ABSORBED and previous & ABSORBS:
                return -1, filled
            word, length = _append(entry & CODE_MASK, words, word, length)
            number = _NO_NUMBER
        elif kind == DIGIT:
            if number == _NO_NUMBER:
                word, length = _append(_ZERO, words, word, length)
            number = _IN_NUMBER
        elif kind == POINT and number == _IN_NUMBER:
            number = _AFTER_POINT
        elif kind == UNSAFE:
            return -1, filled
        else:
            if length:
                hashes[filled] = _token_hash(token, words, word, length, cache)
                filled, word, length = filled + 1, np.uint64(0), 0
            if kind == SINGLE:
                single, size = _append(entry & CODE_MASK, words, word, length)
                hashes[filled] = _token_hash(token, words, single, size, cache)
                filled += 1
            number = _NO_NUMBER
        previous = entry
    if length:
        hashes[filled] = _token_hash(token, words, word, length, cache)
        filled += 1
    return pos, filled


@njit(nogil=True, cache=True)
def _mixed(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@njit(nogil=True, cache=True)
def _murmur(x: np.uint32) -> np.uint32:
    """MurmurHash3's 32-bit finaliser; the casts undo numba's widening of 32-bit products."""
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(16))) * _MURMUR_1)
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(13))) * _MURMUR_2)
    return np.uint32(x ^ (x >> np.uint32(16)))


@njit(nogil=True, cache=True)
def rolled(hashes: U64, filled: int, n: int, values: U64) -> int:
    """Values of the n-token shingles of hashes[:filled], in order; returns how many.

    The polynomial is rolled: the hash that leaves takes PRIME^n of itself along. A text shorter
    than n gives its caller a smaller n.
    """
    leaving = np.uint64(1)
    for _ in range(n):
        leaving *= PRIME
    value = np.uint64(0)
    for i in range(n - 1):
        value = value * PRIME + hashes[i]
    for i in range(n - 1, filled):
        value = value * PRIME + hashes[i]
        if i >= n:
            value -= leaving * hashes[i - n]
        values[i - n + 1] = _mixed(value)
    return max(0, filled - n + 1)


@njit(nogil=True, cache=True)
def minhash(bases: U32, a: U32, b: U32, signature: U32) -> None:
    """signature[k] = min(signature[k], a[k] * base + b[k] mod 2^32) over Murmur-mixed bases."""
    for k in range(signature.size):
        slope, shift, smallest = a[k], b[k], signature[k]
        for i in range(bases.size):
            value = np.uint32(slope * bases[i] + shift)
            smallest = min(smallest, value)
        signature[k] = smallest


@njit(nogil=True, cache=True)
def _sign(
    data: U8,
    start: int,
    end: int,
    table: Table,
    n: int,
    a: U32,
    b: U32,
    buffers: Buffers,
    signature: U32,
) -> int:
    """Signature of one text; returns its number of shingles, -1 if it needs the reference."""
    token, cache, hashes, values, bases = buffers
    n_shingles = 0
    kept = 0
    pos = start
    while pos < end:
        pos, filled = scan(data, pos, end, table, token, cache, hashes, kept)
        if pos < 0:
            return -1
        width = n
        if n_shingles == 0 and pos == end:
            width = max(1, min(n, filled))
        made = rolled(hashes, filled, width, values)
        for i in range(made):
            bases[i] = _murmur(np.uint32(values[i]))
        minhash(bases[:made], a, b, signature)
        n_shingles += made
        kept = min(n - 1, filled)
        for i in range(kept):
            hashes[i] = hashes[filled - kept + i]
    return n_shingles


@njit(nogil=True, cache=True)
def sign_all(
    data: U8,
    offsets: I64,
    table: Table,
    n: int,
    a: U32,
    b: U32,
    buffers: Buffers,
    signatures: U32,
    n_shingles: I64,
) -> None:
    """Signatures of the texts data[offsets[i]:offsets[i+1]], written to `signatures`.

    n_shingles[i] is -1 where the text needs the reference normalisation; its signature is EMPTY.
    """
    signatures[:] = EMPTY
    for i in range(offsets.size - 1):
        made = _sign(data, offsets[i], offsets[i + 1], table, n, a, b, buffers, signatures[i])
        if made < 0:
            signatures[i, :] = EMPTY
        n_shingles[i] = made
