import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.cluster.similarity import nearest, pair_similarities


def unit_rows(seed: int, n: int, d: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def brute_force(Q: np.ndarray, B: np.ndarray, k: int, skip: np.ndarray) -> np.ndarray:
    """Exact integers in float64 leave no room for rounding, so any correct method agrees."""
    products = Q.astype(np.float64) @ B.T.astype(np.float64)
    rows = []
    for i, row in enumerate(products):
        ranked = [j for j in np.lexsort((np.arange(len(B)), -row)) if j != skip[i]][:k]
        rows.append(ranked + [-1] * (k - len(ranked)))
    return np.array(rows).reshape(len(Q), k)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_nearest_agrees_with_sorting_everything_even_when_most_pairs_tie(data):
    n, d, k = (data.draw(st.integers(1, high)) for high in (30, 12, 12))
    values = st.lists(st.integers(-2, 2), min_size=n * d, max_size=n * d)
    B = np.array(data.draw(values), dtype=np.float32).reshape(n, d)
    skip = np.arange(n)
    numbers, sims = nearest(B, B, k, skip, block_bytes=data.draw(st.integers(1, 4 * n * n)))
    np.testing.assert_array_equal(numbers, brute_force(B, B, k, skip))
    assert np.isneginf(sims[numbers < 0]).all()


def test_similarity_does_not_depend_on_which_vector_comes_first_or_on_the_block():
    X = unit_rows(1, 300, 77)
    u, v = np.arange(299), np.arange(1, 300)
    forward = pair_similarities(X, u, v)
    np.testing.assert_array_equal(forward, pair_similarities(X, v, u))
    exact = np.einsum("ij,ij->i", X[u].astype(np.float64), X[v].astype(np.float64))
    np.testing.assert_array_equal(forward, exact.astype(np.float32))
    whole = nearest(X, X, 9)
    for block_bytes in (1, 5_000, 99_999):
        for a, b in zip(whole, nearest(X, X, 9, block_bytes=block_bytes), strict=True):
            np.testing.assert_array_equal(a, b)


def test_near_ties_below_the_resolution_of_a_float32_product_are_decided_exactly():
    # 200 copies that differ in the last bits: a float32 product shuffles them, exact values do not.
    rng = np.random.default_rng(5)
    base = rng.standard_normal(384)
    B = (base + 1e-6 * rng.standard_normal((200, 384))).astype(np.float32)
    B /= np.linalg.norm(B, axis=1, keepdims=True)
    numbers, sims = nearest(B[:50], B, 10, np.arange(50))
    for i in range(50):
        every = pair_similarities(B, np.full(200, i), np.arange(200))
        every[i] = -np.inf
        best = np.lexsort((np.arange(200), -every))[:10]
        np.testing.assert_array_equal(numbers[i], best)
        np.testing.assert_array_equal(sims[i], every[best])


def test_copies_of_a_query_are_listed_by_number_however_many_tie():
    rng = np.random.default_rng(6)
    few = unit_rows(7, 5, 24)
    B = few[rng.integers(0, 5, 400)]
    numbers, sims = nearest(B, B, 7, np.arange(400))
    every = np.stack([pair_similarities(B, np.full(400, i), np.arange(400)) for i in range(400)])
    every[np.arange(400), np.arange(400)] = -np.inf
    for i in range(400):
        best = np.lexsort((np.arange(400), -every[i]))[:7]
        np.testing.assert_array_equal(numbers[i], best)
        np.testing.assert_array_equal(sims[i], every[i][best])


@pytest.mark.parametrize(("m", "n", "k"), [(0, 5, 3), (5, 0, 3), (5, 5, 0)])
def test_empty_sides_give_empty_lists(m, n, k):
    numbers, sims = nearest(unit_rows(0, m, 4), unit_rows(0, n, 4), k)
    assert numbers.shape == sims.shape == (m, k)
    assert (numbers == -1).all()
