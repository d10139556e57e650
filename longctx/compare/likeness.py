"""How related the documents of a context are, with the floor that chance gives and an upper bound.

The measures of the ordering papers (In-Context Pretraining 2310.10638, SPLICE 2312.17296), taken
from finished windows: similarity at the seams (adjacency), between all documents that share a
context of a given size (coherence), and to the best earlier document, which is what a causal model
can use. Cosines of the text of each segment; two segments of one document, or of equal content, are
never compared, so copies do not pass for related context.

Ours: the floor (the same documents in random places) and the standard error of each figure, from
its spread over windows. Bounds are in `bounds.py`.

Cost: O(k^2 d) for a window of k segments, about ten times. Windows are taken in the order given, so
sums have the same bits in every call.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longctx.compare.bounds import Bounded, inside, seams
from longctx.compare.sample import Sample, known_segments
from longctx.ids import rng_for
from longctx.pack.frame import I64, Placement
from longctx.pack.similarity import F64, Similarity, similarity

DUPLICATE = 0.95
_DEALS = 2


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error over windows; None where nothing was compared."""

    value: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Likeness:
    """Similarity figures of a run over its compared `windows` (cosines; shares in 0..1).

    `coherence` holds one estimate for each context size. `duplicates` is the share of windows with
    two documents at a cosine of 0.95 or more, or one twice. The `random` figures are what the same
    documents would give in random places. `seams` is adjacency against the top-2 bound, `inside`
    against the Held-Karp bound of each window. `unknown` of `segments` have no vector.
    """

    windows: int
    segments: int
    unknown: int
    adjacency: Estimate
    coherence: list[Estimate]
    best_earlier: Estimate
    duplicates: Estimate
    random: float | None
    random_coherence: float | None
    random_best_earlier: float | None
    seams: Bounded
    inside: Bounded


def likeness(
    sample: Sample, sizes: list[int], repeated: npt.NDArray[np.bool_] | None = None
) -> Likeness:
    """All figures of a sample: coherence in contexts of `sizes` tokens, best earlier in the last.

    `repeated` bool[windows] marks windows that are known to hold something twice.
    """
    whole = _sums(sample, _whole(sample))
    stretches = [_sums(sample, _stretches(sample, size)) for size in sizes]
    doubled = whole.top_cos >= DUPLICATE
    if repeated is not None:
        doubled = doubled | repeated
    random = _random_pairs(sample)
    return Likeness(
        windows=sample.windows,
        segments=len(sample.tokens),
        unknown=len(sample.tokens) - len(known_segments(sample)),
        adjacency=_ratio(whole.adjacent_cos, whole.adjacent),
        coherence=[_ratio(s.pairs_cos, s.pairs) for s in stretches],
        best_earlier=_ratio(stretches[-1].earlier_cos, stretches[-1].earlier),
        duplicates=_ratio(doubled.astype(np.float64), np.ones(sample.windows)),
        random=random,
        random_coherence=_random_pairs(sample, sample.tokens),
        random_best_earlier=_random_earlier(sample, sizes[-1]),
        seams=seams(sample, whole, random),
        inside=inside(sample),
    )


@dataclass(frozen=True)
class _Contexts:
    """Stretches of windows as a placement of their own, and the window of each stretch."""

    placement: Placement
    window: I64


def _whole(sample: Sample) -> _Contexts:
    return _contexts(sample, np.arange(len(sample.window)), sample.window, sample.tokens)


def _stretches(sample: Sample, size: int) -> _Contexts:
    """Consecutive stretches of `size` tokens; a segment across a border has a part on each side."""
    total = np.concatenate([[0], np.cumsum(sample.tokens)])
    before = total[:-1][np.searchsorted(sample.window, sample.window, side="left")]
    start, end = total[:-1] - before, total[1:] - before
    parts = (end - 1) // size - start // size + 1
    row = np.repeat(np.arange(len(parts)), parts)
    number = np.arange(len(row)) - np.repeat(np.cumsum(parts) - parts, parts)
    stretch = start[row] // size + number
    tokens = np.minimum(end[row], (stretch + 1) * size) - np.maximum(start[row], stretch * size)
    key = sample.window[row] * (int(stretch.max(initial=0)) + 1) + stretch
    return _contexts(sample, row, key, tokens)


def _contexts(sample: Sample, row: I64, key: I64, tokens: I64) -> _Contexts:
    """Parts of the segments `row` in the contexts `key` (ascending); a part alone is left out."""
    changed = np.concatenate([[False], np.diff(key) != 0])[: len(key)]
    context = np.cumsum(changed)
    company = np.bincount(context)[context] > 1 if len(context) else np.zeros(0, dtype=bool)
    _, first, number = np.unique(context[company], return_index=True, return_inverse=True)
    row = row[company]
    placement = Placement(
        number.astype(np.int64), sample.document[row], np.zeros_like(row), tokens[company]
    )
    return _Contexts(placement, sample.window[row[first]])


def _sums(sample: Sample, contexts: _Contexts) -> Similarity:
    """Sums of all contexts of a window together; `top_cos` the largest."""
    found = similarity(contexts.placement, sample.vectors)

    def added(column: F64) -> F64:
        per_window = np.bincount(contexts.window, weights=column, minlength=sample.windows)
        return per_window.astype(np.float64)

    top = np.full(sample.windows, -np.inf)
    np.maximum.at(top, contexts.window, found.top_cos)
    return Similarity(
        pairs=added(found.pairs),
        pairs_cos=added(found.pairs_cos),
        adjacent=added(found.adjacent),
        adjacent_cos=added(found.adjacent_cos),
        earlier=added(found.earlier),
        earlier_cos=added(found.earlier_cos),
        top_cos=top,
    )


def _ratio(total: F64, weight: F64) -> Estimate:
    """Σ total / Σ weight over windows, with the error of a ratio by linearisation."""
    held = float(weight.sum())
    if held == 0:
        return Estimate()
    value, n = float(total.sum()) / held, len(weight)
    if n < 2:
        return Estimate(value)
    spread = float(((total - value * weight) ** 2).sum())
    return Estimate(value, math.sqrt(n / (n - 1) * spread) / held)


def _random_pairs(sample: Sample, weight: I64 | None = None) -> float | None:
    """Mean cosine of all pairs of documents in closed form; weights are of segments."""
    known = known_segments(sample)
    _, first, number = np.unique(sample.identity[known], return_index=True, return_inverse=True)
    if len(first) < 2:
        return None
    X = sample.vectors[sample.document[known[first]]].astype(np.float64)
    w = np.ones(len(first)) if weight is None else np.bincount(number, weights=weight[known])
    every = w @ X
    own = w * w @ np.einsum("ij,ij->i", X, X)
    return float((every @ every - own) / (w.sum() ** 2 - w @ w))


def _random_earlier(sample: Sample, size: int) -> float | None:
    """`best_earlier` with the parts of documents dealt to the places at random; mean of deals."""
    contexts = _stretches(sample, size)
    placement = contexts.placement
    total = weight = 0.0
    for deal in range(_DEALS):
        drawn = rng_for(deal, "compare", "deal").permutation(len(placement.document))
        dealt = Placement(
            placement.window, placement.document[drawn], placement.start, placement.end[drawn]
        )
        found = similarity(dealt, sample.vectors)
        total, weight = total + float(found.earlier_cos.sum()), weight + float(found.earlier.sum())
    return total / weight if weight else None
