"""The published figures of packing (section 8), and what the automatic look-ahead must reach."""

from functools import cache
from pathlib import Path

import pytest

from jobs.bench.pack import Ordered, measure, ordered, trade_off
from jobs.bench.pack_published import LENGTH, PUBLISHED, Case
from longctx.pack.audit import placement_partial
from longctx.pack.frame import Plan
from longctx.pack.lookahead import plan_look_ahead


@cache
def orders_of(name: str, data: Path) -> dict[str, Ordered]:
    found = ordered(name, data, ("path",) if name == "flat20000" else None)
    assert found is not None
    return found


def shown(case: Case) -> str:
    options = "-".join(str(v) for v in case.options.values())
    return f"{case.dataset}-{case.length}-{case.order}-{case.strategy}-{options}"


@pytest.mark.parametrize("case", PUBLISHED, ids=shown)
def test_published_figures(case: Case, shared_data: Path):
    row = measure(case, orders_of(case.dataset, shared_data))
    assert row.off == [], row
    if case.published[3] == 0:
        assert row.split_short == 0


def planned(name: str, data: Path) -> tuple[Plan, dict, Ordered]:
    documents = orders_of(name, data)["path"]
    plan, report = plan_look_ahead(
        documents.lengths, documents.tour, LENGTH, vectors=documents.vectors
    )
    return plan, report, documents


@pytest.mark.parametrize(
    ("name", "fill", "kept"),
    [("wiki2", 0.99, 0.95), ("hier20000", 0.995, 0.96), ("flat20000", 0.995, 0.94)],
)
def test_the_look_ahead_keeps_coherence_at_full_windows(name, fill, kept, shared_data: Path):
    plan, report, documents = planned(name, shared_data)
    assert report["fill"] >= fill
    assert report["coherence_kept"] >= kept
    cuts = placement_partial(plan.placement, documents.lengths, LENGTH)
    assert cuts["split_short"] == 0
    assert cuts["split_docs"] == (documents.lengths > LENGTH).sum()


def test_the_choice_is_no_worse_than_a_look_ahead_of_64(shared_data: Path):
    for name in ("wiki2", "hier20000", "flat20000"):
        report = trade_off(orders_of(name, shared_data)["path"])
        fixed = next(c for c in report["tried"] if c["rule"] == "first" and c["look_ahead"] == 64)
        assert report["coherence"] > fixed["coherence"] + 0.01
        assert report["fill"] > fixed["fill"] - 0.005
