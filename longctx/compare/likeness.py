"""How related the documents of a context are, with the floor that chance gives and an upper bound.

The measures of the ordering papers (In-Context Pretraining 2310.10638, SPLICE 2312.17296), taken
from finished windows: similarity at the seams (adjacency), between all documents that share a
context of a given size (coherence), and to the best earlier document, which is what a causal model
can use. Cosines of the text of each segment; two segments of one document, or of equal content, are
never compared, so copies do not pass for related context.

Ours: the standard error of each figure, from its spread over windows. What chance gives is in
`chance.py`, bounds are in `bounds.py`.

Cost: O(k^2 d) for a window of k segments, about ten times. Windows are taken in the order given, so
sums have the same bits in every call.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longctx.compare import chance, contexts
from longctx.compare.bounds import Bounded, inside, seams
from longctx.compare.contexts import Contexts
from longctx.compare.sample import Sample, known_segments
from longctx.pack.similarity import F64, Similarity, similarity

DUPLICATE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error over windows; None where nothing was compared."""

    value: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Likeness:
    """Similarity figures of a run over its compared `windows` (cosines; shares in 0..1).

    `coherence` and `random_coherence` hold one figure for each context size. `duplicates` is the
    share of windows with two documents at a cosine of 0.95 or more, or one twice. The `random`
    figures are what the same documents would give in random places. `seams` is adjacency against
    the top-2 bound, `inside` against the Held-Karp bound of each window. `unknown` of `segments`
    have no vector.
    """

    windows: int
    segments: int
    unknown: int
    adjacency: Estimate
    coherence: list[Estimate]
    best_earlier: Estimate
    duplicates: Estimate
    random: float | None
    random_coherence: list[float | None]
    random_best_earlier: float | None
    seams: Bounded
    inside: Bounded


def likeness(
    sample: Sample, sizes: list[int], repeated: npt.NDArray[np.bool_] | None = None
) -> Likeness:
    """All figures of a sample: coherence in contexts of `sizes` tokens, best earlier in the last.

    `repeated` bool[windows] marks windows that are known to hold something twice.
    """
    windows = contexts.whole(sample)
    stretches = [contexts.stretches(sample, size) for size in sizes]
    whole, parts = _sums(sample, windows), [_sums(sample, found) for found in stretches]
    doubled = whole.top_cos >= DUPLICATE
    if repeated is not None:
        doubled = doubled | repeated
    random = chance.seams(sample, windows)
    return Likeness(
        windows=sample.windows,
        segments=len(sample.tokens),
        unknown=len(sample.tokens) - len(known_segments(sample)),
        adjacency=_ratio(whole.adjacent_cos, whole.adjacent),
        coherence=[_ratio(s.pairs_cos, s.pairs) for s in parts],
        best_earlier=_ratio(parts[-1].earlier_cos, parts[-1].earlier),
        duplicates=_ratio(doubled.astype(np.float64), np.ones(sample.windows)),
        random=random,
        random_coherence=[chance.pairs(sample, found) for found in stretches],
        random_best_earlier=chance.best_earlier(sample, stretches[-1]),
        seams=seams(sample, whole, random),
        inside=inside(sample),
    )


def _sums(sample: Sample, among: Contexts) -> Similarity:
    """Sums of all contexts of a window together; `top_cos` the largest."""
    found = similarity(among.placement, sample.vectors)

    def added(column: F64) -> F64:
        per_window = np.bincount(among.window, weights=column, minlength=sample.windows)
        return per_window.astype(np.float64)

    top = np.full(sample.windows, -np.inf)
    np.maximum.at(top, among.window, found.top_cos)
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
