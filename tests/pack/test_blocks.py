"""Blocks of the order: which a row lies in, and how their windows are numbered."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.pack.blocks import Borders, block_of, choose_borders, window_starts
from longctx.pack.frame import Placement
from longctx.pack.numbering import window_keys, window_numbers

PLACES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "bb", "c", "é"]), st.integers(0, 9)), max_size=40
)


def chunked(tours: list[str]) -> pa.ChunkedArray:
    half = len(tours) // 2
    return pa.chunked_array([tours[:half], tours[half:]], pa.string())


@settings(deadline=None, max_examples=200)
@given(PLACES, PLACES, st.integers(1, 6))
def test_blocks_are_ranges_of_the_order(
    sample: list[tuple[str, int]], places: list[tuple[str, int]], blocks: int
):
    borders = choose_borders(
        [t for t, _ in sample], np.array([r for _, r in sample], dtype=np.int64), blocks
    )
    cut = list(zip(borders.tour, borders.rank.tolist(), strict=True))
    assert cut == sorted(set(cut))
    assert len(cut) < blocks
    ranks = np.array([r for _, r in places], dtype=np.int64)
    found = block_of(chunked([t for t, _ in places]), ranks, borders)
    assert found.dtype == np.int32
    assert found.tolist() == [sum(place >= border for border in cut) for place in places]


def test_blocks_of_one_tour_and_of_many_are_of_equal_size():
    for tour, rank in (
        (["t"] * 1000, np.arange(1000)),
        ([f"t{i:08d}" for i in range(1000)], np.zeros(1000, dtype=np.int64)),
    ):
        borders = choose_borders(tour[::7], rank[::7], 4)
        sizes = np.bincount(block_of(chunked(tour), rank, borders))
        assert len(sizes) == 4
        assert sizes.max() <= 260


def test_one_block_has_no_borders():
    borders = choose_borders(["a", "b"], np.array([1, 2]), 1)
    assert borders == Borders([], borders.rank)
    assert block_of(chunked(["a", "z"]), np.array([5, 0]), borders).tolist() == [0, 0]


def test_windows_are_counted_over_blocks():
    assert window_starts({0: 3, 2: 4}, 4).tolist() == [0, 3, 3, 7]


def test_keys_sort_windows_as_their_numbers_do(monkeypatch: pytest.MonkeyPatch):
    window = np.repeat(np.arange(50), 2)
    rows = np.arange(100)
    placement = Placement(window, rows, np.zeros(100, np.int64), np.full(100, 5))
    ids = pa.chunked_array([[f"d{i}" for i in range(100)]])
    number = window_numbers(placement, ids, 7)
    keys = window_keys(placement, ids, 7)
    np.testing.assert_array_equal(
        np.argsort(keys, kind="stable"), np.argsort(number, kind="stable")
    )
    whole, part = placement, Placement(*(c[40:] for c in vars(placement).values()))
    np.testing.assert_array_equal(window_keys(part, ids, 7), window_keys(whole, ids, 7)[40:])
    monkeypatch.setattr("longctx.pack.numbering._AT_ONCE", 7)
    np.testing.assert_array_equal(window_keys(placement, ids, 7), keys)
