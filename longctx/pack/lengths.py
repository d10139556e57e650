"""Windows of several lengths from one order: which documents go to which length (ours).

Recipes that train on 64k windows keep a share of shorter ones. The order is dealt in contiguous
stretches of documents, each to the length that is furthest behind its share, so every length sees
all of the order and its neighbours stay together. Documents longer than the window that their
stretch was dealt to go to the longest length as long as its share allows: there they are cut least.
The shares reached are within one stretch of those asked for; a seam between stretches costs a jump
in the order. O(documents).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from longctx.ids import mix64
from longctx.pack.frame import I64

STRETCH = 4  # windows of the longest length


def stretches(lengths: I64, tokens: int) -> I64:
    """Number of the stretch of each document, int64[n]: contiguous, at least `tokens` long.

    `lengths` int64[n] are framed lengths in tour order; the last stretch may be shorter.
    """
    number = np.empty(len(lengths), dtype=np.int64)
    current = held = 0
    for i, size in enumerate(lengths.tolist()):
        number[i] = current
        held += size
        if held >= tokens:
            current, held = current + 1, 0
    return number


def deal(
    lengths: I64,
    windows: Sequence[int],
    shares: Sequence[float],
    seed: int,
    tokens: int,
    *,
    fixed: I64 | None = None,
) -> I64:
    """Index into `windows` of each document, int64[n].

    `lengths` int64[n] are framed lengths in tour order, `windows` the window lengths, `shares` of
    tokens, sum 1; `tokens` in a stretch. Equal deficits are decided by the seed. Documents whose
    window is `fixed` (int64[n], -1: it is not) have their tokens before all others.
    """
    share = np.asarray(shares, dtype=np.float64)
    budget = share * int(lengths.sum())
    longest = int(np.argmax(windows))
    tie = mix64(np.arange(len(windows), dtype=np.uint64) ^ np.uint64(seed))
    target = np.full(len(lengths), -1) if fixed is None else fixed.copy()
    has, free = np.flatnonzero(target >= 0), np.flatnonzero(target < 0)
    given, seen = np.zeros(len(windows)), int(lengths[has].sum())
    np.add.at(given, target[has], lengths[has])
    number = stretches(lengths[free], tokens)
    borders = np.flatnonzero(np.diff(number, prepend=-1, append=-1))
    for first, stop in pairwise(borders.tolist()):
        rows = free[first:stop]
        sizes = lengths[rows]
        seen += int(sizes.sum())
        deficit = share * seen - given
        chosen = int(np.lexsort((tie, -deficit))[0])
        target[rows] = chosen
        given[chosen] += sizes.sum()
        if chosen != longest:
            for i in np.flatnonzero(sizes > windows[chosen]):
                if given[longest] + sizes[i] <= budget[longest]:
                    target[rows[i]] = longest
                    given[longest] += sizes[i]
                    given[chosen] -= sizes[i]
    return target
