"""Units of LOGO: triples from the planted signal, each planted fault caught by the check for it."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from longctx.llm.types import Caps, GenRequest, GenResult
from longctx.prefer.asking import Asker
from longctx.prefer.logo_unit import (
    ANSWER,
    CLOSED,
    JUDGE,
    Case,
    Terms,
    checks_of,
    run,
    stages,
)
from longctx.synth.rows import Reject
from longctx.synth.rule_set import rule_set
from longctx.synth.tokens import token_counter
from tests.prefer.logo_documents import CHOICE, asked, planted

GOLD = "Port Velvet"
COUNTER = token_counter("whitespace")
Say = Callable[[GenRequest], str | None]


class Scripted:
    """Answers by the rules of the system, unless `say` has another word for it."""

    model_id = "scripted:test"
    caps = Caps(json_schema=True)

    def __init__(self, say: Say = lambda req: None) -> None:
        self.say = say
        self.asked: list[GenRequest] = []

    def generate(self, reqs: Sequence[GenRequest]) -> list[GenResult]:
        self.asked += reqs
        return [
            GenResult(
                request_id=r.request_id, key=r.row_id, text=self._text(r), finish_reason="stop"
            )
            for r in reqs
        ]

    def _text(self, req: GenRequest) -> str:
        said = self.say(req)
        return rule_set().rules[req.stage](req) if said is None else said

    def close(self) -> None:
        pass


def asker_of(model: Scripted) -> Asker:
    found = stages(answer_tokens=512, judge_tokens=512, temperature=0.7, top_p=0.95)
    return Asker({s.step: s for s in found}, model, model, frozenset({JUDGE}), 3)


def case_of(
    say: Say = lambda req: None, gold: str | None = GOLD, **fields: Any
) -> tuple[Case, Asker]:
    case = Case(asked(gold=gold), fields.pop("document", planted()))
    asker = asker_of(Scripted(say))
    run([case], asker, COUNTER, 3, Terms(choice=CHOICE, **fields))
    return case, asker


def said_of(side: str, text: str) -> Say:
    return lambda req: text if req.row_id.endswith(f"/{side}") else None


def test_the_planted_signal_becomes_a_triple() -> None:
    case, asker = case_of()
    assert case.reject is None
    assert GOLD in case.answers["chosen"]
    assert case.closed == "unknown"
    assert asker.requests == {ANSWER: 3, CLOSED: 1}
    assert checks_of(case.told()) == {
        "right_by_gold": True,
        "closed_book_wrong": True,
        "unlike": True,
    }
    assert json.loads(json.dumps(case.told())) == case.told()


def test_without_a_gold_a_judge_is_asked_twice() -> None:
    question = asked(gold=None)
    case, asker = case_of(gold=None)
    assert case.reject is None
    assert asker.requests == {ANSWER: 3, JUDGE: 2, CLOSED: 1}
    assert checks_of(case.told())["judged_twice"] is True
    model = asker.policy
    assert isinstance(model, Scripted)
    judged = [r for r in model.asked if r.stage == "logo.judge"]
    assert [r.temperature for r in judged] == [0.0, 0.0]
    assert {r.seed for r in judged} == {None}
    assert {r.parts["a"] for r in judged if r.parts} == {
        case.answers["chosen"],
        case.answers["rejected_2"],
    }
    assert {r.parts["question"] for r in judged if r.parts} == {question.text}


SOUND = "Keeper Zora walked along the pier and counted the grey boats in fog."


@pytest.mark.parametrize(
    ("side", "text", "code", "detail"),
    [
        ("rejected_1", f"It was {GOLD}.", "unverified_pair", "rejected_1 is right"),
        ("rejected_2", f"It was {GOLD}.", "unverified_pair", "rejected_2 is right"),
        ("chosen", SOUND, "unverified_pair", "the chosen answer is wrong"),
        ("chosen", f"I'm sorry, but I can't say whether it is {GOLD}, or is it so?", "refusal", ""),
        ("rejected_1", "No.", "length_ratio", "rejected_1: "),
        ("closed", f"It is {GOLD}.", "closed_book_solvable", ""),
    ],
)
def test_faults_are_caught_by_their_check(side: str, text: str, code: str, detail: str) -> None:
    case, _ = case_of(said_of(side, text))
    assert case.reject is not None
    assert case.reject.code == code
    assert detail in case.reject.detail


def test_a_rejected_answer_may_refuse() -> None:
    case, _ = case_of(
        said_of("rejected_1", "I cannot help with what the text leaves open, I fear.")
    )
    assert case.reject is None


def test_verdicts_that_follow_the_place_are_no_verdicts() -> None:
    first = {"analysis": "x", "a_correct": True, "b_correct": False, "c_correct": False}

    def always_first(req: GenRequest) -> str | None:
        return json.dumps({**first, "better": "A"}) if req.stage == "logo.judge" else None

    case, _ = case_of(always_first, gold=None)
    assert case.reject is not None
    assert case.reject.code == "unverified_pair"


def test_a_judge_without_a_verdict_loses_the_triple() -> None:
    case, asker = case_of(lambda req: "{" if req.stage == "logo.judge" else None, gold=None)
    assert case.reject is not None
    assert case.reject.code == "judge_failed"
    assert asker.counts[JUDGE].rejects == {"not_json": 2}


def test_chunks_that_are_alike_cost_no_call() -> None:
    case, asker = case_of(document=planted(tuple(range(43))))
    assert case.reject is not None
    assert case.reject.code == "low_score"
    assert sum(asker.requests.values()) == 0


def test_a_call_that_is_lost_loses_its_case_alone() -> None:
    cases = [Case(asked(f"d{i}"), planted()) for i in range(3)]
    asker = asker_of(Scripted(lambda req: "" if req.row_id == "d1/rejected_2" else None))
    run(cases, asker, COUNTER, 3, Terms(choice=CHOICE))
    assert [c.reject and c.reject.code for c in cases] == [None, "empty", None]
    assert cases[1].reject == Reject("empty", "rejected_2: the call came to nothing")
    count = asker.counts[ANSWER]
    assert (count.rows_in, count.ok, count.rejects) == (9, 8, {"empty": 1})
    assert [lost.row_id for lost in asker.lost] == ["d1/rejected_2"]


def test_without_the_closed_book_check_it_is_not_claimed() -> None:
    case, asker = case_of(closed_book=False)
    assert case.reject is None
    assert CLOSED not in asker.requests
    assert "closed_book_wrong" not in checks_of(case.told())
