"""RegMix's runs: some targets against published figures; all thirteen are in the bench."""

from functools import cache

import numpy as np
import pytest

from jobs.bench.mixture_published import (
    DATA,
    HUBER,
    LAW_DELTA,
    LAWS,
    OLS_PILE_CC,
    OWN_SHARE,
    SCALES,
    SEARCH,
    TREES,
    RegMix,
    load,
)
from longctx.mixture.evaluate import Predict, baselines, fit_ols, score, spearman
from longctx.mixture.laws import fit_law, predict
from longctx.mixture.optimise import solve
from longctx.mixture.regmix import Tree, best_of, fit_tree


@cache
def runs() -> RegMix:
    found = load()
    if found is None:
        pytest.skip(f"RegMix's tables are not under {DATA}")
    return found


def ranks(model: Predict, target: str) -> list[float]:
    j = runs().target(target)
    found = [spearman(model(t.X), t.Y[:, j]) for t in runs().tests.values()]
    return [100 * rho for rho in found if rho is not None]


@cache
def parity_tree(target: str) -> Tree:
    fit, test, j = runs().fit, runs().tests["1m"], runs().target(target)
    return fit_tree(fit.X, fit.Y[:, j], (test.X, test.Y[:, j]))


def test_tables_are_read() -> None:
    assert runs().fit.X.shape == (512, 17)
    assert runs().fit.Y.shape == (512, 13)
    assert [len(runs().tests[s].ids) for s in SCALES] == [256, 256, 64]


def test_trees_are_those_of_the_notebook() -> None:
    tree = parity_tree("pile_cc")
    assert tree.rounds == 613
    wanted = [v for v in TREES["pile_cc"] if v is not None]
    assert ranks(tree.predict, "pile_cc") == pytest.approx(wanted, abs=0.05)
    test = runs().tests["1m"]
    found = score(tree(test.X), test.Y[:, runs().target("pile_cc")])
    assert found.mae == pytest.approx(0.0415, abs=1e-4)
    assert found.rmse is not None
    assert found.rmse**2 == pytest.approx(0.0030, abs=5e-5)


def test_search_is_that_of_the_notebook() -> None:
    drawn = np.random.RandomState(42).dirichlet(runs().prior, 100_000)
    # The best 128 lie far below the rest: half of the trees' work is spared by what they share.
    near = drawn[np.argsort(-drawn[:, runs().own("pile_cc")], kind="stable")[:20_000]]
    found = best_of([parity_tree("pile_cc")], [near], 128)
    for name, share in SEARCH.items():
        assert found.shares[runs().own(name)] == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("target", ["pile_cc", "arxiv"])
def test_laws_fit_as_well_as_known(target: str) -> None:
    fit = runs().fit
    law = fit_law(fit.X, fit.Y[:, runs().target(target)], LAW_DELTA, top=2)
    assert law.huber <= 1.005 * HUBER[target]
    found = ranks(lambda X: predict(law, X), target)
    assert found[:2] == pytest.approx(LAWS[target][:2], abs=0.1)
    assert found[2] == pytest.approx(LAWS[target][2], abs=0.3)


def test_rules_without_a_model() -> None:
    fit, j = runs().fit, runs().target("pile_cc")
    plane = fit_ols(fit.X, fit.Y[:, j])
    assert ranks(plane, "pile_cc") == pytest.approx(OLS_PILE_CC, abs=0.05)
    test = runs().tests["1m"]
    rules = baselines(test.X, test.Y[:, j], runs().own("pile_cc"), fit_on=(fit.X, fit.Y[:, j]))
    assert rules["ols"].mae == pytest.approx(0.124, abs=1e-3)
    for target, wanted in OWN_SHARE.items():
        own = runs().own(target)
        assert ranks(lambda X, own=own: -X[:, own], target) == pytest.approx(wanted, abs=0.01)


def test_free_optimum_leaves_what_the_runs_have_seen() -> None:
    """Why bounds are those of the runs unless asked otherwise (the quick fit is enough here)."""
    fit = runs().fit
    laws = [fit_law(fit.X, fit.Y[:, j], LAW_DELTA, 16, 1) for j in range(13)]
    enron = fit.sources.index("enron_emails")
    assert fit.X[:, enron].max() < 0.03
    assert solve(laws, lam=0).shares[enron] > 0.2
    near = solve(laws, prior=runs().prior)
    assert near.loss == pytest.approx(4.56222, abs=5e-4)
    assert near.objective == pytest.approx(4.57328, abs=5e-4)
    shares = {"pile_cc": 0.131, "wikipedia_en": 0.109, "uspto_backgrounds": 0.105}
    for name, share in shares.items():
        assert near.shares[fit.sources.index(name)] == pytest.approx(share, abs=0.003)
