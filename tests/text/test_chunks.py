"""Evenly spaced chunks: they tile short texts, cover both ends of long ones, never overlap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.text.chunks import evenly_spaced, sample_spans, snapped_span


def test_short_text_is_tiled():
    assert evenly_spaced(10, 4, 3).tolist() == [0, 4, 8]
    assert evenly_spaced(12, 4, 3).tolist() == [0, 4, 8]
    assert evenly_spaced(0, 4, 3).tolist() == []


def test_long_text_is_sampled_from_end_to_end():
    assert evenly_spaced(100, 10, 4).tolist() == [0, 30, 60, 90]
    assert evenly_spaced(100, 10, 1).tolist() == [0]
    assert evenly_spaced(2**40, 256, 2).tolist() == [0, 2**40 - 256]


@given(st.integers(0, 10_000), st.integers(1, 50), st.integers(1, 20))
def test_chunks_never_overlap_and_stay_inside(n, size, max_chunks):
    starts = evenly_spaced(n, size, max_chunks)
    assert starts.dtype == np.int64
    assert len(starts) == min(max_chunks, -(-n // size))
    assert (np.diff(starts) >= size).all()
    if len(starts):
        assert starts[0] == 0
        assert starts[-1] < n


@pytest.mark.parametrize(("size", "max_chunks"), [(0, 1), (1, 0)])
def test_sizes_below_one_are_refused(size, max_chunks):
    with pytest.raises(ValueError, match="at least 1"):
        evenly_spaced(5, size, max_chunks)


def test_spans_snap_to_words_inside():
    text = "alpha beta gamma"
    assert text[slice(*snapped_span(text, 2, 13))] == " beta "
    assert snapped_span(text, 6, 10) == (6, 10)
    assert snapped_span(text, 0, len(text)) == (0, len(text))
    assert snapped_span("x" * 300, 100, 200) == (100, 200)


def test_a_text_that_may_fit_is_whole():
    assert sample_spans("", 10, 3).spans == []
    assert sample_spans("a" * 120, 10, 3).spans == [(0, 120)]
    assert sample_spans("a" * 120, 10, 3).whole


@given(st.text("ab \n", min_size=121, max_size=2000), st.integers(1, 6))
def test_spans_of_a_long_text_are_bounded_and_apart(text, max_chunks):
    sample = sample_spans(text, 5, max_chunks)
    if sample.whole:
        assert len(text) <= 5 * max_chunks * 4
        return
    assert len(sample.spans) == max_chunks
    ends = [0, *(end for _, end in sample.spans)]
    for (start, end), before in zip(sample.spans, ends, strict=False):
        assert before <= start <= end <= len(text)
        assert end - start <= 30
