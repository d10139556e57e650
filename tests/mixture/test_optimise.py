"""The optimum under caps: worked examples, two solvers, and bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.errors import RecipeError
from longctx.mixture.laws import Law, Status
from longctx.mixture.optimise import (
    Problem,
    caps_from,
    exponentiated_gradient,
    kkt_residual,
    kl,
    kl_projection,
    share_bounds,
    solve,
    solve_problem,
)

THREE = ([1.2, 1.5, 0.9], [[-2, 0.3, -0.5], [0.4, -1.8, -0.2], [-0.3, -0.6, -2.5]])


def problem(
    c: list[float],
    t: object,
    weights: list[float],
    *,
    lam: float = 0,
    prior: list[float] | None = None,
    hi: list[float] | None = None,
) -> Problem:
    slopes = np.array(t, dtype=float)
    m = slopes.shape[1]
    return Problem(
        np.array(c),
        slopes,
        np.array(weights),
        np.array(prior or [1 / m] * m),
        np.zeros(m),
        np.array(hi or [1.0] * m),
        lam,
    )


def own(a: list[float], weights: list[float], **more: object) -> Problem:
    """Each loss falls with the share of its own source alone."""
    return problem([0.0] * len(a), -np.diag(a), weights, **more)  # type: ignore[arg-type]


def law(c: float, t: list[float], refused: tuple[str, ...] = ()) -> Law:
    some = np.zeros(len(t))
    return Law(c, np.array(t), 9, 0.02, 0, 0, 1, some, some, some, Status(refused))


EXAMPLES = [
    (own([3, 1], [0.5, 0.5]), [(1 + np.log(3)) / 4], 0.414446),
    (own([3, 1], [0.5, 0.5], lam=0.05, prior=[0.8, 0.2]), [0.570943], 0.42248361),
    (own([6, 4, 2, 1], [0.25] * 4), [0.299342, 0.347647, 0.348720, 0.004292], 0.477115),
    (
        own([6, 4, 2, 1], [0.25] * 4, hi=[1, 0.2, 0.3, 1]),
        [0.327394, 0.2, 0.3, 0.172606],
        0.494964,
    ),
    (problem(*THREE, [0.5, 0.3, 0.2]), [0.454967, 0.314747, 0.230286], 1.70340917),
]


@pytest.mark.parametrize(("given_", "shares", "objective"), EXAMPLES)
def test_worked_examples_by_both_solvers(
    given_: Problem, shares: list[float], objective: float
) -> None:
    found = solve_problem(given_)
    assert found.shares[: len(shares)] == pytest.approx(shares, abs=1e-5)
    assert found.objective == pytest.approx(objective, abs=1e-6)
    assert found.kkt <= 1e-5
    assert found.method == "SLSQP"
    assert np.abs(exponentiated_gradient(given_) - found.shares).sum() < 1e-5


def test_three_laws_near_a_prior() -> None:
    found = solve_problem(problem(*THREE, [0.5, 0.3, 0.2], lam=0.05, prior=[0.6, 0.3, 0.1]))
    assert found.shares == pytest.approx([0.494600, 0.338202, 0.167198], abs=1e-5)
    assert found.loss == pytest.approx(1.70432557, abs=1e-7)
    loss = solve_problem(own([3, 1], [0.5, 0.5], lam=0.05, prior=[0.8, 0.2])).loss
    assert loss == pytest.approx(0.41573885, abs=1e-7)


def test_bounds_that_hold_are_named() -> None:
    found = solve_problem(own([6, 4, 2, 1], [0.25] * 4, hi=[1, 0.2, 0.3, 1]))
    assert (found.at_lo, found.at_hi) == ((), (1, 2))


def test_dear_departure_gives_the_prior_or_its_projection() -> None:
    weights, prior = [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]
    free = solve_problem(problem(*THREE, weights, lam=1e6, prior=prior))
    assert free.shares == pytest.approx(prior, abs=1e-5)
    capped = solve_problem(problem(*THREE, weights, lam=1e6, prior=prior, hi=[0.4, 1, 1]))
    assert capped.shares == pytest.approx([0.4, 0.45, 0.15], abs=1e-5)
    assert capped.shares == pytest.approx(
        kl_projection(np.array(prior), np.zeros(3), np.array([0.4, 1, 1])), abs=1e-5
    )


def test_source_without_prior_gets_nothing() -> None:
    found = solve_problem(problem(*THREE, [0.5, 0.3, 0.2], lam=0.05, prior=[0.6, 0.4, 0]))
    assert found.shares[2] == 0
    assert np.isfinite(found.objective)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_solvers_agree_and_order_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, k = int(rng.integers(2, 6)), int(rng.integers(1, 4))
    made = problem(
        rng.uniform(1, 2, k).tolist(),
        rng.normal(0, 1.5, (k, m)),
        rng.dirichlet(np.ones(k)).tolist(),
        lam=0.05,
        prior=rng.dirichlet(np.full(m, 3.0)).tolist(),
        hi=(rng.uniform(1.2, 2, m) / m).tolist(),
    )
    found = solve_problem(made)
    assert found.kkt <= 1e-5
    assert found.shares.sum() == pytest.approx(1)
    assert np.abs(exponentiated_gradient(made) - found.shares).sum() < 1e-5
    order = rng.permutation(m)
    turned = Problem(
        made.c,
        made.t[:, order],
        made.weights,
        made.prior[order],
        made.lo,
        made.hi[order],
        made.lam,
    )
    assert solve_problem(turned).shares == pytest.approx(found.shares[order], abs=1e-5)
    tighter = Problem(**(vars(made) | {"hi": np.maximum(made.hi * 0.9, 1 / m)}))
    assert solve_problem(tighter).objective >= found.objective - 1e-9


def test_residual_sees_what_is_no_optimum() -> None:
    made = own([3, 1], [0.5, 0.5])
    assert kkt_residual(made, np.array([0.5, 0.5])) > 0.01
    # At the bound the gradient says to come back.
    assert kkt_residual(made, np.array([0.0, 1.0])) > 0.5


def test_refused_law_is_not_solved_without_force() -> None:
    laws = [law(1, [-2, 0]), law(1, [0, -2], ("no_signal",))]
    with pytest.raises(RecipeError, match="1 of 2 laws were refused"):
        solve(laws)
    assert solve(laws, force=True).shares == pytest.approx([0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize(
    ("lo", "hi", "said"),
    [
        ([0, 0], [0.3, 0.4], "'books' 0.3.*"),
        ([0.7, 0.6], [1, 1], "least that all sources may have together is 1.3"),
        ([0.5, 0], [0.4, 1], "'books' needs at least 0.5 and may have at most 0.4"),
    ],
)
def test_bounds_without_a_mixture_name_the_sources(
    lo: list[float], hi: list[float], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        solve(
            [law(1, [-2, 0])], lo=np.array(lo), hi=np.array(hi), names=["books", "web"], prior=None
        )


def test_caps_are_epochs_and_observed_shares_bound() -> None:
    caps = caps_from(np.array([1e9, 1e11]), 2e10, 4)
    assert caps == pytest.approx([0.2, 20])
    X = np.array([[0.1, 0.9], [0.6, 0.4]])
    seen = share_bounds(X, caps=caps)
    assert (seen.lo.tolist(), seen.hi.tolist()) == ([0.1, 0.4], [0.2, 0.9])
    assert seen.why == ("tokens", "observed")
    assert share_bounds(X, "simplex", caps=caps).hi.tolist() == [0.2, 1]


def test_divergence() -> None:
    assert kl(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0
    assert kl(np.array([1.0, 0]), np.array([0.5, 0.5])) == pytest.approx(np.log(2))
    assert kl(np.array([0.5, 0.5]), np.array([1.0, 0])) == np.inf
