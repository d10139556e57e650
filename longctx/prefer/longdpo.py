"""LongDPO's arithmetic: budgets and ends of steps, marks, rewards, UCB, buckets of ranks.

LongDPO (arXiv 2502.02095, Findings of ACL 2025) writes a long answer in steps and makes preference
pairs of steps that share their beginning: candidates are marked by seven principles, checked
against facts stated earlier, and searched as a tree. Ours: the budget from the wanted length, the
cut at a sentence's end, weights of quality against length (the released code adds the length score
to a mark of 1..5, so length decides), the UCB whose bonus is defined at zero visits. Buckets of
ranks by sixths follow SuperWriter (arXiv 2506.04180), ties sharing the mean of theirs. Everything
here is linear but the ranks, which are sorted. Lost: a step whose last sentence ends in its first
half is left as its budget cut it, inside a sentence.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from longctx.synth.longwriter import counter_of, s_l
from longctx.synth.longwriter_required import Required, Unit
from longctx.synth.words import Counter, count_words
from longctx.text.sentences import sentence_spans

SYSTEM = "longdpo"
PRINCIPLES = ("p1", "p2", "p3", "p4", "p5", "p6", "p7")
MARKS = 5
WEIGHT_SLACK = 0.02
OPEN_BUDGET = 512  # tokens of a step where no length is wanted, as in the reference's first group
STOP, LENGTH = "stop", "length"
Finish = Literal["stop", "length"]

_ROUND_TO = 64
_TOKENS = {"en": 1.4, "zh": 1.0, "ko": 2.0}
_TOKENS_OF_CHARACTERS: dict[Unit, float] = {"字": 1.0, "词": 1.0, "자": 1.0}
_ENGLISH_CHARACTER = 0.3
_CLOSERS = "\"'”’»)\\]}」』】）》〉"
_ENDED = re.compile(rf"[.!?…。！？｡][{_CLOSERS}]*\Z")
_ENDED_NARROW = re.compile(rf"[.!?…][{_CLOSERS}]*\Z")


@dataclass(frozen=True)
class Target:
    """A wanted length `x` > 0 in words of `counter`, and the tokens that one of them takes."""

    x: int
    counter: Counter = "auto"
    tokens: float = _TOKENS["en"]


def target_of(x: int, lang: str, required: Required | None = None) -> Target:
    """A wanted length with its counter; `required` says in which unit a prompt states it."""
    tokens = _TOKENS.get(lang, _TOKENS["en"])
    if required is not None and required["unit"] == "character":
        tokens = _ENGLISH_CHARACTER if lang == "en" else 1.0
    elif required is not None:
        tokens = _TOKENS_OF_CHARACTERS.get(required["unit"], tokens)
    return Target(x, counter_of(required), tokens)


def step_budget(target: Target | None, depth: int, tokens: int | None = None) -> int:
    """Tokens that one of `depth` steps may take: `tokens` if given, else from the wanted length."""
    if tokens is not None:
        return tokens
    if target is None:
        return OPEN_BUDGET
    wanted = math.ceil(target.tokens * target.x / depth - 1e-9)
    return -(-wanted // _ROUND_TO) * _ROUND_TO


def cut_step(text: str, finish: str) -> str:
    """A step as it is kept: without blanks at its end, and cut back where its budget ended it.

    It is cut behind its last sentence if that ends in the second half of the text, else left.
    """
    whole = text.rstrip()
    if finish != LENGTH or _ENDED.search(whole):
        return whole
    last = sentence_spans(whole)[-1][0] if whole else 0
    return whole[:last].rstrip() if 2 * last >= len(whole) > 0 and last else whole


def glued(prefix: str, step: str) -> str:
    """A step with a blank in front where one is missing between two sentences."""
    if not step or not _ENDED_NARROW.search(prefix):
        return step
    inside_number = step[0].isdigit() and prefix[-2:-1].isdigit()
    return f" {step}" if step[0].isalnum() and step[0].isascii() and not inside_number else step


def expected_mark(weights: Sequence[float]) -> float:
    """Mean mark, 1..5, of five weights; ValueError where they are not five or add up to nothing."""
    total = math.fsum(weights)
    if len(weights) != MARKS or total <= 0:
        raise ValueError(f"five weights that add up to more than 0 are wanted, got {list(weights)}")
    return math.fsum(k * w for k, w in enumerate(weights, 1)) / total


def mean_mark(marks: Sequence[float]) -> float:
    """R, the mean of the expected marks of all principles."""
    return math.fsum(marks) / len(marks)


def quality(mark: float) -> float:
    """q in [0, 1] of a mark R in [1, 5]."""
    return (mark - 1) / (MARKS - 1)


def length_term(text: str, target: Target | None, share: float = 1.0) -> float | None:
    """s in [0, 1] of a text that should have `share` of the wanted length; None without a target.

    `text` is all that is written, the new step included.
    """
    if target is None:
        return None
    return s_l(target.x * share, count_words(text, target.counter)) / 100


def reward(mark: float, length: float | None, w_len: float = 0.25) -> float:
    """u in [0, 1] of a mark R in [1, 5] and a length term s; q alone where there is none."""
    q = quality(mark)
    return q if length is None else (q + w_len * length) / (1 + w_len)


def ucb(mean: float, n: int, parent_n: int, c: float = 1.4) -> float:
    """mean + c * sqrt(2 ln(1 + N) / (1 + n)): `n` visits of a child, N of its parent before now."""
    return mean + c * math.sqrt(2 * math.log1p(parent_n) / (1 + n))


def rank_buckets(values: Sequence[float]) -> list[float]:
    """+2 .. -2 by rank among L values, best first; equal values get the mean of their buckets.

    Rank r: 6r <= L +2, 6r <= 2L +1, 6r <= 4L 0, 6r <= 5L -1, else -2. Fewer than six values say
    too little about ranks and come back as they are.
    """
    n = len(values)
    if n < 6:
        return list(values)
    places: dict[float, list[int]] = {}
    for rank, value in enumerate(sorted(values, reverse=True), 1):
        places.setdefault(value, []).append(_bucket(rank, n))
    return [math.fsum(places[value]) / len(places[value]) for value in values]


def _bucket(rank: int, n: int) -> int:
    bounds = ((1, 2), (2, 1), (4, 0), (5, -1))
    return next((bucket for sixths, bucket in bounds if 6 * rank <= sixths * n), -2)
