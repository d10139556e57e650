"""What LongMIT asks a model, and what of its replies is kept.

Seven stages of MIMG (arXiv 2409.01893): questions of a chunk, unresolved references, the answer on
the chunk, its shortest form, two questions merged into one, a judge's marks, and whether every clue
is needed. Question and answer are asked for apart, and merging sees no documents, as the paper
found best. Ours: the names of the judge's criteria (the verifier was not released), replies as
JSON, and lexical checks of facts. The reference let a model answer from its own knowledge and
swapped question and chunk; here an answer that the chunk does not support is dropped. Lost:
faithful paraphrases; facts in words, in languages without capitals.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from longctx.synth.checks import (
    contains_answer,
    content_words,
    facts_kept,
    key_facts,
    norm_answer,
    support,
)
from longctx.synth.longmit import CRITERIA, LEAST_QUALITY, SingleQA, quality_score
from longctx.synth.prompt import BOOL, INT, TEXT, Prompt, list_of, object_schema, prompt
from longctx.synth.words import count_words

PROMPT_VERSION = "longmit-1"
MOST_QUESTIONS = 3
LEAST_SUPPORT = 0.6
MOST_SHORT_WORDS = 20
MOST_JOINED = 0.9
_JOINS = (" and ", "并且", "以及", "그리고")
_VERDICTS = frozenset({"yes", "no", "是", "否", "不是", "예", "네", "아니요", "아니오"})


def request_extract(chunk: str, lang: str) -> Prompt:
    """Stage `mit.extract`: at most three questions that a chunk answers."""
    schema = object_schema(questions=list_of(TEXT))
    return prompt("mit.extract", lang, {"chunk": chunk, "lang": lang}, schema)


def check_extract(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`question_count` above three, `question_form` without a question mark at the end."""
    questions = [q.strip() for q in reply["questions"]]
    if len(questions) > MOST_QUESTIONS:
        return "question_count"
    return None if all(q.endswith(("?", "？")) for q in questions) else "question_form"


def request_reference(question: str, lang: str) -> Prompt:
    """Stage `mit.reference`: whether a question points at something outside itself."""
    schema = object_schema(span=TEXT, has_reference=BOOL)
    return prompt("mit.reference", lang, {"question": question, "lang": lang}, schema)


def check_reference(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`unresolved_reference`, or `span_not_found` where the words are not the question's."""
    if not reply["has_reference"]:
        return None
    span = reply["span"].strip()
    return "unresolved_reference" if span and span in parts["question"] else "span_not_found"


def request_answer(question: str, chunk: str, lang: str) -> Prompt:
    """Stage `mit.answer`: the answer to a question, on its chunk alone."""
    parts = {"question": question, "chunk": chunk, "lang": lang}
    return prompt("mit.answer", lang, parts, object_schema(answer=TEXT, found=BOOL))


def check_answer(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`not_in_chunk`, or `unsupported` by the chunk."""
    if not reply["found"]:
        return "not_in_chunk"
    return None if support(reply["answer"], parts["chunk"]) >= LEAST_SUPPORT else "unsupported"


def request_simplify(question: str, answer: str, lang: str) -> Prompt:
    """Stage `mit.simplify`: the shortest form of an answer."""
    parts = {"question": question, "answer": answer, "lang": lang}
    return prompt("mit.simplify", lang, parts, object_schema(short=TEXT))


def check_simplify(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`short_length` (1 to 20 words), `fact_added` for a fact that the long answer has not."""
    short = reply["short"].strip()
    if not 1 <= count_words(short) <= MOST_SHORT_WORDS:
        return "short_length"
    kept = norm_answer(short) in _VERDICTS or facts_kept([short], parts["answer"])
    return None if kept else "fact_added"


def request_merge(
    question_1: str,
    answer_1: str,
    question_2: str,
    answer_2: str,
    shorts: Sequence[str],
    lang: str,
) -> Prompt:
    """Stage `mit.merge`: one question out of two; `shorts` are all short answers used so far."""
    parts = {
        "question_1": question_1,
        "answer_1": answer_1,
        "question_2": question_2,
        "answer_2": answer_2,
        "shorts": list(shorts),
        "lang": lang,
    }
    schema = object_schema(question=TEXT, reasoning=TEXT, answer=TEXT)
    return prompt("mit.merge", lang, parts, schema)


def check_merge(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`empty_field`, `fact_lost`, `joined_by_and` or `leaks_answer`.

    Joined is a question with "and" that has more than nine tenths of both questions' content words.
    """
    question, shorts = reply["question"], parts["shorts"]
    if not all(reply[name].strip() for name in ("question", "reasoning", "answer")):
        return "empty_field"
    if not facts_kept(shorts, f"{reply['answer']} {reply['reasoning']}"):
        return "fact_lost"
    both = content_words(f"{parts['question_1']} {parts['question_2']}")
    held = len(both & content_words(question)) / len(both) if both else 0.0
    if held > MOST_JOINED and any(join in question.lower() for join in _JOINS):
        return "joined_by_and"
    return "leaks_answer" if any(contains_answer(short, question) for short in shorts) else None


def request_verify(
    question: str, answer: str, reasoning: str, singles: Sequence[SingleQA], lang: str
) -> Prompt:
    """Stage `mit.verify`: marks of a merged question beside the single ones it came from."""
    parts = {
        "question": question,
        "answer": answer,
        "reasoning": reasoning,
        "singles": [tuple(single) for single in singles],
        "lang": lang,
    }
    lines = [f"{k}. {single.question} — {single.answer}" for k, single in enumerate(singles, 1)]
    marks = dict.fromkeys(CRITERIA, INT)
    schema = object_schema(rationale=TEXT, **marks, multihop=BOOL)
    return prompt("mit.verify", lang, parts, schema, shown={"singles": "\n".join(lines)})


def check_verify(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`mark_range`; codes of their own: `low_score` (mean up to 8.5) and `not_multihop`."""
    if not all(0 <= reply[name] <= 10 for name in CRITERIA):
        return "mark_range"
    if quality_score(reply) <= LEAST_QUALITY:
        return "low_score"
    return None if reply["multihop"] else "not_multihop"


def request_necessity(question: str, short: str, texts: Sequence[str], lang: str) -> Prompt:
    """Stage `mit.necessity`: whether a question can be answered without one clue.

    `texts` are those of the other clues; `short`, the answer of the one left out, is not sent.
    """
    parts = {"question": question, "short": short, "texts": list(texts), "lang": lang}
    schema = object_schema(answer=TEXT, answerable=BOOL)
    return prompt("mit.necessity", lang, parts, schema, shown={"texts": "\n\n".join(texts)})


def check_necessity(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`clue_not_needed` where the question can be answered without the clue."""
    return "clue_not_needed" if reply["answerable"] else None


def is_needed(short: str, others: Sequence[str]) -> bool | None:
    """Necessity without a model: whether the short answer's facts are missing from other clues.

    Facts are its key facts, or else its content words. None for an answer that has neither, like
    "yes": of that nothing can be said.
    """
    if norm_answer(short) in _VERDICTS:
        return None
    rest = " ".join(others)
    if key_facts(short):
        return not facts_kept([short], rest)
    words = content_words(short)
    return not words <= content_words(rest) if words else None
