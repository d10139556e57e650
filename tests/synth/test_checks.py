"""Checks of questions and answers: the worked examples, invariants, planted faults."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from longctx.synth.checks import (
    adjacent_golds,
    allocate,
    answer_tokens,
    chi2_shares,
    chi2_uniform,
    contains_answer,
    depth_counts,
    expected_adjacent,
    expected_gap,
    facts_kept,
    is_extractive,
    is_supported,
    key_facts,
    ks_uniform,
    leave_gold_out,
    ngram_hit,
    ngram_index,
    none_adjacent,
)

TEN = "alpha bravo charlie delta echo foxtrot golf hotel india juliet"


def test_chi2_of_the_worked_examples() -> None:
    even = chi2_uniform([100] * 10)
    assert (even["stat"], even["p"], even["ok"], even["warn"]) == (0.0, 1.0, True, False)
    uneven = chi2_uniform([120, 80, 100, 110, 90, 100, 95, 105, 130, 70])
    assert uneven["stat"] == pytest.approx(28.5)
    assert uneven["p"] == pytest.approx(7.866e-4, rel=1e-3)
    assert (uneven["df"], uneven["max_dev"], uneven["tol"]) == (9, pytest.approx(0.3), 0.5)
    assert (uneven["warn"], uneven["ok"]) == (True, True)


def test_chi2_of_few_rows_decides_nothing() -> None:
    assert chi2_uniform([49] * 10)["ok"] is None
    assert chi2_uniform([0] * 10)["ok"] is None
    assert chi2_uniform([499, 0, 0, 0, 0, 0, 0, 0, 0, 1])["ok"] is False
    with pytest.raises(ValueError, match="two and more"):
        chi2_uniform([5])


def test_chi2_of_shares_sees_what_may_not_be_there() -> None:
    assert chi2_shares([629, 171, 86, 114], [110, 30, 15, 20])["ok"] is True
    assert chi2_shares([500, 300, 86, 114], [110, 30, 15, 20])["ok"] is False
    assert chi2_shares([500, 500, 1], [1, 1, 0])["ok"] is False


def test_ks_of_the_worked_example_and_of_a_planted_fault() -> None:
    assert ks_uniform([0.1, 0.4, 0.7], 0, 1)["D"] == pytest.approx(0.3)
    drawn = np.random.default_rng(3).uniform(4096, 32768, 2000)
    assert ks_uniform(drawn.tolist(), 4096, 32768)["ok"]
    assert not ks_uniform((drawn * 0.9).tolist(), 4096, 32768)["ok"]
    with pytest.raises(ValueError, match="0 values"):
        ks_uniform([], 0, 1)


def test_gaps_and_neighbours() -> None:
    assert expected_gap(20, 2) == 7
    assert expected_adjacent(20, 3) == pytest.approx(0.3)
    assert none_adjacent(20, 3) == pytest.approx(0.715789, abs=1e-6)


def test_neighbouring_golds_of_uniform_and_of_clumped_rows() -> None:
    rng = np.random.default_rng(5)
    uniform = [(20, sorted(rng.permutation(20)[:3].tolist())) for _ in range(3000)]
    report = adjacent_golds(uniform)
    assert report.ok
    runs = hypergeom(20, 18, 3)
    assert report.expected == pytest.approx(3000 * (3 - runs.mean()))
    assert report.error == pytest.approx(math.sqrt(3000 * runs.var()))
    assert not adjacent_golds([(20, [4, 5, 6])] * 100).ok
    assert not adjacent_golds([(20, [1, 5, 9])] * 1000).ok


@given(st.integers(0, 10**6), st.lists(st.floats(0, 1e6), min_size=1, max_size=12))
def test_allocate_is_within_one_of_every_share(total: int, weights: list[float]) -> None:
    if not any(weights):
        weights = [*weights, 1.0]
    counts = allocate(total, weights)
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - total * (weight / sum(weights))) < 1 + 1e-6


def test_allocate() -> None:
    assert allocate(100, [110, 30, 15, 20]) == [63, 17, 9, 11]
    assert allocate(3, [1, 1]) == [2, 1]
    assert allocate(10, [0.3, 0.1, 0.6]) == [3, 1, 6]
    assert allocate(0, [0, 0]) == [0, 0]
    with pytest.raises(ValueError, match="negative"):
        allocate(5, [-1, 2])
    with pytest.raises(ValueError, match="above 0"):
        allocate(5, [0, 0])


def test_ngrams_hit_with_all_ten_words_only() -> None:
    index = ngram_index([TEN])
    assert not ngram_hit(TEN.rsplit(" ", 1)[0] + " kilo", index)
    assert ngram_hit("So: " + TEN.upper().replace(" ", ", ") + "!", index)
    assert not ngram_hit(TEN, ngram_index(["too short to count"]))
    assert ngram_hit("他说：一二三四五六七八九十。", ngram_index(["一二三四五六七八九十"]))
    assert ngram_hit("the a " * 5, ngram_index(["The a the a the a the a the a"]))


def test_tokens_take_unspaced_scripts_apart() -> None:
    assert answer_tokens("The 北京 2008奥运, 서울!") == [
        "the",
        "北",
        "京",
        "2008",
        "奥",
        "运",
        "서",
        "울",
    ]


def test_key_facts() -> None:
    facts = key_facts("The Treaty of Lisbon was signed on 13 December 2007.")
    assert facts == {"treaty", "lisbon", "december", "13", "2007"}
    assert key_facts("It cost 1,234,567.5 at 9,5 %") == {"1234567.5", "9,5"}
    assert key_facts("在Lisbon签于2007年") == {"lisbon", "2007"}


def test_facts_are_kept_or_lost() -> None:
    assert facts_kept(["Lisbon", "13 December"], "On 13 december, in Lisbon.")
    assert not facts_kept(["Lisbon", "14 December"], "On 13 December, in Lisbon.")
    assert facts_kept(["1,000 people"], "Some 1000 came.")
    assert facts_kept(["北京大学"], "他在北京大学读书")
    assert not facts_kept(["北京大学"], "他在上海读书")
    assert not facts_kept(["2007年在北京"], "2008年在北京")


def test_answers_and_evidence() -> None:
    golds, others = ["The bridge opened in 1932."], ["A tower was built in 1889."]
    assert is_extractive(["1932", "32"], golds, others)
    assert not is_extractive(["1932"], golds, [*others, "Also in 1932."])
    assert not is_extractive(["1889"], golds, others)
    assert is_supported("The bridge was opened in 1932", golds, others)
    assert not is_supported("The bridge was opened in 1932", golds, ["A bridge opened: 1932?"])
    assert leave_gold_out(["1932"], others)
    assert not leave_gold_out(["1889"], others)
    assert contains_answer("1,000", "It sold 1000 copies.")


@given(st.integers(1, 7))
def test_depths_of_few_slots_fill_all_bins_alike(n: int) -> None:
    rng = np.random.default_rng(n)
    places = [(int(i), n) for i in rng.integers(n, size=4000)]
    assert chi2_uniform(depth_counts(places, rng.random(4000).tolist()))["ok"]
