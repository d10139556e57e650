"""Section 11 of the specification: what holds for every strategy, rule and fill policy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.pack.audit import assert_conserved
from longctx.pack.frame import Plan, SentenceEnds
from longctx.pack.plan import STRATEGIES
from longctx.pack.window import pack_window
from tests.pack.reference import one_tour, steady, windows_of

RULES = ("first", "largest", "similar", "weighed")
ALL = [("concat", {}), ("best_fit", {})] + [
    ("window", {"rule": rule, "fill_policy": fill, "look_ahead": look_ahead})
    for rule in RULES
    for fill in ("none", "split", "crop")
    for look_ahead in (1, 7, 64)
]


def plan_of(name, lengths, tour, length, separator=0, **options) -> Plan:
    if name != "concat":
        options["separator"] = separator
    if options.get("rule") in ("similar", "weighed"):
        vectors = np.random.default_rng(1).standard_normal((len(lengths), 5))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[::4] = 0
        options["vectors"] = vectors.astype(np.float32)
    return STRATEGIES[name](lengths, tour, length, **options)


@steady
@given(
    st.sampled_from(ALL),
    st.integers(1, 64).flatmap(
        lambda length: st.tuples(st.just(length), st.lists(st.integers(1, 5 * length), max_size=30))
    ),
    st.integers(0, 3),
    st.sampled_from(["split", "truncate", "drop"]),
    st.booleans(),
)
def test_every_framed_token_is_placed_once_or_counted(
    strategy, case, separator, long_documents, at_sentences
):
    name, options = strategy
    length, lengths = case
    framed = np.array(lengths, np.int64) + separator
    if at_sentences and name != "concat":
        every_third = [np.arange(3, n, 3) for n in lengths]
        offsets = np.cumsum([0, *map(len, every_third)])
        values = np.concatenate([np.zeros(0, np.int64), *every_third])
        options = {**options, "ends": SentenceEnds(offsets, values)}
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
            assert 0 <= start < end <= framed[doc]
            # Best-fit places the pieces of a document by size.
            assert last_end[doc] <= start or name == "best_fit"
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
        ([800], 8, 100),
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
