"""What LOGO asks a model, and when three answers make a triple: right, wrong, wrong.

The paper (arXiv 2410.18533) takes whatever the contexts bring; its released code has a step that
judges answers, switched off. Here nothing becomes a row unverified. With a right answer at hand
(gold): the preferred answer holds it, or shares half of its words (token F1, as in SQuAD, arXiv
1606.05250), and the others do not. Without: a judge says which are right, twice with the answers in
another order, and both verdicts must agree. Asked without any text the model must be wrong, or the
context taught nothing. Linear in the answers. Lost: right answers in other words than the gold's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from longctx.prefer.pairs import similarity
from longctx.synth.checks import HAN_OR_KANA, contains_answer, norm_answer, support
from longctx.synth.prompt import BOOL, TEXT, Prompt, object_schema, prompt
from longctx.synth.rows import Reject
from longctx.synth.words import count_words

SIDES = ("chosen", "rejected_1", "rejected_2")
LEAST_F1 = 0.5
ALIKE = 0.9
LEAST_SUPPORT = 0.6
QUESTION_WORDS, ANSWER_WORDS = (3, 60), (1, 40)
# The orders in which answers are shown to the judge.
ORDERS = (SIDES, SIDES[::-1])
MIXED = (SIDES[1], SIDES[0], SIDES[2])  # the order of the control
_LABELS = ("a", "b", "c")
_BETTER = ("A", "B", "C", "tie")
_PACKAGE = "longctx.prefer"


class Verdict(NamedTuple):
    """What a judge says: which answers are right, and the best one ("tie" for none)."""

    right: dict[str, bool]
    better: str


def request_question(document: str, lang: str) -> Prompt:
    """Stage `logo.question`: one question on a document, with its answer."""
    parts = {"document": document, "lang": lang}
    schema = object_schema(question=TEXT, answer=TEXT)
    return prompt("logo.question", lang, parts, schema, package=_PACKAGE)


def check_question(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`question_form`, `answer_length`, `unsupported`, or `answer_in_question`."""
    question, answer = reply["question"].strip(), reply["answer"].strip()
    ends = question.endswith(("?", "？"))
    if not ends or not _is_within(question, QUESTION_WORDS):
        return "question_form"
    if not _is_within(answer, ANSWER_WORDS):
        return "answer_length"
    if support(answer, parts["document"]) < LEAST_SUPPORT:
        return "unsupported"
    return "answer_in_question" if contains_answer(answer, question) else None


def _is_within(text: str, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= count_words(text) <= bounds[1]


def request_answer(text: str, question: str, lang: str) -> Prompt:
    """Stage `logo.answer`: a question answered from chunks; the reply is plain text."""
    parts = {"text": text, "question": question, "lang": lang}
    return prompt("logo.answer", lang, parts, package=_PACKAGE)


def request_closed(question: str, lang: str) -> Prompt:
    """Stage `logo.closed`: the question alone."""
    parts = {"text": "", "question": question, "lang": lang}
    return prompt("logo.closed", lang, parts, package=_PACKAGE)


def check_text(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """Every text is an answer; what it is worth is seen beside the others."""
    return None


def request_judge(
    text: str, question: str, answers: Mapping[str, str], order: Sequence[str], lang: str
) -> Prompt:
    """Stage `logo.judge`: which of three answers are right; `order` names the sides as shown."""
    shown = {label: answers[side] for label, side in zip(_LABELS, order, strict=True)}
    parts = {"text": text, "question": question, **shown, "lang": lang}
    better = {"type": "string", "enum": list(_BETTER)}
    right = {f"{label}_correct": BOOL for label in _LABELS}
    schema = object_schema(analysis=TEXT, **right, better=better)
    return prompt("logo.judge", lang, parts, schema, package=_PACKAGE)


def check_judge(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`better_is_wrong` where the best answer is said to be wrong while another is right."""
    said = {label: reply[f"{label}_correct"] for label in _LABELS}
    best = reply["better"].lower()
    return "better_is_wrong" if best in said and any(said.values()) and not said[best] else None


def verdict_of(reply: Mapping[str, Any], order: Sequence[str]) -> Verdict:
    """A judge's reply in the names of the sides."""
    sides = dict(zip(_LABELS, order, strict=True))
    right = {side: bool(reply[f"{label}_correct"]) for label, side in sides.items()}
    return Verdict(right, sides.get(reply["better"].lower(), "tie"))


def answer_words(text: str) -> list[str]:
    """Words of `norm_answer`; every character of Han and kana for itself."""
    return HAN_OR_KANA.sub(lambda char: f" {char[0]} ", norm_answer(text)).split()


def token_f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall of an answer's words; 0 where nothing is shared."""
    said, wanted = Counter(answer_words(answer)), Counter(answer_words(gold))
    shared = (said & wanted).total()
    return 2 * shared / (said.total() + wanted.total()) if shared else 0.0


def is_right(gold: str, answer: str, least_f1: float = LEAST_F1) -> bool:
    """Whether an answer holds the gold, or has enough of its words."""
    return contains_answer(gold, answer) or token_f1(answer, gold) >= least_f1


def likeness_problem(answers: Mapping[str, str]) -> Reject | None:
    """`unverified_pair` where a rejected answer says what the chosen one says."""
    for side in SIDES[1:]:
        if (share := similarity(answers["chosen"], answers[side])) >= ALIKE:
            said = f"similarity of chosen and {side} is {share:.3f}, wanted below {ALIKE}"
            return Reject("unverified_pair", said)
    return None


def gold_problem(
    answers: Mapping[str, str], gold: str, least_f1: float = LEAST_F1
) -> Reject | None:
    """`unverified_pair` unless the chosen answer is right and both rejected ones are wrong."""
    found = {side: is_right(gold, answers[side], least_f1) for side in SIDES}
    return _unverified(found)


def verdict_problem(verdicts: Sequence[Verdict | None]) -> Reject | None:
    """The same by a judge: both verdicts are to say so, and that the chosen answer is best."""
    for verdict in verdicts:
        if verdict is None:
            return Reject("judge_failed", "a verdict is missing")
        if problem := _unverified(verdict.right):
            return problem
        if verdict.better != "chosen":
            return Reject("unverified_pair", f"the judge's best answer is {verdict.better}")
    return None


def _unverified(right: Mapping[str, bool]) -> Reject | None:
    if not right["chosen"]:
        return Reject("unverified_pair", "the chosen answer is wrong")
    wrong = next((side for side in SIDES[1:] if right[side]), None)
    return Reject("unverified_pair", f"{wrong} is right") if wrong else None


def closed_problem(
    closed: str, gold: str | None, chosen: str, least_f1: float = LEAST_F1
) -> Reject | None:
    """`closed_book_solvable` where the model is right without a text.

    Without a gold, right is what the chosen answer says, which a judge has found to be so.
    """
    if is_right(gold or chosen, closed, least_f1):
        return Reject("closed_book_solvable", "the question is answered without the text")
    return None
