"""What a file of weights carries: predictions of models that never saw the run, thinned."""

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.cli_mix_files import as_json
from longctx.mixture.assess import OVERALL, Split, mean_predictions
from longctx.mixture.evaluate import Gap, splits
from longctx.mixture.evidence import even_ranks, fit_evidence, gaps_evidence
from longctx.mixture.predictor import fit_model, fitters, model_from
from longctx.mixture.tables import Runs
from longctx.report.mixture.evidence import evidence_of, shares
from tests.report.mixed import fitted, weights_file


def test_predictions_are_means_over_the_splits_that_held_a_run_out() -> None:
    seen = np.array([2, 3])
    found = [
        Split(seen, np.array([0, 1]), np.array([[1.0, 10], [2, 20]])),
        Split(seen, np.array([1, 3]), np.array([[4.0, 40], [5, 50]])),
    ]
    pred = mean_predictions(found, 4)
    assert pred[[0, 1, 3]].tolist() == [[1, 10], [3, 30], [5, 50]]
    assert np.isnan(pred[2]).all()


def test_no_prediction_comes_from_a_model_that_saw_the_run() -> None:
    """One loss is absurd: whoever saw it is pulled up by it, so its prediction must not be."""
    model = fitted("linear")
    Y = model.runs.Y.copy()
    at = next(int(held[0]) for _, held in splits(len(Y), 4, 0.2, 0))
    Y[at] += 50
    again = fit_model(
        Runs(model.runs.ids, model.runs.sources, model.runs.targets, model.runs.X, Y),
        "linear",
        repeats=4,
    )
    assert again.held[at] == pytest.approx(model.held[at])
    fit = fitters("linear", Y)[0]
    seen, held = splits(len(Y), 4, 0.2, 0)[0]
    assert abs(fit(model.runs.X[seen], Y[seen, 0])(model.runs.X[held])).max() < 10


def test_evidence_has_pairs_scores_and_rules_of_the_sum_and_every_target() -> None:
    model = fitted()
    found = fit_evidence(model)
    assert [one["target"] for one in found["targets"]] == [OVERALL, "web", "books"]
    web = found["targets"][1]
    assessed = model.assessment()["web"]
    assert web["rho"] == assessed["holdout"]["mean"]["spearman"]
    assert web["mae"] == assessed["holdout"]["mean"]["mae"]
    assert set(web["rules"]) == {"own_share", "ols", "mean"}
    assert web["rules"]["own_share"]["mae"] is None
    assert web["runs"] == len(web["observed"]) == len(web["predicted"])
    assert web["runs"] == (~np.isnan(model.held[:, 0])).sum()
    assert set(web["observed"]) <= set(np.round(model.runs.Y[:, 0], 6).tolist())
    assert np.abs(np.array(web["observed"]) - web["predicted"]).mean() < 0.02


def test_points_are_thinned_along_the_losses_and_keep_both_ends() -> None:
    model = fitted()
    whole, thin = (fit_evidence(model, points)["targets"] for points in (2_000, 24))
    assert sum(len(one["observed"]) for one in thin) <= 24
    for few, all_ in zip(thin, whole, strict=True):
        assert few["runs"] == all_["runs"]
        assert few["observed"][0] == min(all_["observed"])
        assert few["observed"][-1] == max(all_["observed"])
        pairs = set(zip(all_["observed"], all_["predicted"], strict=True))
        assert set(zip(few["observed"], few["predicted"], strict=True)) <= pairs


@given(st.integers(1, 300), st.integers(1, 300))
def test_ranks_are_distinct_and_even(n: int, most: int) -> None:
    found = even_ranks(n, most)
    assert len(found) == min(n, most)
    assert found[0] == 0
    if most > 1:
        assert found[-1] == n - 1
    steps = np.diff(found)
    assert len(steps) == 0 or steps.max() - steps.min() <= 1


def test_gains_are_sorted_and_their_quantiles_survive_thinning() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.02, 5_000)
    gap = Gap(5_000, 0, 0, 0, 0, "gain", tuple(values.tolist()))
    found = gaps_evidence(gap, 500)
    assert len(found) == 500
    assert found == sorted(found)
    for quantile in (0.05, 0.5, 0.95):
        assert np.quantile(found, quantile) == pytest.approx(
            np.quantile(values, quantile), abs=1e-3
        )
    assert "gaps" not in gap.as_dict()


def test_stored_models_keep_what_was_predicted_for_held_out_runs() -> None:
    stored = json.loads(json.dumps(fitted().as_dict()))
    again = model_from(stored, "model.json")
    assert fit_evidence(again) == fit_evidence(fitted())


def test_the_file_is_read_back_as_it_was_and_has_lists_of_numbers_on_a_line() -> None:
    written = weights_file()
    text = as_json(written)
    assert json.loads(text) == json.loads(json.dumps(written))
    assert len(text.splitlines()) < 300
    odd = {"a": "[\n1, 2\n]", "b": [[1, -2.5e-9], []], "c": ["x", 1], 'q"[': [None, 1]}
    assert json.loads(as_json(odd)) == odd


def test_evidence_is_read_into_types() -> None:
    written = weights_file()
    found = evidence_of(json.loads(as_json(written))["evidence"])
    assert found is not None
    assert found.fit is not None
    assert [one.target for one in found.fit.targets] == [OVERALL, "web", "books"]
    assert len(found.gaps) == 12
    rows = shares(found)
    assert [row.share for row in rows] == sorted(written["weights"].values(), reverse=True)
    books = next(row for row in rows if row.source == "books")
    assert books.epochs == pytest.approx(books.share * 8e9 / 1e9)
    assert (books.held, books.why) == ("most", "tokens")


def changed(path: str, value: Any) -> dict[str, Any]:
    found: dict[str, Any] = copy.deepcopy(weights_file()["evidence"])
    *above, last = path.split(".")
    part: Any = found
    for step in above:
        part = part[int(step) if step.isdecimal() else step]
    if value is ...:
        del part[last]
    else:
        part[int(last) if last.isdecimal() else last] = value
    return found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("method", ...),
        ("method.prior_shares", []),
        ("predicted.loss", math.nan),
        ("predicted.gain", "0.1"),
        ("predicted.bootstrap.low", None),
        ("baselines", {}),
        ("bounds.epochs", {"web": math.inf}),
        ("fit.targets", []),
        ("fit.targets.0.observed", [1.0]),
        ("fit.targets.0.predicted.0", math.nan),
        ("fit.targets.0.status", "fine"),
        ("gaps", [1e300]),
        ("verdict", 1),
    ],
)
def test_changed_evidence_is_none(path: str, value: Any) -> None:
    assert evidence_of(changed(path, value)) is None


@pytest.mark.parametrize("stored", [None, [], "x", {}, {"note": "from the paper"}])
def test_other_evidence_is_none(stored: Any) -> None:
    assert evidence_of(stored) is None


@pytest.mark.parametrize("path", ["fit", "gaps", "date", "bounds.why", "fit.targets.0.rules"])
def test_evidence_of_an_older_file_is_read(path: str) -> None:
    assert evidence_of(changed(path, ...)) is not None
