"""Excerpts keep every border, and the place of far context is what counting token by token says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from longctx.compare.excerpt import (
    BOTH,
    NEAR,
    OTHER,
    SAME,
    Excerpt,
    Piece,
    cut,
    cut_at_border,
    joined,
    origins,
)
from longctx.compare.excerpt import place as place_of

SEPARATOR = 9


def pieces(*sizes: tuple[int, int]) -> list[Piece]:
    """A piece for each (document, tokens); token ids tell the piece."""
    return [Piece(d, np.full(n, 10 + i, np.int32)) for i, (d, n) in enumerate(sizes)]


def test_a_separator_stands_between_documents_and_belongs_to_none() -> None:
    unknown = Piece(5, np.array([30, 31], np.int32), judged=False)
    found = joined([*pieces((7, 3), (5, 0)), unknown, *pieces((7, 1))], SEPARATOR)
    assert found.ids.tolist() == [10, 10, 10, 9, 30, 31, 9, 10]
    assert found.documents.tolist() == [5, 7]
    assert found.document.tolist() == [1, 1, 1, -1, 0, 0, -1, 1]
    assert found.counted.tolist() == [True] * 3 + [False] * 4 + [True]
    assert len(joined([], SEPARATOR)) == len(joined(pieces((1, 0)), SEPARATOR)) == 0


@given(length=st.integers(1, 50), size=st.integers(1, 50), key=st.integers(0, 2**64 - 1))
def test_cuts_lie_inside(length: int, size: int, key: int) -> None:
    if size <= length:
        assert 0 <= place_of(length, size, key) <= length - size


def test_every_place_is_as_likely_as_another() -> None:
    places = [place_of(13, 4, key) for key in range(5_000)]
    counts = np.bincount(places, minlength=10)
    assert len(counts) == 10
    assert abs(counts - 500).max() < 5 * np.sqrt(500)


def test_a_cut_keeps_what_its_tokens_are() -> None:
    whole = joined(pieces((4, 5), (8, 6)), SEPARATOR)
    first = place_of(12, 7, 3)
    found = cut(whole, 7, 3)
    assert found.ids.tolist() == whole.ids[first : first + 7].tolist()
    assert found.document.tolist() == whole.document[first : first + 7].tolist()


def test_a_cut_at_a_border_begins_a_document_where_it_is_wanted() -> None:
    sizes = [(1, 6), (2, 5), (3, 1), (4, 9), (1, 7)]
    whole = joined(pieces(*sizes), SEPARATOR)
    begins = [7, 13, 15, 25]
    found = set()
    for key in range(60):
        one = cut_at_border(whole, 10, 4, key)
        assert one is not None
        (at,) = [b for b in begins if np.array_equal(whole.ids[b - 6 : b + 4], one.ids)]
        found.add(at)
    assert found == set(begins)
    # 7 needs six tokens before it, and none has thirty.
    assert cut_at_border(whole, 34, 4, 0) is None
    silent = Excerpt(whole.ids, whole.document, whole.documents, np.zeros(len(whole), bool))
    assert cut_at_border(silent, 10, 4, 0) is None


def by_counting(excerpt: Excerpt, start: np.ndarray, t: int) -> int:
    before = [d for d in excerpt.document[: start[t]].tolist() if d >= 0]
    if start[t] == 0:
        return NEAR
    own = sum(d == excerpt.document[t] for d in before)
    return OTHER if own == 0 else SAME if own == len(before) else BOTH


@given(
    sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=8),
    stride=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_where_far_context_lies_is_what_counting_says(
    sizes: list[tuple[int, int]], stride: int, seed: int
) -> None:
    excerpt = joined(pieces(*sizes), SEPARATOR)
    t = np.arange(len(excerpt))
    start = np.maximum(0, (t // stride - np.random.default_rng(seed).integers(1, 4)) * stride)
    found = origins(excerpt, start)
    for at in t[excerpt.document >= 0].tolist():
        assert found[at] == by_counting(excerpt, start, at)


def test_pieces_of_one_document_are_one_document() -> None:
    excerpt = joined(pieces((1, 4), (2, 4), (1, 4)), SEPARATOR)
    start = np.zeros(14, np.int64)
    start[[6, 11, 12, 13]] = [4, 4, 9, 9]
    assert origins(excerpt, start)[[0, 6, 11, 12]].tolist() == [NEAR, OTHER, SAME, BOTH]
