"""A unit of LOGO: the calls of many questions, stage by stage, until each is a triple or a reject.

Three answers from three sets of chunks; where no right answer is known, two verdicts on what they
say; then the question without any text, for triples that are sound so far. Every stage asks for all
questions of the unit at once. Calls for a question: 4 with a gold, 6 without, and none where its
document has no chunks that can be told apart. Source and changes: `logo`, `logo_calls`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from longctx.llm import controls
from longctx.llm.ask import CallStage, Ok
from longctx.llm.controls import Control
from longctx.llm.rejects import Reject as LostCall
from longctx.prefer import logo
from longctx.prefer.asking import Asker, Call
from longctx.prefer.logo_calls import (
    LEAST_F1,
    MIXED,
    ORDERS,
    SIDES,
    Verdict,
    check_judge,
    check_text,
    closed_problem,
    gold_problem,
    likeness_problem,
    request_answer,
    request_closed,
    request_judge,
    verdict_of,
    verdict_problem,
)
from longctx.prefer.logo_rows import Choice, Plan, Question, Scorer, pair_problem, plan
from longctx.prefer.pairs import LENGTH_RATIO, Side
from longctx.synth.rows import Reject
from longctx.synth.tokens import TokenCounter

ANSWER, JUDGE, CLOSED = "answer", "judge", "closed"
JUDGE_WORDS = {"better_is_wrong": "The best answer cannot be one that is not correct."}
Told = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a triple has to be; the fields of the op."""

    choice: Choice = field(default_factory=Choice)
    least_f1: float = LEAST_F1
    closed_book: bool = True
    max_ratio: float = LENGTH_RATIO


@dataclass
class Case:
    """A question on its way: what is known of it so far, or why it came to nothing."""

    question: Question
    document: str
    plan: Plan | None = None
    answers: dict[str, str] = field(default_factory=dict)
    verdicts: list[Verdict | None] = field(default_factory=list)
    closed: str | None = None
    reject: Reject | None = None

    def told(self) -> Told:
        """What is kept of a sound triple, as plain JSON values."""
        return {
            "answers": self.answers,
            "verdicts": [v._asdict() for v in self.verdicts if v is not None],
            "closed": self.closed,
        }


def stages(
    *, answer_tokens: int, judge_tokens: int, temperature: float, top_p: float
) -> tuple[CallStage, ...]:
    """The stages of a unit. What is rejected may refuse; a judge answers at temperature 0."""

    def stage(step: str, check: Callable[..., Any], tokens: int, **more: Any) -> CallStage:
        name = f"{logo.SYSTEM}.{step}"
        return CallStage(system=logo.SYSTEM, name=name, check=check, max_tokens=tokens, **more)

    return (
        stage(
            ANSWER,
            check_text,
            answer_tokens,
            temperature=temperature,
            top_p=top_p,
            refusals=False,
        ),
        stage(JUDGE, check_judge, judge_tokens, words=JUDGE_WORDS),
        stage(CLOSED, check_text, answer_tokens, refusals=False),
    )


def run(
    cases: Sequence[Case],
    asker: Asker,
    counter: TokenCounter,
    seed: int,
    terms: Terms,
    scorer: Scorer = logo.score_terms,
) -> None:
    """Bring every case to its end, in place: all that is asked, or a reject."""
    for case in cases:
        found = plan(case.question, case.document, counter, seed, terms.choice, scorer)
        if isinstance(found, Reject):
            case.reject = found
        else:
            case.plan = found
    _answer(_open(cases), asker, terms)
    if unknown := [case for case in _open(cases) if case.question.gold is None]:
        _judge(unknown, asker)
    if terms.closed_book:
        _closed(_open(cases), asker, terms)


def _open(cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if case.reject is None]


def _answer(cases: Sequence[Case], asker: Asker, terms: Terms) -> None:
    """The three answers, and what can be said of them without another call."""
    calls = [
        Call(
            case.question.id,
            f"{case.question.id}/{side}",
            partial(_prompt_of_side, case, side),
        )
        for case in cases
        for side in SIDES
    ]
    found = iter(asker.ask(ANSWER, calls))
    for case in cases:
        for side in SIDES:
            said = next(found)
            if isinstance(said, Ok):
                case.answers[side] = said.value["text"].strip()
            else:
                case.reject = case.reject or _lost(said, side)
        if case.reject is None:
            case.reject = _problem(case, terms)


def _prompt_of_side(case: Case, side: str) -> Any:
    assert case.plan is not None
    text = case.plan.text(case.document, side)
    return request_answer(text, case.question.text, case.question.lang)


def _problem(case: Case, terms: Terms) -> Reject | None:
    gold = case.question.gold
    sides = {side: Side(text=text) for side, text in case.answers.items()}
    right = gold_problem(case.answers, gold, terms.least_f1) if gold else None
    likeness = right or likeness_problem(case.answers)
    return likeness or pair_problem(sides, gold, terms.max_ratio)


def _judge(cases: Sequence[Case], asker: Asker) -> None:
    """Two verdicts on answers to questions without a gold, in two orders."""
    calls = [
        Call(
            case.question.id,
            f"{case.question.id}/verdict/{k}",
            partial(prompt_of_judge, case, order),
        )
        for case in cases
        for k, order in enumerate(ORDERS)
    ]
    found = iter(asker.ask(JUDGE, calls))
    for case in cases:
        case.verdicts = [_verdict(next(found), order) for order in ORDERS]
        case.reject = verdict_problem(case.verdicts)


def _verdict(said: Ok | LostCall, order: Sequence[str]) -> Verdict | None:
    return verdict_of(said.value, order) if isinstance(said, Ok) else None


def prompt_of_judge(case: Case, order: Sequence[str], context: str | None = None) -> Any:
    """What a judge is asked of a case; `context` is another text than the one it belongs to."""
    assert case.plan is not None
    text = case.plan.text(case.document, "chosen") if context is None else context
    return request_judge(text, case.question.text, case.answers, order, case.question.lang)


def _closed(cases: Sequence[Case], asker: Asker, terms: Terms) -> None:
    calls = [
        Call(
            case.question.id,
            f"{case.question.id}/closed",
            partial(request_closed, case.question.text, case.question.lang),
        )
        for case in cases
    ]
    for case, said in zip(cases, asker.ask(CLOSED, calls), strict=True):
        if isinstance(said, Ok):
            case.closed = said.value["text"].strip()
            gold, chosen = case.question.gold, case.answers["chosen"]
            case.reject = closed_problem(case.closed, gold, chosen, terms.least_f1)
        else:
            case.reject = _lost(said, CLOSED)


def _lost(call: LostCall, what: str) -> Reject:
    return Reject(call.code, f"{what}: {call.detail or 'the call came to nothing'}")


def judge_controls(
    cases: Sequence[Case], verdicts: Sequence[Mapping[str, Any]], asker: Asker
) -> list[Control]:
    """What a sound judge cannot fail, on triples that it has let pass, and their first verdicts.

    Its marks differ; beside the text of another case the chosen answer is wrong (10 or 0); with the
    answers in a third order the best one is the same.
    """
    texts = [case.plan.text(case.document, "chosen") for case in cases if case.plan]
    others = [*texts[1:], *texts[:1]] if len(texts) > 1 else []
    marks = [[float(right) for right in v["right"].values()] for v in verdicts]
    beside = _again(cases[: len(others)], "shuffled", ORDERS[0], others, asker)
    fallen = [None if v is None else 10.0 * v.right["chosen"] for v in beside]
    turned = _again(cases, "order", MIXED, texts, asker)
    pairs = [(v["better"], t and t.better) for v, t in zip(verdicts, turned, strict=True)]
    return [
        *controls.constant_judge({"right": marks}),
        controls.shuffled_context([10.0] * len(fallen), fallen),
        controls.order(pairs),
    ]


def _again(
    cases: Sequence[Case], name: str, order: Sequence[str], texts: Sequence[str], asker: Asker
) -> list[Verdict | None]:
    """Further verdicts on answers, each beside a text."""
    calls = [
        Call(
            case.question.id,
            f"{case.question.id}/control/{name}",
            partial(prompt_of_judge, case, order, text),
        )
        for case, text in zip(cases, texts, strict=True)
    ]
    return [_verdict(said, order) for said in asker.ask(JUDGE, calls)] if calls else []


def checks_of(told: Mapping[str, Any]) -> dict[str, bool]:
    """The checks that a kept triple has passed, by name."""
    verified = {"judged_twice": True} if told["verdicts"] else {"right_by_gold": True}
    closed = {} if told["closed"] is None else {"closed_book_wrong": True}
    return {**verified, **closed, "unlike": True}
