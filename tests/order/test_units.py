"""Units: the sentences of a document, neither tiny nor long."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.ids import doc_keys
from longctx.order.units import document_units, evenly_chosen, unit_keys, unit_spans
from longctx.text.tokenize import load_tokenizer


def spans(ends: list[int], low: int = 16, high: int = 128) -> list[tuple[int, int]]:
    return [(a, b) for a, b in unit_spans(ends, low, high).tolist()]


def test_short_sentences_are_joined_to_the_next():
    assert spans([5, 12, 30, 50]) == [(0, 30), (30, 50)]
    assert spans([16, 32]) == [(0, 16), (16, 32)]


def test_a_short_end_joins_the_unit_before_it():
    assert spans([20, 25]) == [(0, 25)]
    assert spans([20, 25, 30]) == [(0, 30)]


def test_a_document_shorter_than_a_unit_has_none():
    assert spans([15]) == spans([]) == spans([0, 0]) == []
    assert spans([16]) == [(0, 16)]


def test_long_sentences_are_cut_into_equal_pieces():
    assert spans([128]) == [(0, 128)]
    assert spans([129]) == [(0, 64), (64, 129)]
    assert spans([20, 320]) == [(0, 20), (20, 120), (120, 220), (220, 320)]
    # The short end joins first, and the whole is cut then.
    assert spans([120, 135]) == [(0, 67), (67, 135)]


def test_bounds_that_cannot_be_met_are_refused():
    with pytest.raises(ValueError, match="min_unit 20 and max_unit 10"):
        unit_spans([30], 20, 10)


@given(st.lists(st.integers(0, 400), max_size=60), st.integers(1, 20), st.integers(1, 8))
def test_units_tile_a_document_within_their_bounds(sizes, low, ratio):
    ends = np.cumsum(sizes, dtype=np.int64)
    high = 2 * low * ratio
    found = unit_spans(ends, low, high)
    total = int(ends[-1]) if sizes else 0
    if total < low:
        assert len(found) == 0
        return
    borders = [0, *found[:, 1].tolist()]
    assert found[:, 0].tolist() == borders[:-1]
    assert borders[-1] == total
    assert all(low <= b - a <= high for a, b in pairwise(borders))
    cut = [b for a, b in pairwise(borders[:-1]) if b not in set(ends.tolist())]
    assert all(b - a >= high // 2 for a, b in found.tolist() if b in cut)


@pytest.mark.parametrize(
    "text",
    [
        "The tide turned late in the night. Nobody on the shore saw it, but the reef did. " * 4,
        "潮水在深夜转向了，风也停了下来。没有人看见，但是珊瑚礁看见了它，一直到早晨。" * 4,
        "밤늦게 조류가 바뀌었고 바람도 멎었다. 아무도 그것을 보지 못했지만 산호초는 보았다. " * 4,
    ],
)
def test_units_of_a_text_are_its_tokens_and_its_characters(text):
    tokenizer = load_tokenizer("embedded")
    (ids,) = tokenizer.encode_batch([text])
    tokens, characters = document_units(tokenizer, ids, text)
    assert tokens.dtype == characters.dtype == np.int64
    assert tokens[0, 0] == 0
    assert tokens[-1, 1] == len(ids)
    for (a, b), (c, d) in zip(tokens.tolist(), characters.tolist(), strict=True):
        assert tokenizer.decode(ids[a:b]) == text[c:d]
        assert text[c:d].rstrip()[-1] in ".。"
        assert b - a >= 16


def test_documents_without_tokens_have_no_units():
    tokens, characters = document_units(load_tokenizer("embedded"), np.zeros(0, np.int32), "")
    assert tokens.shape == characters.shape == (0, 2)


def test_units_are_chosen_from_the_first_to_the_last():
    assert evenly_chosen(10, 4).tolist() == [0, 3, 6, 9]
    assert evenly_chosen(3, 4).tolist() == evenly_chosen(3, None).tolist() == [0, 1, 2]
    assert evenly_chosen(10, 1).tolist() == [0]
    assert evenly_chosen(0, 2).tolist() == []


def test_unit_keys_depend_on_the_document_and_the_place():
    keys = doc_keys(["a", "a", "b"])
    found = unit_keys(keys, np.array([0, 1, 0]))
    assert len(set(found.tolist())) == 3
    assert unit_keys(keys[1:2], np.array([1])) == found[1]
