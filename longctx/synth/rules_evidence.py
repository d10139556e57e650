"""Replies without a model for the stages of PAM QA, FILM and ChatQA2; see `rule_basics`.

A rule that finds no reply that its stage would accept raises ValueError: its request alone fails.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from longctx.synth.checks import has_answer, support
from longctx.synth.film_calls import MOST_VERBATIM, check_fine, check_integration
from longctx.synth.pamqa_calls import MOST_ANSWER_WORDS, MOST_SHORT_WORDS, check_question
from longctx.synth.rule_basics import (
    ANSWER_WORDS,
    answer,
    evenly,
    names_and_numbers,
    question,
    sentence_for,
    sentences,
    subject,
)
from longctx.synth.words import count_words

_SUPPORTED = 0.6
_LAST_WORDS = 3
_AND = {"en": " and ", "zh": "和", "ko": " 및 "}


def pam_question(parts: Mapping[str, Any]) -> dict[str, Any]:
    """A question about a sentence, answered by a later name or number of it, or its last words.

    The middle sentence, or the next that makes a sound one; without any the stage's check says why.
    """
    of = sentences(parts["passage"])
    middle = len(of) // 2
    reply = {"question": "", "answer": ""}
    for sentence in [*of[middle:], *of[:middle]]:
        asked = question(sentence, parts["lang"])
        last = " ".join(sentence.rstrip(".。!?！？").split()[-_LAST_WORDS:])
        # Where words have no blanks that is all of the sentence.
        last = last if count_words(last) <= MOST_SHORT_WORDS else last[-MOST_SHORT_WORDS:]
        for said in [*names_and_numbers(sentence)[1:], last]:
            reply = {"question": asked, "answer": said}
            if check_question(reply, parts) is None:
                return reply
    return reply


def pam_support(parts: Mapping[str, Any]) -> dict[str, Any]:
    """An answer stands in the passage, or six in ten content words of the question do."""
    passage, asked = parts["passage"], parts["question"]
    share = support(asked, passage)
    supports = has_answer(parts["answers"], passage) or share >= _SUPPORTED
    of = sentences(passage)
    evidence = of[sentence_for(f"{asked} {' '.join(parts['answers'])}", of)] if of else ""
    return {
        "analysis": f"The passage holds {share:.0%} of the question's words.",
        "supports": supports and bool(evidence),
        "evidence": evidence if supports else "",
    }


def pam_answer(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The sentence that holds an accepted answer; where it is too long, the answer alone."""
    of = [s for passage in parts["passages"] for s in sentences(passage)]
    found = next((s for s in of if has_answer(parts["answers"], s)), None)
    if found is None or count_words(found) > MOST_ANSWER_WORDS:
        return {"answer": parts["answers"][0]}
    return {"answer": found}


def film_fine(parts: Mapping[str, Any]) -> dict[str, Any]:
    """A question about the middle sentence of a piece, or the next that makes a sound one."""
    of = sentences(parts["segment"])
    middle = len(of) // 2
    for sentence in [*of[middle:], *of[:middle]]:
        reply = {"question": question(sentence, parts["lang"]), "answer": _beginning(sentence)}
        if check_fine(reply, parts) is None:
            return reply
    raise ValueError("no sentence of the piece makes a question")


def film_integration(parts: Mapping[str, Any]) -> dict[str, Any]:
    """A question about what two pieces tell: the first pair that needs both."""
    chosen = [(i, s) for i, piece in enumerate(parts["pieces"], start=1) for s in _middle(piece)]
    lang = parts["lang"]
    for (i, one), (k, other) in combinations(chosen, 2):
        about = f"{subject(one)}{_AND[lang]}{subject(other)}"
        reply = {
            "question": question(one, lang).replace(subject(one), about, 1),
            # In this order the two are never one run of the text.
            "answer": f"{_beginning(other)} {_beginning(one)}",
            "needed": [i, k],
        }
        if check_integration(reply, parts) is None:
            return reply
    raise ValueError("no two pieces make a question")


def _middle(piece: str) -> list[str]:
    of = sentences(piece)
    return of[len(of) // 2 :][:1]


def _beginning(sentence: str) -> str:
    """The first 20 words of a sentence; where words have no blanks, 20 characters."""
    words = " ".join(sentence.split()[:ANSWER_WORDS])
    return words if count_words(words) <= MOST_VERBATIM else words[:ANSWER_WORDS]


def film_verify(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing is known without the context."""
    return {"answer": "unknown", "confident": False}


def chatqa_summary(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The beginning of a document, as many whole sentences as a summary must have words."""
    return {"summary": answer(sentences(parts["document"]), 0, parts["least"])}


def chatqa_qa(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Questions about n evenly spaced sentences of the summary, no sentence twice."""
    of = sentences(parts["summary"])
    places = sorted(set(evenly(len(of), parts["n"])))
    lang = parts["lang"]
    return {"qas": [{"question": question(of[i], lang), "answer": answer(of, i)} for i in places]}
