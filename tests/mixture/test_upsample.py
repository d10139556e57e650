"""Length rules and strategies: closed forms, and what they come to on the development corpus."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.mixture.plan import build_plan, compare_strategies
from longctx.mixture.rules import KeepBelow, Natural, NoRule, Settings, TargetLongShare
from longctx.mixture.strategies import natural_mix
from longctx.mixture.upsample import (
    STRATEGIES,
    keep_for_target,
    long_share,
    relax_p,
    usable,
)
from tests.mixture.corpora import Documents, dev_corpus


def test_closed_forms() -> None:
    assert long_share(0.30, 0.1) == pytest.approx(0.810811, abs=1e-6)
    assert long_share(0.30, 0.2) == pytest.approx(0.681818, abs=1e-6)
    assert keep_for_target(0.30, 0.70) == pytest.approx(0.183673, abs=1e-6)
    assert keep_for_target(0.20, 0.50) == pytest.approx(0.25)
    assert keep_for_target(0.75, 0.70) == keep_for_target(0, 0.70) == 1
    assert usable(np.array([150_000, 65_536, 65_535]), 65_536) == 196_608
    assert relax_p(0.1, 150_000, 1, 100_000, 100_000) == 0.5


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_the_p_for_a_share_gives_it(s: float, tau: float) -> None:
    assert long_share(s, keep_for_target(s, tau)) == pytest.approx(max(s, tau))


@given(st.integers(0, 10_000), st.floats(0.01, 1))
@settings(max_examples=25, deadline=None)
def test_shares_stay_and_long_shares_never_fall(seed: int, p: float) -> None:
    census = Documents.drawn(seed).census()
    budget = Settings(budget=float(census.own.size.sum()) / 2)
    rule = KeepBelow(kind="keep_below", p=p)
    plan = build_plan(census, budget, length=rule)
    natural = natural_mix(census, 4096)
    for source, share in plan.shares().items():
        assert share == pytest.approx(natural["sources"][source]["share"], abs=1e-12)
    for line in plan.sources:
        assert line.planned_long_share >= natural["sources"][line.name]["long_share"] - 1e-12
    plain = build_plan(census, budget, length=NoRule(kind="none"))
    kept = build_plan(census, budget, length=KeepBelow(kind="keep_below", p=1.0))
    assert [[c.rate for c in s.cells] for s in plain.sources] == [
        [c.rate for c in s.cells] for s in kept.sources
    ]


def test_a_source_without_long_documents_says_so() -> None:
    census = Documents.of({"web": [1000] * 50, "books": [80_000] * 5}).census()
    plan = build_plan(census, Settings(budget=100_000))
    web = next(s for s in plan.sources if s.name == "web")
    assert (web.p_asked, web.p_used) == (1, 1)
    assert any("'web': no long documents, p = 1" in w for w in plan.warnings)


def test_strategies_on_the_development_corpus() -> None:
    census = dev_corpus().census()
    natural = natural_mix(census, 4096)
    assert natural["long_share"] == pytest.approx(0.754371, abs=1e-6)
    long = {s: v["long_share"] for s, v in natural["sources"].items()}
    expected = {"classics-zh": 1, "code-django": 0.63354, "cppdocs-en": 0.50926}
    expected |= {"kernel-docs": 0.54421, "reviews-ko": 0.00628, "wiki-zh": 0.11537}
    assert {s: long[s] for s in expected} == pytest.approx(expected, abs=1e-5)
    rows = {r["strategy"]: r for r in compare_strategies(census, 10e6, list(STRATEGIES)[:4])}
    assert rows["per_source"]["long_share"] == pytest.approx(0.927580, abs=1e-6)
    assert rows["per_source"]["l1"] < 1e-12
    assert rows["global"]["l1"] == pytest.approx(0.262409, abs=1e-6)
    assert rows["global"]["long_share"] == pytest.approx(0.968466, abs=1e-6)
    assert rows["cut4k"]["long_share"] == 0
    target = TargetLongShare(kind="target_long_share", share=0.7)
    plan = build_plan(census, Settings(budget=10e6), Natural(kind="natural"), target)
    asked = {s.name: s.p_asked for s in plan.sources}
    assert asked["code-django"] == pytest.approx(0.74090, abs=1e-5)
    assert asked["cppdocs-en"] == pytest.approx(0.44475, abs=1e-5)
    assert asked["law-zh"] == 1


def test_a_strategy_without_its_sources_has_no_numbers() -> None:
    census = Documents.drawn(1).census()
    rows = compare_strategies(census, 1e5, ["code_up"])
    assert rows == [{"strategy": "code_up", "status": "no source is named for code"}]
    (row,) = compare_strategies(census, 1e5, ["code_up"], slots={"code": ["s0", "s1"]})
    sizes = natural_mix(census, 4096)["sources"]
    others = sum(v["share"] for s, v in sizes.items() if s not in ("s0", "s1"))
    assert row["shares"]["s0"] + row["shares"]["s1"] == pytest.approx(0.6 / (0.6 + others))
    assert row["shares"]["s0"] / row["shares"]["s1"] == pytest.approx(
        sizes["s0"]["share"] / sizes["s1"]["share"]
    )
