"""Cosine similarities that come out the same for any block size, shard or row order.

Every similarity that decides something is the inner product of two stored float32 vectors,
accumulated in float64 and rounded to float32 once. A product of two float32 numbers is exact in
float64 and the order of the additions is written down here, so the value depends on the two vectors
alone: not on BLAS, its threads, the CPU's vector width, or which of the two comes first.

`nearest` finds candidates with a float32 matrix product and decides on the exact values. The
product is off by at most `d * 2^-24 * |x| * |y|`, so every pair within twice that bound of the k-th
best is recomputed: the result is exact, ties included. Cost: 2·m·n·d floating-point operations plus
about k exact inner products a row; memory `block_bytes` beside the vectors. Copies of the query
itself are not recomputed once k of them are found (no product exceeds |x| * |y|); many copies of
another vector all tie and are.
"""

from typing import NamedTuple, TypeVar

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
def _norms(X, out):  # type: ignore[no-untyped-def]
    """Length of each row in float64, a hair more rather than less."""
    d = X.shape[1]
    whole = d - d % 4
    for i in range(X.shape[0]):
        s0 = s1 = s2 = s3 = 0.0
        for j in range(0, whole, 4):
            s0 += np.float64(X[i, j]) * np.float64(X[i, j])
            s1 += np.float64(X[i, j + 1]) * np.float64(X[i, j + 1])
            s2 += np.float64(X[i, j + 2]) * np.float64(X[i, j + 2])
            s3 += np.float64(X[i, j + 3]) * np.float64(X[i, j + 3])
        for j in range(whole, d):
            s0 += np.float64(X[i, j]) * np.float64(X[i, j])
        out[i] = np.sqrt(s0 + s1 + s2 + s3) * (1 + 1e-12)


@numba.njit(cache=True, nogil=True)
def _decide(  # type: ignore[no-untyped-def]
    approximate, Q, at, B, members, skip, norm_q, norm_b, slack, numbers, sims, filled
):
    """Take every member that may be among the k best of a query into its list."""
    k = numbers.shape[1]
    best = np.empty(k, dtype=np.float32)
    for i in range(Q.shape[0]):
        row = at[i]
        if filled[row] == k:
            threshold = sims[row, k - 1] - slack
        else:
            threshold = _kth_best(approximate[i], skip[i], best) - slack
        for j in range(B.shape[0]):
            if approximate[i, j] < threshold or j == skip[i]:
                continue
            if filled[row] == k:
                most = np.float32(norm_q[i] * norm_b[j])
                last = sims[row, k - 1]
                if most < last or (most == last and members[j] > numbers[row, k - 1]):
                    continue
            filled[row] = _insert(numbers[row], sims[row], filled[row], members[j], dot(Q[i], B[j]))


class Lists(NamedTuple):
    """Neighbour lists of m queries that `extend` fills: numbers int32[m, k] and similarities
    float32[m, k], sorted by (similarity descending, number ascending), -1 and -inf where there are
    no more; `filled` int64[m] says how long each is."""

    numbers: I32
    sims: F32
    filled: I64


def empty_lists(m: int, k: int) -> Lists:
    """Lists of m queries before the first comparison."""
    numbers = np.full((m, k), -1, dtype=np.int32)
    sims = np.full((m, k), -np.inf, dtype=np.float32)
    return Lists(numbers, sims, np.zeros(m, dtype=np.int64))


def extend(
    lists: Lists,
    at: I64,
    Q: F32,
    members: I64,
    B: F32,
    skip: I64,
    block_bytes: int = BLOCK_BYTES,
) -> None:
    """Compare queries with documents that their lists have not seen; the best are taken in.

    Q float32[q, d] are the vectors of the queries at[i]; B float32[b, d] those of the documents
    `members` (numbers). `skip` int64[q] names one row of B that is left out for each query (its
    own, say), -1 for none. In whatever blocks and order the documents come, the lists are the same.
    """
    if len(Q) == 0 or len(B) == 0 or lists.sims.shape[1] == 0:
        return
    Q, B = frozen(Q), frozen(B)
    at, members, skip = frozen(at), frozen(members), frozen(skip)
    norm_q, norm_b = _lengths(Q), _lengths(B)
    slack = np.float32(2 * (Q.shape[1] + 1) * 2.0**-24 * norm_q.max() * norm_b.max())
    rows = max(1, block_bytes // (4 * len(B)))
    for first in range(0, len(Q), rows):
        block = slice(first, first + rows)
        products = Q[block] @ B.T
        own = (Q[block], at[block], B, members, skip[block], norm_q[block], norm_b, slack)
        _decide(products, *own, *lists)


def _lengths(X: F32) -> npt.NDArray[np.float64]:
    out = np.empty(len(X))
    _norms(X, out)
    return out


def nearest(
    Q: F32, B: F32, k: int, skip: I64 | None = None, block_bytes: int = BLOCK_BYTES
) -> tuple[I32, F32]:
    """The k rows of B with the largest inner product with each row of Q, exactly.

    Q float32[m, d], B float32[n, d]; `skip` int64[m] names one row of B that is left out for each
    query (its own, say), -1 for none. Returns row numbers int32[m, k] and similarities
    float32[m, k], sorted by (similarity descending, number ascending); where B has fewer rows the
    rest is number -1 and similarity -inf.
    """
    skip = np.full(len(Q), -1, dtype=np.int64) if skip is None else skip
    lists = empty_lists(len(Q), k)
    extend(lists, np.arange(len(Q)), Q, np.arange(len(B)), B, skip, block_bytes)
    return lists.numbers, lists.sims


@numba.njit(cache=True, nogil=True)
def _rerank(X, rows, candidates, numbers, sims):  # type: ignore[no-untyped-def]
    for i in range(rows.shape[0]):
        filled, before = 0, -1
        for j in candidates[i]:
            if j != before and j != rows[i]:
                filled = _insert(numbers[i], sims[i], filled, j, dot(X[rows[i]], X[j]))
            before = j


def rerank(X: F32, rows: I64, candidates: I32, k: int) -> tuple[I32, F32]:
    """The k best of the candidates of each document, shaped and sorted as `nearest` does.

    X float32[n, d]; `rows` int64[m]; `candidates` int32[m, c] numbers in any order, more than once
    or -1 for none; the document itself does not count.
    """
    lists = empty_lists(len(rows), k)
    if k > 0:
        ascending = frozen(np.sort(candidates, axis=1))
        _rerank(frozen(X), frozen(rows), ascending, lists.numbers, lists.sims)
    return lists.numbers, lists.sims
