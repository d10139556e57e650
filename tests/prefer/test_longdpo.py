"""LongDPO's arithmetic: worked examples, cuts of steps, and what holds for any numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.prefer.longdpo import (
    OPEN_BUDGET,
    Target,
    cut_step,
    expected_mark,
    glued,
    length_term,
    mean_mark,
    rank_buckets,
    reward,
    step_budget,
    target_of,
    ucb,
)
from longctx.prefer.longdpo_memory import facts_of, near_pairs, segments_of
from longctx.prefer.retrieval import hash_vectors
from longctx.synth.longwriter_required import required_length

UNIT = st.floats(0, 1)


def words(n: int) -> str:
    return " ".join(f"w{i}" for i in range(n))


def test_expected_marks() -> None:
    assert expected_mark([0, 0, 0.2, 0.5, 0.3]) == pytest.approx(4.1)
    assert expected_mark([0.1, 0.1, 0.2, 0.3, 0.29]) == pytest.approx(3.585859, abs=1e-6)
    assert mean_mark([4.1] * 7) == pytest.approx(4.1)
    with pytest.raises(ValueError, match="five weights"):
        expected_mark([0.5, 0.5])
    with pytest.raises(ValueError, match="more than 0"):
        expected_mark([0.0] * 5)


def test_rewards() -> None:
    s = length_term(words(1_800), Target(4_000), 2 / 4)
    assert s == pytest.approx(0.944444, abs=1e-6)
    assert reward(4.1, s) == pytest.approx(0.808889, abs=1e-6)
    assert reward(4.1, None) == pytest.approx(0.775)
    assert length_term(words(10), None) is None
    assert length_term("", Target(100)) == 0.0


def test_ucb() -> None:
    assert ucb(0.6, 1, 3, 1.4) == pytest.approx(2.248374, abs=1e-6)
    assert ucb(0.5, 0, 3, 1.4) == pytest.approx(2.831153, abs=1e-6)
    assert ucb(0.5, 0, 0, 1.4) == 0.5


def test_rank_buckets() -> None:
    assert rank_buckets([0.9, 0.7, 0.5, 0.8, 0.4, 0.3]) == [2, 0, 0, 1, -1, -2]
    assert rank_buckets([0.9, 0.9, 0.5, 0.5, 0.1, 0.1]) == [1.5, 1.5, 0, 0, -1.5, -1.5]
    assert rank_buckets([0.2, 0.9, 0.4]) == [0.2, 0.9, 0.4]


def test_budgets() -> None:
    assert step_budget(Target(2_000), 4) == 704  # 700 rounded up to 64
    assert step_budget(target_of(2_000, "zh"), 4) == 512
    assert step_budget(target_of(2_000, "ko"), 4) == 1_024
    assert step_budget(Target(2_000), 4, 100) == 100
    assert step_budget(None, 4) == OPEN_BUDGET
    characters = required_length("Write a story of 3,000 characters.")
    assert target_of(3_000, "en", characters).counter == "nonspace"
    assert step_budget(target_of(3_000, "en", characters), 4) == 256
    assert target_of(900, "ko", required_length("900자로 써라")).tokens == 1.0


def test_a_cut_step_ends_with_a_sentence_of_its_second_half() -> None:
    text = "The first one is here. The second one is longer. And the third is n"
    assert cut_step(text, "length") == "The first one is here. The second one is longer."
    assert cut_step(text, "stop") == text
    early = "Short. But what follows is one long sentence without any end that"
    assert cut_step(early, "length") == early
    assert cut_step("All is said. It ends here.\n\n", "length") == "All is said. It ends here."
    assert (
        cut_step("第一句在这里。第二句也在这里。第三句没有完", "length")
        == "第一句在这里。第二句也在这里。"
    )
    assert cut_step("  \n", "length") == ""


@given(st.text(max_size=200))
def test_a_cut_keeps_a_beginning_of_at_least_half(text: str) -> None:
    kept, whole = cut_step(text, "length"), text.rstrip()
    assert whole.startswith(kept)
    assert kept == whole or len(kept) > 0
    assert 2 * len(whole[: len(kept)]) >= len(kept)


def test_steps_are_joined_with_the_blank_that_is_missing() -> None:
    assert glued("It ends.", "Then") == " Then"
    assert glued("It ends.", " Then") == " Then"
    assert glued("It is run", "ning") == "ning"
    assert glued("Pi is 3.", "14") == "14"
    assert glued("完了。", "接着") == "接着"
    assert glued("", "Then") == "Then"


@given(st.lists(UNIT, min_size=5, max_size=5).filter(lambda w: sum(w) > 1e-3), UNIT)
def test_marks_and_rewards_stay_in_their_range(weights: list[float], s: float) -> None:
    mark = expected_mark(weights)
    assert 1 - 1e-9 <= mark <= 5 + 1e-9
    assert -1e-9 <= reward(mark, s) <= 1 + 1e-9
    assert reward(mark, s) <= reward(mark, min(1.0, s + 0.1)) + 1e-9


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_buckets_follow_ranks(found: list[int]) -> None:
    given_values = [v / 10 for v in found]
    buckets = rank_buckets(given_values)
    pairs = [(v, b) for v, b in zip(given_values, buckets, strict=True)]
    assert all(a[1] >= b[1] for a in pairs for b in pairs if a[0] >= b[0])
    if len(found) >= 6:
        assert all(-2 <= b <= 2 for b in buckets)
        if len(found) % 6 == 0:
            assert math.fsum(buckets) == pytest.approx(0)


@given(st.text(alphabet="ab 漢字、か\n", max_size=300), st.integers(1, 20))
def test_segments_join_to_the_text(text: str, size: int) -> None:
    pieces = segments_of(text, size)
    assert "".join(pieces).split() == text.split()
    assert all(len(piece.split()) <= size or "漢" in piece or "字" in piece for piece in pieces)


def test_segments_count_words_and_characters() -> None:
    assert [len(s.split()) for s in segments_of(words(300))] == [128, 128, 44]
    assert [len(s) for s in segments_of("漢" * 300)] == [128, 128, 44]
    assert segments_of(" ") == []
    with pytest.raises(ValueError, match="one word and more"):
        segments_of("a", 0)


def test_facts_belong_to_their_step_and_are_known_once() -> None:
    step = "The bridge was built in 1890 by Mara Finch. It is red."
    told = [
        {"content": "The bridge was built in 1890.", "contradicts_knowledge": "no"},
        {"content": "the bridge was built in 1890", "contradicts_knowledge": "no"},
        {"content": "Oxygen boils at noon in Lisbon.", "contradicts_knowledge": "no"},
        {"content": "The bridge is red.", "contradicts_knowledge": "yes"},
        {"content": " ", "contradicts_knowledge": "unsure"},
    ]
    found = facts_of([{**fact, "evidence": ""} for fact in told], step)
    assert [(f.content, f.flagged) for f in found] == [
        ("The bridge was built in 1890.", False),
        ("The bridge is red.", True),
    ]
    many = " ".join(f"Item{i} weighs much." for i in range(30))
    listed = [
        {"content": f"Item{i} weighs much.", "contradicts_knowledge": "no", "evidence": ""}
        for i in range(30)
    ]
    assert len(facts_of(listed, many)) == 20


def test_near_pairs_are_the_most_similar_ones_above_the_threshold() -> None:
    facts = hash_vectors(["the bridge was built in 1890"])
    pieces = ["a cat sat", "the bridge was built", "the bridge was built in 1890", "built in 1890"]
    assert near_pairs(facts, hash_vectors(pieces), 0.6, 2) == [(0, 2), (0, 1)]
    assert near_pairs(facts, hash_vectors(pieces), 0.6, None) == [(0, 2), (0, 1), (0, 3)]
    assert near_pairs(facts, hash_vectors(pieces), 0.99) == [(0, 2)]
