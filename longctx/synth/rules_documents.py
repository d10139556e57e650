"""Replies without a model for the stages of LongAlign and LongAlpaca; see `rule_basics`."""

from collections.abc import Mapping
from typing import Any

from longctx.synth.longalign_instruct import QUESTIONS
from longctx.synth.longalpaca import LEAST_ANSWER_WORDS
from longctx.synth.rule_basics import answer, question, questions, sentence_for, sentences


def longalign_questions(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Questions about five evenly spaced sentences of the document."""
    return {"questions": questions(sentences(parts["document"]), parts["lang"], QUESTIONS)}


def longalign_answer(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The beginning of the sentence that the question is about."""
    of = sentences(parts["document"])
    return {"answer": answer(of, sentence_for(parts["question"], of))}


def longalpaca_qa(parts: Mapping[str, Any]) -> dict[str, Any]:
    """A question about the middle sentence, answered by as many sentences as the stage wants."""
    of = sentences(parts["document"])
    middle = len(of) // 2
    asked = question(of[middle], parts["lang"])
    return {"question": asked, "answer": answer(of, middle, LEAST_ANSWER_WORDS)}
