"""What ChatQA2's rows ask a model where nobody wrote a summary, and what of its replies is kept.

The published rows (arXiv 2407.14482) have human summaries and questions; both stages are ours, for
other corpora: a summary of a document, and questions on the summary alone, so that one span of the
row is their evidence. Lost: summaries that share less than half of their words with the document.
"""

from collections.abc import Mapping
from typing import Any

from longctx.synth.checks import support
from longctx.synth.prompt import TEXT, Prompt, list_of, object_schema, prompt
from longctx.synth.words import count_words

SUMMARY_WORDS = (200, 900)
LEAST_SUMMARY_SUPPORT, LEAST_ANSWER_SUPPORT = 0.5, 0.6


def request_summary(document: str, lang: str, words: tuple[int, int] = SUMMARY_WORDS) -> Prompt:
    """Stage `chatqa.summary`: what a document tells, in so many words, fewest and most."""
    parts = {"document": document, "lang": lang, "least": words[0], "most": words[1]}
    return prompt("chatqa.summary", lang, parts, object_schema(summary=TEXT))


def check_summary(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`summary_length` outside the words that were asked for, `unsupported` by the document."""
    if not parts["least"] <= count_words(reply["summary"]) <= parts["most"]:
        return "summary_length"
    held = support(reply["summary"], parts["document"])
    return None if held >= LEAST_SUMMARY_SUPPORT else "unsupported"


def request_qa(summary: str, n: int, lang: str) -> Prompt:
    """Stage `chatqa.qa`: at most n questions on a summary, with their answers."""
    schema = object_schema(qas=list_of(object_schema(question=TEXT, answer=TEXT)))
    return prompt("chatqa.qa", lang, {"summary": summary, "n": n, "lang": lang}, schema)


def check_qa(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`question_count` for none or more than n, `empty_text`, `unsupported` by the summary."""
    qas = reply["qas"]
    if not 1 <= len(qas) <= parts["n"]:
        return "question_count"
    if not all(qa["question"].strip() and qa["answer"].strip() for qa in qas):
        return "empty_text"
    held = (support(qa["answer"], parts["summary"]) for qa in qas)
    return None if all(share >= LEAST_ANSWER_SUPPORT for share in held) else "unsupported"
