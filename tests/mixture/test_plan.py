"""Plans: numbers worked out by hand, exact integers on real documents, and invariants."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from longctx.errors import RecipeError, RunError
from longctx.mixture.account import account
from longctx.mixture.chance import F64, uniforms
from longctx.mixture.plan import build_plan, copies, realised, u01
from longctx.mixture.planned import Plan
from longctx.mixture.realised import assert_calibrated, assert_census
from longctx.mixture.rules import (
    Fixed,
    KeepBelow,
    MinLength,
    Natural,
    NoRule,
    PileCopies,
    Settings,
    UniMax,
)
from longctx.mixture.strategies import compare_strategies, natural_mix
from tests.mixture.corpora import Documents, dev_corpus

WORKED = Documents.of({"web": [1000] * 100 + [10_000] * 10, "books": [80_000] * 5})
HALVES = Fixed(kind="fixed", shares={"web": 0.5, "books": 0.5})
FIFTHS = Fixed(kind="fixed", shares={"web": 0.8, "books": 0.2})
KEEP = KeepBelow(kind="keep_below")


def test_numbers_of_documents() -> None:
    assert u01(17, "doc-1", "mixture") == 0.387821626813029
    assert u01(17, "doc-2", "mixture") == 0.3103614010343446
    assert u01(17, "doc-1", "mixture.proxy") == 0.9445402399395544
    np.testing.assert_array_equal(
        uniforms(17, ["doc-1", "doc-2"], "mixture"), [0.387821626813029, 0.3103614010343446]
    )


@pytest.mark.parametrize(
    ("rate", "u", "expected"),
    [
        *((2.3, 0.2, 3), (2.3, 0.3, 2), (1, 0, 1), (0.5, 0.5, 0)),
        *((0.5, 0.49, 1), (0, 0, 0), (9, 0.5, 4)),
    ],
)
def test_copies(rate: float, u: float, expected: int) -> None:
    assert copies(rate, u, 4) == expected


def lines(plan: Plan) -> dict[str, F64]:
    """Rates of each source from the shortest bucket on."""
    return {s.name: np.array([c.rate for c in s.cells]) for s in plan.sources}


def test_the_worked_plan() -> None:
    census = WORKED.census()
    plan = build_plan(census, Settings(budget=300_000), HALVES, KEEP)
    books, web = plan.sources
    assert (web.effective, books.effective) == (110_000, 400_000)
    assert web.lam == pytest.approx(1.363636, abs=1e-6)
    assert books.lam == pytest.approx(0.375)
    np.testing.assert_allclose(lines(plan)["web"], [0.1363636, 1.363636], atol=1e-6)
    assert plan.long_share == pytest.approx(0.954545, abs=1e-6)
    assert web.long_size == 100_000
    assert math.sqrt(web.variance) == pytest.approx(15_594.29, abs=0.005)
    assert sum(s.target for s in plan.sources) == pytest.approx(300_000)


def test_the_worked_plan_with_one_epoch() -> None:
    census = WORKED.census()
    plan = build_plan(census, Settings(budget=300_000, max_epochs=1), HALVES, KEEP)
    web = plan.sources[1]
    assert (web.p_asked, web.p_used, web.effective) == (0.1, 0.5, 150_000)
    np.testing.assert_allclose(lines(plan)["web"], [0.5, 1])
    assert web.planned_long_share == pytest.approx(0.666667, abs=1e-6)
    assert any("p is 0.5 instead of 0.1" in w for w in plan.warnings)


def test_what_one_epoch_cannot_give() -> None:
    census = WORKED.census()
    with pytest.raises(RecipeError) as failed:
        build_plan(census, Settings(budget=300_000, max_epochs=1), FIFTHS, KEEP)
    assert "'web' 1.2 times, more than max_epochs = 1" in failed.value.message
    assert "at most 250,000 tokens keeps the shares" in failed.value.remedy
    assert "books 33.3%, web 66.7% (L1 0.267 from the asked ones)" in failed.value.remedy
    assert "raise max_epochs to 2" in failed.value.remedy
    moved = build_plan(
        census, Settings(budget=300_000, max_epochs=1, on_cap="redistribute"), FIFTHS, KEEP
    )
    assert moved.shares() == pytest.approx({"web": 2 / 3, "books": 1 / 3})
    np.testing.assert_allclose(lines(moved)["web"], [1, 1])
    less = build_plan(census, Settings(budget=300_000, max_epochs=1, on_cap="shrink"), FIFTHS, KEEP)
    assert less.budget == pytest.approx(250_000)
    assert less.shares() == pytest.approx({"web": 0.8, "books": 0.2})
    with pytest.raises(RecipeError, match="100,000 tokens short of the budget of 700,000"):
        build_plan(
            census, Settings(budget=700_000, max_epochs=1, on_cap="redistribute"), FIFTHS, KEEP
        )


@pytest.mark.parametrize(
    ("mode", "total", "off"), [("never", 9_753_222, 0.15054), ("always", 10_057_774, 0.00989)]
)
def test_exact_integers_on_the_development_corpus(mode: str, total: int, off: float) -> None:
    documents = dev_corpus()
    census = documents.census()
    assert len(census.sources) == 13
    assert census.own.size.sum() == 47_355_136
    asked = Settings(budget=10_000_000, calibrate=mode)
    plan = documents.calibrated(build_plan(census, asked, seed=17))
    rows = documents.rows(plan)
    assert_census(plan, rows, "here")
    found = realised(plan, rows)
    assert found["size"] == total
    assert found["off_target"] == pytest.approx(off, abs=5e-6)
    assert plan.long_share == pytest.approx(0.927580, abs=5e-7)
    if mode == "always":
        assert found["copies"] == 2600
        assert_calibrated(plan, found, set(), "here")
    else:
        assert max(abs(s["z"]) for s in found["sources"]) == pytest.approx(1.65, abs=0.005)
        assert not any(s["flagged"] for s in found["sources"])


def test_the_record_stays_small() -> None:
    names = {f"cluster-{i:05d}-with-a-long-name": [1000 + i, 9000, 40_000] for i in range(3000)}
    documents = Documents.of(names)
    census = documents.census()
    plan = build_plan(census, Settings(budget=1e6, calibrate="never"))
    told = account(
        plan,
        realised(plan, documents.rows(plan)),
        natural_mix(census, 4096),
        compare_strategies(census, 1e6),
    )
    assert len(json.dumps(told, indent=1)) < 300_000
    assert told["sources_left_out"] == 2850
    assert "cells" not in told["plan"]["sources"][0]
    assert len(told["plan"]["sources"]) == len(told["realised"]["sources"]) == 150


def test_a_plan_that_was_read_is_the_same() -> None:
    documents = Documents.drawn(3)
    plan = build_plan(documents.census(), Settings(budget=100_000, calibrate="always"), seed=5)
    plan = documents.calibrated(plan)
    again = Plan.from_dict(json.loads(json.dumps(plan.as_dict())))
    assert again == plan
    np.testing.assert_array_equal(documents.copies(again), documents.copies(plan))
    with pytest.raises(ValueError, match="schema version 2"):
        Plan.from_dict({**plan.as_dict(), "schema_version": 2})


@given(st.integers(0, 10_000), st.integers(1, 7), st.floats(0.05, 3))
@settings(max_examples=25, deadline=None)
def test_order_parts_and_other_sources_change_no_copies(seed: int, parts: int, much: float) -> None:
    documents = Documents.drawn(seed)
    rng = np.random.default_rng(seed)
    shuffled = documents.taken(rng.permutation(len(documents.ids)).tolist())
    asked = Settings(budget=much * float(documents.sizes.sum()), on_cap="shrink")
    shares = Fixed(kind="fixed", shares={"s0": 0.5, "s1": 0.3, "s2": 0.2})
    plan = documents.calibrated(build_plan(documents.census(), asked, shares, seed=seed))
    other = shuffled.calibrated(build_plan(shuffled.census(parts), asked, shares, seed=seed))
    assert plan == other
    more = Documents(
        [*documents.ids, "x"], [*documents.sources, "zz"], np.append(documents.sizes, 5000)
    )
    wider = more.calibrated(build_plan(more.census(), asked, shares, seed=seed))
    np.testing.assert_array_equal(more.copies(wider), [*documents.copies(plan), 0])
    assert wider.unused == {"zz": {"docs": 1, "size": 5000}}
    assert sum(s.target for s in plan.sources) == pytest.approx(plan.budget)
    assert max(s.max_rate for s in plan.sources) < 4.5


@given(st.floats(0, 6), st.floats(0, 6), st.floats(0, 1, exclude_max=True), st.integers(1, 9))
def test_a_higher_rate_takes_no_copy_away(a: float, b: float, u: float, most: int) -> None:
    assert copies(min(a, b), u, most) <= copies(max(a, b), u, most) <= most


@pytest.mark.parametrize("rate", [0.01, 0.3, 1.5, 3.99])
def test_copies_are_as_many_as_the_rate_on_average(rate: float) -> None:
    u = uniforms(3, [f"doc-{i}" for i in range(100_000)], "mixture")
    found = copies(np.full(len(u), rate), u, 4)
    rest = rate - math.floor(rate)
    assert abs(found.mean() - rate) < 4 * math.sqrt(rest * (1 - rest) / len(u))


def test_copies_of_each_source_of_the_pile() -> None:
    documents = Documents.of({"web": [1000] * 40, "books": [50_000] * 4})
    twice = PileCopies(kind="pile_copies", copies={"web": 1, "books": 3})
    asked = Settings(calibrate="never")
    plan = build_plan(documents.census(), asked, twice, NoRule(kind="none"))
    assert plan.budget == 40_000 + 3 * 200_000
    found = documents.copies(plan)
    assert set(found[:40].tolist()) == {1}
    assert set(found[40:].tolist()) == {3}


def test_unimax_that_cannot_be_fed() -> None:
    census = Documents.of({"a": [8000], "b": [4000]}).census()
    front = UniMax(kind="unimax", epochs=1)
    plain = NoRule(kind="none")
    with pytest.raises(RecipeError, match="1 epochs of every source are 8,000 tokens short"):
        build_plan(census, Settings(budget=20_000), front, plain)
    less = build_plan(census, Settings(budget=20_000, on_cap="shrink"), front, plain)
    assert less.budget == 12_000
    assert less.shares() == pytest.approx({"a": 2 / 3, "b": 1 / 3})


def test_weights_of_what_is_not_there() -> None:
    census = WORKED.census()
    with pytest.raises(RecipeError, match="the source 'bocks'; did you mean 'books'"):
        build_plan(census, Settings(budget=1000), Fixed(kind="fixed", shares={"bocks": 1.0}))
    only_long = MinLength(kind="min_length", length=20_000)
    with pytest.raises(RecipeError, match=r"'web' has a weight of 0\.5 and none that"):
        build_plan(census, Settings(budget=1000), HALVES, only_long)
    with pytest.raises(RecipeError, match="there is no budget"):
        build_plan(census, Settings(), Natural(kind="natural"))


@pytest.mark.parametrize(
    "fields",
    [{"budget": 0}, {"budget": -1}, {"max_epochs": 0}, {"long_from": 0}, {"budget": math.nan}],
)
def test_settings_that_mean_nothing(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"budget": 10, **fields})


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_weights_that_are_no_shares(value: float) -> None:
    with pytest.raises(ValidationError):
        Fixed(kind="fixed", shares={"a": value})
    with pytest.raises(ValidationError, match="all shares are 0"):
        Fixed(kind="fixed", shares={"a": 0})
    with pytest.raises(ValidationError):
        KeepBelow(kind="keep_below", threshold=0)


def test_checks_on_what_was_realised() -> None:
    documents = Documents.drawn(4)
    asked = Settings(budget=100_000, calibrate="always")
    plan = documents.calibrated(build_plan(documents.census(), asked))
    rows = dict(documents.rows(plan))
    found = realised(plan, rows)
    assert_calibrated(plan, found, set(), "here")
    worse = {**found, "sources": [{**s, "size": s["size"] * 3} for s in found["sources"]]}
    with pytest.raises(RunError, match="the mixture is not calibrated: 's1'"):
        assert_calibrated(plan, worse, set(), "here")
    cell = next(iter(rows))
    rows[cell] = rows[cell]._replace(docs=rows[cell].docs + 1)
    with pytest.raises(RunError, match="the census of the mixture does not hold: 's0'"):
        assert_census(plan, rows, "here")
