"""What a text has stated, and which of it a new step has to be checked against.

The memory of LongDPO (arXiv 2502.02095): facts of the steps before, on this path alone; of a new
step every piece of 128 words that is near to a fact goes to a judge with it. Ours: at most so many
pieces a fact, nearness by an embedder that is handed in, facts kept only if the step supports them.
Costs F * S similarities and at most 3 F judge calls a candidate. Lost: contradictions in words that
share nothing with the fact; how many pairs the threshold lets through is counted, for it depends on
the embedder.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from longctx.prefer.retrieval import Vectors
from longctx.synth.checks import HAN_OR_KANA
from longctx.text.answers import norm_answer, support

MOST_FACTS = 20
SEGMENT_WORDS = 128
_SUPPORTED = 0.5


class Fact(NamedTuple):
    """Something a step states; `flagged` where the judge knows it to be wrong."""

    content: str
    flagged: bool = False
    evidence: str = ""


def facts_of(found: Sequence[Mapping[str, Any]], step: str) -> list[Fact]:
    """Facts of a reply that are the step's own, without repeats, at most twenty.

    A fact belongs to the step if at least half of its content words stand there. Those that the
    judge holds for wrong are flagged and belong in no memory.
    """
    kept: dict[str, Fact] = {}
    for one in found:
        content = one["content"].strip()
        if norm_answer(content) and support(content, step) >= _SUPPORTED:
            flagged = one["contradicts_knowledge"] == "yes"
            kept.setdefault(norm_answer(content), Fact(content, flagged, one["evidence"].strip()))
    return list(kept.values())[:MOST_FACTS]


def segments_of(text: str, words: int = SEGMENT_WORDS) -> list[str]:
    """Pieces of `words` words each (characters of Han and kana), which join to the text."""
    if words < 1:
        raise ValueError(f"a segment has one word and more, got {words}")
    starts = _word_starts(text)
    cuts = [0, *starts[words::words], len(text)]
    return [text[a:b] for a, b in pairwise(cuts) if text[a:b].strip()]


def _word_starts(text: str) -> list[int]:
    starts, inside = [], False
    for at, char in enumerate(text):
        alone = HAN_OR_KANA.match(char) is not None
        if alone or (not char.isspace() and not inside):
            starts.append(at)
        inside = not alone and not char.isspace()
    return starts


def near_pairs(
    facts: Vectors, segments: Vectors, tau: float, top: int | None = 3
) -> list[tuple[int, int]]:
    """Pairs (fact, segment) with a cosine of at least `tau`, by fact, then the most similar first.

    Of each fact at most `top` segments (None: all); of equal cosines the earlier one. Vectors are
    unit rows [F, d] and [S, d]; cosines are rounded to six places, so no block size matters.
    """
    cosines = np.round(facts.astype(np.float64) @ segments.astype(np.float64).T, 6)
    found = []
    for fact, row in enumerate(cosines):
        order = sorted(np.flatnonzero(row >= tau).tolist(), key=lambda s: (-row[s], s))
        found += [(fact, segment) for segment in order[:top]]
    return found
