"""Pair rows: the worked examples, what speaks against a pair, and who is rejected."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.prefer.pairs import (
    PAIRS,
    ContextRef,
    Group,
    Side,
    alike,
    build,
    histogram,
    length_ratio,
    listed,
    pair_id,
    pair_problems,
    pick_rejected,
    plain,
    similarity,
    two_below,
)
from longctx.synth.longwriter import s_l
from longctx.synth.words import count_words

SCORES = [30, 32, 28, 25, 35, 33, 31, 29, 27, 10]
RNG = np.random.default_rng(0)


def words(n: int, *changed: int) -> str:
    return " ".join(f"other{i}" if i in changed else f"word{i}" for i in range(n))


def group(**fields: Any) -> Group:
    usual: dict[str, Any] = {"system": "longreward", "group_id": "11", "lang": "en"}
    usual |= {"source": "s", "seed": 3, "prompt_version": "v", "model": "m", "judge_model": "j"}
    return Group(**{**usual, "messages": [{"role": "user", "content": "Why?"}], **fields})


@pytest.mark.parametrize(
    ("y", "score"),
    [
        *((500, 50), (800, 87.5), (1100, 96.6667), (1600, 80), (2000, 66.6667)),
        *((3000, 33.3333), (4000, 0), (333, 0), (0, 0)),
    ],
)
def test_length_score_of_the_worked_examples(y: float, score: float) -> None:
    assert s_l(1000, y) == pytest.approx(score, abs=1e-4)


@given(st.integers(1, 10_000), st.integers(0, 50_000))
def test_length_score_is_best_at_the_wanted_length_alone(x: int, y: int) -> None:
    assert 0 <= s_l(x, y) <= 100
    assert (s_l(x, y) == 100) == (x == y)
    nearer = y + 1 if y < x else y - 1 if y > x else y
    assert s_l(x, nearer) >= s_l(x, y)


def test_words_as_two_other_counters_see_them() -> None:
    longwriter = {"3D model": 1, "中文abc": 2, "中文 abc": 3, "naïve café": 0}
    assert {t: count_words(t, "longwriter") for t in longwriter} == longwriter
    selflengthen = {"don't stop": 2, "你好，世界。": 6, "中文abc": 3}
    assert {t: count_words(t, "selflengthen") for t in selflengthen} == selflengthen


def test_the_id_is_a_hash_of_five() -> None:
    told = "\x1f".join(["longreward", "11", "1", "good", "bad"])
    expected = hashlib.sha256(told.encode()).hexdigest()[:16]
    assert pair_id("longreward", "11", 1, "good", "bad") == expected
    assert pair_id("longreward", "1", 11, "good", "bad") != expected
    assert pair_id("longreward", "11", 1, "bad", "good") != expected


def test_who_is_rejected_in_the_worked_example() -> None:
    assert np.mean(SCORES) == 28
    assert np.std(SCORES) == pytest.approx(6.618157)
    assert two_below(SCORES) == pytest.approx(14.763686)
    assert pick_rejected(SCORES, 4, "mu-2sigma", RNG) == 9
    assert pick_rejected(SCORES, 4, "min", RNG) == 9
    assert pick_rejected(SCORES, 9, "min", RNG) == 3
    # Two stand as near to the target (mean 5, deviation 0): the lower index.
    assert pick_rejected([5, 5, 5], 0, "mu-2sigma", RNG) == 1
    assert pick_rejected([9, 2, 2], 0, "min", RNG) == 1


@given(st.lists(st.integers(0, 40), min_size=2, max_size=12), st.data())
def test_a_rejected_one_is_another_and_by_its_rule(scores: list[int], data: Any) -> None:
    chosen = data.draw(st.integers(0, len(scores) - 1))
    seed = data.draw(st.integers(0, 9))
    ranked = sorted((s, i) for i, s in enumerate(scores) if i != chosen)
    for rule in ("min", "mu-2sigma", "random", "worst_k"):
        found = [
            pick_rejected(scores, chosen, rule, np.random.default_rng(seed), 3) for _ in range(2)
        ]
        assert found[0] == found[1] != chosen
        if rule == "worst_k":
            assert (scores[found[0]], found[0]) in ranked[:3]


def test_chance_reaches_all_others_and_no_worse_than_k() -> None:
    rng = np.random.default_rng(1)
    assert {pick_rejected(SCORES, 4, "random", rng) for _ in range(200)} == {*range(10)} - {4}
    assert {pick_rejected(SCORES, 4, "worst_k", rng, 2) for _ in range(50)} == {9, 3}
    with pytest.raises(ValueError, match="nothing is left"):
        pick_rejected([1.0], 0, "min", rng)
    with pytest.raises(ValueError, match="none of min"):
        pick_rejected([1.0, 2.0], 0, "best", rng)  # type: ignore[arg-type]


def test_similarity_of_the_worked_examples() -> None:
    assert similarity(words(20), words(20, 7)) == 0.95
    assert similarity(words(20), words(20, 7, 9)) == 0.90
    assert alike(words(20), words(20, 7))
    assert not alike(words(20), words(20, 7, 9))


@given(st.lists(st.sampled_from("abc"), max_size=25), st.lists(st.sampled_from("abc"), max_size=25))
def test_the_short_way_says_what_the_long_one_says(a: list[str], b: list[str]) -> None:
    one, other = " ".join(a), " ".join(b)
    assert alike(one, other, 0.7) == (similarity(one, other) >= 0.7)


def codes(chosen: str, rejected: str, **more: Any) -> list[str]:
    finish = more.pop("finish", "stop")
    sides = Side(text=chosen, finish=finish), Side(text=rejected)
    return [p.code for p in pair_problems(*sides, **more)]


def test_each_fault_of_a_pair_has_its_code() -> None:
    good, other = words(20), words(20, *range(10))
    assert codes(good, other) == []
    assert codes(good, good) == ["duplicate"]
    assert codes(good, words(20, 7)) == ["duplicate"]
    assert codes(good, words(20, 7, 9)) == []
    assert codes(good, other, finish="length") == ["truncated"]
    assert codes(good, other, finish="length", step=True) == []
    assert codes(good, other, finish="error", step=True) == ["truncated"]
    assert codes(f"I'm sorry, but I can't help. {good}", other) == ["refusal"]
    assert codes(f"Max tries. Failed. {good}", other) == ["sentinel"]
    assert codes(good, words(9, *range(9))) == ["length_ratio"]
    assert codes(good, words(10, *range(10))) == []
    assert codes(good, words(40, *range(40))) == []
    assert codes(good, words(41, *range(41))) == ["length_ratio"]
    assert codes(good, words(41, *range(41)), max_ratio=3) == []
    assert codes(good, other, gold=f" {other}\n") == ["unverified_pair"]
    assert codes(good, " ") == ["empty", "length_ratio"]
    assert length_ratio(good, "!") is None


def test_a_row_has_the_schema_and_says_what_was_checked() -> None:
    chosen = Side(text=words(20), score=30.25, dims={"b": 1.0, "a": 2.0})
    rejected = Side(text=words(20, *range(10)), score=20.0, dims={"a": 1.0})
    ref = ContextRef("d", 0, 12)
    row = build(
        group(doc_id="d", context_ref=ref), chosen, rejected, rule="min", checks={"x": True}
    )
    assert isinstance(row, dict)
    assert set(row) == set(PAIRS.names)
    (read,) = pa.Table.from_pylist([listed(row)], schema=PAIRS).to_pylist()
    told = plain(read)
    assert told["margin"] == 10.25
    assert told["dims_chosen"] == {"a": 2.0, "b": 1.0}
    assert told["context_ref"] == {"doc_id": "d", "start_char": 0, "end_char": 12}
    assert told["checks"]["x"] is told["checks"]["distinct"] is True
    assert told["id"] == pair_id("longreward", "11", 1, chosen.text, rejected.text)
    bad = build(group(), chosen, chosen, rule="min")
    assert not isinstance(bad, dict)
    assert bad.code == "duplicate"


@given(st.lists(st.floats(-3, 9), max_size=30))
def test_a_histogram_counts_everything(values: list[float]) -> None:
    found = histogram(values, [0, 1, 5])
    assert sum(found.values()) == len(values)
    assert found["1 to 5"] == sum(1 <= v < 5 for v in values)
    assert found["5 and above"] == sum(v >= 5 for v in values)
