"""What LongReward will ask, before anything is asked: calls of a prompt, and what each reads.

The closed form of the method, with 20 statements an answer where no answer is there yet: of a
context of T tokens ceil(T / notes chunk) + n * (4 + 20) calls of the judge and n of the policy.
Assumed are also the tokens of a prompt's wording and of the notes of a chunk.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from longctx.prefer.asked import QUESTION
from longctx.prefer.longreward import ASSUMED_STATEMENTS
from longctx.prefer.longreward_unit import (
    COMPLETENESS,
    HELPFULNESS,
    LOGICALITY,
    NOTES,
    SAMPLE,
    STATEMENTS,
    SUPPORT,
)

_WORDING, _NOTED = 250, 60
# Calls of the controls beside statements and candidates: the marks of a refusal.
_REFUSAL = 3


class Sizes(NamedTuple):
    """What decides the calls of a prompt; all but `n` and `top_k` in tokens."""

    context: int
    n: int
    answer: int
    notes_chunk: int
    fact_chunk: int
    top_k: int

    @property
    def chunks(self) -> int:
        """Chunks of the context that notes are taken of."""
        return max(1, math.ceil(self.context / self.notes_chunk))


def calls_of_a_prompt(sizes: Sizes) -> Mapping[str, tuple[int, int]]:
    """Calls and the tokens that each of them reads, by stage."""
    marked = (sizes.n, sizes.answer + _WORDING)
    noted = sizes.answer + sizes.chunks * _NOTED + _WORDING
    return {
        QUESTION: (1, sizes.context + _WORDING),
        SAMPLE: (sizes.n, sizes.context),
        NOTES: (sizes.chunks, min(sizes.context, sizes.notes_chunk) + _WORDING),
        HELPFULNESS: marked,
        LOGICALITY: marked,
        STATEMENTS: marked,
        SUPPORT: (sizes.n * ASSUMED_STATEMENTS, sizes.top_k * sizes.fact_chunk + _WORDING),
        COMPLETENESS: (sizes.n, noted),
    }


def calls_of_a_control(sizes: Sizes) -> tuple[int, int]:
    """Calls of a prompt that the controls see: statements, a refusal, every answer once more."""
    reads = sizes.top_k * sizes.fact_chunk + _WORDING
    return ASSUMED_STATEMENTS + _REFUSAL + sizes.n, reads


def assumed(sizes: Sizes) -> str:
    """What the figures take for granted, in words."""
    return (
        "contexts of the middle lengths of their bins, each cut into "
        f"{sizes.chunks} for notes, {ASSUMED_STATEMENTS} statements an answer, no two answers "
        "alike; replies as long as allowed; nothing rejected, nothing asked again, nothing in "
        "the cache"
    )
