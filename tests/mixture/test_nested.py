"""Losses at other steps and sizes, from laws that are known exactly."""

import numpy as np
import pytest

from longctx.errors import RecipeError
from longctx.mixture.nested import at_size, at_step, nested

STEPS = np.arange(10_000, 30_001, 4000.0)
SIZES = np.array([70e6, 160e6, 305e6, 410e6])
FLOOR = np.array([[2.0, 1.5], [2.2, 1.4], [1.9, 1.7]])  # mixtures, groups


def test_steps_are_extrapolated_for_each_mixture() -> None:
    losses = FLOOR[:, None] + (2000 / STEPS[None, :, None]) ** 0.7
    expected = FLOOR + (2000 / 1e5) ** 0.7
    assert at_step(STEPS, losses, 1e5) == pytest.approx(expected, abs=1e-4)


def test_sizes_share_an_exponent() -> None:
    losses = FLOOR[:, None] + (1e7 / SIZES[None, :, None]) ** 0.5
    assert at_size(SIZES, losses, 1e9) == pytest.approx(FLOOR + 0.1, abs=1e-4)


def test_exponents_keep_their_bounds() -> None:
    # A free exponent near 0 would promise ever lower losses; a bounded one levels off.
    losses = FLOOR[:, None] + (2000 / STEPS[None, :, None]) ** 0.1
    bounded = at_step(STEPS, losses, 1e7)
    assert (bounded > FLOOR + (2000 / 1e7) ** 0.1).all()


def test_both_laws_one_in_the_other() -> None:
    of_size = (1e7 / SIZES[None, :, None, None]) ** 0.5
    losses = FLOOR[:, None, None] + of_size + (2000 / STEPS[None, None, :, None]) ** 0.7
    found = nested(STEPS, SIZES, losses, step=1e5, size=1e9)
    assert found == pytest.approx(FLOOR + 0.1 + (2000 / 1e5) ** 0.7, abs=2e-3)
    again = nested(STEPS, SIZES, losses, step=1e5, size=1e9)
    assert (found == again).all()


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(RecipeError, match="do not fit 4 sizes"):
        at_size(SIZES, np.ones((3, 2, 2)), 1e9)
    with pytest.raises(RecipeError, match="three different steps"):
        at_step(STEPS[:2], np.ones((3, 2, 2)), 1e5)
    with pytest.raises(ValueError, match="expected 4 dimensions"):
        nested(STEPS, SIZES, np.ones((3, 2, 2)), step=1, size=1)
