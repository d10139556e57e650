"""What IN2 training asks a model (arXiv 2404.16811), and what of its replies is kept.

A question on one piece, a question that needs several numbered pieces, and the same question
without any context, whose right and confident answer gives the row away. The published prompt ends
in free text without a mark where the answer begins: replies here are objects. Ours: support, the
phrases that are forbidden in Chinese and Korean, and the test that every named piece is needed.
Lost: answers that share fewer than six in ten content words with their pieces.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from longctx.synth.checks import answer_tokens, contains_answer, content_words, support
from longctx.synth.prompt import BOOL, INT, TEXT, Prompt, list_of, object_schema, prompt
from longctx.synth.words import count_words

LEAST_SUPPORT = 0.6
QUESTION_WORDS = (4, 60)
MOST_VERBATIM = 25

_REFERS = re.compile(
    r"\bthe (?:context|passage|text)\b|\bprovided context\b"
    r"|\b(?:according to|based on) (?:the|this|these) "
    r"(?:\w+ )?(?:context|passage|text|document|article|excerpt|paragraph|piece|segment)s?\b"
    r"|上下文|文中|本文|原文|上述|(?:根据|依据|按照)(?:这|该|以上|上面|所给|提供的)?(?:段|篇|份)?"
    r"(?:文章|文本|段落|材料|文档|资料|内容|片段)"
    r"|문맥|본문|지문|제공된|(?:이|위|위의|해당) ?(?:글|텍스트|문서|단락)(?:에|을|의)"
    r"|(?:텍스트|문서|글)에 (?:따르면|의하면)",
    re.IGNORECASE,
)


def request_fine(segment: str, lang: str) -> Prompt:
    """Stage `film.fine`: a question that only this piece answers, and its answer."""
    parts = {"segment": segment, "lang": lang}
    return prompt("film.fine", lang, parts, object_schema(question=TEXT, answer=TEXT))


def check_fine(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`question_form`, `refers_to_context`, `unsupported` or `verbatim`."""
    return _check(reply["question"], reply["answer"], parts["segment"])


def question_problem(question: str) -> str | None:
    """`question_form` (4 to 60 words, a question mark at the end) or `refers_to_context`."""
    least, most = QUESTION_WORDS
    ends = question.strip().endswith(("?", "？"))
    if not ends or not least <= count_words(question) <= most:
        return "question_form"
    return "refers_to_context" if _REFERS.search(question) else None


def _check(question: str, answer: str, evidence: str) -> str | None:
    if problem := question_problem(question):
        return problem
    if _REFERS.search(answer):
        return "refers_to_context"
    if support(answer, evidence) < LEAST_SUPPORT:
        return "unsupported"
    return "verbatim" if _is_copied(answer, evidence) else None


def _is_copied(answer: str, evidence: str) -> bool:
    """Whether an answer is one run of more than 25 words of its evidence."""
    if count_words(answer) <= MOST_VERBATIM:
        return False
    words = answer_tokens(answer)
    return f" {' '.join(words)} " in f" {' '.join(answer_tokens(evidence))} "


def request_integration(pieces: Sequence[str], lang: str) -> Prompt:
    """Stage `film.integration`: a question that needs several pieces, and which."""
    numbered = "\n\n".join(f"[{i}] {piece}" for i, piece in enumerate(pieces, start=1))
    schema = object_schema(question=TEXT, answer=TEXT, needed=list_of(INT))
    parts = {"pieces": list(pieces), "lang": lang}
    return prompt("film.integration", lang, parts, schema, shown={"pieces": numbered})


def check_integration(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """As `check_fine` on the needed pieces; `needed_out_of_range`, `piece_not_needed`.

    At least two different numbers. A piece is needed where it has a content word of question or
    answer that no other needed piece has.
    """
    pieces, needed = parts["pieces"], sorted(set(reply["needed"]))
    if len(needed) < 2 or not 1 <= needed[0] <= needed[-1] <= len(pieces):
        return "needed_out_of_range"
    used = [pieces[i - 1] for i in needed]
    if problem := _check(reply["question"], reply["answer"], "\n".join(used)):
        return problem
    wanted = content_words(reply["question"]) | content_words(reply["answer"])
    held = [wanted & content_words(piece) for piece in used]
    for i, own in enumerate(held):
        if not own.difference(*held[:i], *held[i + 1 :]):
            return "piece_not_needed"
    return None


def request_verify(question: str, answer: str, lang: str) -> Prompt:
    """Stage `film.verify`: the question without any context. The answer is not shown."""
    parts = {"question": question, "answer": answer, "lang": lang}
    return prompt("film.verify", lang, parts, object_schema(answer=TEXT, confident=BOOL))


def check_verify(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`closed_book_solvable` (a code of its own) for a confident answer that is right.

    Right is one that holds the stored answer, or six in ten of its content words.
    """
    said, wanted = reply["answer"], parts["answer"]
    is_right = contains_answer(wanted, said) or support(wanted, said) >= LEAST_SUPPORT
    return "closed_book_solvable" if reply["confident"] and is_right else None
