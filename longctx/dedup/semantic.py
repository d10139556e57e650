"""SemDeDup (arXiv 2303.09540): semantic near-duplicates inside the clusters of a k-means.

In each cluster the documents are put in an order ("hard", the paper's: farthest from the centroid
first) and each one gets its largest cosine with any earlier one. A document is removed where that
exceeds 1 - eps, even if the similar one is removed as well: the rule is neither greedy nor a
component. The similarity is stored, so any eps is a later cut and the removal curve is free.

Changed: the winner is decided in float64 and stored as float32. A float32 matrix product only
narrows the field to those within its rounding error of the top, because its last bits depend on
the shape of the block; so neither block size nor BLAS can change a bit of the result. Exact copies
are compared with their first copy only.

Cost: n^2 / 2 products of d, memory block * n * 4 bytes. Lost: pairs that k-means put in different
clusters.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from numba import njit

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]
Mode = Literal["hard", "easy", "random", "longest"]

CURVE_EPS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25)
_FLOAT32_UNIT = 2.0**-24


def semdedup_pairs(
    X: F32,
    dist: npt.NDArray[np.floating],
    doc_ids: Sequence[str],
    mode: Mode = "hard",
    *,
    priority: U64 | None = None,
    n_words: I64 | None = None,
    block: int = 256,
) -> tuple[I64, F32, I64]:
    """Rank in the cluster, largest cosine with an earlier document, and that document's row.

    X float32 (n, d) of unit rows, dist (n,) cosine distance to the centroid. Order: "hard" dist
    descending, "easy" ascending, "random" by `priority` (from ids.priorities), "longest" by
    `n_words` descending; ties by doc_id. Returns int64, float32, int64 of shape (n,), aligned with
    the rows: the first of the order has similarity 0 and row -1; equal similarities name the
    earliest. ValueError on an unknown mode or a missing column.
    """
    order = _order(dist, doc_ids, mode, priority, n_words)
    ordered = np.ascontiguousarray(X[order], dtype=np.float32)
    best_sim, best_at = _best_earlier(ordered, block)
    n = len(order)
    rank, max_sim, max_row = np.empty(n, np.int64), np.empty(n, np.float32), np.empty(n, np.int64)
    rank[order] = np.arange(n)
    max_sim[order] = best_sim
    max_row[order] = np.where(best_at >= 0, order[best_at], -1)
    return rank, max_sim, max_row


def semdedup_keep(max_sim: F32, eps: float, inclusive: bool = False) -> Bool:
    """True where a document stays: max_sim <= 1 - eps, or < with `inclusive` (NeMo Curator's rule).

    ValueError unless 0 <= eps < 1.
    """
    if not 0 <= eps < 1:
        raise ValueError(f"eps must be in [0, 1), got {eps}")
    similarity = np.asarray(max_sim, dtype=np.float64)
    return similarity < 1 - eps if inclusive else similarity <= 1 - eps


def removal_curve(max_sim: F32, eps: Sequence[float] = CURVE_EPS) -> F64:
    """Share of documents that each eps removes, float64 of shape (len(eps),)."""
    removed = [(~semdedup_keep(max_sim, e)).sum() for e in eps]
    return np.asarray(removed, dtype=np.float64) / max(1, len(max_sim))


def _order(
    dist: npt.NDArray[np.floating],
    doc_ids: Sequence[str],
    mode: Mode,
    priority: U64 | None,
    n_words: I64 | None,
) -> I64:
    if mode not in get_args(Mode):
        raise ValueError(f"unknown order {mode!r}; expected one of {', '.join(get_args(Mode))}")
    ids = np.asarray(doc_ids, dtype=object)
    if mode == "random":
        if priority is None:
            raise ValueError("the order 'random' needs priority")
        first: npt.NDArray[np.generic] = np.asarray(priority, dtype=np.uint64)
    elif mode == "longest":
        if n_words is None:
            raise ValueError("the order 'longest' needs n_words")
        first = -np.asarray(n_words, dtype=np.int64)
    else:
        first = -np.asarray(dist) if mode == "hard" else np.asarray(dist)
    by_id = np.argsort(ids, kind="stable")
    return by_id[np.argsort(first[by_id], kind="stable")]


def _best_earlier(X: F32, block: int) -> tuple[F32, I64]:
    """For each row of X, in order: best cosine with an earlier row, and that row's index."""
    n, d = X.shape
    best_sim, best_at = np.zeros(n, np.float32), np.full(n, -1, np.int64)
    if n == 0:
        return best_sim, best_at
    # Of identical rows only the first can win a tie, so the later ones need not compete.
    distinct = np.sort(np.unique(_as_bytes(X), return_index=True)[1])
    competitors = X[distinct]
    largest_norm = float(np.linalg.norm(X, axis=1).max())
    margin = np.float32(2 * (d + 2) * _FLOAT32_UNIT * largest_norm**2)
    for start in range(0, n, block):
        rows = X[start : start + block]
        n_earlier = np.searchsorted(distinct, np.arange(start, start + len(rows) + 1))
        similarities = rows @ competitors[: n_earlier[-1]].T
        _hide_later(similarities, n_earlier[:-1])
        top = similarities.max(axis=1, initial=-np.inf)
        top[n_earlier[:-1] == 0] = np.inf
        close = np.flatnonzero(similarities >= (top - margin)[:, None])
        row, earlier = np.divmod(close, max(1, n_earlier[-1]))
        _decide(X, start + row, distinct[earlier], best_sim, best_at)
    return best_sim, best_at


def _as_bytes(X: F32) -> npt.NDArray[np.void]:
    """Rows as single values, which compare in one call each."""
    return X.view(np.dtype((np.void, X.strides[0]))).ravel()


def _hide_later(similarities: F32, n_earlier: I64) -> None:
    """Leave each row of a block its first `n_earlier` columns; only the last few columns differ."""
    first = int(n_earlier[0])
    later = np.arange(first, similarities.shape[1]) >= n_earlier[:, None]
    similarities[:, first:][later] = -np.inf


@njit(nogil=True, cache=True)
def _decide(X: F32, row: I64, earlier: I64, best_sim: F32, best_at: I64) -> None:
    """Take the exact best of the candidates of each row; pairs come in order of the earlier."""
    for i in range(len(row)):
        exact = np.float32(_dot(X[row[i]], X[earlier[i]]))
        if best_at[row[i]] < 0 or exact > best_sim[row[i]]:
            best_sim[row[i]], best_at[row[i]] = exact, earlier[i]


@njit(nogil=True, cache=True)
def _dot(x: F32, y: F32) -> float:
    total = 0.0
    for k in range(x.size):
        total += np.float64(x[k]) * np.float64(y[k])
    return total
