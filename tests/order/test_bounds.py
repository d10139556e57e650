from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.cluster.knn import search
from longctx.order.bounds import hk_bound, hk_bound_sparse
from longctx.order.metrics import adjacency, top2_bound
from tests.order.conftest import at_degrees, corpus_of


def test_six_vectors_are_solved_to_the_optimum():
    X = at_degrees(0, 10, 30, 60, 100, 150)
    assert hk_bound(X, np.arange(6)) == pytest.approx(0.839872, abs=1e-5)


def test_eight_vectors(eight):
    best = np.array([5, 3, 4, 1, 0, 6, 2, 7])
    assert hk_bound(eight.vectors, best) == pytest.approx(0.632742, abs=1e-5)
    assert hk_bound(eight.vectors, best, steps=1) == pytest.approx(0.649518, abs=1e-6)
    assert top2_bound(eight.sims) == pytest.approx(0.794308, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_no_order_beats_a_bound(n, k, seed, steps):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    best = max(adjacency(X, np.array(p)) for p in permutations(range(n)))
    corpus = corpus_of(X, k_search=max(k, 2), k=k)
    path = np.arange(n)
    dense = hk_bound(X, path, steps)
    assert dense >= best - 1e-5
    assert hk_bound_sparse(X, corpus.lists, corpus.sims, k, path, steps) >= best - 1e-5
    assert top2_bound(corpus.sims) >= best - 1e-5


def test_with_complete_lists_the_sparse_form_is_the_dense_one():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((60, 8))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    lists, sims = search(X, 0, 60, 59)
    path = np.arange(60)
    sparse = hk_bound_sparse(X, lists, sims, 59, path, steps=1)
    assert sparse == pytest.approx(hk_bound(X, path, steps=1), abs=1e-6)


@pytest.mark.parametrize("n", [0, 1])
def test_without_a_pair_there_is_no_bound(n):
    X = at_degrees(0)[:n]
    lists, sims = search(X, 0, n, 2)
    assert hk_bound(X, np.arange(n)) is None
    assert hk_bound_sparse(X, lists, sims, 2, np.arange(n)) is None
