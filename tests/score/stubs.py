"""Language models that a test can see through, with the interface of `CausalLM.scores`.

Both look at the last `w` tokens before a position, or at all that a segment holds before it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from longctx.score.causal_lm import I32, Segment, TokenScores


def _scored(segment: Segment, p: Callable[[int], tuple[float, bool]]) -> TokenScores:
    found = [p(t) for t in range(segment.lo, segment.hi)]
    probabilities = np.array([f[0] for f in found], dtype=np.float64)
    return TokenScores(
        -np.log(probabilities).astype(np.float32), np.array([f[1] for f in found], dtype=bool)
    )


@dataclass(frozen=True)
class CacheLM:
    """What is in the context comes again: p = λ/V + (1 - λ)·count/size, 1/V without a context."""

    vocabulary: int
    rest: float = 0.1
    w: int | None = None

    def scores(self, segments: Sequence[Segment]) -> list[TokenScores]:
        """Scores of each segment; a hit is a token that none is more frequent than."""
        return [_scored(s, lambda t, s=s: self._p(s.ids, t)) for s in segments]  # type: ignore[misc]

    def _p(self, ids: I32, t: int) -> tuple[float, bool]:
        context = ids[max(0, t - self.w) if self.w else 0 : t].tolist()
        return _mixed(context, int(ids[t]), self.vocabulary, self.rest)


@dataclass(frozen=True)
class CopyLM:
    """What followed the last token before follows again; 1/V where it was not there before."""

    vocabulary: int
    rest: float = 0.1
    w: int | None = None

    def scores(self, segments: Sequence[Segment]) -> list[TokenScores]:
        """Scores of each segment; a hit is a token that none followed more often than."""
        return [self._segment(segment) for segment in segments]

    def _segment(self, segment: Segment) -> TokenScores:
        ids = segment.ids.tolist()
        places: dict[int, list[int]] = defaultdict(list)
        known = 0

        def p(t: int) -> tuple[float, bool]:
            nonlocal known
            # A follower counts when it is in the context itself: it stands before t.
            for at in range(known, t - 1):
                places[ids[at]].append(at)
            known = max(known, t - 1)
            first = max(0, t - self.w) if self.w else 0
            followers = [ids[at + 1] for at in places.get(ids[t - 1], ()) if at >= first]
            return _mixed(followers, ids[t], self.vocabulary, self.rest)

        return _scored(segment, p)


def _mixed(found: list[int], wanted: int, vocabulary: int, rest: float) -> tuple[float, bool]:
    if not found:
        return 1 / vocabulary, False
    count = found.count(wanted)
    p = rest / vocabulary + (1 - rest) * count / len(found)
    return p, count > 0 and count == max(Counter(found).values())
