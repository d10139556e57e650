"""LongReward between the calls: marks, pairs, checks of replies, passages; no engine, no model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.llm.client import Client
from longctx.llm.controls import Control
from longctx.llm.scripted import ScriptedBackend
from longctx.llm.spec import RuleSet
from longctx.prefer import longreward as lr
from longctx.prefer.asked import asked_of
from longctx.prefer.asking import Asker
from longctx.prefer.longreward import PairRules, Scored, build_pair
from longctx.prefer.longreward_controls import control
from longctx.prefer.longreward_unit import Candidate, Settings, judge_unit, mark_copies
from longctx.prefer.retrieval import hash_vectors, nearest
from longctx.prefer.stages_longreward import PreferLongReward, build_pair_of
from longctx.synth.items import Item
from longctx.synth.rows import Reject
from longctx.synth.rule_set import rule_set
from longctx.synth.tokens import TokenCounter

Told = dict[str, Any]
OP = PreferLongReward.model_validate(
    {"op": "prefer.longreward", "generator": {"backend": "scripted"}, "rows": 9}
)
SETTINGS = Settings(n=10, embed=hash_vectors)


def scored(*totals: float, faithful: Sequence[float] | None = None) -> list[Scored]:
    """Candidates with these totals; a mark above 10 stands for the sum of the other three."""
    marks = faithful or [8.0] * len(totals)
    return [
        Scored(i, t - f - 5, 0, f, 5, 10)
        for i, (t, f) in enumerate(zip(totals, marks, strict=True))
    ]


def pair(candidates: Sequence[Scored], **fields: Any) -> Any:
    found = build_pair(candidates, PairRules(**fields))
    return found.code if isinstance(found, Reject) else tuple(c.index for c in found)


def test_marks_of_the_worked_example() -> None:
    assert lr.faithfulness(["full", "full", "partial", "none"]) == 6.25
    marks = {"helpfulness": 8.0, "logicality": 9.0, "faithfulness": 6.25, "completeness": 7.0}
    found = lr.scores(marks)
    assert (found["total"], found["mean"]) == (30.25, 7.5625)
    assert lr.scores({**marks, "logicality": None})["total"] is None
    assert [lr.faithfulness([], e) for e in ("drop", "neutral", "zero")] == [None, 5.0, 0.0]


def test_pairs_of_the_worked_examples() -> None:
    assert pair(scored(30.25, 29, 29, 29, 28.5)) == "small_margin"
    totals, faithful = [33, 35, 35, 20, 21], [8, 8, 9, 8, 8]
    assert pair(scored(*totals, faithful=faithful)) == (2, 3)
    assert pair(scored(*totals)) == (1, 3)
    assert pair(scored(5, 5, 5, 5, 5)) == "tie"
    assert pair(scored(33, 35, 20, 21)) == "too_few_candidates"
    assert pair(scored(35, 20, 20, 20, 20, faithful=[7.9] * 5)) == "low_score"
    assert pair(scored(35, 20, 20, 20, 20), least_completeness=6) == "low_score"
    assert pair(scored(35, 30, 29, 20, 33), rejected="mu-2sigma") == (0, 3)


def test_of_equals_the_shorter_answer_is_chosen() -> None:
    long, short = Scored(0, 9, 9, 9, 9, 90), Scored(1, 9, 9, 9, 9, 30)
    others = [Scored(i, 1, 1, 1, 1, 30) for i in (2, 3, 4)]
    assert pair([long, short, *others]) == (1, 2)


@given(st.permutations(range(6)))
def test_the_order_of_candidates_decides_nothing(order: list[int]) -> None:
    candidates = scored(33, 35, 35, 20, 21, 20)
    assert pair([candidates[i] for i in order]) == (1, 3)


def test_checks_of_replies() -> None:
    asked = {"document": "Ann built the pier in 1901."}
    question = lr.check_question
    assert question({"question": "Who built the old pier?"}, asked) is None
    assert question({"question": "Who built the pier."}, asked) == "question_form"
    assert question({"question": "What will come next week?"}, asked) == "off_document"
    assert lr.check_notes({"relevant": False, "notes": []}, {}) is None
    assert lr.check_notes({"relevant": True, "notes": [" "]}, {}) == "notes_and_relevance"
    assert lr.check_notes({"relevant": False, "notes": ["a"]}, {}) == "notes_and_relevance"

    def statements(*listed: str) -> str | None:
        return lr.check_statements({"statements": list(listed)}, {"answer": asked["document"]})

    good = "Ann built the pier in 1901."
    assert statements() is statements(good) is statements(good, good, "") is None
    assert statements("Ann built the pier.") == "statement_length"
    assert statements(" ".join(["pier"] * 61)) == "statement_length"
    assert statements("Nothing here is of use.") == "foreign_statement"
    assert statements(*(f"Ann built the pier number {i}." for i in range(61))) == "statement_count"
    assert statements(*[good] * 61) is None


@pytest.mark.parametrize(
    ("level", "evidence", "problem"),
    [
        ("full", [1, 3], None),
        ("none", [], None),
        ("partial", [], "no_evidence"),
        ("full", [4], "evidence_out_of_range"),
        ("full", [0], "evidence_out_of_range"),
    ],
)
def test_support_needs_evidence_that_is_there(
    level: str, evidence: list[int], problem: str | None
) -> None:
    reply = {"analysis": "a", "level": level, "evidence": evidence}
    assert lr.check_support(reply, {"evidence": ["x", "y", "z"]}) == problem


def test_prompts_of_candidates_begin_alike_and_the_judge_is_told_the_language() -> None:
    notes = [("0% - 50%", ["Ann built it."]), ("50% - 100%", [])]
    one, other = (lr.request_completeness("Who?", a, notes, "ko") for a in ("Ann.", "Bob."))
    (first,), (second,) = one.messages, other.messages
    common = first["content"].index("Ann.\n")
    assert first["content"][:common] == second["content"][:common]
    assert "(0% - 50%) Ann built it." in first["content"][:common]
    assert "Korean" in first["content"]
    assert lr.language("ja") == "Japanese"
    (turn,) = lr.request_answer("The text.\n\nWhy?", "The text.", "Why?").messages
    assert turn == {"role": "user", "content": "The text.\n\nWhy?"}


def test_the_nearest_passages_come_in_the_order_of_the_text() -> None:
    chunks = ["Bob sold apples.", "Ann built the pier.", "Ann built the pier.", "The pier fell."]
    places = nearest(hash_vectors(["Ann built the pier."]), hash_vectors(chunks), 2)
    assert places == [[1, 2]]
    assert nearest(hash_vectors(["nothing"]), hash_vectors(chunks), 3) == [[0, 1, 2]]
    assert nearest(hash_vectors(["a b"]), np.zeros((0, 1)), 5) == [[]]
    found = hash_vectors(["pier pier fell", "", "부두가 무너졌다"])
    assert np.allclose(np.linalg.norm(found, axis=1), [1, 0, 1])
    assert max(found[0]) == pytest.approx(2 / 5**0.5)


def test_copies_are_scored_once() -> None:
    listed = [Candidate("p", i, text) for i, text in enumerate(["a", "b", None, "a", "a"])]
    mark_copies(listed)
    assert [c.same_as for c in listed] == [None, None, None, 0, 0]
    assert [c.status() for c in listed] == ["ok", "ok", "ok", "duplicate", "duplicate"]


def paragraphs(name: str, n: int = 40) -> list[str]:
    return [f"Keeper {name}{k} built the {name} pier {k} in a cold year." for k in range(n)]


def asker(rules: RuleSet | None = None, calls: Sequence[Any] = ()) -> Asker:
    known = rules or rule_set()
    client = Client(ScriptedBackend(known.rules, known.version))
    stages = {c.step: c for c in (*OP.judged_calls(), *OP.control_calls())}
    return Asker(stages, client, client, OP.judging, 0)


def item(name: str, answers: Sequence[str] = ()) -> Item:
    text = "\n\n".join(paragraphs(name))
    asked = {"question": {"question": f"What did keeper {name}3 build?"}}
    return Item(name, "en", "s", len(text.split()), text, asked)


def test_an_answer_copied_from_the_context_beats_one_of_another_document() -> None:
    one = item("alpha")
    foreign = " ".join(f"Sailors{k} sold omega{k} apples near Turin{k} today." for k in range(5))
    copied = " ".join(paragraphs("alpha")[:5])
    ready = {"alpha": {0: copied, 1: foreign}}
    settings = Settings(n=2, embed=hash_vectors, ready=ready)
    (found,) = judge_unit([one], asker(), TokenCounter(), settings).values()
    a, b = found["candidates"]
    assert [a["scores"]["faithfulness"], b["scores"]["faithfulness"]] == [10, 0]
    assert len(a["facts"]) == len(b["facts"]) == 5
    chunks = -(-one.n_tokens // 128)
    assert all(f["evidence"] and max(f["evidence"]) < chunks for f in a["facts"])
    assert all(f["evidence"] == [] for f in b["facts"])
    answers = {c["sample_index"]: c for c in found["candidates"]}
    pair = build_pair_of(answers, PairRules(2, 2.0, 8.0, 0.0), 0, "alpha")
    assert not isinstance(pair, Reject)
    assert [c.index for c in pair] == [0, 1]


def test_sampled_answers_are_ranked_as_they_were_planted_and_calls_have_a_closed_form() -> None:
    items = [item(name) for name in ("alpha", "beta", "gamma")]
    asking = asker()
    settings = Settings(n=10, embed=hash_vectors, notes_chunk=100)
    found = judge_unit(items, asking, TokenCounter(), settings)
    for one in items:
        told = found[one.id]
        totals = [c["scores"]["total"] for c in told["candidates"]]
        faithful = [c["scores"]["faithfulness"] for c in told["candidates"]]
        assert faithful[:7] == sorted(faithful[:7], reverse=True)
        assert faithful[0] == 10 > faithful[6] == 0
        assert max(totals) == totals[0]
        assert len(told["notes"]) == -(-one.n_tokens // 100)
    counts = {step: count.rows_in for step, count in asking.counts.items()}
    facts = [len(c["facts"]) for told in found.values() for c in told["candidates"]]
    chunks = sum(-(-one.n_tokens // 100) for one in items)
    judged = sum(n for step, n in counts.items() if step != "sample")
    assert judged == chunks + sum(4 + f for f in facts)
    assert counts["sample"] == 30
    assert asking.lost == []


def judged(items: Sequence[Item], asking: Asker) -> list[Item]:
    found = judge_unit(items, asking, TokenCounter(), SETTINGS)
    for one in items:
        assert isinstance(one.replies, dict)
        one.replies["judged"] = found[one.id]
    return list(items)


def controls(asking: Asker) -> dict[str, Control]:
    items = judged([item(name) for name in ("alpha", "beta", "gamma")], asking)
    return {c.name: c for c in control(items, asking, TokenCounter(), SETTINGS, "judged")}


def test_the_reader_passes_the_controls_of_a_judge() -> None:
    found = controls(asker())
    assert {n for n, c in found.items() if c.passed is False} <= {"length"}
    assert found["shuffled_context"].value == pytest.approx(10, abs=5)
    assert found["shuffled_context"].passed is True
    assert found["refusal"].n == 3
    assert found["stability"].value == 1


def bad_judge(**rules: str) -> RuleSet:
    usual = rule_set()
    said = {f"longreward.{step}": (lambda req, text=text: text) for step, text in rules.items()}
    return RuleSet("bad", {**usual.rules, **said})


def test_a_judge_that_always_says_five_fails_and_makes_no_pair() -> None:
    five = '{"analysis": "Fine.", "score": 5}'
    marks = dict.fromkeys(("helpfulness", "logicality", "completeness"), five)
    half = '{"analysis": "Half.", "level": "partial", "evidence": [1]}'
    asking = asker(bad_judge(**marks, support=half))
    found = controls(asking)
    failed = {n for n, c in found.items() if c.hard and not c.passed}
    assert failed == {f"constant:{name}" for name in lr.DIMENSIONS} | {"shuffled_context"}
    (told,) = judge_unit([item("delta")], asking, TokenCounter(), SETTINGS).values()
    answers = {c["sample_index"]: c for c in told["candidates"]}
    made = build_pair_of(answers, PairRules(), 0, "delta")
    assert isinstance(made, Reject)
    assert made.code == "tie"


def test_a_judge_that_does_not_look_at_passages_fails_beside_another_context() -> None:
    full = '{"analysis": "All of it.", "level": "full", "evidence": [1]}'
    found = controls(asker(bad_judge(support=full)))
    assert found["shuffled_context"].value == 0
    assert found["shuffled_context"].passed is False


def test_marks_that_are_missing_stay_missing() -> None:
    eleven = '{"analysis": "Splendid.", "score": 11}'
    asking = asker(bad_judge(logicality=eleven))
    (told,) = judge_unit([item("alpha")], asking, TokenCounter(), SETTINGS).values()
    assert {c["status"] for c in told["candidates"]} == {"logicality:schema"}
    assert {c["scores"]["total"] for c in told["candidates"]} == {None}
    assert asking.counts["logicality"].rejects == {"schema": 10}
    assert {lost.row_id for lost in asking.lost} == {f"alpha/{k}" for k in range(10)}
    asking = asker(bad_judge(notes='{"relevant": true, "notes": []}'))
    (told,) = judge_unit([item("alpha")], asking, TokenCounter(), SETTINGS).values()
    assert {n["status"] for n in told["notes"]} == {"semantic"}
    assert {c["status"] for c in told["candidates"]} == {"notes:judge_failed"}


def test_questions_are_asked_about_the_whole_context() -> None:
    asked = asked_of(item("alpha"))
    assert asked.whole.endswith("\n\nWhat did keeper alpha3 build?")
    assert asked.ref is not None
    assert asked.ref._asdict() == {
        "doc_id": "alpha",
        "start_char": 0,
        "end_char": len(asked.context),
    }
    assert asked.messages() == [{"role": "user", "content": asked.query}]


@pytest.mark.parametrize(("tokens", "calls"), [(8_192, 242), (32_768, 248), (65_536, 256)])
def test_the_plan_counts_the_calls_of_a_prompt(tokens: int, calls: int) -> None:
    fields = {"op": "prefer.longreward", "generator": {"backend": "scripted"}, "rows": 3}
    lengths = {"min_tokens": tokens, "max_tokens": tokens, "lang_share": {"en": 1}}
    planned = PreferLongReward.model_validate({**fields, **lengths}).model_calls(100)
    of = {told.stage.split(".")[1]: told.calls for told in planned}
    assert (of.pop("question"), of.pop("sample")) == (3, 30)
    assert of.pop("controls") == 3 * (20 + 3 + 10)
    assert sum(of.values()) == 3 * calls
