"""Estimates from coefficients: exact sums, what one place holds, and what is not made up."""

from dataclasses import replace
from math import ceil
from typing import Any

import pytest

from longctx.cost.coefficients import packaged
from longctx.cost.fit import Coefficients
from longctx.cost.laws import Size, form_of, remedy_of, step_name
from longctx.cost.model import Cluster, Limits, Measured, estimate
from longctx.engine.ingest import CheckIds
from longctx.registry import OPS, resolve

LIMITS = Limits(part_bytes=2**20, bucket_bytes=2**20)
STEP = Coefficients(
    law="documents",
    volume="documents",
    place="part",
    cpu=0.5,
    fixed=0,
    stored=8,
    received=0,
    held=0,
    worker=2**28,
    per_byte=4,
)
ONE = replace(STEP, place="one", cpu=0.25, fixed=16, held=64, worker=2**30, stored=2, per_byte=0)
# 2^20 documents in 4096 parts of 2^20 bytes.
SIZE = Size(2.0**20, 4096 * 2**20 / 1e6)


def measured(**steps: Coefficients) -> Measured:
    return Measured({"x": {"": steps}}, 2**14, 2**11, 0, 1, 4, {})


def test_steps_in_parallel_share_all_cores() -> None:
    found = estimate("x", {}, SIZE, measured(a=STEP), Cluster(4, 8, 2**40), LIMITS)
    assert found is not None
    assert found.cpu_seconds == 2**19
    assert found.seconds == 2**19 / 32
    assert found.stored_bytes == 2**23
    assert found.exchange_bytes == 0
    assert found.node_bytes == 8 * (2**28 + 4 * 2**20)
    assert (found.units, found.alone) == (4096, [])


def test_more_cores_than_parts_do_not_help() -> None:
    size = Size(2.0**20, 2 * 2**20 / 1e6)
    found = estimate("x", {}, size, measured(a=STEP), Cluster(4, 8, 2**40), LIMITS)
    assert found is not None
    assert found.seconds == 2**18
    assert found.node_bytes == 2**28 + 4 * 2**20


def test_a_step_in_one_place_takes_one_core_and_holds_all_documents() -> None:
    for memory, fits in ((2.0**30 + 2.0**26, True), (2.0**30, False)):
        found = estimate("x", {}, SIZE, measured(a=ONE), Cluster(4, 8, memory), LIMITS)
        assert found is not None
        (alone,) = found.alone
        assert found.seconds == alone.seconds == 2**18 + 16
        assert alone.held_bytes == found.node_bytes == 2**30 + 2**26
        assert (alone.fits, bool(alone.remedy)) == (fits, not fits)


def test_stages_add_up_over_their_steps() -> None:
    both = measured(a=STEP, b=ONE, c=replace(STEP, place="bucket", received=32))
    found = estimate("x", {}, SIZE, both, Cluster(1, 1, 2**40), LIMITS)
    assert found is not None
    assert found.cpu_seconds == 2**19 + 2**18 + 16 + 2**19
    assert found.exchange_bytes == 2**25
    assert found.units == 4096 + 1 + 32


def test_a_bucket_that_is_a_partition_is_as_large_as_its_documents() -> None:
    placed = measured(placed=replace(STEP, place="bucket", received=1024))
    settings = {"partition_documents": 2**16}
    found = estimate("x", settings, SIZE, placed, Cluster(16, 1, 2**40), LIMITS)
    assert found is not None
    assert found.units == 16
    assert found.node_bytes == 2**28 + 4 * 2**26


def test_the_sample_of_k_means_is_all_that_its_training_holds() -> None:
    trained = replace(ONE, law="sample x clusters", cpu=0, fixed=0, held=2**10)
    of = Measured({"cluster.kmeans": {"": {"centroids": trained}}}, 1, 1, 0, 1, 4, {})
    for clusters, held in ((4, 2**10 * 4 * 256), (2**14, 2**10 * 2**20)):
        size = SIZE._replace(clusters=clusters)
        found = estimate("cluster.kmeans", {}, size, of, Cluster(1, 1, 2**40), LIMITS)
        assert found is not None
        assert found.node_bytes == 2**30 + held


def test_the_driver_bounds_a_step_of_many_small_units() -> None:
    slow = replace(measured(a=STEP), driver_seconds=2**10)
    found = estimate("x", {}, SIZE, slow, Cluster(64, 64, 2**40), LIMITS)
    assert found is not None
    assert found.seconds == 4096 * 2**10


def test_files_of_an_export_are_of_the_size_that_it_says() -> None:
    known = replace(measured(), ops={"export": {"": {"files": STEP}}})
    found = estimate("export", {"shard_mb": 4}, SIZE, known, Cluster(1, 1, 2**40), LIMITS)
    assert found is not None
    assert found.units == ceil(SIZE.mb / 4)
    assert found.node_bytes == 2**28 + 4 * 4_000_000


def test_workers_that_wait_take_longer() -> None:
    half = replace(measured(a=STEP), busy=0.5)
    found = estimate("x", {}, SIZE, half, Cluster(1, 1, 2**40), LIMITS)
    assert found is not None
    assert (found.cpu_seconds, found.seconds) == (2**19, 2**20)


@pytest.mark.parametrize("op", ["y", "order.path"])
def test_what_was_not_measured_has_no_estimate(op: str) -> None:
    assert estimate(op, {}, SIZE, measured(a=STEP), Cluster(1, 1, 1), LIMITS) is None


ORDER: dict[str, Any] = {"exact_up_to": 100, "one_place_up_to": 1000}


@pytest.mark.parametrize(
    ("op", "settings", "docs", "form"),
    [
        ("export", {"order_by": None}, 1e12, ""),
        ("export", {"order_by": {"column": "x"}}, 5, "sorted"),
        ("decide", {"rules": {"x": {"min": 1}}, "one_place_up_to": 5}, 1e12, ""),
        ("decide", {"keep": {"x": {"top": 0.1}}, "one_place_up_to": 5}, 5, "one place"),
        ("decide", {"keep": {"x": {"top": 0.1}}, "one_place_up_to": 5}, 6, "rounds"),
        ("dedup.minhash", {"local_edges": 10}, 10, "one place"),
        ("dedup.minhash", {"local_edges": 10}, 11, "rounds"),
        ("order.path", ORDER, 100, "exact"),
        ("order.path", ORDER, 101, "cells"),
        ("order.path", ORDER, 1001, "partitions"),
        ("order.splice", {**ORDER, "retriever": "bm25"}, 101, "bm25, cells"),
        ("order.neighbours", {"variant": "sentences"}, 5, "sentences"),
        ("embed", {"model": "minilm"}, 5, "minilm"),
        ("pack", {"one_place_up_to": 10}, 11, "partitions"),
        ("cluster.kmeans", {"k": None, "per_cluster": 5, "one_place_clusters": 2}, 10, ""),
        (
            "cluster.kmeans",
            {"k": None, "per_cluster": 5, "one_place_clusters": 2},
            11,
            "partitions",
        ),
        ("dedup.semantic", {"k": 3, "per_cluster": 5, "one_place_clusters": 2}, 4, "partitions"),
    ],
)
def test_size_and_settings_decide_the_form(
    op: str, settings: dict[str, Any], docs: float, form: str
) -> None:
    assert form_of(op, settings, docs) == form


def test_steps_that_differ_by_a_number_are_one() -> None:
    assert step_name("round-07-large", "rounds") == "round-large"
    assert step_name("windows-8192", "") == "windows"
    assert step_name("counts-2", "rounds") == "counts"
    assert step_name("cells-10", "rounds") == "cells"
    assert step_name("neighbours", "cells") == "neighbours in cells"
    assert step_name("neighbours", "exact") == "neighbours"
    assert step_name("centroids", "partitions") == "centroids in partitions"
    assert step_name("", "bm25, partitions") == "in partitions"


def test_every_misfit_has_a_remedy() -> None:
    assert "partitions" in remedy_of("cluster.kmeans", "centroids", {})
    assert "one_place_up_to" in remedy_of("order.path", "tours", ORDER)
    assert "rounds" in remedy_of("decide", "borders", {"one_place_up_to": 5})
    assert "more memory" in remedy_of("order.source", "tours", {})


# Ops that `make calibrate` did not run when the figures were made: the plan says "not calibrated"
# for them. An op leaves this list when `jobs/calibrate.py` has run it; a new one may join it.
NOT_MEASURED: set[str] = {
    "dedup.containment",
    "filter.decontaminate",
    "filter.pii",
    "mix.upsample",
    "mix.weights",
    "score.language",
    "score.likelihood",
    "score.longattn",
    "score.ladm",
    "score.prolong",
    "score.wanjuan",
    "select.gateau",
    "pack.turns",
    "synth.in2",
    "synth.chatqa2",
    "synth.longalign",
    "synth.longmit",
    "synth.longalpaca",
    "synth.pam_qa",
    "synth.longwriter",
    "prefer.longreward",
    "prefer.logo",
    "prefer.longdpo",
    "prefer.longwriter",
}


def test_the_packaged_coefficients_know_all_ops_but_those_that_are_listed() -> None:
    known = packaged()
    usual: dict[str, dict[str, Any]] = {
        "decide": {"rules": {"n_tokens": {"min": 1}}},
        "filter.decontaminate": {"against": [{"path": "a.jsonl"}]},
        "mix.upsample": {"budget": 1},
        "mix.weights": {"budget": 1, "weights": {"kind": "natural"}},
        "synth.in2": {"rows": 1, "generator": {"backend": "scripted"}},
        "synth.chatqa2": {"rows": 1, "generator": {"backend": "scripted"}},
        "synth.longalign": {"rows": 1, "generator": {"backend": "scripted"}},
        "synth.longalpaca": {
            "rows": 1,
            "short": "a.jsonl",
            "other_sources": "other",
            "generator": {"backend": "scripted"},
        },
        "synth.longmit": {"rows": 1, "generator": {"backend": "scripted"}},
        "synth.pam_qa": {"rows": 1, "generator": {"backend": "scripted"}},
        "synth.longwriter": {"rows": 1, "generator": {"backend": "scripted"}},
        "prefer.longreward": {"rows": 1, "generator": {"backend": "scripted"}},
        "prefer.logo": {"rows": 1, "generator": {"backend": "scripted"}},
        "prefer.longdpo": {"rows": 1, "generator": {"backend": "scripted"}},
        "prefer.longwriter": {"rows": 1, "generator": {"backend": "scripted"}},
    }
    ops = [CheckIds(), *(resolve(n).model_validate({"op": n, **usual.get(n, {})}) for n in OPS)]
    without = {op.op for op in ops if known.steps(op.op, op.model_dump(mode="json"), 1000) is None}
    assert without == NOT_MEASURED
    assert {"date", "machine"} <= set(known.when)
    assert 0 < known.busy <= 1
    assert 1 < known.token_bytes < 10
