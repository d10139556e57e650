"""Replies without a model for the stages of LongMIT; see `rule_basics`.

The short form of an answer is its first number or name that the question does not have, so a fact
that is planted in one document is asked for, merged, and looked for in the others.
"""

import re
from collections.abc import Mapping
from typing import Any

from longctx.synth.checks import contains_answer, content_words, support
from longctx.synth.longmit import CRITERIA
from longctx.synth.longmit_calls import MOST_QUESTIONS, is_needed
from longctx.synth.rule_basics import (
    about,
    answer,
    names_and_numbers,
    questions,
    scaled,
    sentence_for,
    sentences,
    subject,
)

_SHORT_WORDS = 5
_REFERENCE = re.compile(
    r"\b(?:he|she|it|they|this|these|those|the (?:text|passage|author))\b", re.I
)
_COMPARED = {
    "en": re.compile(r"Comparing (.+), which one comes with the larger number\?"),
    "zh": re.compile(r"比较(.+)，哪一个对应的数字更大？"),
    "ko": re.compile(r"(.+)을\(를\) 비교하면 어느 쪽의 수가 더 큽니까\?"),
}
_COMPARE = {
    "en": ("Comparing {}, which one comes with the larger number?", " and ", ", "),
    "zh": ("比较{}，哪一个对应的数字更大？", "和", "、"),
    "ko": ("{}을(를) 비교하면 어느 쪽의 수가 더 큽니까?", ", ", ", "),
}


def extract(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Questions about three evenly spaced sentences of the chunk."""
    return {"questions": questions(sentences(parts["chunk"]), parts["lang"], MOST_QUESTIONS)}


def reference(parts: Mapping[str, Any]) -> dict[str, Any]:
    """A reference is a pronoun, or the text itself."""
    found = _REFERENCE.search(parts["question"])
    return {"span": found[0] if found else "", "has_reference": found is not None}


def answer_question(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The beginning of the sentence that shares most words with the question, if any does."""
    of = sentences(parts["chunk"])
    found = bool(content_words(parts["question"]) & content_words(parts["chunk"]))
    said = answer(of, sentence_for(parts["question"], of)) if found else "unknown"
    return {"answer": said, "found": found}


def simplify(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The first number that the question has not, else the first name, else what follows it."""
    said, asked = parts["answer"], about(parts["question"])
    runs = names_and_numbers(said)
    numbers = [run for run in runs if run[0].isdigit()]
    new = [run for run in [*numbers, *runs] if not contains_answer(run, asked)]
    if new:
        return {"short": new[0]}
    behind = said.partition(subject(said))[2].strip(" ,.;:，。；：")
    behind = behind if content_words(behind) else said
    words = behind.split()[:_SHORT_WORDS]
    return {"short": " ".join(words) if len(words) > 1 else behind[: 4 * _SHORT_WORDS]}


def merge(parts: Mapping[str, Any]) -> dict[str, Any]:
    """What the two questions are about is compared; both answers stand in answer and reasoning."""
    lang = parts["lang"]
    form, two, more = _COMPARE[lang]
    compared = _COMPARED[lang].search(parts["question_1"])
    # A third thing goes behind a comma: with one more "and" it would look like two questions.
    first = compared[1].replace(two, more) if compared else about(parts["question_1"])
    second = about(parts["question_2"])
    both = f"{first}{more if compared else two}{second}"
    facts = f"{parts['answer_1']}; {parts['answer_2']}"
    return {
        "question": form.format(both),
        "reasoning": f"{first}: {parts['answer_1']}. {second}: {parts['answer_2']}.",
        "answer": facts,
    }


def verify(parts: Mapping[str, Any]) -> dict[str, Any]:
    """All marks from the share of the single answers that the merged one still has."""
    shorts = " ".join(single[3] for single in parts["singles"])
    share = support(shorts, f"{parts['answer']} {parts['reasoning']}")
    marks = dict.fromkeys(CRITERIA, scaled(share, 0, 10))
    said = f"{share:.0%} of the single answers are kept."
    return {"rationale": said, **marks, "multihop": len(parts["singles"]) > 1}


def necessity(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Answerable where the other texts hold the short answer of the clue that was left out."""
    missing = is_needed(parts["short"], parts["texts"]) is not False
    return {"answer": "" if missing else parts["short"], "answerable": not missing}
