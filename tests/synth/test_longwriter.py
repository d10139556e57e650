"""AgentWrite's arithmetic: the examples of the specification, invariants, planted faults."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.synth.longwriter import (
    Required,
    Step,
    agentwrite_input_tokens,
    count_words,
    length_score,
    paragraph_duplicates,
    parse_plan,
    pick_pair,
    plan_line,
    plan_problems,
    required_length,
    s_l,
    s_q,
    strip_label,
)


@pytest.mark.parametrize(
    ("x", "y", "score"),
    [
        (1000, 1000, 100),
        (1000, 500, 50),
        (1000, 800, 87.5),
        (1000, 1600, 80),
        (1000, 2000, 66.667),
        (1000, 3000, 33.333),
        (1000, 4000, 0),
        (1000, 333, 0),
        (5000, 6176, 92.16),
        (10000, 10691, 97.697),
        (1000, 0, 0),
    ],
)
def test_length_scores_of_the_examples(x: int, y: int, score: float) -> None:
    assert s_l(x, y) == pytest.approx(score, abs=5e-4)


@given(st.integers(1, 10**5), st.integers(0, 10**6), st.integers(0, 10**6))
def test_length_score_is_bounded_and_falls_on_both_sides(x: int, y: int, z: int) -> None:
    assert 0 <= s_l(x, y) <= 100
    assert (s_l(x, y) == 100) == (x == y)
    if abs(y - x) <= abs(z - x) and (y - x) * (z - x) >= 0:
        assert s_l(x, y) >= s_l(x, z)
    if y:
        good = 1 / 1.4 - 1e-9 <= y / x <= 1.6 + 1e-9
        assert (s_l(x, y) >= 80 - 1e-6) == good


def test_no_length_is_required_of_nothing() -> None:
    with pytest.raises(ValueError, match="got 0, 5"):
        s_l(0, 5)


def stated(prompt: str) -> Required:
    found = required_length(prompt)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("prompt", "y", "score"),
    [
        ("1000 words", 500, 50),
        ("800 to 1000 words", 900, 100),
        ("800 to 1000 words", 1000, 100),
        ("800 to 1000 words", 2000, s_l(1000, 2000)),
        ("800 to 1000 words", 400, s_l(800, 400)),
        ("at least 1000 words", 9000, 100),
        ("at least 1000 words", 500, 50),
        ("at most 1000 words", 10, 100),
        ("at most 1000 words", 0, 0),
        ("at most 1000 words", 2000, s_l(1000, 2000)),
    ],
)
def test_length_scores_by_relation(prompt: str, y: int, score: float) -> None:
    assert length_score(stated(prompt), y) == pytest.approx(score)


def test_quality_score_of_the_example() -> None:
    assert s_q([[5, 4, 4, 5, 3, 4]]) == pytest.approx(79.1667, abs=5e-5)
    named = {
        "relevance": 5,
        "accuracy": 4,
        "coherence": 4,
        "clarity": 5,
        "breadth_depth": 3,
        "reading": 4,
    }
    assert s_q([named]) == s_q([[5, 4, 4, 5, 3, 4]])
    assert s_q([[1] * 6, [5] * 6]) == 50
    with pytest.raises(ValueError, match="no row has marks"):
        s_q([])


@pytest.mark.parametrize(
    ("text", "longwriter", "auto"),
    [
        ("hello world", 2, 2),
        ("hello 世界", 3, 3),
        ("hello世界", 2, 3),
        ("don't stop", 3, 2),
        ("v2 release", 1, 2),
        ("서울은 크다.", 0, 2),
        ("2024 was fine", 2, 3),
        ("ひらがな test", 1, 5),
    ],
)
def test_words_of_the_examples(text: str, longwriter: int, auto: int) -> None:
    assert (count_words(text, "longwriter"), count_words(text, "auto")) == (longwriter, auto)
    assert count_words(text) == auto
    assert count_words(text, "nonspace") == len(text.replace(" ", ""))


def test_an_unknown_counter_is_named() -> None:
    with pytest.raises(ValueError, match="counter='tokens'"):
        count_words("a", "tokens")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("Paragraph 3 - Main Point: The storm - Word Count: 400 words", (3, "The storm", 400)),
        ("**Paragraph 1** – **Main Point:** Rain — **Word Count:** 1,000 words", (1, "Rain", 1000)),
        (
            "- Paragraph 2 | Main Point: A - b - Word Count: 9 - Word Count: 300",
            (2, "A - b - Word Count: 9", 300),
        ),
        ("* Paragraph 12 - Main Point: X - Word Count: 200-301 words.", (12, "X", 250)),
        ("Paragraph 3: The storm", None),
        ("Here is the plan:", None),
        ("Paragraph 3 - Main Point: The storm", None),
    ],
)
def test_lines_of_plans(line: str, step: tuple[int, str, int] | None) -> None:
    assert parse_plan(line) == step


@given(
    st.integers(1, 50),
    st.from_regex(r"[A-Z][a-z]+( [a-z]+){0,5}", fullmatch=True),
    st.integers(1, 9999),
)
def test_lines_of_plans_come_back(k: int, point: str, words: int) -> None:
    step = Step(k, " ".join(point.split()), words)
    assert parse_plan(plan_line(step)) == step


def plan(words: list[int]) -> list[Step]:
    return [Step(k, f"Point {k}", n) for k, n in enumerate(words, 1)]


@pytest.mark.parametrize(
    ("steps", "problems"),
    [
        (plan([500, 500]), []),
        (plan([600, 600]), []),
        (plan([400, 400]), []),
        (plan([601, 600]), ["plan_sum"]),
        (plan([1000]), ["plan_size"]),
        (plan([200] * 51), ["plan_size", "plan_sum"]),
        (plan([199, 800]), ["plan_words"]),
        (plan([1001, 199]), ["plan_words"]),
        ([Step(1, "A", 500), Step(3, "B", 500)], ["plan_numbering"]),
        ([Step(1, "The storm", 500), Step(2, "storm!", 500)], ["plan_duplicate"]),
        ([Step(1, "A!", 500), Step(2, "B", 500)], []),
    ],
)
def test_problems_of_plans(steps: list[Step], problems: list[str]) -> None:
    assert plan_problems(steps, stated("1000 words")) == problems


def test_steps_may_be_objects() -> None:
    assert plan_problems([step._asdict() for step in plan([500, 600])], stated("1000 words")) == []
    assert plan_problems([plan([900])[0]._asdict()], None) == ["plan_size"]


def test_a_plan_without_a_required_length_may_have_any_sum() -> None:
    assert plan_problems(plan([200, 1000]), None) == []


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("Paragraph 3: The storm came.", "The storm came."),
        ("**Paragraph 3** – The storm came.", "The storm came."),
        ("**Paragraph 3:** The storm came.", "The storm came."),
        ("Paragraph 3\n\nThe storm came.", "The storm came."),
        ("第3段：风暴来了。", "风暴来了。"),
        ("Paragraph 3 of the treaty says so.", "Paragraph 3 of the treaty says so."),
        ("  The storm came. ", "The storm came."),
    ],
)
def test_labels_are_stripped(text: str, stripped: str) -> None:
    assert strip_label(text) == stripped


def words(start: int, n: int = 40) -> str:
    return " ".join(f"word{i}" for i in range(start, start + n))


def test_near_copies_are_found() -> None:
    paragraphs = [words(0), words(100), words(5), words(100).upper() + "!", words(20, 40)]
    assert paragraph_duplicates(paragraphs) == [(0, 2), (1, 3)]
    assert paragraph_duplicates(["one two", "one two", "three", ""]) == [(0, 1)]
    chinese = "风暴在夜里来到了港口，渔船都没有出海。"
    assert paragraph_duplicates([chinese, "清晨大家修理码头，孩子们捡贝壳。", chinese]) == [(0, 2)]


def test_tokens_sent_again() -> None:
    assert agentwrite_input_tokens(20, 700) == 133_000
    assert agentwrite_input_tokens(20, 700, 100) == 135_000
    assert agentwrite_input_tokens(1, 700, 100) == 100


def test_pairs_are_the_best_and_one_well_below() -> None:
    rng = np.random.default_rng(0)
    drawn = {pick_pair([80, 90, 90, 88], rng) for _ in range(50)}
    assert drawn == {(1, 0), (1, 3)}
    assert pick_pair([90, 89, 88.5, 90], rng) is None
    assert pick_pair([90, 88], rng) == (0, 1)
    assert pick_pair([], rng) is None
