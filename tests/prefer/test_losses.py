"""Reference losses: the worked examples, and what must hold for any numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.prefer import losses

SUMS = st.floats(-500, 0)


def test_dpo_of_the_worked_example() -> None:
    assert losses.dpo(-100, -120, -105, -118, 0.15) == pytest.approx(0.300058, abs=1e-6)


def test_logo_of_the_worked_example() -> None:
    found = losses.logo(-20, 40, [-60, -45], [30, 45], 10, 3, 0.1)
    assert found == pytest.approx(0.050911466, abs=1e-9)
    assert losses.logo(-20, 40, [-60, -45], [30, 45], 10, 3, 0) == pytest.approx(0.000911466)


@given(SUMS, SUMS, SUMS, SUMS, st.floats(0.01, 10))
def test_dpo_is_above_zero_and_falls_with_the_margin(
    pw: float, pl: float, rw: float, rl: float, beta: float
) -> None:
    loss = losses.dpo(pw, pl, rw, rl, beta)
    assert loss >= 0
    assert math.isfinite(loss)
    assert losses.dpo(pw + 1, pl, rw, rl, beta) <= loss
    assert losses.dpo(rw, rl, rw, rl, beta) == pytest.approx(math.log(2))


def test_a_more_likely_chosen_answer_lowers_the_loss_of_logo() -> None:
    worse = losses.logo(-40, 40, [-60], [30], 10, 3, 0.1)
    assert losses.logo(-20, 40, [-60], [30], 10, 3, 0.1) < worse
    with pytest.raises(ValueError, match="0 sums"):
        losses.logo(-20, 40, [], [], 10, 3, 0.1)
    with pytest.raises(ValueError, match="one at least"):
        losses.logo(-20, 0, [-1], [1], 10, 3, 0.1)
