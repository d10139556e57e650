"""LOGO between the calls: chunks told apart, contexts of three answers, what makes a triple."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.errors import RunError
from longctx.prefer import logo
from longctx.prefer.logo import (
    Selection,
    chunk_spans,
    joined,
    query_of,
    role_of,
    score_entities,
    score_terms,
    select_chunks,
    threshold,
)
from longctx.prefer.logo_calls import (
    ORDERS,
    SIDES,
    Verdict,
    check_judge,
    check_question,
    closed_problem,
    gold_problem,
    is_right,
    likeness_problem,
    request_answer,
    request_closed,
    request_judge,
    request_question,
    token_f1,
    verdict_of,
    verdict_problem,
)
from longctx.prefer.logo_entities import entities_of, spacy_entities
from longctx.synth.rows import Reject
from longctx.synth.tokens import token_counter

COUNTER = token_counter("whitespace")
SPEC = [1, 6, 4, 0, 0, 2, 1, 0]
SCORES = st.lists(st.integers(0, 12), min_size=1, max_size=60)


def selected(scores: list[int], seed: int = 0, **fields: Any) -> Selection | Reject:
    return select_chunks(scores, rng=np.random.default_rng(seed), **fields)


def test_the_worked_example() -> None:
    assert threshold(SPEC) == 2.5
    found = selected(SPEC)
    assert isinstance(found, Selection)
    assert found.relevant == [1, 2]
    assert found.gap == pytest.approx(4.3333, abs=1e-4)
    assert found.context == list(range(8))
    assert len(found.rejected_1) == len(found.rejected_2) == 2
    assert 2 in found.rejected_2  # the weaker half of the relevant ones
    assert not {1, 2} & set(found.rejected_1)
    assert [SPEC[i] for i in found.rejected_1] == [0, 0]


def test_a_fixed_threshold_is_that_of_the_paper() -> None:
    assert isinstance(selected(SPEC, delta=6), Reject)
    found = selected([9, 8, 6, 7, 1, 0, 0, 0, 0], delta=6)
    assert isinstance(found, Selection)
    assert found.relevant == [0, 1, 3]
    assert role_of(2, found) == "other"  # equal to the threshold: neither


@pytest.mark.parametrize(
    ("scores", "detail"),
    [
        ([5, 0, 0, 0, 0], "1 chunks score above"),
        ([5] * 6, "0 chunks score above"),
        ([2, 2, 1, 1, 1, 1, 1, 1, 1], "relevant chunks score 1.00 more"),
    ],
)
def test_documents_whose_chunks_are_alike_are_rejected(scores: list[int], detail: str) -> None:
    found = selected(scores, delta=1.5 if scores[0] == 2 else "auto")
    assert isinstance(found, Reject)
    assert found.code == "low_score"
    assert detail in found.detail


def test_too_few_irrelevant_chunks_are_rejected() -> None:
    found = selected([9, 9, 9, 0], delta=3)
    assert found == Reject("low_score", "1 irrelevant chunks, 3 are needed")


@given(SCORES, st.integers(4, 20), st.integers(0, 99))
def test_contexts_of_any_scores(scores: list[int], N: int, seed: int) -> None:
    found = selected(scores, seed, N=N, min_gap=0)
    if isinstance(found, Reject):
        assert found.code == "low_score"
        return
    relevant, n = set(found.relevant), len(found.relevant)
    assert 2 <= n <= N // 2
    assert n == len(set(found.rejected_1)) == len(set(found.rejected_2))
    assert relevant <= set(found.context)
    assert len(found.context) == min(N, len(scores)) == len(set(found.context))
    irrelevant = {i for i, s in enumerate(scores) if s < found.delta}
    assert set(found.rejected_1) <= irrelevant
    assert len(relevant & set(found.rejected_2)) == n // 2
    assert set(found.rejected_2) - relevant <= irrelevant
    assert set(found.rejected_2) <= set(found.context)
    for places in found[:4]:
        assert places == sorted(places)
    assert min(scores[i] for i in relevant) > found.delta
    kept = [scores[i] for i in set(found.rejected_2) & relevant]
    assert max(kept) <= min(scores[i] for i in relevant - set(found.rejected_2))
    assert selected(scores, seed, N=N, min_gap=0) == found


def test_chunks_of_which_no_use_is_made_come_last() -> None:
    scores = [9, 9, 9, 9, 9, 0, 0, 0, 0, 3, 3, 3]
    found = selected(scores, N=8, delta=3, max_relevant=4)
    assert isinstance(found, Selection)
    assert found.relevant == [0, 1, 2, 3]
    assert found.context == [0, 1, 2, 3, 5, 6, 7, 8]
    assert {role_of(i, found) for i in found.context[:4]} == {"relevant"}


def test_ties_are_broken_by_the_seed() -> None:
    scores = [9, 8, *[0] * 30]
    drawn = {
        tuple(s.rejected_1) for k in range(9) if isinstance(s := selected(scores, k), Selection)
    }
    assert len(drawn) > 5


def test_words_of_most_chunks_do_not_count() -> None:
    chunks = ["Zora keeper pier", "keeper fog", "keeper Zora", "sand"]
    assert score_terms(chunks, "Which pier did keeper Zora build?") == [2, 0, 1, 0]
    assert score_terms(["同じ港の話", "別の話", "山", "川"], "港の話") == [2, 1, 0, 0]


def test_the_query_may_hold_the_answer() -> None:
    assert query_of("Who?", "Zora") == "Who?\nZora"
    assert query_of("Who?", "Zora", "question") == query_of("Who?", None) == "Who?"


@given(st.text(max_size=300), st.integers(1, 40), st.integers(0, 20))
def test_chunks_join_to_the_text(text: str, size: int, least: int) -> None:
    spans = chunk_spans(text, COUNTER, size, min(least, size))
    assert "".join(text[a:b] for a, b in spans) == (text if text.split() else "")


def test_a_short_last_chunk_joins_the_one_before() -> None:
    text = " ".join(f"w{i}" for i in range(1_060))
    counts = [len(text[a:b].split()) for a, b in chunk_spans(text, COUNTER)]
    assert counts == [512, 548]
    assert joined("abcdef", [(0, 2), (2, 4), (4, 6)], [2, 0]) == "ab\nef"


class Token:
    def __init__(self, pos: str) -> None:
        self.pos_ = pos


class Entity(list[Token]):
    def __init__(self, text: str, *pos: str) -> None:
        super().__init__(map(Token, pos))
        self.text = text


class Parsed:
    ents = (
        Entity("The  Louvre", "DET", "PROPN"),
        Entity("louvre", "PROPN"),
        Entity("be", "AUX"),
        Entity("Zora", ""),
    )


def test_entities_have_no_article_and_are_no_verbs() -> None:
    assert entities_of(Parsed()) == {"louvre", "zora"}
    found = score_entities(["a b", "b b"], "a b c", lambda texts: [set(t.split()) for t in texts])
    assert found == [2, 1]


def test_what_spacy_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "spacy", None)
    spacy_entities.cache_clear()
    with pytest.raises(RunError, match="spaCy, which is not installed") as told:
        spacy_entities("en_core_web_sm")
    assert "longctx[entities]" in str(told.value)


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("Zora", "Keeper Zora built it.", True),
        ("1,000 boats", "1000 boats", True),
        ("in the old harbour", "It stood at the old harbour.", True),  # F1 is 2 * 2 / 8
        ("in the old harbour", "It stood there at the old harbour.", False),
        ("stood in the old harbour", "It stood at old harbour.", True),
        ("art", "The article on parts.", False),
        ("北港的灯塔", "那座灯塔在北港。", True),
    ],
)
def test_right_answers(gold: str, answer: str, right: bool) -> None:
    assert is_right(gold, answer) is right


def test_f1_counts_han_by_character() -> None:
    assert token_f1("灯塔 B", "灯塔") == pytest.approx(0.8)
    assert token_f1("", "x") == token_f1("y", "x") == 0.0


ANSWERS = {
    "chosen": "Keeper Zora built the pier in 1890.",
    "rejected_1": "It was the harbour master in 1871.",
    "rejected_2": "Nobody knows who built that pier.",
}


def test_a_triple_is_right_wrong_wrong() -> None:
    assert gold_problem(ANSWERS, "Zora") is None
    assert gold_problem(ANSWERS, "Miller") == Reject(
        "unverified_pair", "the chosen answer is wrong"
    )
    for side in SIDES[1:]:
        said = {**ANSWERS, side: "Zora, I think."}
        assert gold_problem(said, "Zora") == Reject("unverified_pair", f"{side} is right")


def test_answers_that_say_the_same_make_no_triple() -> None:
    assert likeness_problem(ANSWERS) is None
    words = [f"w{i}" for i in range(20)]
    said = {**ANSWERS, "chosen": " ".join(words), "rejected_2": " ".join([*words[:19], "x"])}
    problem = likeness_problem(said)
    assert problem is not None
    assert problem.code == "unverified_pair"
    assert "0.950" in problem.detail


def test_a_question_that_needs_no_text_makes_no_triple() -> None:
    assert closed_problem("unknown", "Zora", ANSWERS["chosen"]) is None
    found = closed_problem("Zora.", "Zora", ANSWERS["chosen"])
    assert found is not None
    assert found.code == "closed_book_solvable"
    assert closed_problem("Zora built the pier in 1890", None, ANSWERS["chosen"]) is not None
    assert closed_problem("unknown", None, ANSWERS["chosen"]) is None


def test_verdicts_are_of_the_sides_whatever_the_order() -> None:
    reply = {"analysis": "x", "a_correct": True, "b_correct": False, "c_correct": False}
    first = verdict_of({**reply, "better": "A"}, ORDERS[0])
    assert first == Verdict({"chosen": True, "rejected_1": False, "rejected_2": False}, "chosen")
    swapped = verdict_of({**reply, "better": "A"}, ORDERS[1])
    assert swapped.better == "rejected_2"
    turned = {**reply, "a_correct": False, "c_correct": True, "better": "C"}
    assert verdict_of(turned, ORDERS[1]) == first
    assert verdict_of({**turned, "better": "tie"}, ORDERS[1]).better == "tie"
    assert verdict_problem([first, first]) is None
    for bad, code in (
        (swapped, "unverified_pair"),
        (None, "judge_failed"),
        (first._replace(better="tie"), "unverified_pair"),
        (first._replace(right={**first.right, "rejected_2": True}), "unverified_pair"),
    ):
        problem = verdict_problem([first, bad])
        assert problem is not None
        assert problem.code == code


def test_a_judge_does_not_see_which_answer_is_preferred() -> None:
    asked = request_judge("A text.", "Who?", ANSWERS, ORDERS[1], "en")
    said = asked.messages[-1]["content"]
    assert said.index(ANSWERS["rejected_2"]) < said.index(ANSWERS["chosen"])
    assert "rejected" not in said
    assert "chosen" not in said
    reply = {"a_correct": False, "b_correct": True, "c_correct": False, "better": "A"}
    assert check_judge(reply, asked.parts) == "better_is_wrong"
    assert check_judge({**reply, "better": "tie"}, asked.parts) is None


@pytest.mark.parametrize("lang", ["en", "zh", "ko"])
def test_prompts_have_every_language(lang: str) -> None:
    system, user = request_answer("TEXT {{question}}", "Who?", lang).messages
    assert user["content"].startswith("TEXT {{question}}\n\n")
    assert user["content"].endswith("Who?")
    assert system["role"] == "system"
    assert request_closed("Who?", lang).messages[-1]["content"].endswith("Who?")
    for asked in (request_judge("T", "Q?", ANSWERS, SIDES, lang), request_question("T", lang)):
        assert asked.schema is not None
        assert all(
            f'"{name}"' in asked.messages[-1]["content"] for name in asked.schema["required"]
        )


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("Who built pier 7?", "Keeper Zora", None),
        ("Tell who built pier 7.", "Keeper Zora", "question_form"),
        ("Who?", "Keeper Zora", "question_form"),
        ("Who built pier 7?", " ", "answer_length"),
        ("Who built pier 7?", "Captain Miller", "unsupported"),
        ("Did keeper Zora build pier 7?", "Keeper Zora", "answer_in_question"),
    ],
)
def test_questions_are_checked(question: str, answer: str, said: str | None) -> None:
    parts = request_question("Keeper Zora built pier 7 in the fog.", "en").parts
    assert check_question({"question": question, "answer": answer}, parts) == said


def test_the_loss_of_the_worked_example() -> None:
    found = logo.loss(-20, 40, [-60, -45], [30, 45], 10, 3, 0.1)
    assert found == pytest.approx(0.050911466, abs=1e-9)
