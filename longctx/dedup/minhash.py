"""MinHash signatures, their bands, and the edges of near-duplicate documents.

Signatures follow datasketch 2's scheme `affine32` (a_k * h + b_k mod 2^32 over a Murmur-mixed
32-bit base) on the shingles of `longctx.dedup.shingles`; banding follows Lee et al. (arXiv
2107.06499) with FineWeb's 14 x 8 of 112 (arXiv 2406.17557) as the setting meant. Changed: the base
is the low half of our shingle value instead of SHA-1 of its bytes (one hash per distinct token, not
per shingle), and a bucket is joined by a leader pass that checks the whole signature, so a bucket
of n documents costs at most 32 n comparisons and not n^2, and keeps its edges' similarity.

Cost: signatures above 30 MB of text per second and core at 112 permutations, 4 * num_perm bytes per
document. Lost: pairs whose every band differs (`lsh_prob` says how many), and members of a bucket
beyond its first 32 mutually dissimilar leaders, which are counted.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasketch import MinHash
from numba import njit

from longctx.dedup.blake2b import hash_rows
from longctx.dedup.chartable import Table, char_table
from longctx.dedup.kernel import EMPTY, SLICE, sign_all, token_cache
from longctx.dedup.shingles import (
    normalise_by_reference,
    normalised_table,
    token_buffer,
    utf8_of,
)
from longctx.text.normalise import Profile

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

SCHEME = "affine32"
_QUADRATURE_NODES = 256


@lru_cache(maxsize=16)
def permutations(num_perm: int, seed: int = 1) -> tuple[U32, U32]:
    """datasketch's own a and b of `affine32`: two uint32 arrays of shape (num_perm,)."""
    a, b = MinHash(num_perm=num_perm, seed=seed, scheme=SCHEME).permutations
    return np.ascontiguousarray(a, dtype=np.uint32), np.ascontiguousarray(b, dtype=np.uint32)


def signature(shingle_set: U64, num_perm: int, seed: int = 1) -> U32:
    """Reference signature of a set of shingles, uint32 of shape (num_perm,).

    The value of an empty set is all ones; documents without shingles have no signature and the
    caller stores null. Slices of 65 536 shingles bound the memory.
    """
    a, b = permutations(num_perm, seed)
    h = base_hashes(shingle_set)
    lowest = np.full(num_perm, EMPTY, dtype=np.uint32)
    for start in range(0, h.size, 65_536):
        values = h[start : start + 65_536, None] * a + b
        np.minimum(lowest, values.min(axis=0), out=lowest)
    return lowest


def base_hashes(shingle_set: U64) -> U32:
    """What the permutations see of each shingle: MurmurHash3's finaliser of its low 32 bits."""
    x = np.asarray(shingle_set, dtype=np.uint64).astype(np.uint32)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def signatures(
    texts: pa.Array | Sequence[str],
    *,
    num_perm: int = 112,
    ngram: int = 5,
    seed: int = 1,
    profile: Profile = "text",
) -> tuple[U32, I64]:
    """Signatures of many texts by the compiled kernel, and their numbers of shingles.

    Equal to `signature(shingles(dedup_tokens(text, profile), ngram), num_perm, seed)`. Returns
    uint32 of shape (n, num_perm) and int64 of shape (n,), which counts the positions of shingles
    (repeats included): 0 marks a text without tokens, whose row is all ones. An Arrow string array
    is read in place. ValueError if `ngram` is not in 1 ... 2048.
    """
    if not 1 <= ngram <= SLICE // 2:
        raise ValueError(f"ngram must be in 1 ... {SLICE // 2}, got {ngram}")
    array = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
    perms = permutations(num_perm, seed)
    signs, n_shingles = _sign(array, char_table(profile), ngram, perms)
    unsafe = np.flatnonzero(n_shingles < 0)
    if unsafe.size:
        exceptions = array.take(pa.array(unsafe)).to_pylist()
        normalised = [normalise_by_reference(text, profile) for text in exceptions]
        again = pa.array(normalised, pa.large_string())
        signs[unsafe], n_shingles[unsafe] = _sign(again, normalised_table(), ngram, perms)
    return signs, n_shingles


def _sign(array: pa.Array, table: Table, ngram: int, perms: tuple[U32, U32]) -> tuple[U32, I64]:
    data, offsets = utf8_of(array)
    a, b = perms
    signs = np.empty((len(array), a.size), dtype=np.uint32)
    n_shingles = np.empty(len(array), dtype=np.int64)
    longest = int(np.diff(offsets).max(initial=0))
    hashes, values = np.empty((2, SLICE), dtype=np.uint64)
    bases = np.empty(SLICE, dtype=np.uint32)
    buffers = (token_buffer(longest), token_cache(), hashes, values, bases)
    sign_all(data, offsets, table, ngram, a, b, buffers, signs, n_shingles)
    return signs, n_shingles


def band_keys(sig: U32, bands: int, rows: int, scope: str = "") -> U64:
    """Bucket key of every band: H64(scope, 0, band as 4-byte LE, `rows` values as uint32 LE).

    uint64 of shape (n, bands). ValueError if bands * rows exceeds the signature.
    """
    n, num_perm = sig.shape
    if bands * rows > num_perm:
        raise ValueError(f"{bands} bands of {rows} rows need more than {num_perm} permutations")
    prefix = np.frombuffer(scope.encode() + b"\0", dtype=np.uint8)
    head = prefix.size + 4
    message = np.empty((n, bands, head + 4 * rows), dtype=np.uint8)
    message[:, :, : prefix.size] = prefix
    message[:, :, prefix.size : head] = np.arange(bands, dtype="<u4").view(np.uint8).reshape(-1, 4)
    used = np.ascontiguousarray(sig[:, : bands * rows], dtype="<u4")
    message[:, :, head:] = used.view(np.uint8).reshape(n, bands, 4 * rows)
    return hash_rows(message.reshape(n * bands, -1)).reshape(n, bands)


def lsh_prob(s: npt.ArrayLike, bands: int, rows: int) -> F64:
    """Probability 1 - (1 - s^rows)^bands that a pair of Jaccard similarity s shares a bucket."""
    return 1.0 - (1.0 - np.asarray(s, dtype=np.float64) ** rows) ** bands


def lsh_params(
    threshold: float, num_perm: int, fp_weight: float = 0.5, fn_weight: float = 0.5
) -> tuple[int, int]:
    """Bands and rows that minimise the weighted areas of false positives and false negatives.

    datasketch's search (fp_weight * integral of P below the threshold + fn_weight * integral of
    1 - P above it, bands * rows <= num_perm) with bands >= 2 and Gauss-Legendre quadrature.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE_NODES)
    below = threshold * (nodes + 1) / 2
    above = threshold + (1 - threshold) * (nodes + 1) / 2
    candidates = [(b, r) for b in range(2, num_perm + 1) for r in range(1, num_perm // b + 1)]

    def error(shape: tuple[int, int]) -> float:
        false_positive = threshold / 2 * weights @ lsh_prob(below, *shape)
        false_negative = (1 - threshold) / 2 * weights @ (1 - lsh_prob(above, *shape))
        return float(fp_weight * false_positive + fn_weight * false_negative)

    return min(candidates, key=error)


def agreement(sig_u: U32, sig_v: U32) -> F32:
    """Share of equal positions of aligned signatures, float32 over the last axis."""
    return (sig_u == sig_v).mean(axis=-1, dtype=np.float64).astype(np.float32)


def leader_edges(
    band_key: U64,
    doc_key: U64,
    sig: U32,
    threshold: float = 0.7,
    max_leaders: int = 32,
    verify: Literal["signature", "none"] = "signature",
) -> tuple[U64, U64, F32, int]:
    """Edges inside the buckets of a batch that holds every bucket whole.

    Rows (band_key[i], doc_key[i], sig[i]) in any order. In each bucket, by ascending doc_key, a
    document joins the first leader with which it agrees in at least `threshold` of its positions,
    and otherwise becomes a leader itself while there are fewer than `max_leaders`. With
    verify="none" every document joins the bucket's smallest one instead. Returns edges u < v
    (uint64), their agreement (float32), and how many documents found no leader and no room.
    The same pair may come from several buckets.
    """
    if verify not in ("signature", "none"):
        raise ValueError(f"verify must be 'signature' or 'none', got {verify!r}")
    order = np.lexsort((doc_key, band_key))
    limits = (threshold, max_leaders) if verify == "signature" else (0.0, 1)
    leader, crowded = _leaders(band_key[order], doc_key[order], sig, order, *limits)
    joined = np.flatnonzero(leader >= 0)
    u, v = order[leader[joined]], order[joined]
    return doc_key[u], doc_key[v], agreement(sig[u], sig[v]), int(crowded)


@njit(nogil=True, cache=True)
def _equal(x: U32, y: U32) -> int:
    count = 0
    for k in range(x.size):
        count += x[k] == y[k]
    return count


@njit(nogil=True, cache=True)
def _leaders(
    band_key: U64, doc_key: U64, sig: U32, order: I64, threshold: float, max_leaders: int
) -> tuple[I64, int]:
    """Position of each sorted row's leader, -1 for a leader or an unmatched row; and the latter."""
    n = band_key.size
    leader = np.full(n, -1, dtype=np.int64)
    leaders = np.empty(max_leaders, dtype=np.int64)
    n_leaders = 0
    crowded = 0
    for i in range(n):
        if i == 0 or band_key[i] != band_key[i - 1]:
            n_leaders = 0
        elif doc_key[i] == doc_key[i - 1]:
            continue
        for j in range(n_leaders):
            if _equal(sig[order[i]], sig[order[leaders[j]]]) >= threshold * sig.shape[1]:
                leader[i] = leaders[j]
                break
        if leader[i] < 0:
            if n_leaders < max_leaders:
                leaders[n_leaders] = i
                n_leaders += 1
            else:
                crowded += 1
    return leader, crowded
