"""Laws of losses: the worked examples, symmetries, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.bench.mixture import refusals
from longctx.errors import RecipeError
from longctx.mixture.laws import (
    critical_share,
    fit_law,
    fit_power,
    fit_two_domain,
    fitter,
    law_from,
    law_status,
    overall,
    predict,
)

SHARES = np.array([(a, b, 6 - a - b) for a in range(1, 5) for b in range(1, 6 - a)]) / 6
LOSSES = np.array([2.200, 2.291, 2.409, 2.531, 2.058, 2.130, 2.219, 1.946, 2.012, 1.865])
EXACT = 1.6 + np.exp(SHARES @ np.array([-2, 0.5, -0.4]))


def test_worked_example() -> None:
    law = fit_law(SHARES, LOSSES)
    assert law.huber == pytest.approx(3.63923e-6, abs=1e-9)
    assert law.c == pytest.approx(1.565497, abs=1e-4)
    assert law.t == pytest.approx([-1.848815, 0.499464, -0.350070], abs=1e-4)
    assert predict(law, [[1 / 3] * 3]) == pytest.approx([2.133020], abs=1e-5)
    assert law.r2 == pytest.approx(0.999812, abs=1e-6)
    assert law_status(law, SHARES, LOSSES).warned == ("few_runs",)


def test_law_without_noise_is_found_again() -> None:
    law = fit_law(SHARES, EXACT)
    assert law.c == pytest.approx(1.6, abs=1e-6)
    assert law.t == pytest.approx([-2, 0.5, -0.4], abs=1e-6)


def test_factor_before_the_exponential_is_a_shift() -> None:
    k, t = 1.7, np.array([-2, 0.5, -0.4])
    scaled = 1.6 + k * np.exp(SHARES @ t)
    assert scaled == pytest.approx(1.6 + np.exp(SHARES @ (t + np.log(k))), abs=1e-12)
    assert fit_law(SHARES, scaled).t == pytest.approx(t + np.log(k), abs=1e-5)


def test_sources_may_stand_in_any_order() -> None:
    order = [2, 0, 1]
    one, other = fit_law(SHARES, LOSSES), fit_law(SHARES[:, order], LOSSES)
    assert other.t == pytest.approx(one.t[order], abs=1e-4)


def test_unit_of_the_loss_scales_the_law() -> None:
    one, twice = fit_law(SHARES, LOSSES), fit_law(SHARES, 2 * LOSSES, delta=0.04)
    assert twice.c == pytest.approx(2 * one.c, abs=1e-3)
    assert twice.t == pytest.approx(one.t + np.log(2), abs=1e-3)


def test_huge_exponents_stay_finite() -> None:
    # One source almost always absent: nothing holds its t.
    X = np.array([[1 - e, e] for e in (0, 0, 0, 1e-6, 2e-6, 1e-6)])
    law = fit_law(X, np.array([2.0, 2.1, 2.05, 1.9, 1.8, 1.95]))
    assert np.isfinite(law.c)
    assert np.isfinite(predict(law, np.array([[0.5, 0.5], [0, 1]]))).all()


@pytest.mark.parametrize(
    ("X", "y", "said"),
    [
        ([[0.5, 0.6]], [2.0], "sum to 1.1"),
        ([[1.2, -0.2]], [2.0], "row 1"),
        ([[0.5, 0.5]], [np.nan], "loss of row 1"),
        ([[0.5, 0.5], [0.4, 0.6]], [2.0, 0.0], "loss of row 2"),
    ],
)
def test_what_is_no_run_is_refused(X: list[list[float]], y: list[float], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        fit_law(np.array(X), np.array(y))


def test_fewer_runs_than_unknowns_are_refused() -> None:
    status = law_status(fit_law(SHARES[:4], LOSSES[:4]), SHARES[:4], LOSSES[:4])
    assert "few_runs" in status.refused
    assert "fewer runs than unknowns" in " ".join(status.words())


def test_runs_without_the_own_source_are_warned_of() -> None:
    X = np.vstack([SHARES, [0, 0.5, 0.5], [0.5, 0.5, 0]])
    y = 1.6 + np.exp(X @ np.array([-2, 0.5, -0.4]))
    law = fit_law(X, y)
    assert "boundary" in law_status(law, X, y, own=0).warned
    assert "boundary" not in law_status(law, X, y, own=1).warned


def test_flat_losses_are_refused() -> None:
    y = 2 + 1e-9 * np.random.default_rng(0).normal(size=len(SHARES))
    assert "flat" in law_status(fit_law(SHARES, y), SHARES, y).refused


def test_noise_is_refused_and_a_signal_is_not() -> None:
    noise, signal = refusals(12)
    assert noise >= 11
    assert signal <= 1


def test_law_survives_storing() -> None:
    law = fit_law(SHARES, LOSSES)
    again = law_from(law.as_dict())
    assert (predict(again, SHARES) == predict(law, SHARES)).all()
    assert again.status == law.status


def test_weighted_sum_of_laws() -> None:
    one, other = fit_law(SHARES, LOSSES), fit_law(SHARES, EXACT)
    found = overall([one, other], np.array([0.25, 0.75]), SHARES)
    assert found == pytest.approx(0.25 * predict(one, SHARES) + 0.75 * predict(other, SHARES))


def test_two_sources_and_the_share_that_keeps_a_loss() -> None:
    law = fit_two_domain([0.2, 0.35, 0.5, 0.65, 0.8], [2.3396, 2.2369, 2.1653, 2.1153, 2.0805])
    assert (law.c, law.k, law.b) == pytest.approx((1.999279, -2.390655, -0.599936), abs=1e-4)
    assert not law.degenerate
    assert critical_share(2.45, 1.9, -2.2, -0.1) == pytest.approx(0.226290, abs=1e-6)
    with pytest.raises(RecipeError, match="never reaches"):
        critical_share(1.8, 1.9, -2.2, -0.1)
    with pytest.raises(RecipeError, match="three runs"):
        fit_two_domain([0.5, 0.5], [2.0, 2.1])


def test_losses_that_do_not_bend_are_degenerate() -> None:
    shares = np.linspace(0.1, 0.9, 9)
    assert fit_two_domain(shares, 3 - 2 * shares).degenerate


def test_power_law_of_steps() -> None:
    x = np.arange(10_000, 30_001, 2000.0)
    Y = np.column_stack([2 + 3 * (900 / x) ** 0.7, 1.5 + (2500 / x) ** 0.7])
    law = fit_power(x, Y, 0.55, 0.9)
    assert law.alpha == pytest.approx(0.7, abs=1e-6)
    assert law.predict([1e5])[0] == pytest.approx([2.110941, 1.575606], abs=1e-5)
    with pytest.raises(RecipeError, match="three different steps"):
        fit_power(x[:2], Y[:2], 0.55, 0.9)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_runs_give_a_finite_law_and_the_same_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, y = rng.dirichlet([0.3] * 4, 12), rng.uniform(0.5, 9, 12)
    one, other = fitter(n_grid=8, top=1)(X, y), fitter(n_grid=8, top=1)(X, y)
    corners = np.eye(4)
    assert np.isfinite(one(corners)).all()
    assert (one(corners) == other(corners)).all()
