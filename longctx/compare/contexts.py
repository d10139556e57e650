"""The stretches of a window in which documents are compared."""

from dataclasses import dataclass

import numpy as np

from longctx.compare.sample import Sample
from longctx.pack.frame import I64, Placement


@dataclass(frozen=True)
class Contexts:
    """Contexts with at least two parts, as a placement whose windows are the contexts.

    `segment` int64[parts] is the segment of the sample that each part belongs to, `window`
    int64[contexts] the window of each context.
    """

    placement: Placement
    segment: I64
    window: I64


def whole(sample: Sample) -> Contexts:
    """Each window as one context."""
    return _contexts(sample, np.arange(len(sample.window)), sample.window, sample.tokens)


def stretches(sample: Sample, size: int) -> Contexts:
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


def _contexts(sample: Sample, segment: I64, key: I64, tokens: I64) -> Contexts:
    """Parts in contexts named by `key` (ascending), without those that stand alone."""
    changed = np.concatenate([[False], np.diff(key) != 0])[: len(key)]
    context = np.cumsum(changed)
    company = np.bincount(context)[context] > 1 if len(context) else np.zeros(0, dtype=bool)
    _, first, number = np.unique(context[company], return_index=True, return_inverse=True)
    segment = segment[company]
    placement = Placement(
        number.astype(np.int64), sample.document[segment], np.zeros_like(segment), tokens[company]
    )
    return Contexts(placement, segment, sample.window[segment[first]])
