"""Models with what is known of them, stored and read again; what they recommend."""

import json
from typing import Any

import numpy as np
import pytest

from longctx.errors import RecipeError
from longctx.mixture.assess import OVERALL
from longctx.mixture.optimise import share_bounds
from longctx.mixture.predictor import Model, better, choose_kind, fit_model, model_from
from longctx.mixture.recommend import Recommendation, recommend
from longctx.mixture.tables import Runs

SLOPES = np.array([[-2, 0.3, -0.5], [0.4, -1.8, -0.2]])
ALIKE = np.ones(3) / 3


def runs(n: int, noise: float = 0.003, *, signal: bool = True, seed: int = 0) -> Runs:
    rng = np.random.default_rng(seed)
    X = 0.02 + 0.94 * rng.dirichlet(np.ones(3), n)
    Y = 2 + signal * np.exp(X @ SLOPES.T) + rng.normal(0, noise, (n, 2))
    names = ("web", "books", "code")
    return Runs(tuple(f"m{i}" for i in range(n)), names, ("web", "books"), X, Y)


def fitted(kind: str = "law", made: Runs | None = None, **more: Any) -> Model:
    return fit_model(made or runs(30), kind, repeats=4, **more)


def recommended(model: Model, **more: Any) -> Recommendation:
    bounds = share_bounds(model.runs.X, more.pop("kind", "observed"), caps=more.pop("caps", None))
    return recommend(model, ALIKE, bounds, prior_name="natural", resamples=6, **more)


def test_law_is_judged_beside_rules() -> None:
    model = fitted(weights=np.array([3.0, 1]), tests=[("other", runs(20, seed=1))])
    assert model.weights.tolist() == [0.75, 0.25]
    assert list(model.assessed) == ["web", "books", OVERALL]
    one = model.assessed["web"]
    assert set(one.rules) == {"mean", "own_share", "ols"}
    assert set(one.tests["other"]) == {"model", "mean", "own_share", "ols"}
    assert set(model.assessed[OVERALL].rules) == {"mean", "ols"}
    ours, mean = one.holdout.mean["mae"], one.rules["mean"].mean["mae"]
    assert ours is not None
    assert mean is not None
    assert ours < 0.2 * mean
    assert model.refused == []
    measured = model.runs.Y @ model.weights
    assert model.overall(model.runs.X) == pytest.approx(measured, abs=0.02)


def test_held_out_error_of_the_sum_is_that_of_models_that_saw_no_row_of_it() -> None:
    noisy = fitted(made=runs(9, 0.2))
    inside, outside = noisy.assessed[OVERALL].in_sample.mae, noisy.assessed[OVERALL].holdout
    assert inside is not None
    assert outside.mean["mae"] is not None
    assert outside.mean["mae"] > inside


@pytest.mark.parametrize("kind", ["law", "lightgbm", "linear"])
def test_models_survive_storing(kind: str) -> None:
    model = fitted(kind, runs(60))
    stored = json.loads(json.dumps(model.as_dict()))
    again = model_from(stored, "model.json")
    X = np.random.default_rng(9).dirichlet(np.ones(3), 20)
    assert (again.predict(X) == model.predict(X)).all()
    assert again.as_dict() == model.as_dict()
    assert fitted(kind, runs(60)).as_dict() == model.as_dict()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "weights"}, "no stored model"),
        ({"schema_version": 9}, "schema_version is 9"),
        ({"model": "forest"}, "damaged"),
        ({"parts": []}, "do not fit each other"),
        ({"assessment": {}}, "damaged"),
        ({"runs": None}, "damaged"),
        ({"parts": [{"c": 1}, {"c": 2}]}, "damaged"),
    ],
)
def test_changed_models_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said) as error:
        model_from(fitted().as_dict() | change, "model.json")
    assert error.value.where == "model.json"


def test_kinds_by_the_number_of_runs() -> None:
    assert choose_kind(runs(99)) == ("law",)
    assert choose_kind(runs(100)) == ("law", "lightgbm")
    with pytest.raises(RecipeError, match="too few for trees"):
        fitted("lightgbm", runs(45))
    models = [fitted("linear"), fitted("law")]
    assert better(models).kind == "law"


@pytest.mark.parametrize("kind", ["law", "linear"])
def test_noise_is_refused_and_solved_only_with_force(kind: str) -> None:
    model = fitted(kind, runs(20, 0.01, signal=False))
    assert [one.split(":")[0] for one in model.refused]
    with pytest.raises(RecipeError, match="targets are refused"):
        recommended(model)
    found = recommended(model, force=True, draws=2000, best=20)
    assert found.forced
    assert found.gap.verdict == "not distinguishable"


def test_recommendation_stands_beside_plain_mixtures() -> None:
    found = recommended(fitted(), lam=0.0)
    assert [one.name.split(" ")[0] for one in found.plain] == ["natural", "uniform", "best"]
    assert found.predicted < min(one.predicted for one in found.plain)
    assert found.plain[2].measured == (found.model.runs.Y @ found.model.weights).min()
    assert found.gap.verdict == "gain"
    assert found.gap.low <= found.gap.mean <= found.gap.high
    assert found.epochs is None


def test_tokens_and_epochs_bound_the_shares() -> None:
    tokens, budget = np.array([1e9, 1e9, 1e11]), 2e10
    caps = 4 * tokens / budget
    found = recommended(fitted(), caps=caps, tokens=tokens, budget=budget, kind="simplex")
    assert found.epochs is not None
    assert found.epochs.max() <= 4 + 1e-6
    assert set(found.at_hi) <= {"web", "books"}
    assert found.bounds.why[:2] == ("tokens", "tokens")
    written = found.weights_file("2026-01-01")
    assert sum(written["weights"].values()) == pytest.approx(1)
    assert (written["kind"], written["unit"], written["by"]) == ("weights", "tokens", "source")
    assert set(written["evidence"]) == {
        *("method", "runs", "predicted", "baselines", "holdout", "bounds", "verdict", "date"),
        *("fit", "gaps"),
    }
    with pytest.raises(RecipeError, match=r"at least 1 \(first: 'web' 0.004"):
        recommended(fitted(), caps=caps / 50, kind="simplex")


def test_trees_are_searched_within_the_bounds() -> None:
    caps = np.array([1, 0.3, 1])
    found = recommended(fitted("lightgbm", runs(60)), caps=caps, draws=20_000)
    assert found.shares[1] <= 0.3
    assert found.objective is None
    assert found.method == "mean of the best 100 of 20,000 draws"
    assert found.predicted < found.plain[0].predicted
