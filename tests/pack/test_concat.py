import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.pack.concat import pack_concat
from longctx.pack.frame import Placement
from tests.pack.reference import one_tour, steady, windows_of

LENGTHS = np.array([6, 5, 3, 12, 2, 4, 1])


def test_the_example_of_the_specification():
    assert windows_of(pack_concat(LENGTHS, one_tour(7), 10)) == [
        [(0, 0, 6), (1, 0, 4)],
        [(1, 4, 5), (2, 0, 3), (3, 0, 6)],
        [(3, 6, 12), (4, 0, 2), (5, 0, 2)],
        [(5, 2, 4), (6, 0, 1)],
    ]


def test_each_tour_starts_a_window_when_tours_may_not_be_crossed():
    tour = np.array([0, 0, 0, 1, 1, 2, 2], np.int32)
    assert windows_of(pack_concat(LENGTHS, tour, 10, cross_tours=False)) == [
        [(0, 0, 6), (1, 0, 4)],
        [(1, 4, 5), (2, 0, 3)],
        [(3, 0, 10)],
        [(3, 10, 12), (4, 0, 2)],
        [(5, 0, 4), (6, 0, 1)],
    ]


def test_drop_last_drops_the_short_window_and_counts_its_tokens():
    plan = pack_concat(LENGTHS, one_tour(7), 10, drop_last=True)
    assert windows_of(plan)[-1] == [(3, 6, 12), (4, 0, 2), (5, 0, 2)]
    assert plan.counts["dropped_short_window"] == 3
    assert plan.counts["tokens_placed"] == 30


def test_long_documents_are_limited_before_they_are_laid_end_to_end():
    plan = pack_concat(LENGTHS, one_tour(7), 10, long_documents="drop")
    assert windows_of(plan)[1] == [(1, 4, 5), (2, 0, 3), (4, 0, 2), (5, 0, 4)]
    assert plan.counts["dropped_long"] == 12


@steady
@given(st.lists(st.integers(0, 90), max_size=20), st.integers(1, 20), st.data())
def test_any_slicing_of_the_stream_gives_the_same_windows(lengths, length, data):
    lengths = np.array(lengths, np.int64)
    cut = data.draw(st.integers(0, len(lengths)))
    whole = pack_concat(lengths, one_tour(len(lengths)), length)
    left = pack_concat(lengths[:cut], one_tour(cut), length).placement
    right = pack_concat(
        lengths[cut:], one_tour(len(lengths) - cut), length, first_token=int(lengths[:cut].sum())
    ).placement
    joined = Placement(
        np.concatenate([left.window, right.window]),
        np.concatenate([left.document, right.document + cut]),
        np.concatenate([left.start, right.start]),
        np.concatenate([left.end, right.end]),
    )
    assert windows_of(joined) == windows_of(whole)
    assert len(windows_of(whole)) == -(-int(lengths.sum()) // length)


def test_a_slice_has_no_tours_of_its_own():
    with pytest.raises(ValueError, match="first_token"):
        pack_concat(LENGTHS, one_tour(7), 10, cross_tours=False, first_token=4)
