"""Scores, what needs no model, hold-outs and resamples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from longctx.mixture.evaluate import (
    Predict,
    baselines,
    bootstrap_gap,
    fit_ols,
    repeated_holdout,
    score,
    spearman,
    splits,
)

RNG = np.random.default_rng(5)
X = RNG.dirichlet(np.ones(3), 40)
Y = 2 - X[:, 0] + RNG.normal(0, 0.01, 40)


def test_rank_correlation_with_ties() -> None:
    assert spearman(np.array([1, 2, 2, 4, 5.0]), np.array([2, 1, 3, 3, 5.0])) == pytest.approx(
        0.763158, abs=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=20))
def test_rank_correlation_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=float).T
    if np.ptp(a) and np.ptp(b):
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    else:
        assert spearman(a, b) is None


def test_score_of_a_prediction() -> None:
    found = score(np.array([1.0, 2, 2]), np.array([2.0, 1, 3]))
    assert (found.n, found.mae, found.rmse, found.r2) == (3, 1, 1, -0.5)
    assert found.regret == 1  # the first of the smallest predictions is the second best run


def test_constant_sides_have_no_correlation_but_a_reason() -> None:
    flat = score(np.full(3, 2.0), np.array([1.0, 2, 3]))
    assert (flat.spearman, flat.note) == (None, "constant prediction")
    same = score(np.array([1.0, 2, 3]), np.full(3, 2.0))
    assert (same.spearman, same.r2, same.note) == (None, None, "constant loss")


def test_scores_of_what_is_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        score(np.array([np.nan]), np.array([1.0]))
    with pytest.raises(ValueError, match="no pairs"):
        score(np.array([1.0, 2]), np.array([1.0]))


def test_rules_stand_beside_every_score() -> None:
    found = baselines(X, Y, own=0)
    assert list(found) == ["mean", "own_share", "ols"]
    assert found["mean"].spearman is None
    assert found["mean"].mae == pytest.approx(np.abs(Y - Y.mean()).mean())
    assert (found["own_share"].mae, found["own_share"].r2) == (None, None)
    assert found["own_share"].spearman == pytest.approx(spearman(-X[:, 0], Y))
    assert found["ols"].r2 is not None
    assert found["ols"].r2 > 0.99
    assert "own_share" not in baselines(X, Y)


def test_rules_are_fitted_to_the_rows_of_the_fit() -> None:
    found = baselines(X[:10], Y[:10] + 1, fit_on=(X[10:], Y[10:]))
    assert found["mean"].mae == pytest.approx(np.abs(Y[:10] + 1 - Y[10:].mean()).mean())
    assert found["ols"].mae == pytest.approx(1, abs=0.05)


def test_splits_are_disjoint_and_follow_from_the_seed() -> None:
    for seen, held in splits(12, 5, 0.2, 3):
        assert len(held) == 2
        assert sorted([*seen, *held]) == list(range(12))
    first, again, other = (splits(12, 5, 0.2, seed) for seed in (3, 3, 4))
    assert all((a[1] == b[1]).all() for a, b in zip(first, again, strict=True))
    assert any((a[1] != b[1]).any() for a, b in zip(first, other, strict=True))


def test_held_out_rows_are_not_fitted() -> None:
    seen: list[int] = []

    def fit(shares: object, losses: object) -> Predict:
        seen.append(len(losses))  # type: ignore[arg-type]
        return lambda held: np.zeros(len(held)) + len(held)

    found = repeated_holdout(fit, X, Y, repeats=3)
    assert seen == [32] * 3
    assert found.mean["spearman"] is None
    assert found.note == "constant prediction"
    honest = repeated_holdout(fit_ols, X, Y)
    in_sample = score(fit_ols(X, Y)(X), Y)
    assert honest.mean["mae"] is not None
    assert in_sample.mae is not None
    assert honest.mean["mae"] > in_sample.mae


def test_gain_of_a_signal_and_of_none() -> None:
    best, base = np.array([1.0, 0, 0]), np.array([0, 0.5, 0.5])
    clear = bootstrap_gap(X, Y, best, base, fit=fit_ols, holdout_mae=0.01)
    assert clear.verdict == "gain"
    assert clear.mean == pytest.approx(1, abs=0.05)
    assert clear.low < clear.mean < clear.high
    noise = 2 + np.random.default_rng(1).normal(0, 0.1, 40)
    none = bootstrap_gap(X, noise, best, base, fit=fit_ols, holdout_mae=0.1)
    assert none.verdict == "not distinguishable"
    # A gain below the error of the predictions is none, however sure its sign is.
    small = bootstrap_gap(X, Y, best, base, fit=fit_ols, holdout_mae=2)
    assert small.verdict == "not distinguishable"
    assert clear == bootstrap_gap(X, Y, best, base, fit=fit_ols, holdout_mae=0.01)
