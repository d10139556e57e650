"""Neighbour lists of documents in one process."""

import numpy as np
import pytest

from jobs.bench.datasets import hier
from longctx.cluster.knn import search
from longctx.cluster.lists import search_all
from longctx.ids import doc_keys

X = hier(600, 32)
KEYS = doc_keys([f"d{i}" for i in range(len(X))])


def test_few_documents_are_searched_exactly():
    found = search_all(X, KEYS, 17, 12, 600)
    ((rows, lists),) = found.blocks()
    np.testing.assert_array_equal(rows, np.arange(600))
    np.testing.assert_array_equal(lists, search(X, 0, 600, 12)[0])
    assert (found.cells, found.recall) == (None, 1.0)


def test_many_documents_are_searched_in_cells(monkeypatch: pytest.MonkeyPatch):
    found = search_all(X, KEYS, 17, 12, 0)
    assert found.cells is not None
    assert found.recall >= 0.9
    ((_, lists),) = found.blocks()
    exact = search(X, 0, 600, 10)[0]
    hits = (lists[:, :, None] == exact[:, None, :]).any(axis=1).mean()
    assert hits == pytest.approx(found.recall, abs=0.02)
    monkeypatch.setattr("longctx.cluster.lists._CELL_BLOCK", 70)
    ((_, in_blocks),) = search_all(X, KEYS, 17, 12, 0).blocks()
    np.testing.assert_array_equal(lists, in_blocks)


@pytest.mark.parametrize("exact_up_to", [0, 10])
@pytest.mark.parametrize("n", [1, 2])
def test_the_fewest_documents(n: int, exact_up_to: int):
    ((_, lists),) = search_all(X[:n], KEYS[:n], 17, 12, exact_up_to).blocks()
    assert lists.tolist() == [[[-1]], [[1], [0]]][n - 1]


def test_no_documents():
    ((rows, lists),) = search_all(X[:0], KEYS[:0], 17, 12, 10).blocks()
    assert len(rows) == len(lists) == 0
