"""AgentWrite's rows: paragraphs joined, counted, scored, and all that a row is refused for.

The length filter is the most valuable check of the system (arXiv 2410.10210): of the 6,000 released
rows 1,748 state a length and 666 of those have S_l >= 80. Every reason has a name of its own, and
all that hold are told. Ours: the least share of distinct 4-grams, the script of the output.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from longctx.llm.structured import is_sentinel
from longctx.synth.longwriter import (
    DIMENSIONS,
    SLACK,
    SYSTEM,
    Step,
    counter_of,
    length_score,
    paragraph_duplicates,
    parse_plan,
    s_q,
    strip_label,
    word_grams,
)
from longctx.synth.longwriter_calls import PROMPT_VERSION, refuses
from longctx.synth.longwriter_required import Required, Unit
from longctx.synth.rows import Reject, Row, envelope
from longctx.synth.tokens import TokenCounter
from longctx.synth.words import Counter, count_words, written_in

MIN_WORDS = 2_000
S_L_MIN = 80.0
DISTINCT_4GRAMS = 0.5
_LABELLED = re.compile(r"^[\s#*_]*Paragraph\s+\d+\b", re.IGNORECASE | re.MULTILINE)
_CLOSED = re.compile(r"[.!?…。！？｡][\"'”’»)\]）」』】》*_~]*\Z")
_UNITS: dict[str, Unit] = {"zh": "字", "ko": "단어"}


def finished(paragraphs: Sequence[str]) -> list[str]:
    """The paragraphs as they go into the row: without labels and blanks around them."""
    return [strip_label(paragraph) for paragraph in paragraphs]


def required_of(plan: Sequence[Step], stated: Required | None, lang: str) -> tuple[Required, str]:
    """The required length and where it is from: "stated" in the prompt, else "plan", their sum."""
    if stated:
        return stated, "stated"
    x = sum(step.words for step in plan)
    return {"x": x, "lo": x, "hi": x, "relation": "exact", "unit": _UNITS.get(lang, "word")}, "plan"


def row_problems(
    plan: Sequence[Step],
    paragraphs: Sequence[str],
    finish_reasons: Sequence[str],
    stated: Required | None,
    lang: str,
    counter: Counter = "auto",
    min_words: int = MIN_WORDS,
    s_l_min: float = S_L_MIN,
) -> list[Reject]:
    """All that a text is refused for, each with its code; empty for a good one.

    `paragraphs` are `finished`, `finish_reasons` those of the calls that wrote them.
    """
    found = [*_of_paragraphs(plan, paragraphs, finish_reasons), *_of_text(paragraphs, lang)]
    required, _ = required_of(plan, stated, lang)
    length = count_words("\n\n".join(paragraphs), counter_of(required, counter))
    score = length_score(required, length)
    if score < s_l_min - SLACK:
        found.append(Reject("length_ratio", f"s_l: {score:.1f} for {length} of {required['x']}"))
    if length < min_words:
        found.append(Reject("too_short", f"min_words: {length} of {min_words}"))
    return found


def _of_paragraphs(
    plan: Sequence[Step], paragraphs: Sequence[str], finish_reasons: Sequence[str]
) -> list[Reject]:
    found = []
    if len(paragraphs) != len(plan):
        found.append(Reject("inconsistent", f"missing_step: {len(paragraphs)} of {len(plan)}"))
    for k, paragraph in enumerate(paragraphs, 1):
        if is_sentinel(paragraph):
            found.append(Reject("sentinel", f"sentinel: paragraph {k}"))
        elif refuses(paragraph, count_words(paragraph)):
            found.append(Reject("refusal", f"refused_paragraph: {k}"))
        if not paragraph.strip():
            found.append(Reject("empty", f"empty_paragraph: {k}"))
    for k, reason in enumerate(finish_reasons, 1):
        if reason != "stop":
            found.append(Reject("truncated", f"unfinished_call: {k} ({reason})"))
    if pairs := paragraph_duplicates(paragraphs):
        found.append(Reject("repetition", f"paragraph_duplicates: {pairs[:5]}"))
    return found


def _of_text(paragraphs: Sequence[str], lang: str) -> list[Reject]:
    text = "\n\n".join(paragraphs).rstrip()
    found = []
    if _LABELLED.search(text) or any(parse_plan(line) for line in text.splitlines()):
        found.append(Reject("semantic", "label_leak"))
    grams = word_grams(text, 4)
    if grams and len(set(grams)) < DISTINCT_4GRAMS * len(grams):
        found.append(Reject("repetition", f"distinct_4grams: {len(set(grams)) / len(grams):.2f}"))
    if not _CLOSED.search(text):
        found.append(Reject("truncated", "cut_end"))
    if (written := written_in(text)) != lang:
        found.append(Reject("inconsistent", f"language: {written or 'none'} for {lang}"))
    return found


def assemble(
    id: str,
    task: str,
    lang: str,
    source: str,
    plan: Sequence[Step],
    paragraphs: Sequence[str],
    stated: Required | None,
    marks: Mapping[str, int] | None,
    n_calls: int,
    tokens: TokenCounter,
    seed: int,
    counter: Counter = "auto",
) -> Row:
    """The row of a text that has no `row_problems`; `marks` None gives a null `s_q`."""
    response = "\n\n".join(paragraphs)
    required, length_source = required_of(plan, stated, lang)
    counted = counter_of(required, counter)
    length = count_words(response, counted)
    own: dict[str, Any] = {
        "prompt": task,
        "plan": [step._asdict() for step in plan],
        "paragraphs": list(paragraphs),
        "paragraph_lengths": [count_words(paragraph, counted) for paragraph in paragraphs],
        "length": length,
        "required": dict(required),
        "length_source": length_source,
        "s_l": length_score(required, length),
        "s_q": s_q([marks]) if marks else None,
        "dims": {name: marks[name] for name in DIMENSIONS} if marks else None,
        "counter": counted,
        "n_calls": n_calls,
        # A loss averaged by sequence would give each word of a long text next to nothing.
        "loss_weighting": "token",
    }
    turns = [{"role": "user", "content": task}, {"role": "assistant", "content": response}]
    shared = envelope(
        id=f"{SYSTEM}-{id}",
        system=SYSTEM,
        lang=lang,
        messages=turns,
        instruction=task,
        counter=tokens,
        source=source,
        seed=seed,
        prompt_version=PROMPT_VERSION,
    )
    return {**shared, **own}


def overall(s_l: float, s_q: float | None) -> float | None:
    """S, the mean of length score and quality score; None without a quality score."""
    return None if s_q is None else (s_l + s_q) / 2


def released(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in the layout of the released LongWriter-6k."""
    return {"messages": row["messages"]}
