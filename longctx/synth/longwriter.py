"""AgentWrite's arithmetic: plans, scores of length and quality, repeats, preference pairs.

LongWriter (arXiv 2408.07055): a model plans a text paragraph by paragraph, then writes each in
order; the length score S_l and a judge's marks S_q filter the result. S_l falls linearly from 100
at the wanted length to 0 at a third of it and at four times as much, so short is punished harder.
Ours: the relation of a wanted length (at least, at most, between), the default counter, repeats by
word 5-grams, the bounds of a plan, the score of a preference pair (mean of S_l and S_q, chosen at
least two points above rejected). The reference stored messages of its client as paragraphs, cut
plans at line breaks alone, and divided by zero for an empty text. Linear in the text; repeats cost
a set of 5-grams for every paragraph. Lost: a good text of another length than its prompt states.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from longctx.synth.checks import answer_tokens, norm_answer
from longctx.synth.longwriter_required import Required
from longctx.synth.longwriter_required import required_length as required_length
from longctx.synth.words import Counter
from longctx.synth.words import count_words as count_words

SYSTEM = "longwriter"
DIMENSIONS = ("relevance", "accuracy", "coherence", "clarity", "breadth_depth", "reading")
SLACK = 1e-9
LEAST_STEPS, MOST_STEPS = 2, 50
LEAST_WORDS, MOST_WORDS = 200, 1_000
SUM_TOLERANCE = 0.2
MARGIN = 2.0
_DUPLICATE_JACCARD, _GRAM = 0.5, 5

_SEPARATOR = r"\s*[-–—|]\s*"
_COUNT = r"\d{1,3}(?:,\d{3})+|\d+"
_LINE = re.compile(
    rf"(?:(?:[-+•]|\#{{1,6}}|\d+[.)])\s+)?Paragraph\s*(?P<k>\d+){_SEPARATOR}"
    rf"Main\s+Point\s*[:：]\s*(?P<point>.*\S){_SEPARATOR}"
    rf"Word\s+Count\s*[:：]\s*(?P<lo>{_COUNT})(?:\s*(?:[-–—~]|to)\s*(?P<hi>{_COUNT}))?"
    r"(?:\s*words?)?\s*\.?",
    re.IGNORECASE,
)
_BOLD = re.compile(r"\*\*|__|^\s*\*\s")
LABEL = re.compile(
    r"[\s#*_]*(?:Paragraph\s+\d+|第\s*\d+\s*[段节]|段落\s*\d+|(?:문단|단락)\s*\d+)[*_]*"
    r"(?:\s*[:：\-–—.]|\s*\n)[\s*_]*",
    re.IGNORECASE,
)


class Step(NamedTuple):
    """One paragraph of a plan, numbered from 1."""

    k: int
    main_point: str
    words: int


def s_l(x: float, y: float) -> float:
    """Length score in [0, 100] of `y` produced where `x` > 0 was required; 100 at y = x alone.

    0 at y <= x/3 and y >= 4x; at least 80 for y/x in [1/1.4, 1.6].
    """
    if x <= 0 or y < 0:
        raise ValueError(f"a required length is above 0 and a produced one not below, got {x}, {y}")
    if y == 0:
        return 0.0
    off = (y / x - 1) / 3 if y > x else (x / y - 1) / 2
    return 100 * max(0.0, 1 - off)


def length_score(required: Required, y: float) -> float:
    """S_l by the relation of a required length.

    In [lo, hi], above a least or below a most length it is 100, and else that of the nearer end.
    """
    x, relation = required["x"], required["relation"]
    if relation == "range":
        lo, hi = required["lo"] or x, required["hi"] or x
        return 100.0 if lo <= y <= hi else s_l(lo if y < lo else hi, y)
    good = (relation == "above" and y >= x) or (relation == "below" and 0 < y <= x)
    return 100.0 if good else s_l(x, y)


def s_q(rows: Sequence[Mapping[str, float] | Sequence[float]]) -> float:
    """Quality score in [0, 100]: by dimension (mean mark - 1) * 25, then the mean of the six.

    A row has marks 1..5, by name or in the order of `DIMENSIONS`. ValueError without rows.
    """
    if not rows:
        raise ValueError("no row has marks; one is needed for a quality score")
    marks = [
        [row[name] for name in DIMENSIONS] if isinstance(row, Mapping) else list(row)
        for row in rows
    ]
    return float(((np.array(marks, dtype=np.float64).mean(axis=0) - 1) * 25).mean())


def parse_plan(line: str) -> Step | None:
    """The step that a line of a plan names, None for any other line.

    "Paragraph k - Main Point: ... - Word Count: N words"; bold and list marks do no harm, the main
    point runs to the last "Word Count", and of a range of words the mean is taken, rounded down.
    """
    found = _LINE.fullmatch(_BOLD.sub("", line).strip())
    if not found:
        return None
    lo = int(found["lo"].replace(",", ""))
    hi = int(found["hi"].replace(",", "")) if found["hi"] else lo
    return Step(int(found["k"]), found["point"].strip(), (lo + hi) // 2)


def plan_line(step: Step) -> str:
    """A step as a line that `parse_plan` reads."""
    return f"Paragraph {step.k} - Main Point: {step.main_point} - Word Count: {step.words} words"


def plan_problems(plan: Sequence[Step | Mapping[str, Any]], required: Required | None) -> list[str]:
    """What is wrong with a plan, each detail once; empty where it can be written.

    Steps may be objects as a model writes them (`k`, `main_point`, `words`).

    `plan_size` (2 to 50 steps), `plan_numbering` (1..n without gaps), `plan_words` (200 to 1,000
    each), `plan_sum` (within a fifth of the required length), `plan_duplicate` (equal main points).
    """
    steps = [Step(**step) if isinstance(step, Mapping) else Step(*step) for step in plan]
    problems = []
    if not LEAST_STEPS <= len(steps) <= MOST_STEPS:
        problems.append("plan_size")
    if [step.k for step in steps] != list(range(1, len(steps) + 1)):
        problems.append("plan_numbering")
    if not all(LEAST_WORDS <= step.words <= MOST_WORDS for step in steps):
        problems.append("plan_words")
    total = sum(step.words for step in steps)
    if required and abs(total - required["x"]) > SUM_TOLERANCE * required["x"] + SLACK:
        problems.append("plan_sum")
    points = {norm_answer(step.main_point) or step.main_point.strip() for step in steps}
    if len(points) < len(steps):
        problems.append("plan_duplicate")
    return problems


def strip_label(text: str) -> str:
    """A paragraph without a leading "Paragraph k" and its separator, and without blanks around."""
    return LABEL.sub("", text, count=1).strip() if LABEL.match(text) else text.strip()


def paragraph_duplicates(paragraphs: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs i < j of paragraphs that share more than half of their word 5-grams (Jaccard).

    Characters of Han, kana and Hangul are words; a paragraph of fewer words is one gram.
    """
    grams = [set(word_grams(paragraph, _GRAM)) for paragraph in paragraphs]
    return [(i, j) for i, j in combinations(range(len(grams)), 2) if _alike(grams[i], grams[j])]


def repeats(text: str, earlier: Sequence[str]) -> bool:
    """Whether a text makes such a pair with an earlier one."""
    own = set(word_grams(text, _GRAM))
    return any(_alike(own, set(word_grams(paragraph, _GRAM))) for paragraph in earlier)


def _alike(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> bool:
    return 2 * len(a & b) > len(a | b)


def word_grams(text: str, n: int) -> list[tuple[str, ...]]:
    """The n-grams of a text in order, repeats included; of fewer words, all of them as one."""
    tokens = answer_tokens(text)
    if len(tokens) <= n:
        return [tuple(tokens)] if tokens else []
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def agentwrite_input_tokens(P: int, w: int, static: int = 0) -> int:
    """Input tokens of writing `P` paragraphs of `w` tokens, each call with all text so far.

    `static` tokens (instruction and plan) are sent with every call.
    """
    return P * static + w * P * (P - 1) // 2


def pick_pair(
    scores: Sequence[float], rng: np.random.Generator, margin: float = MARGIN
) -> tuple[int, int] | None:
    """Samples (chosen, rejected): the best, the first of equals, and one drawn from the others.

    Drawn uniformly from those at least `margin` below the best; None (`small_margin`) without any.
    """
    if not scores:
        return None
    best = max(range(len(scores)), key=lambda i: (scores[i], -i))
    limit = scores[best] - margin + SLACK
    others = [i for i, score in enumerate(scores) if i != best and score <= limit]
    return (best, int(rng.choice(others))) if others else None


def counter_of(required: Required | None, default: Counter = "auto") -> Counter:
    """Characters are counted where a length is required in 자 or characters."""
    return "nonspace" if required and required["unit"] in ("자", "character") else default
