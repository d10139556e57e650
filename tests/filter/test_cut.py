"""The cut: the specification's examples, ties, nulls and independence of row order."""

import math
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from longctx.filter.cut import (
    Moments,
    closest,
    merge_moments,
    minmax,
    moments,
    percent_rank,
    select,
    summary,
    within,
    zscore,
)

steady = settings(derandomize=True, deadline=None)
NAN = math.nan


def kept(mask) -> list[int]:
    return np.flatnonzero(mask).tolist()


def one_group(scores, **mode) -> list[int]:
    ids = [f"d{i:03}" for i in range(len(scores))]
    return kept(select(scores, ids, ["s"] * len(scores), **mode))


def test_moments_merge_as_in_the_specification():
    merged = reduce(merge_moments, map(moments, ([1, 2, 3], [10], [4, 4])))
    assert merged == Moments(6, 4.0, 50.0)
    assert merged.sd == pytest.approx(math.sqrt(10))
    assert merge_moments(moments([]), moments([NAN])) == Moments(0, 0.0, 0.0)
    assert merge_moments(moments([]), moments([3, 5])) == moments([3, 5])


@steady
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40), st.data())
def test_merged_moments_are_those_of_the_whole(values, data):
    cut = data.draw(st.integers(0, len(values)))
    merged = merge_moments(moments(values[:cut]), moments(values[cut:]))
    assert merged.n == len(values)
    assert merged.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert merged.m2 == pytest.approx(np.var(values) * len(values), rel=1e-6, abs=1e-3)


def test_zscore_uses_the_sample_deviation():
    assert_allclose(zscore([1, 2, 3]), [-1, 0, 1])
    assert zscore([7]).tolist() == [0]
    assert zscore([0.1] * 3).tolist() == [0, 0, 0]
    assert_allclose(zscore([1, NAN, 3]), [-math.sqrt(0.5), NAN, math.sqrt(0.5)])
    assert_allclose(zscore([4, 14], of=Moments(6, 4.0, 50.0)), [0, math.sqrt(10)])
    assert_allclose(zscore([14], of=Moments(6, 4.0, 50.0)), [math.sqrt(10)])
    assert zscore([]).shape == (0,)


def test_minmax():
    assert minmax([2, 4, 3]).tolist() == [0, 1, 0.5]
    assert minmax([2, 2]).tolist() == [0.5, 0.5]
    assert_allclose(minmax([2, NAN, 4]), [0, NAN, 1])
    assert minmax([]).shape == (0,)


def test_percent_rank_averages_ties():
    assert_allclose(percent_rank([5, 1, 1, 3]), [1, 1 / 6, 1 / 6, 2 / 3])
    assert percent_rank([9]).tolist() == [0.5]
    assert_allclose(percent_rank([NAN, 9]), [NAN, 0.5])
    assert_allclose(percent_rank([2, NAN, 1]), [1, NAN, 0])
    assert percent_rank([]).shape == (0,)


def test_normalising_within_groups():
    groups = ["a", "b", "a", "b", "c"]
    assert_allclose(within(minmax, [1, 100, 3, 300, 9], groups), [0, 0, 1, 1, 0.5])


@pytest.mark.parametrize(("op", "rows"), [("ge", [1, 2]), ("gt", [2]), ("le", [0, 1]), ("lt", [0])])
def test_threshold(op, rows):
    assert one_group([1, 2, 3, NAN], threshold=(op, 2)) == rows


def test_top_fraction_guards_against_rounding():
    scores = list(range(100))
    assert 0.07 * 100 > 7
    assert one_group(scores, top_fraction=0.07) == list(range(93, 100))
    assert one_group(scores, top_fraction=0.071) == list(range(92, 100))
    assert one_group(scores, top_fraction=0) == []
    assert one_group(scores, top_fraction=1) == scores


def test_ties_go_to_the_smaller_id():
    ids = ["c", "a", "b"]
    assert kept(select([1, 1, 1], ids, ["s"] * 3, top_fraction=0.5)) == [1, 2]


def test_top_fraction_is_per_group():
    scores, groups = [1, 2, 30, 40], ["a", "a", "b", "b"]
    assert kept(select(scores, list("wxyz"), groups, top_fraction=0.5)) == [1, 3]


def test_top_tokens_is_the_longest_prefix_that_fits():
    assert one_group([4, 3, 2, 1], tokens=[5, 5, 5, 1], top_tokens=10) == [0, 1]
    assert one_group([4, 3, 2, 1], tokens=[5, 5, 5, 1], top_tokens=4) == []
    assert one_group([4, 3, 2, 1], tokens=[5, 5, 5, 1], top_tokens=16) == [0, 1, 2, 3]


def test_top_percent_for_budget_keeps_the_shares_of_groups():
    scores = [*range(10), *range(20)]
    groups, ids = ["a"] * 10 + ["b"] * 20, [f"{i:02}" for i in range(30)]
    mode = {"tokens": [10] * 30}
    mask = select(scores, ids, groups, top_percent_for_budget=89, **mode)
    assert (mask[:10].sum(), mask[10:].sum()) == (3, 6)  # 30 % is the first with more than 89
    mask = select(scores, ids, groups, top_percent_for_budget=90, **mode)
    assert (mask[:10].sum(), mask[10:].sum()) == (3, 7)  # 35 %: 3 + 7 rows, 100 tokens
    assert select(scores, ids, groups, top_percent_for_budget=10**9, **mode).all()


def test_band_of_ranks():
    assert one_group([5, 1, 1, 3], band=(0.5, 1)) == [0, 3]
    assert one_group([5, 1, 1, 3], band=(0, 1 / 6)) == [1, 2]


def test_nulls_are_dropped_or_kept_and_never_counted():
    scores = [3, NAN, 2, 1]
    for mode in ({"top_fraction": 1 / 3}, {"band": (1, 1)}, {"threshold": ("ge", 3)}):
        assert one_group(scores, **mode) == [0]
        assert one_group(scores, null_policy="keep", **mode) == [0, 1]


@steady
@given(st.permutations(range(12)), st.sampled_from(["top_fraction", "top_tokens", "budget"]))
def test_row_order_does_not_matter(order, mode):
    scores = [3, 1, 3, 2, NAN, 5, 5, 5, 0, 1, NAN, 2]
    ids, groups = [f"d{i}" for i in range(12)], list("ababababbbaa")
    options = {
        "top_fraction": {"top_fraction": 0.5},
        "top_tokens": {"top_tokens": 20, "tokens": range(12)},
        "budget": {"top_percent_for_budget": 20, "tokens": range(12)},
    }[mode]
    whole = {ids[i] for i in kept(select(scores, ids, groups, **options))}
    mixed = dict(options)
    if "tokens" in mixed:
        mixed["tokens"] = list(order)
    again = select(
        [scores[i] for i in order], [ids[i] for i in order], [groups[i] for i in order], **mixed
    )
    assert {ids[order[i]] for i in kept(again)} == whole


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match="exactly one mode"):
        one_group([1])
    with pytest.raises(ValueError, match="exactly one mode"):
        one_group([1], top_fraction=1, band=(0, 1))
    with pytest.raises(ValueError, match="needs `tokens`"):
        one_group([1], top_tokens=5)
    with pytest.raises(ValueError, match="unknown operator 'eq'"):
        one_group([1], threshold=("eq", 5))


def test_summary_leaves_nulls_out():
    found = summary([1, 2, 3, NAN])
    assert (found["n"], found["nulls"], found["mean"], found["sd"]) == (3, 1, 2, 1)
    assert (found["min"], found["q50"], found["max"]) == (1, 2, 3)
    assert summary([NAN]) | {"n": 0, "nulls": 1, "mean": None, "q50": None} == summary([NAN])


def test_the_rows_nearest_to_a_threshold():
    above, below = closest([1, 5, 3, NAN, 2, 4], list("abcdef"), at=3, n=2)
    assert (above, below) == ([2, 5], [4, 0])
