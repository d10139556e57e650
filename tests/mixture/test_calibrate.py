"""Lambda from the documents: nearest to the target, the same through bins, whatever the order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.mixture.calibrate import (
    BINS,
    bins,
    calibrate,
    events,
    settled,
    straddling,
)
from longctx.mixture.chance import F64, I64, copies, uniforms


def drawn(seed: int, n: int = 40) -> tuple[F64, I64, F64, list[str]]:
    rng = np.random.default_rng(seed)
    ids = [f"d{i}" for i in rng.permutation(n)]
    size = np.exp(rng.normal(8, 1.5, n)).astype(np.int64) + 1
    rho = rng.choice([0.0, 0.1, 0.5, 1.0], n)
    rho[0] = 1.0
    return uniforms(seed, ids, "mixture"), size, rho, ids


def realised(lam: float, u: F64, size: I64, rho: F64, most: int) -> int:
    return int((copies(lam * rho, u, most) * size).sum())


def test_a_case_by_hand() -> None:
    # Events of 10 at .2, 1.2; of 4 at .5 / .5 = 1, 3: sums 10, 14, 24, 28.
    u, size, rho = np.array([0.2, 0.5]), np.array([10, 4]), np.array([1.0, 0.5])
    for target, expected in ((4, 0.1), (5, 0.1), (6, 0.6), (13, 1.1), (20, 2.1), (27, 4.0)):
        assert calibrate(u, size, rho, ["a", "b"], target, 2) == pytest.approx(expected)


@given(st.integers(0, 10**6), st.floats(0.01, 5), st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_what_is_realised_is_within_half_a_document(seed: int, much: float, most: int) -> None:
    u, size, rho, ids = drawn(seed)
    largest = int(size[rho > 0].max())
    target = much * float(size[rho > 0].sum())
    found = settled(u, size, rho, ids, target, most)
    got = realised(found.lam, u, size, rho, most)
    assert found.everything == (got == most * int(size[rho > 0].sum()))
    if not found.everything:
        assert abs(got - target) <= largest / 2
    # No other lambda comes nearer.
    for lam in np.append(events(u, size, rho, most).place * (1 + 1e-12), 0.0):
        other = realised(float(lam), u, size, rho, most)
        assert abs(other - target) >= abs(got - target) - 1e-6


@given(st.integers(0, 10**6), st.floats(0.01, 5), st.floats(0.05, 20))
@settings(max_examples=80, deadline=None)
def test_bins_give_the_same_number(seed: int, much: float, guess: float) -> None:
    u, size, rho, ids = drawn(seed)
    target = much * float((rho * size).sum())
    whole = settled(u, size, rho, ids, target, 4)
    counted = bins(events(u, size, rho, 4), guess * much)
    around, inside = straddling(counted, target)
    assert settled(u, size, rho, ids, target, 4, around, inside) == whole


def test_the_bin_of_the_target_is_small() -> None:
    rng = np.random.default_rng(1)
    n = 50_000
    u, size, rho = rng.random(n), rng.integers(100, 9000, n), np.ones(n)
    counted = bins(events(u, size, rho, 4), 0.4)
    _, (first, last) = straddling(counted, 0.4 * size.sum())
    inside = ((u >= first) & (u <= last)).sum()
    assert 0 < inside < 6 * n / BINS


@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_documents_means_nothing(seed: int, chance: object) -> None:
    u, size, rho, ids = drawn(seed)
    at = np.random.default_rng(seed + 1).permutation(len(ids))
    target = 0.7 * float(size.sum())
    moved = calibrate(u[at], size[at], rho[at], [ids[i] for i in at], target, 4)
    assert moved == calibrate(u, size, rho, ids, target, 4)


def test_documents_that_tie_go_by_id() -> None:
    u, size, rho = np.full(3, 0.5), np.array([5, 7, 9]), np.ones(3)
    assert calibrate(u, size, rho, ["c", "a", "b"], 7, 1) == 0.5
    # Nothing above the tie itself can be told apart: none is taken at lambda .5.
    assert realised(0.5, u, size, rho, 1) == 0


def test_nothing_to_calibrate() -> None:
    nothing = np.zeros(0)
    with pytest.raises(ValueError, match="without events"):
        calibrate(nothing, nothing.astype(np.int64), nothing, [], 10, 4)
    with pytest.raises(ValueError, match="without events"):
        straddling(bins(events(nothing, nothing.astype(np.int64), nothing, 4), 1), 10)
