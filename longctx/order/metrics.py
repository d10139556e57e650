"""What an order is worth: adjacency, coherence, best earlier neighbour, jumps, and a quick bound.

No single number ranks orders. Adjacency (the objective of In-Context Pretraining, arXiv 2310.10638)
rewards a path that drifts; coherence looks at a whole context; `best_earlier` is what a causal
model can use. They are printed together, with a bound. The definitions and the bound are ours.

All sums are in float64 over the stored float32 vectors. Cost: n·d for adjacency and coherence,
n·w·d for `best_earlier`; memory one block of rows.
"""

import numpy as np
import numpy.typing as npt

from longctx.cluster.similarity import F32, I32, I64

_BLOCK_ROWS = 4096


def _successive(X: F32, order: I64) -> npt.NDArray[np.float64]:
    """Cosine of each consecutive pair of an order; float64[n - 1]."""
    out = np.empty(max(len(order) - 1, 0))
    for at in range(0, len(out), _BLOCK_ROWS):
        rows = X[order[at : at + _BLOCK_ROWS + 1]].astype(np.float64)
        out[at : at + len(rows) - 1] = np.einsum("ij,ij->i", rows[:-1], rows[1:])
    return out


def adjacency(X: F32, order: I64, starts: I64 | None = None) -> float | None:
    """Mean cosine of consecutive documents, X float32[n, d]; None without a pair.

    With `starts` (the positions at which tours begin) only pairs inside a tour count; without, the
    concatenation of all tours is measured.
    """
    cosine = _successive(X, order)
    if starts is not None:
        inside = np.ones(len(order), dtype=bool)
        inside[starts] = False
        cosine = cosine[inside[1:]]
    return float(cosine.mean()) if len(cosine) else None


def coherence(X: F32, order: I64, w: int) -> float | None:
    """Mean over groups of w consecutive documents of the mean cosine of all pairs in the group.

    Groups are cut from the start and a shorter tail is left out; None for n < w. w >= 2.
    """
    groups = len(order) // w
    if groups == 0:
        return None
    total = 0.0
    step = max(1, _BLOCK_ROWS // w)
    for at in range(0, groups, step):
        rows = X[order[at * w : min(at + step, groups) * w]].astype(np.float64)
        sums = rows.reshape(-1, w, X.shape[1]).sum(axis=1)
        total += float(np.einsum("ij,ij->", sums, sums) - np.einsum("ij,ij->", rows, rows))
    return total / (groups * w * (w - 1))


def best_earlier(X: F32, order: I64, w: int) -> float | None:
    """Mean, over positions 2..w of the groups of `coherence`, of the best earlier cosine.

    The earlier document must be of the same group. None for n < w. Its ceiling is the mean top-1
    similarity of the corpus.
    """
    groups = len(order) // w
    if groups == 0:
        return None
    later = np.tril(np.ones((w, w), dtype=bool), k=-1)
    total = 0.0
    step = max(1, _BLOCK_ROWS // w)
    for at in range(0, groups, step):
        rows = X[order[at * w : min(at + step, groups) * w]].astype(np.float64)
        rows = rows.reshape(-1, w, X.shape[1])
        cosine = np.where(later, rows @ rows.transpose(0, 2, 1), -np.inf)
        total += float(cosine[:, 1:].max(axis=2).sum())
    return total / (groups * (w - 1))


def jump_flags(order: I64, lists: I32, k: int) -> npt.NDArray[np.bool_]:
    """Whether each consecutive pair is no edge of the graph of the first k neighbours; bool[n - 1].

    `lists` int32[n, >= k]; an edge counts from either side.
    """
    a, b = order[:-1], order[1:]
    forward = (lists[a, :k] == b[:, None]).any(axis=1)
    backward = (lists[b, :k] == a[:, None]).any(axis=1)
    return ~(forward | backward)


def jumps(order: I64, lists: I32, k: int) -> float | None:
    """Share of consecutive pairs that are no edges of the graph; None without a pair."""
    return float(jump_flags(order, lists, k).mean()) if len(order) > 1 else None


def dup_adjacent(X: F32, order: I64, dup_cos: float = 0.95) -> float | None:
    """Share of consecutive pairs with cosine >= dup_cos; None without a pair."""
    cosine = _successive(X, order)
    return float((cosine.astype(np.float32) >= np.float32(dup_cos)).mean()) if len(cosine) else None


def top2_bound(sims: F32) -> float | None:
    """Upper bound on adjacency from the two best similarities of each document.

    `sims` float32[n, >= 2] of an exact neighbour table (missing entries -inf). In a path every
    document has at most two links; a second link below 0 is better left out, hence the max. None
    for n < 2. 3-7 % above `hk_bound`.
    """
    n = len(sims)
    if n < 2:
        return None
    first = sims[:, 0].astype(np.float64)
    second = np.maximum(sims[:, 1], 0) if sims.shape[1] > 1 else np.zeros(n)
    return float((first.sum() + second.sum(dtype=np.float64)) / (2 * (n - 1)))
