"""Replies without a model for the stages of LOGO; see `rule_basics`.

Answers are those of `longctx.llm.reader`: the sentence that shares most words with the question.
"""

from collections.abc import Mapping
from typing import Any

from longctx.llm.reader import UNKNOWN, best_sentence
from longctx.synth.rule_basics import answer, question, sentences
from longctx.text.answers import support

_SAME = 0.8
_LABELS = ("a", "b", "c")


def logo_question(parts: Mapping[str, Any]) -> dict[str, Any]:
    """A question about the middle sentence, and its beginning as the answer."""
    of = sentences(parts["document"])
    middle = len(of) // 2
    return {"question": question(of[middle], parts["lang"]), "answer": answer(of, middle)}


def logo_answer(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The sentence of the text that fits best; of a text that says nothing of it the first one.

    "unknown" without a text.
    """
    found, of = best_sentence(parts["question"], parts["text"]), sentences(parts["text"])
    return {"text": of[0] if found == UNKNOWN and of else found}


def logo_judge(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Right is an answer with the words of the sentence that the reader takes from the text."""
    wanted = best_sentence(parts["question"], parts["text"])
    right = {
        label: wanted != UNKNOWN and support(wanted, parts[label]) >= _SAME for label in _LABELS
    }
    best = next((label.upper() for label in _LABELS if right[label]), "tie")
    said = {f"{label}_correct": is_right for label, is_right in right.items()}
    return {"analysis": f"The text says: {wanted}", **said, "better": best}
