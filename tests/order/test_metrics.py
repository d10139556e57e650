import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.cluster.knn import search
from longctx.order.metrics import (
    adjacency,
    best_earlier,
    coherence,
    dup_adjacent,
    jump_flags,
    jumps,
    top2_bound,
)
from tests.order.conftest import at_degrees

SIX = at_degrees(0, 10, 30, 60, 100, 150)


def order_of(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


@pytest.mark.parametrize(
    ("order", "mean", "whole", "earlier"),
    [
        (
            (0, 1, 2, 3, 4, 5),
            0.839872,
            (0.831207, 0.699893, 0.282965),
            (0.831207, 0.833333, 0.839872),
        ),
        (
            (0, 2, 1, 3, 5, 4),
            0.618259,
            (0.717200, 0.699893, 0.282965),
            (0.717200, 0.654219, 0.696581),
        ),
    ],
)
def test_six_vectors(order, mean, whole, earlier):
    P = order_of(*order)
    assert adjacency(SIX, P) == pytest.approx(mean, abs=1e-6)
    for w, value in zip((2, 3, 6), whole, strict=True):
        assert coherence(SIX, P, w) == pytest.approx(value, abs=1e-6)
    for w, value in zip((2, 3, 6), earlier, strict=True):
        assert best_earlier(SIX, P, w) == pytest.approx(value, abs=1e-6)


def test_top2_bound_of_six_vectors():
    _, sims = search(SIX, 0, 6, 2)
    assert top2_bound(sims) == pytest.approx(0.926474, abs=1e-6)


def test_a_second_link_below_zero_does_not_count_in_the_bound():
    X = at_degrees(0, 10, 180)
    _, sims = search(X, 0, 3, 2)
    exact = [np.cos(np.deg2rad(a)) for a in (10, 170, 180)]
    best = max(exact[0] + exact[1], exact[0] + exact[2], exact[1] + exact[2]) / 2
    bound = top2_bound(sims)
    assert bound is not None
    assert bound >= best - 1e-6
    plain = sims.astype(np.float64).sum() / 4
    assert plain < best  # without the max it would be no bound


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 60), st.sampled_from([2, 3, 5, 16]), st.integers(0, 2**32 - 1))
def test_invariances(n, w, seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 7))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    P = rng.permutation(n)
    assert adjacency(X, P[::-1]) == pytest.approx(adjacency(X, P), abs=1e-12)
    whole = P[: n // w * w]
    assert coherence(X, P, w) == coherence(X, whole, w)
    if len(whole):
        inside = np.concatenate([rng.permutation(group) for group in whole.reshape(-1, w)])
        assert coherence(X, inside, w) == pytest.approx(coherence(X, whole, w), abs=1e-9)
        assert coherence(X, whole[::-1], w) == pytest.approx(coherence(X, whole, w), abs=1e-9)
    else:
        assert coherence(X, P, w) is None
        assert best_earlier(X, P, w) is None


def test_best_earlier_has_a_direction():
    P = order_of(0, 2, 1, 3, 5, 4)
    assert best_earlier(SIX, P, 3) != pytest.approx(best_earlier(SIX, P[::-1], 3), abs=1e-3)


def test_blocks_do_not_change_the_figures():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((9001, 5))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    P = rng.permutation(9001)
    rows = X[P].astype(np.float64)
    assert adjacency(X, P) == pytest.approx((rows[1:] * rows[:-1]).sum(axis=1).mean(), abs=1e-12)
    pairs = [g @ g.T for g in rows[:9000].reshape(-1, 3, 5)]
    upper = np.triu_indices(3, 1)
    assert coherence(X, P, 3) == pytest.approx(np.mean([p[upper].mean() for p in pairs]), abs=1e-9)


def test_pairs_across_tours_count_only_in_the_concatenation():
    P = order_of(0, 1, 5, 4)
    cosine = np.cos(np.deg2rad([10, 140, 50]))
    assert adjacency(SIX, P) == pytest.approx(cosine.mean(), abs=1e-6)
    inside = adjacency(SIX, P, starts=order_of(0, 2))
    assert inside == pytest.approx(cosine[[0, 2]].mean(), abs=1e-6)


def test_jumps_and_near_duplicates_between_neighbours():
    lists, _ = search(SIX, 0, 6, 1)  # 0-1, 2-1, 3-2, 4-3, 5-4
    flags = jump_flags(order_of(1, 0, 2, 3, 5, 4), lists, 1)
    np.testing.assert_array_equal(flags, [False, True, False, True, False])
    assert jumps(order_of(1, 0, 2, 3, 5, 4), lists, 1) == pytest.approx(0.4)
    assert dup_adjacent(SIX, order_of(0, 1, 2, 3, 4, 5), 0.9) == pytest.approx(2 / 5)


@pytest.mark.parametrize("n", [0, 1])
def test_without_a_pair_there_is_no_figure(n):
    P = np.arange(n)
    lists, sims = search(SIX[:n], 0, n, 2)
    assert adjacency(SIX, P) is None
    assert dup_adjacent(SIX, P) is None
    assert jumps(P, lists, 2) is None
    assert top2_bound(sims) is None
