"""Section 11 of the specification: what holds for every strategy, rule and fill policy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.pack.audit import assert_conserved
from longctx.pack.concat import pack_concat
from longctx.pack.window import pack_window
from tests.pack.reference import one_tour, steady, windows_of

ALL = [("concat", {})] + [
    ("window", {"rule": rule, "fill_policy": fill, "look_ahead": look_ahead})
    for rule in ("first", "largest")
    for fill in ("none", "split", "crop")
    for look_ahead in (1, 7, 64)
]


def plan_of(name, lengths, tour, length, separator=0, **options):
    if name == "concat":
        return pack_concat(lengths, tour, length, **options)
    return pack_window(lengths, tour, length, separator=separator, **options)


@steady
@given(
    st.sampled_from(ALL),
    st.integers(1, 64).flatmap(
        lambda length: st.tuples(st.just(length), st.lists(st.integers(1, 5 * length), max_size=30))
    ),
    st.integers(0, 3),
    st.sampled_from(["split", "truncate", "drop"]),
)
def test_every_framed_token_is_placed_once_or_counted(strategy, case, separator, long_documents):
    name, options = strategy
    length, lengths = case
    framed = np.array(lengths, np.int64) + separator
    plan = plan_of(
        name,
        framed,
        one_tour(len(lengths)),
        length,
        separator=separator,
        long_documents=long_documents,
        **options,
    )
    seen = [np.zeros(n, int) for n in framed]
    last_end = [0] * len(framed)
    for window in windows_of(plan):
        assert sum(end - start for _, start, end in window) <= length
        for doc, start, end in window:
            assert last_end[doc] <= start < end <= framed[doc]
            seen[doc][start:end] += 1
            last_end[doc] = end
    assert all(counts.max(initial=0) <= 1 for counts in seen)
    assert sum(int(c.sum()) for c in seen) == plan.counts["tokens_placed"]
    assert_conserved(plan.counts)


@pytest.mark.parametrize(("name", "options"), ALL)
@pytest.mark.parametrize("length", [3, 1_000, 4_097, 131_072])
def test_a_window_length_need_not_be_a_power_of_two(name, options, length):
    lengths = np.random.default_rng(5).integers(1, 2 * length, 200)
    plan = plan_of(name, lengths, one_tour(200), length, **options)
    windows = int(plan.placement.window[-1]) + 1
    assert plan.counts["tokens_placed"] > 0.5 * windows * length
    assert_conserved(plan.counts)


@pytest.mark.parametrize(("name", "options"), ALL)
@pytest.mark.parametrize(
    ("lengths", "length", "windows"),
    [
        ([], 8, 0),
        ([0, 0], 8, 0),
        ([81], 8, 11),
        ([1] * 10_000, 8_192, 2),
        ([3, 1, 2], 1, 6),
        ([8] * 50, 8, 50),
    ],
)
def test_edge_shapes(name, options, lengths, length, windows):
    lengths = np.array(lengths, np.int64)
    plan = plan_of(name, lengths, one_tour(len(lengths)), length, **options)
    assert len(windows_of(plan)) == windows
    assert plan.counts["tokens_placed"] == lengths.sum()


def test_looking_ahead_fills_better_than_next_fit():
    lengths = np.random.default_rng(7).integers(1, 8_192, 2_000)
    windows = [
        pack_window(lengths, one_tour(2_000), 8_192, look_ahead=w).placement.window[-1]
        for w in (1, 64)
    ]
    assert windows[1] < windows[0]
