"""Drawing mixtures, trees, and the search."""

import builtins
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.bench.mixture_published import PRIOR
from longctx.errors import RecipeError
from longctx.mixture.evaluate import score
from longctx.mixture.regmix import (
    CHUNK,
    Sampler,
    Tree,
    best_of,
    design_draws,
    fit_tree,
    prior_draws,
    quantise,
    sample_mixtures,
    search,
)

PILE = np.array(list(PRIOR.values()))


@pytest.mark.parametrize(
    ("shares", "grid", "units"),
    [
        ([0.33335, 0.33335, 0.3333], 5000, [1667, 1667, 1666]),
        ([0.99985, 0.00015], 5000, [5000, 0]),
        ([1 / 3, 1 / 3, 1 / 3], 1000, [334, 333, 333]),
    ],
)
def test_quantised_examples(shares: list[float], grid: int, units: list[int]) -> None:
    assert quantise(np.array(shares), grid).tolist() == units


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_quantised_rows_sum_to_the_grid(seed: int, m: int) -> None:
    x = np.random.default_rng(seed).dirichlet(np.full(m, 0.3), 5)
    units = quantise(x)
    assert (units.sum(axis=1) == 5000).all()
    kept = np.where(x < 1 / 5000, 0, x)
    assert (np.abs(units - 5000 * kept / kept.sum(axis=1, keepdims=True)) < 1).all()
    assert (units[x < 1 / 5000] == 0).all()
    assert (quantise(units / 5000) == units).all()


def test_design_on_the_published_prior() -> None:
    drawn, allowed = Sampler(PILE).draw(40_000, np.random.default_rng(0))
    assert drawn.sum(axis=1) == pytest.approx(np.ones(40_000))
    assert allowed.all(axis=1).mean() == pytest.approx(0.57, abs=0.01)
    X = sample_mixtures(PILE, 128, 1)
    assert X.shape == (128, 17)
    units = np.round(X * 5000)
    assert np.abs(units - X * 5000).max() < 1e-9
    assert (units.sum(axis=1) == 5000).all()
    assert len(np.unique(X, axis=0)) == 128
    assert (np.minimum(1, 15 * PILE) + 1 / 5000 >= X).all()
    assert (np.lexsort(X.T[::-1]) == np.arange(128)).all()
    assert (sample_mixtures(PILE, 128, 1) == X).all()
    assert (sample_mixtures(PILE, 128, 2) != X).any()


def test_least_share_and_caps_of_the_corpus() -> None:
    prior, caps = np.array([0.6, 0.3, 0.1]), np.array([1, 0.35, 1])
    X = sample_mixtures(prior, 40, 0, min_share=0.02, caps=caps)
    assert X.min() >= 0.02 - 1 / 5000
    assert X[:, 1].max() <= 0.35 + 1 / 5000


def test_bounds_that_leave_too_few_are_named() -> None:
    caps = np.array([1, 1e-5, 1])
    with pytest.raises(RecipeError, match="1e-05 of source 'books' rejected"):
        sample_mixtures(np.ones(3) / 3, 90, 0, caps=caps, grid=20, names=["web", "books", "code"])
    with pytest.raises(RecipeError, match="leaves nothing to draw"):
        sample_mixtures(np.ones(3) / 3, 20, 0, min_share=0.4)
    with pytest.raises(RecipeError, match="above 0 for every source"):
        sample_mixtures(np.array([1.0, 0]), 20, 0)


def planted(n: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    X = rng.dirichlet(np.ones(3), n)
    return X, 3 + (X[:, 0] - 0.6) ** 2


def test_trees_learn_and_are_stored_as_text() -> None:
    X, y = planted(120)
    tree = fit_tree(X[:100], y[:100], rounds=200)
    assert tree.rounds == 200
    found = score(tree(X[100:]), y[100:])
    assert found.spearman is not None
    assert found.spearman > 0.9
    assert (Tree(tree.text, 200).predict(X) == tree.predict(X)).all()
    assert fit_tree(X[:100], y[:100], rounds=200).text == tree.text


def test_trees_stop_early_on_other_rows() -> None:
    X, y = planted(120)
    noise = y + np.random.default_rng(0).normal(0, 0.1, 120)
    assert fit_tree(X[:60], noise[:60], (X[60:], noise[60:])).rounds < 1000


def test_too_few_runs_for_trees() -> None:
    X, y = planted(39)
    with pytest.raises(RecipeError, match="39 runs are too few for trees, expected at least 40"):
        fit_tree(X, y)


def test_without_lightgbm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "lightgbm":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RecipeError, match=r"longctx\[mix\]"):
        fit_tree(*planted(40))


def test_damaged_text_of_a_tree() -> None:
    with pytest.raises(RecipeError, match="damaged"):
        Tree("no tree at all", 3).predict(np.ones((1, 2)))


def first(X: Any) -> Any:
    return X[:, 0]


def test_search_takes_the_mean_of_the_best_and_the_earlier_on_ties() -> None:
    draws = np.array([[0.5, 0.5], [0.1, 0.9], [0.3, 0.7], [0.1, 0.9], [0.2, 0.8]])
    found = best_of([first], [draws[:2], draws[2:]], 3)
    assert found.shares == pytest.approx([0.4 / 3, 2.6 / 3])
    tied = best_of([lambda X: np.zeros(len(X))], [draws[:2], draws[2:]], 2)
    assert tied.shares == pytest.approx(draws[:2].mean(axis=0))


def test_search_weighs_targets() -> None:
    models = [first, lambda X: X[:, 1]]
    to_first = search(models, np.array([0.1, 0.9]), 2000, 10, prior_draws(np.ones(2) / 2), 0)
    assert to_first.shares[0] > 0.9


def test_search_keeps_bounds_and_says_when_they_leave_too_few() -> None:
    prior = np.ones(3) / 3
    hi = np.array([1, 0.2, 1])
    found = search([lambda X: -X[:, 1]], None, 5000, 20, design_draws(Sampler(prior, caps=hi)), 0)
    assert 0.15 < found.shares[1] <= 0.2
    tight = design_draws(Sampler(prior, least=np.array([0.99, 0, 0])))
    with pytest.raises(RecipeError, match="the bounds left"):
        search([first], None, 100, 50, tight, 0)


def test_chunks_of_draws_are_those_of_the_definition() -> None:
    sizes: list[int] = []

    def draw(n: int, rng: np.random.Generator) -> Any:
        sizes.append(n)
        return rng.dirichlet(np.ones(2), min(n, 10))

    search([first], None, 2 * CHUNK + 5, 3, draw, 0)
    assert sizes == [CHUNK, CHUNK, 5]
