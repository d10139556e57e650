"""How alike the documents of a window are: the sums behind coherence, adjacency and duplicates.

The metrics of the ordering papers (ICP 2310.10638, SPLICE 2312.17296), weighted by tokens: each
window gives sums and weights instead of means, so that shards audited by different workers add up.
Segments of one document are never compared with each other. Needs O(k^2 d) time and O(k * 512)
floats for a window of k segments; the embeddings of the documents must be at hand.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from numba import njit

from longctx.cluster.similarity import frozen
from longctx.pack.frame import I64, Placement

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_BLOCK = 512


@dataclass(frozen=True)
class Similarity:
    """Sums over the segments of each window, float64 of one length (windows in their order).

    `pairs` = sum of t_a t_b over pairs of segments of different documents (t = tokens) and
    `pairs_cos` the same times their cosine; `adjacent` = number of neighbouring such pairs and
    `adjacent_cos` the sum of their cosines; `earlier` = tokens of segments that have an earlier
    segment of another document and `earlier_cos` the same times the best cosine to one;
    `top_cos` = largest cosine of any pair, -inf without a pair.
    """

    pairs: F64
    pairs_cos: F64
    adjacent: F64
    adjacent_cos: F64
    earlier: F64
    earlier_cos: F64
    top_cos: F64


def window_borders(window: I64) -> I64:
    """First row of each window in a placement and the number of rows: int64[windows + 1]."""
    if len(window) == 0:
        return np.zeros(1, dtype=np.int64)
    inner = np.flatnonzero(np.diff(window)) + 1
    return np.concatenate([[0], inner, [len(window)]]).astype(np.int64)


def similarity(placement: Placement, embeddings: F32) -> Similarity:
    """Similarity sums of each window; `embeddings` float32[documents, d] of unit norm.

    A row of zeros is a document without a vector: its pairs are left out, they are not "unlike".
    """
    tokens = (placement.end - placement.start).astype(np.float64)
    borders = window_borders(placement.window)
    sums = np.zeros((len(borders) - 1, 7))
    for row, (first, stop) in enumerate(pairwise(borders.tolist())):
        document = placement.document[first:stop]
        sums[row] = _window_sums(document, tokens[first:stop], embeddings[document])
    return Similarity(*sums.T)


def _window_sums(document: I64, tokens: F64, vectors: F32) -> F64:
    """The fields of `Similarity` for one window, float64[7]."""
    sums = np.zeros(7)
    sums[6] = -np.inf
    known: npt.NDArray[np.bool_] = np.asarray(vectors.any(axis=1))
    for first in range(0, len(document), _BLOCK):
        rows = slice(first, min(first + _BLOCK, len(document)))
        cos = (vectors[rows] @ vectors[: rows.stop].T).astype(np.float64)
        other = document[rows, None] != document[None, : rows.stop]
        other &= known[rows, None] & known[None, : rows.stop]
        pair = other & np.tri(len(cos), rows.stop, first - 1, dtype=bool)
        weights = np.where(pair, tokens[rows, None] * tokens[None, : rows.stop], 0.0)
        sums[0] += weights.sum()
        sums[1] += (weights * cos).sum()
        neighbour = pair & ~np.tri(len(cos), rows.stop, first - 2, dtype=bool)
        sums[2] += neighbour.sum()
        sums[3] += cos[neighbour].sum()
        has_earlier = pair.any(axis=1)
        best = np.where(pair, cos, -np.inf).max(axis=1)[has_earlier]
        sums[4] += tokens[rows][has_earlier].sum()
        sums[5] += (tokens[rows][has_earlier] * best).sum()
        sums[6] = max(sums[6], best.max(initial=-np.inf))
    return sums


def coherence(placement: Placement, embeddings: F32) -> float | None:
    """Token-weighted mean cosine inside the windows of a plan: `context_coherence` of the audit.

    The sums come from the windows' vector sums instead of from pairs: O(segments x d). Accumulated
    in float64 in the order of the rows, so that a decision made by it is the same everywhere. None
    where no window holds two documents with a vector.
    """
    size = placement.end - placement.start
    window, document = frozen(placement.window), frozen(placement.document)
    weight, total = _pair_sums(window, document, frozen(size), frozen(embeddings))
    return float(total / weight) if weight > 0 else None


@njit(cache=True, nogil=True)
def _pair_sums(window: I64, document: I64, size: I64, embeddings: F32) -> tuple[float, float]:
    """Sum over windows of t_a t_b, and of t_a t_b cos(a, b), over pairs of different documents.

    By (sum)^2 - sum of squares; a document with several segments in a window is one term.
    """
    weight = total = 0.0
    d = embeddings.shape[1]
    sums = np.zeros(d)
    seen = np.full(len(embeddings), -1, dtype=np.int64)
    held = np.zeros(len(embeddings), dtype=np.int64)
    first = 0
    while first < len(window):
        stop = first
        sums[:] = 0
        tokens = 0
        squares = square_cos = 0.0
        while stop < len(window) and window[stop] == window[first]:
            row, own = document[stop], size[stop]
            norm = 0.0
            for i in range(d):
                norm += np.float64(embeddings[row, i]) * np.float64(embeddings[row, i])
            if norm > 0:
                before = held[row] if seen[row] == window[first] else 0
                seen[row], held[row] = window[first], before + own
                gained = np.float64(held[row]) ** 2 - np.float64(before) ** 2
                squares += gained
                square_cos += gained * norm
                tokens += own
                for i in range(d):
                    sums[i] += own * np.float64(embeddings[row, i])
            stop += 1
        whole = 0.0
        for i in range(d):
            whole += sums[i] * sums[i]
        weight += (np.float64(tokens) ** 2 - squares) / 2
        total += (whole - square_cos) / 2
        first = stop
    return weight, total
