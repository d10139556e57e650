"""Replies without a model for the stages of LongWriter; see `rule_basics`.

A plan has equal steps; a paragraph is the words of its step, each made unique by a number, so that
its length is exactly what was asked and nothing repeats.
"""

import math
import re
from collections.abc import Mapping
from itertools import count, cycle
from typing import Any

from longctx.synth.checks import support
from longctx.synth.longwriter import (
    DIMENSIONS,
    LEAST_STEPS,
    LEAST_WORDS,
    MOST_STEPS,
    MOST_WORDS,
    Step,
    counter_of,
)
from longctx.synth.rule_basics import scaled, subject
from longctx.synth.words import count_words

LONG = 2_000
_UNSTATED, _STEP, _SAMPLES = 2_400, 500, 4
_POINT = {"en": "Part {} of {}", "zh": "第{}部分，{}", "ko": "{}부 {}"}
_APART = re.compile(r"[\s，]+")
_PARAGRAPH = {"en": (" ", "."), "zh": ("、", "。"), "ko": (" ", ".")}


def select(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Long unless a length of 2,000 and less is stated."""
    required = parts["required"]
    needs_long = required is None or required["x"] > LONG
    return {
        "reason": f"The wanted length is {required and required['x']}.",
        "needs_long": needs_long,
    }


def plan(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Equal steps of about 500 words."""
    x = parts["required"]["x"] if parts["required"] else _UNSTATED
    n = min(MOST_STEPS, max(LEAST_STEPS, math.ceil(x / _STEP)))
    each = min(MOST_WORDS, max(LEAST_WORDS, round(x / n)))
    about = subject(parts["prompt"])
    points = [_POINT[parts["lang"]].format(k, about) for k in range(1, n + 1)]
    return {"steps": [{"k": k, "main_point": p, "words": each} for k, p in enumerate(points, 1)]}


def write(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Words of the main point with a number behind each, as many as the step wants."""
    step = Step(*parts["step"])
    between, end = _PARAGRAPH[parts["lang"]]
    counter = counter_of(parts["required"])
    # Short runs: what stands between two numbers is the same every time.
    words = [w for w in _APART.split(step.main_point) if w and not w.isdigit()]
    numbers = count(step.k * 10_000)
    written: list[str] = []
    length = 0
    for word in cycle(words or [step.main_point]):
        if length >= step.words:
            break
        written.append(f"{word}{next(numbers)}")
        length += count_words(written[-1], counter)
    return {"text": between.join(written) + end}


def sample(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Answers that get worse with their number: shorter, and with fewer of the task's words."""
    number = parts["sample"]
    x = parts["required"]["x"] if parts["required"] else _UNSTATED
    task, missing = parts["prompt"], number % _SAMPLES
    said = task[: max(1, len(task) * (_SAMPLES - missing) // _SAMPLES)]
    words = round(x * (1 - 0.15 * missing))
    step = (1, subject(parts["prompt"]), words)
    return {"text": f"{said}\n\n{write({**parts, 'step': step})['text']}"}


def judge(parts: Mapping[str, Any]) -> dict[str, Any]:
    """All marks from the share of the task's content words that stand in the text."""
    share = support(parts["prompt"], parts["response"])
    mark = scaled(share, 1, 5)
    return {
        "analysis": f"{share:.0%} of the task's words are met.",
        **dict.fromkeys(DIMENSIONS, mark),
    }
