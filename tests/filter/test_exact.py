"""Exact sums: equal to rational arithmetic, and to themselves however the numbers are divided."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.filter.exact import ExactSums, exact_sums

steady = settings(derandomize=True, deadline=None)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64)


def deviations(values: list[float]) -> Fraction:
    exact = [Fraction(v) for v in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    return sum(((v - mean) ** 2 for v in exact), Fraction(0))


@steady
@given(st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=30))
def test_mean_and_deviations_are_rounded_once(values):
    found = exact_sums(values)
    assert found.n == len(values)
    assert found.mean == float(sum(map(Fraction, values)) / len(values))
    assert found.m2 == float(deviations(values))


@steady
@given(st.lists(FLOATS, max_size=40), st.integers(0, 40), st.randoms(use_true_random=False))
def test_any_division_in_any_order_gives_the_same_sums(values, cut, random):
    mixed = random.sample(values, len(values))
    parts = [exact_sums(mixed[:cut]), exact_sums(mixed[cut:])]
    found = sum(parts, ExactSums())
    assert found.total == exact_sums(values).total
    assert {e: s for e, s in found.second.items() if s} == {
        e: s for e, s in exact_sums(values).second.items() if s
    }


def test_the_example_of_the_specification():
    found = exact_sums([1, 2, 3]) + exact_sums([10]) + exact_sums([4, 4])
    assert (found.n, found.mean, found.m2) == (6, 4.0, 50.0)


def test_numbers_that_float_sums_lose():
    assert exact_sums([1e16, 1.0, -1e16]).total == 1.0
    assert exact_sums([0.1] * 10).mean == 0.1
    assert exact_sums([0.1] * 10).m2 == 0.0
    assert exact_sums([5e-324, 1e308, -1e308]).total == 5e-324
    assert exact_sums([1.7e308, 1.7e308]).total == np.inf
    assert exact_sums([-1.7e308, -1.7e308]).total == -np.inf


def test_what_is_not_finite_is_left_out():
    found = exact_sums([np.nan, 1.0, np.inf, -np.inf])
    assert (found.n, found.total) == (1, 1.0)
    assert exact_sums([]) == ExactSums()
    assert (ExactSums().mean, ExactSums().m2, ExactSums().total) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("values", [[], [1.5, -2.25, 1e300, 3e-310]])
def test_sums_travel_as_json(values):
    import json

    found = exact_sums(values)
    assert ExactSums.from_json(json.loads(json.dumps(found.to_json()))) == found
