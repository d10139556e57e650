"""BLAKE2b (RFC 7693) with an 8-byte digest, compiled, for millions of short messages.

`hashlib.blake2b` costs about 1 us of Python per call; a band table needs 14 calls per document
and a token cache one per distinct token. Values equal `longctx.ids.h64` bit for bit. One
compression (a message of up to 128 bytes) takes about 0.3 us.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

BLOCK = 128

_IV = np.array(
    [
        0x6A09E667F3BCC908,
        0xBB67AE8584CAA73B,
        0x3C6EF372FE94F82B,
        0xA54FF53A5F1D36F1,
        0x510E527FADE682D1,
        0x9B05688C2B3E6C1F,
        0x1F83D9ABFB41BD6B,
        0x5BE0CD19137E2179,
    ],
    dtype=np.uint64,
)
_SIGMA_ROWS = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
    (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4),
    (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
    (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13),
    (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
    (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11),
    (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
    (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5),
    (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
)
_SIGMA = np.array([*_SIGMA_ROWS, *_SIGMA_ROWS[:2]], dtype=np.intp)
# Parameter block: digest length 8, no key, fan-out 1, depth 1.
_PARAMETERS = np.uint64(0x01010008)
_ALL_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(nogil=True, cache=True, inline="always")
def _rotate_right(x: np.uint64, bits: int) -> np.uint64:
    return (x >> np.uint64(bits)) | (x << np.uint64(64 - bits))


@njit(nogil=True, cache=True)
def _mix(
    a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, x: np.uint64, y: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    a = a + b + x
    d = _rotate_right(d ^ a, 32)
    c = c + d
    b = _rotate_right(b ^ c, 24)
    a = a + b + y
    d = _rotate_right(d ^ a, 16)
    c = c + d
    b = _rotate_right(b ^ c, 63)
    return a, b, c, d


@njit(nogil=True, cache=True)
def _compress(state: U64, m: U64, n_bytes: int, is_last: bool) -> None:
    v0, v1, v2, v3 = state[0], state[1], state[2], state[3]
    v4, v5, v6, v7 = state[4], state[5], state[6], state[7]
    v8, v9, v10, v11 = _IV[0], _IV[1], _IV[2], _IV[3]
    v12, v13, v14, v15 = _IV[4] ^ np.uint64(n_bytes), _IV[5], _IV[6], _IV[7]
    if is_last:
        v14 = v14 ^ _ALL_ONES
    for r in range(12):
        s = _SIGMA[r]
        v0, v4, v8, v12 = _mix(v0, v4, v8, v12, m[s[0]], m[s[1]])
        v1, v5, v9, v13 = _mix(v1, v5, v9, v13, m[s[2]], m[s[3]])
        v2, v6, v10, v14 = _mix(v2, v6, v10, v14, m[s[4]], m[s[5]])
        v3, v7, v11, v15 = _mix(v3, v7, v11, v15, m[s[6]], m[s[7]])
        v0, v5, v10, v15 = _mix(v0, v5, v10, v15, m[s[8]], m[s[9]])
        v1, v6, v11, v12 = _mix(v1, v6, v11, v12, m[s[10]], m[s[11]])
        v2, v7, v8, v13 = _mix(v2, v7, v8, v13, m[s[12]], m[s[13]])
        v3, v4, v9, v14 = _mix(v3, v4, v9, v14, m[s[14]], m[s[15]])
    state[0] ^= v0 ^ v8
    state[1] ^= v1 ^ v9
    state[2] ^= v2 ^ v10
    state[3] ^= v3 ^ v11
    state[4] ^= v4 ^ v12
    state[5] ^= v5 ^ v13
    state[6] ^= v6 ^ v14
    state[7] ^= v7 ^ v15


@njit(nogil=True, cache=True)
def blake2b8(data: U8, length: int) -> np.uint64:
    """Digest of data[:length] (uint8), as a little-endian uint64."""
    state = _IV.copy()
    state[0] ^= _PARAMETERS
    m = np.zeros(16, dtype=np.uint64)
    done = 0
    while True:
        m[:] = 0
        stop = min(done + BLOCK, length)
        for i in range(done, stop):
            at = i - done
            m[at >> 3] |= np.uint64(data[i]) << np.uint64((at & 7) * 8)
        done = stop
        _compress(state, m, done, done == length)
        if done == length:
            return state[0]


@njit(nogil=True, cache=True)
def _hash_rows(rows: U8, out: U64) -> None:
    for i in range(rows.shape[0]):
        out[i] = blake2b8(rows[i], rows.shape[1])


def hash_rows(rows: U8) -> U64:
    """H64 of each row of bytes: uint8 of shape (n, width) to uint64 of shape (n,)."""
    out = np.empty(rows.shape[0], dtype=np.uint64)
    _hash_rows(np.ascontiguousarray(rows, dtype=np.uint8), out)
    return out
