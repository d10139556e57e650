import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from longctx.pack.lengths import deal, stretches
from tests.pack.reference import steady


def test_stretches_end_where_they_hold_enough():
    assert stretches(np.array([3, 3, 9, 1, 1, 1]), 5).tolist() == [0, 0, 1, 2, 2, 2]
    assert stretches(np.zeros(0, np.int64), 5).tolist() == []


def test_stretches_go_to_the_length_that_is_furthest_behind():
    target = deal(np.ones(12, np.int64), [8, 4], [0.75, 0.25], 0, 2)
    by_stretch = target[::2].tolist()
    assert target[1::2].tolist() == by_stretch
    assert by_stretch == [0, 1, 0, 0, 0, 0] or by_stretch == [0, 0, 1, 0, 0, 0]
    assert (target == 0).sum() in (9, 10)


def test_a_document_too_long_for_its_stretch_goes_to_the_longest_length():
    lengths = np.array([2, 2, 6, 2, 2, 6, 2, 2])
    target = deal(lengths, [4, 16], [0.5, 0.5], 0, 10)
    assert target[[2, 5]].tolist() == [1, 1]


def test_the_longest_length_takes_no_more_than_its_share():
    lengths = np.full(10, 8)
    target = deal(lengths, [4, 16], [0.9, 0.1], 0, 16)
    assert lengths[target == 1].sum() <= 16


def test_equal_deficits_are_decided_by_the_seed():
    found = {tuple(deal(np.ones(8, np.int64), [4, 4], [0.5, 0.5], s, 2)) for s in range(8)}
    assert len(found) > 1


@steady
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=300),
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20)), min_size=2, max_size=4),
    st.integers(1, 100),
    st.integers(0, 5),
)
def test_shares_are_reached_within_one_stretch(lengths, targets, tokens, seed):
    lengths = np.array(lengths, np.int64)
    windows = [w for w, _ in targets]
    shares = np.array([s for _, s in targets]) / sum(s for _, s in targets)
    target = deal(lengths, windows, shares.tolist(), seed, tokens)
    assert ((target >= 0) & (target < len(windows))).all()
    longest = max(np.bincount(stretches(lengths, tokens), weights=lengths))
    given_tokens = np.bincount(target, weights=lengths, minlength=len(windows))
    assert (np.abs(given_tokens - shares * lengths.sum()) <= longest + 1e-6).all()
