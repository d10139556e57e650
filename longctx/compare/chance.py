"""What chance gives: the figures that the same documents would have in random places.

Ours. A packing puts documents of certain sizes together (a document as long as a window has no
company), and long documents resemble each other more than short ones do; so documents are moved
only to places of about their size, and only those that have company are moved. For pairs this has a
closed form: documents fall into classes by size, and each pair of places is worth the mean cosine
of its two classes. The best earlier document is dealt instead, by seeded permutations in classes.
Cost: O(classes^2) beside one pass over the parts; a deal costs as much as the figure itself.
"""

from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from longctx.compare.contexts import Contexts
from longctx.compare.sample import Sample, known_segments
from longctx.ids import rng_for
from longctx.pack.frame import I64, Placement
from longctx.pack.similarity import F64, similarity

_CLASS, _CLASSES = 64, 64  # documents in a class at least, classes at most
_DEALS = 4


def pairs(sample: Sample, contexts: Contexts) -> float | None:
    """Mean cosine of all pairs that share a context, weighted by the tokens of the places."""
    part, classes = _classes(sample, contexts)
    placement = contexts.placement
    tokens = placement.end[part].astype(np.float64)
    number = classes[contexts.segment[part]]
    n = int(classes.max(initial=0)) + 1
    held = csr_array((tokens, (placement.window[part], number)), shape=(len(contexts.window), n))
    weight = (held.T @ held).toarray()
    # A place makes no pair with itself, and each other pair is there twice.
    weight[np.diag_indices(n)] -= np.bincount(number, weights=tokens**2, minlength=n)
    return _worth(sample, classes, weight)


def seams(sample: Sample, contexts: Contexts) -> float | None:
    """Mean cosine of places that stand next to each other."""
    part, classes = _classes(sample, contexts)
    placement = contexts.placement
    next_to = (np.diff(part) == 1) & (np.diff(placement.window[part]) == 0)
    next_to &= np.diff(placement.document[part]) != 0
    number = classes[contexts.segment[part]]
    n = int(classes.max(initial=0)) + 1
    weight = np.zeros((n, n))
    np.add.at(weight, (number[:-1][next_to], number[1:][next_to]), 1.0)
    return _worth(sample, classes, weight)


def best_earlier(sample: Sample, contexts: Contexts) -> float | None:
    """Mean over deals of the best cosine to an earlier document of the context."""
    _, classes = _classes(sample, contexts)
    placement = contexts.placement
    members = [np.flatnonzero(classes == c) for c in range(int(classes.max(initial=-1)) + 1)]
    total = weight = 0.0
    for deal in range(_DEALS):
        g = rng_for(deal, "compare", "deal")
        document = sample.document.copy()
        for place in members:
            document[place] = sample.document[g.permutation(place)]
        dealt = Placement(
            placement.window, document[contexts.segment], placement.start, placement.end
        )
        found = similarity(dealt, sample.vectors)
        total, weight = total + float(found.earlier_cos.sum()), weight + float(found.earlier.sum())
    return total / weight if weight else None


def _classes(sample: Sample, contexts: Contexts) -> tuple[I64, I64]:
    """Parts whose document has a vector and company with one, and the class of each segment.

    Classes int64[segments] rise with the size of the segment; -1 for segments without company.
    """
    known = np.zeros(len(sample.tokens), dtype=bool)
    known[known_segments(sample)] = True
    part = np.flatnonzero(known[contexts.segment])
    context = contexts.placement.window[part]
    part = part[np.bincount(context, minlength=len(contexts.window))[context] > 1]
    segment = np.unique(contexts.segment[part])
    by_size = segment[np.argsort(sample.tokens[segment], kind="stable")]
    n = len(by_size)
    classes = np.full(len(sample.tokens), -1, dtype=np.int64)
    classes[by_size] = np.arange(n) * max(1, min(_CLASSES, n // _CLASS)) // max(1, n)
    return part, classes


def _worth(sample: Sample, classes: I64, weight: F64) -> float | None:
    """Weighted mean over pairs of classes of the mean cosine of two different members."""
    if weight.sum() <= 0:
        return None
    order = np.argsort(classes, kind="stable")
    order = order[np.searchsorted(classes[order], 0) :]
    borders = np.searchsorted(classes[order], np.arange(len(weight) + 1))
    size = np.diff(borders).astype(np.float64)
    sums = np.stack(
        [
            sample.vectors[sample.document[order[a:b]]].sum(axis=0, dtype=np.float64)
            for a, b in pairwise(borders.tolist())
        ]
    )
    cosine = sums @ sums.T / np.outer(size, size)
    own = np.einsum("ij,ij->i", sums, sums) - size  # unit vectors
    np.fill_diagonal(cosine, own / np.maximum(size * (size - 1), 1))
    return float((weight * cosine).sum() / weight.sum())
