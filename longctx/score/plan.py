"""Which stretches of a document a language model reads, and which of their positions count.

The sliding plan is that of LongPPL (arXiv 2410.23771), with a context that is guaranteed: every
position but the first S + s has between S and S + s - 1 tokens before it. A plan with S = s reads
each token twice and gives it at least half of the longest stretch. Windows are cut to what a model
can read; the proportions between them stay.

A document of n tokens costs n·(S + s)/s tokens of forward pass beyond its first S + s.
"""

from collections.abc import Sequence
from itertools import chain, islice
from typing import NamedTuple, Protocol

import numpy as np

from longctx.score.causal_lm import F32, I32, Segment, TokenScores

# LongFilter's 64 k for the long context (the half of it is guaranteed), LongPPL's for the short.
LONG, SHORT_SHARE, STRIDE_SHARE = 32_768, 8, 4


class Scorer(Protocol):
    """Whatever says how likely tokens are: a `CausalLM`, or a rule in a test."""

    def scores(self, segments: Sequence[Segment]) -> list[TokenScores]:
        """Scores of the positions that each segment asks for, in the order of `segments`."""


class Stretch(NamedTuple):
    """Tokens start..end-1 of a document, read at once; lo..hi-1 of the document are scored."""

    start: int
    end: int
    lo: int
    hi: int

    def of(self, ids: I32, *, bos: bool = True) -> Segment:
        """The segment of a document's ids int32 [n] that is read."""
        return Segment(ids[self.start : self.end], self.lo - self.start, self.hi - self.start, bos)


class Windows(NamedTuple):
    """Guaranteed contexts in tokens, of the long and of the short plan, and the short's stride."""

    long: int
    short: int
    stride: int


def nll_plan(n: int, context: int, stride: int) -> list[Stretch]:
    """Stretches of a document of n tokens in which positions 1..n-1 are scored, each once.

    A position is scored with all that is before it, or with `context` to `context + stride - 1`
    tokens.
    """
    if n < 2:
        return []
    first = min(n, context + stride)
    later = range(stride, n - context, stride)
    return [Stretch(0, first, 1, first)] + [
        Stretch(k, min(n, k + context + stride), k + context, min(n, k + context + stride))
        for k in later
    ]


def fitting(
    room: int, long: int | None = None, short: int | None = None, stride: int | None = None
) -> Windows:
    """Windows for a model that reads `room` tokens at once, BOS not counted; what is given stays.

    By default the long context is half of that, at most 32,768 (one stretch reads twice as much),
    the short one an eighth of the long, its stride a quarter of the short.
    """
    long = long or max(1, min(LONG, room // 2))
    short = short or max(1, long // SHORT_SHARE)
    return Windows(long, short, stride or max(1, short // STRIDE_SHARE))


def read(scorer: Scorer, documents: Sequence[Sequence[Segment]]) -> list[list[TokenScores]]:
    """Scores of the segments of each document, all read in one call of `scorer`."""
    found = iter(scorer.scores(list(chain.from_iterable(documents))))
    return [list(islice(found, len(segments))) for segments in documents]


def joined(plan: Sequence[Stretch], found: Sequence[TokenScores], n: int) -> F32:
    """NLL of positions 1..n-1 from those of a plan's stretches, float32 [max(0, n - 1)].

    Positions that the plan leaves out are NaN.
    """
    nll = np.full(max(0, n - 1), np.nan, dtype=np.float32)
    for stretch, scores in zip(plan, found, strict=True):
        nll[stretch.lo - 1 : stretch.hi - 1] = scores.nll
    return nll
