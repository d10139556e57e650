"""Fill, cuts, documents and repeats of small windows, counted by hand."""

from typing import Any

import numpy as np
import pytest

from longctx.compare.counts import count, repeated
from longctx.compare.windows import Packed


def packed(windows: list[list[tuple[Any, ...]]], *, ids: bool = True) -> Packed:
    """Segments as (document, doc_start, tokens, content, source)."""
    rows = [segment for window in windows for segment in window]
    document, doc_start, tokens, content, source = np.array(rows, dtype=np.int64).T
    borders = np.cumsum([0, *map(len, windows)])
    return Packed(
        borders,
        tokens,
        content.astype(np.uint64),
        np.arange(len(windows), dtype=np.uint64),
        document.astype(np.uint64) if ids else None,
        doc_start if ids else None,
        source.astype(np.uint64) if ids else None,
    )


# Document 1 is whole, 2 is cut though it fits, 3 is longer than a window of 10, 4 stands twice.
WINDOWS = [
    [(1, 0, 4, 11, 1), (2, 0, 3, 21, 1)],
    [(2, 3, 3, 22, 1), (4, 0, 2, 41, 2)],
    [(3, 0, 10, 31, 2)],
    [(3, 10, 2, 32, 2), (4, 0, 2, 41, 2), (5, 0, 1, 41, 3)],
]


def test_counts_by_hand():
    found = count(packed(WINDOWS), 10)
    assert (found.windows, found.tokens, found.documents) == (4, 27, 5)
    assert found.fill == 27 / 40
    assert found.split == 2 / 5
    assert found.split_short == 1 / 4
    assert (found.docs_mean, found.docs_median, found.one_document) == (2.0, 2.0, 0.25)
    assert found.sources_mean == 1.5
    assert found.repeats == 0.25


def test_without_names_cuts_are_unknown_and_contents_are_documents():
    found = count(packed(WINDOWS, ids=False), 10)
    assert (found.split, found.split_short, found.sources_mean) == (None, None, None)
    assert found.documents == 6
    assert found.repeats == 0.25


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ([(1, 0, 4, 11, 1), (1, 4, 4, 12, 1)], False),
        ([(1, 0, 4, 11, 1), (1, 0, 2, 12, 1)], True),
        ([(1, 0, 4, 11, 1), (2, 0, 4, 11, 1)], True),
        ([(1, 0, 1, 0, 1), (2, 0, 1, 0, 1)], False),
    ],
)
def test_what_is_repeated(window, expected: bool):
    assert repeated(packed([window, [(9, 0, 4, 11, 1)]])).tolist() == [expected, False]


def test_only_documents_that_do_not_fit():
    found = count(packed([[(1, 0, 4, 11, 1)], [(1, 4, 4, 12, 1)]]), 4)
    assert (found.split, found.split_short) == (1.0, None)
