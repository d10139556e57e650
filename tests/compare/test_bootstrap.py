"""Intervals hold the truth as often as they say, and nothing but units and seed changes them."""

import numpy as np
import pytest

from longctx.compare.bootstrap import LEAST, Interval, Resampled, ratio, weights

RESAMPLES = 400


def resampled(total: np.ndarray, weight: np.ndarray, keys: np.ndarray, seed: int = 0) -> Resampled:
    return ratio(total, weight, weights(keys, seed, RESAMPLES))


def drawn(rng: np.random.Generator, units: int, mean: float) -> tuple[np.ndarray, ...]:
    """Skewed gains of units with different numbers of tokens."""
    tokens = rng.integers(500, 1500, units).astype(np.float64)
    gains = mean * rng.lognormal(-0.32, 0.8, units)
    return gains * tokens, tokens, rng.integers(0, 2**63, units).astype(np.uint64)


def test_intervals_hold_the_truth() -> None:
    held = 0
    rng = np.random.default_rng(11)
    for _ in range(300):
        found = resampled(*drawn(rng, 32, mean=0.03)).interval()
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.03 <= found.high
    assert 0.88 < held / 300 < 0.99


def test_intervals_of_differences_hold_the_truth_and_see_what_is_there() -> None:
    rng = np.random.default_rng(12)
    same = higher = 0
    for _ in range(150):
        base = resampled(*drawn(rng, 32, mean=0.03))
        same += resampled(*drawn(rng, 32, mean=0.03)).less(base).side == 0
        higher += resampled(*drawn(rng, 32, mean=0.09)).less(base).side == 1
    assert same / 150 > 0.88
    assert higher / 150 > 0.85


def test_equal_runs_do_not_differ_at_all() -> None:
    total, weight, keys = drawn(np.random.default_rng(1), 20, 0.02)
    order = np.random.default_rng(2).permutation(20)
    one, other = resampled(total, weight, keys), resampled(total[order], weight[order], keys[order])
    found = one.less(other)
    assert found.value == pytest.approx(0, abs=1e-15)
    assert found.low == pytest.approx(0, abs=1e-15)
    assert one.less(one) == Interval(0.0, 0.0, 0.0)
    assert one.less(one).side == 0


def test_shared_units_make_a_paired_difference() -> None:
    """A run with a little more in every unit differs clearly, however far units lie apart."""
    total, weight, keys = drawn(np.random.default_rng(3), 32, 0.03)
    more = total + 0.001 * weight
    assert resampled(more, weight, keys).less(resampled(total, weight, keys)).side == 1
    others = np.arange(32, dtype=np.uint64)
    assert resampled(more, weight, others).less(resampled(total, weight, keys)).side == 0


def test_weights_follow_from_key_and_seed_alone() -> None:
    keys = np.array([5, 900, 2**63 + 1], dtype=np.uint64)
    found = weights(keys, 7, RESAMPLES)
    assert found.shape == (RESAMPLES, 3)
    assert np.array_equal(found[:, [2, 0]], weights(keys[[2, 0]], 7, RESAMPLES))
    assert not np.array_equal(found, weights(keys, 8, RESAMPLES))
    assert found.mean() == pytest.approx(1, abs=0.1)
    assert weights(keys[:0], 7, RESAMPLES).shape == (RESAMPLES, 0)


def test_a_few_units_have_no_interval() -> None:
    total, weight, keys = drawn(np.random.default_rng(4), LEAST, 0.03)
    assert resampled(total, weight, keys).interval().low is not None
    # A unit without such tokens does not count.
    weight[0] = total[0] = 0
    found = resampled(total, weight, keys)
    assert found.units == LEAST - 1
    assert found.interval() == Interval(found.value)
    assert found.less(found) == Interval(0.0)


def test_nothing_has_no_value() -> None:
    found = resampled(np.zeros(3), np.zeros(3), np.arange(3, dtype=np.uint64))
    assert found.interval() == found.less(found) == Interval()
    assert Interval().side == 0


@pytest.mark.parametrize(
    ("low", "high", "side"), [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.2, 0)]
)
def test_sides(low: float, high: float, side: int) -> None:
    assert Interval((low + high) / 2, low, high).side == side
