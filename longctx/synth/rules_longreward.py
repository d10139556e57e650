"""Replies without a model for the stages of LongReward; see `rule_basics`.

The judge is the reader of `longctx.llm.reader`: it marks by shared words, and so honestly that
answers of known worth come out in that order. Sampled answers get worse with their number: of six
sentences of the text, the first sample has all, each next one an invented one more.
"""

from collections.abc import Mapping
from typing import Any

from longctx.ids import h64
from longctx.llm import reader
from longctx.llm.scripted import Rule, words
from longctx.llm.types import GenRequest
from longctx.synth.rule_basics import question, sentences
from longctx.synth.words import count_words
from longctx.text.answers import content_words

_SENTENCES = 6
_LEAST, _MOST = 5, 60


def longreward_question(parts: Mapping[str, Any]) -> dict[str, Any]:
    """A question about the middle sentence of the document."""
    of = sentences(parts["document"])
    return {"question": question(of[len(of) // 2], parts["lang"])}


def sample(req: GenRequest) -> str:
    """Six sentences: those of the text that share most with the question, then invented ones."""
    parts = req.parts or {}
    true = nearest_sentences(parts["question"], parts["text"])
    kept = true[: max(0, len(true) - req.sample_index)]
    invented = [
        _invented(f"{req.row_id} {req.sample_index} {at}", count_words(sentence))
        for at, sentence in enumerate(true[len(kept) :])
    ]
    return " ".join([*kept, *invented]) or reader.UNKNOWN


def nearest_sentences(asked: str, text: str, n: int = _SENTENCES) -> list[str]:
    """The sentences of a text that share most words with a question, in the order of the text."""
    wanted = content_words(asked)
    fit = [s for s in dict.fromkeys(sentences(text)) if _LEAST <= count_words(s) <= _MOST]
    shared = [len(wanted & content_words(s)) for s in fit]
    first = sorted(range(len(fit)), key=lambda i: (-shared[i], i))[:n]
    # What is nearest comes first, so it is the last to give way.
    return [fit[i] for i in first]


def _invented(name: str, length: int) -> str:
    return f"Perhaps {words(f'{h64(name.encode()):016x}', max(_LEAST, length - 1))}."


RULES: dict[str, Rule] = {
    "longreward.sample": sample,
    "longreward.notes": reader.notes,
    "longreward.helpfulness": reader.mark,
    "longreward.logicality": reader.mark,
    "longreward.stability": reader.mark,
    "longreward.statements": reader.statements,
    "longreward.support": reader.grade_support,
    "longreward.completeness": reader.completeness,
}
