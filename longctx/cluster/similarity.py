"""Cosine similarities that come out the same for any block size, shard or row order.

Every similarity that decides something is the inner product of two stored float32 vectors,
accumulated in float64 and rounded to float32 once. A product of two float32 numbers is exact in
float64 and the order of the additions is written down here, so the value depends on the two vectors
alone: not on BLAS, its threads, the CPU's vector width, or which of the two comes first.

`nearest` finds candidates with a float32 matrix product and decides on the exact values. The
product is off by at most `d * 2^-24 * |x| * |y|`, so every pair within twice that bound of the k-th
best is recomputed: the result is exact, ties included. Cost: 2·m·n·d floating-point operations plus
about k exact inner products a row; memory `block_bytes` beside the vectors. Many equal vectors all
tie and are all recomputed.
"""

from typing import TypeVar

import numba
import numpy as np
import numpy.typing as npt

Scalar = TypeVar("Scalar", bound=np.generic)
F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

BLOCK_BYTES = 64 * 2**20


def frozen(array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """A contiguous read-only view (a copy if need be) for a kernel to read.

    numba compiles a kernel again for every combination of writable and read-only arguments, for
    seconds each, and arrays that come out of shared memory are read-only: now all are.
    """
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


# numba's cache looks at the file of a kernel, not at what the kernel calls: after a change of `dot`
# clear __pycache__, or kernels of other modules keep the old one.


@numba.njit(cache=True, nogil=True)
def dot(x, y):  # type: ignore[no-untyped-def]
    """Inner product of two float32 vectors: float64 accumulation in eight lanes, one rounding."""
    d = x.shape[0]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = d - d % 8
    for i in range(0, whole, 8):
        s0 += np.float64(x[i]) * np.float64(y[i])
        s1 += np.float64(x[i + 1]) * np.float64(y[i + 1])
        s2 += np.float64(x[i + 2]) * np.float64(y[i + 2])
        s3 += np.float64(x[i + 3]) * np.float64(y[i + 3])
        s4 += np.float64(x[i + 4]) * np.float64(y[i + 4])
        s5 += np.float64(x[i + 5]) * np.float64(y[i + 5])
        s6 += np.float64(x[i + 6]) * np.float64(y[i + 6])
        s7 += np.float64(x[i + 7]) * np.float64(y[i + 7])
    for i in range(whole, d):
        s0 += np.float64(x[i]) * np.float64(y[i])
    return np.float32(((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)))


@numba.njit(cache=True, nogil=True)
def _pairs(X, u, v, out):  # type: ignore[no-untyped-def]
    for i in range(u.shape[0]):
        out[i] = dot(X[u[i]], X[v[i]])


def pair_similarities(X: F32, u: I64 | I32, v: I64 | I32) -> F32:
    """Exact similarity of each pair of rows (u[i], v[i]) of X; float32[len(u)]."""
    out = np.empty(len(u), dtype=np.float32)
    _pairs(frozen(X), frozen(u.astype(np.int64)), frozen(v.astype(np.int64)), out)
    return out


@numba.njit(cache=True, nogil=True)
def _insert(numbers, sims, filled, number, sim):  # type: ignore[no-untyped-def]
    """Put (number, sim) into a list sorted by (sim descending, number ascending)."""
    k = sims.shape[0]
    if filled == k and (sim < sims[k - 1] or (sim == sims[k - 1] and number > numbers[k - 1])):
        return filled
    at = filled if filled < k else k - 1
    while at > 0 and (sims[at - 1] < sim or (sims[at - 1] == sim and numbers[at - 1] > number)):
        sims[at], numbers[at] = sims[at - 1], numbers[at - 1]
        at -= 1
    sims[at], numbers[at] = sim, number
    return min(filled + 1, k)


@numba.njit(cache=True, nogil=True)
def _kth_best(row, skip, best):  # type: ignore[no-untyped-def]
    """The len(best)-th largest value of a row without one position; -inf if there are fewer."""
    k = best.shape[0]
    best[:] = -np.inf
    for j in range(row.shape[0]):
        if row[j] > best[k - 1] and j != skip:
            at = k - 1
            while at > 0 and best[at - 1] < row[j]:
                best[at] = best[at - 1]
                at -= 1
            best[at] = row[j]
    return best[k - 1]


@numba.njit(cache=True, nogil=True)
def _decide(approximate, Q, B, skip, slack, numbers, sims):  # type: ignore[no-untyped-def]
    """Fill each row of `numbers`, `sims` from every entry within `slack` of its k-th best."""
    best = np.empty(numbers.shape[1], dtype=np.float32)
    for i in range(Q.shape[0]):
        threshold = _kth_best(approximate[i], skip[i], best) - slack
        filled = 0
        for j in range(B.shape[0]):
            if approximate[i, j] >= threshold and j != skip[i]:
                filled = _insert(numbers[i], sims[i], filled, j, dot(Q[i], B[j]))


def nearest(
    Q: F32, B: F32, k: int, skip: I64 | None = None, block_bytes: int = BLOCK_BYTES
) -> tuple[I32, F32]:
    """The k rows of B with the largest inner product with each row of Q, exactly.

    Q float32[m, d], B float32[n, d]; `skip` int64[m] names one row of B that is left out for each
    query (its own, say), -1 for none. Returns row numbers int32[m, k] and similarities
    float32[m, k], sorted by (similarity descending, number ascending); where B has fewer rows the
    rest is number -1 and similarity -inf.
    """
    m, n = len(Q), len(B)
    numbers = np.full((m, k), -1, dtype=np.int32)
    sims = np.full((m, k), -np.inf, dtype=np.float32)
    if m == 0 or n == 0 or k == 0:
        return numbers, sims
    Q, B = frozen(Q), frozen(B)
    skip = frozen(np.full(m, -1, dtype=np.int64) if skip is None else skip)
    longest = float(np.linalg.norm(Q, axis=1).max()) * float(np.linalg.norm(B, axis=1).max())
    slack = np.float32(2 * (Q.shape[1] + 1) * 2.0**-24 * longest)
    rows = max(1, block_bytes // (4 * n))
    for at in range(0, m, rows):
        block = slice(at, min(at + rows, m))
        _decide(Q[block] @ B.T, Q[block], B, skip[block], slack, numbers[block], sims[block])
    return numbers, sims


@numba.njit(cache=True, nogil=True)
def _rerank(Q, B, candidates, skip, numbers, sims):  # type: ignore[no-untyped-def]
    for i in range(Q.shape[0]):
        filled = 0
        for j in candidates[i]:
            if j >= 0 and j != skip[i]:
                filled = _insert(numbers[i], sims[i], filled, j, dot(Q[i], B[j]))


def rerank(Q: F32, B: F32, candidates: I64 | I32, k: int, skip: I64) -> tuple[I32, F32]:
    """The k best of each query's candidates by exact similarity, shaped and sorted as `nearest`.

    `candidates` [m, c] holds distinct rows of B, -1 where an approximate index found none.
    """
    numbers = np.full((len(Q), k), -1, dtype=np.int32)
    sims = np.full((len(Q), k), -np.inf, dtype=np.float32)
    if k > 0:
        found = frozen(candidates.astype(np.int64))
        _rerank(frozen(Q), frozen(B), found, frozen(skip), numbers, sims)
    return numbers, sims
