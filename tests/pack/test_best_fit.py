import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.pack.best_fit import pack_best_fit
from longctx.pack.frame import SentenceEnds
from tests.pack.reference import one_tour, reference_best_fit, steady, windows_of


def test_the_examples_of_the_specification():
    assert windows_of(pack_best_fit(np.array([6, 5, 3, 12, 2, 4, 1]), one_tour(7), 10)) == [
        [(3, 0, 10)],
        [(0, 0, 6), (5, 0, 4)],
        [(1, 0, 5), (2, 0, 3), (3, 10, 12)],
        [(4, 0, 2), (6, 0, 1)],
    ]
    tokens = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10], [11]]
    plan = pack_best_fit(np.array([len(t) for t in tokens]), one_tour(4), 4)
    packed = [[t for d, s, e in w for t in tokens[d][s:e]] for w in windows_of(plan)]
    assert packed == [[1, 2, 3, 4], [8, 9, 10, 5], [6, 7, 11]]


@steady
@given(st.lists(st.integers(0, 60), max_size=40), st.integers(1, 20))
def test_equals_the_plain_form_and_leaves_one_window_half_full_at_most(lengths, length):
    plan = pack_best_fit(np.array(lengths, np.int64), one_tour(len(lengths)), length)
    windows = windows_of(plan)
    assert windows == reference_best_fit(lengths, length)
    filled = [sum(e - s for _, s, e in w) for w in windows]
    assert sum(2 * tokens <= length for tokens in filled) <= 1


@pytest.mark.parametrize("length", [3, 1_000, 4_097, 131_072])
def test_any_window_length_packs_as_well_as_a_power_of_two(length):
    lengths = np.random.default_rng(2).integers(1, length + 1, 3_000)
    plan = pack_best_fit(lengths, one_tour(3_000), length)
    fewest = -(-int(lengths.sum()) // length)
    windows = int(plan.placement.window[-1]) + 1
    assert fewest <= windows <= 11 / 9 * fewest + 4
    if length > 3:
        assert fewest / windows > 0.98


def test_long_streams_are_sorted_by_counting_with_the_same_result():
    lengths = np.random.default_rng(4).integers(1, 9, 500)
    assert windows_of(pack_best_fit(lengths, one_tour(500), 8)) == reference_best_fit(
        lengths.tolist(), 8
    )


def test_tours_that_may_not_be_crossed_are_packed_alone():
    g = np.random.default_rng(6)
    lengths, tour = g.integers(1, 30, 200), np.sort(g.integers(0, 12, 200)).astype(np.int32)
    expected = []
    for number in range(12):
        rows = np.flatnonzero(tour == number)
        own = reference_best_fit(lengths[rows].tolist(), 40)
        expected += [[(d + rows[0], s, e) for d, s, e in w] for w in own]
    assert windows_of(pack_best_fit(lengths, tour, 40, cross_tours=False)) == expected


def test_sentence_pieces_are_placed_by_their_size():
    ends = SentenceEnds(np.array([0, 2, 2]), np.array([19, 38]))
    plan = pack_best_fit(np.array([45, 1]), one_tour(2), 20, ends=ends)
    assert windows_of(plan) == [[(0, 0, 19), (1, 0, 1)], [(0, 19, 38)], [(0, 38, 45)]]
