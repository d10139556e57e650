"""What PAM QA asks a model (arXiv 2311.09198), and what of its replies is kept.

Three stages, all optional: a question on a passage with its short answer, where there is no table
of questions; whether a passage allows an answer, where answers are no extracts (yes, no, one
letter); and an answer in sentences instead of the bare accepted one. Ours: the paper has none of
them. Lost: a judge that quotes with other words than the passage's is not believed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from longctx.synth.checks import has_answer
from longctx.synth.film_calls import question_problem
from longctx.synth.pamqa_rows import can_be_found
from longctx.synth.prompt import BOOL, TEXT, Prompt, object_schema, prompt
from longctx.synth.words import count_words

MOST_ANSWER_WORDS = 80
MOST_SHORT_WORDS = 10


def request_question(passage: str, lang: str) -> Prompt:
    """Stage `pam.question`: a question that this passage alone answers, and its words that do."""
    parts = {"passage": passage, "lang": lang}
    return prompt("pam.question", lang, parts, object_schema(question=TEXT, answer=TEXT))


def check_question(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`question_form`, `refers_to_context`, `answer_length` (1 to 10 words), `not_extractive`.

    `answer_given` where the question holds its own answer.
    """
    question, answer = reply["question"], reply["answer"]
    if problem := question_problem(question):
        return problem
    if not can_be_found(answer) or count_words(answer) > MOST_SHORT_WORDS:
        return "answer_length"
    if not has_answer([answer], parts["passage"]):
        return "not_extractive"
    return "answer_given" if has_answer([answer], question) else None


def request_support(question: str, answers: Sequence[str], passage: str, lang: str) -> Prompt:
    """Stage `pam.support`: whether a passage allows one of the answers, with a quotation.

    Asked of golds, which must, and of negatives, which must not.
    """
    parts = {"question": question, "answers": list(answers), "passage": passage, "lang": lang}
    schema = object_schema(analysis=TEXT, supports=BOOL, evidence=TEXT)
    return prompt("pam.support", lang, parts, schema, shown={"answers": "; ".join(answers)})


def check_support(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`evidence_not_found` where what supports is no quotation from the passage."""
    evidence = reply["evidence"].strip()
    quoted = bool(evidence) and evidence in parts["passage"]
    return "evidence_not_found" if reply["supports"] and not quoted else None


def request_answer(
    question: str, passages: Sequence[str], short: Sequence[str], lang: str
) -> Prompt:
    """Stage `pam.answer`: one or two sentences that answer, from the golds alone."""
    parts = {
        "question": question,
        "passages": list(passages),
        "answers": list(short),
        "lang": lang,
    }
    shown = {"passages": "\n\n".join(passages), "answers": "; ".join(short)}
    return prompt("pam.answer", lang, parts, object_schema(answer=TEXT), shown=shown)


def check_answer(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`answer_lost` without an accepted answer, `answer_length` above 80 words."""
    if not has_answer(parts["answers"], reply["answer"]):
        return "answer_lost"
    return "answer_length" if count_words(reply["answer"]) > MOST_ANSWER_WORDS else None
