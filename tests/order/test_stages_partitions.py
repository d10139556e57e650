"""Orders in partitions, on the engine: the same rows for any workers, and every document once."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from longctx import run
from longctx.errors import RunError
from tests.conftest import make_rows
from tests.order.test_stages import tours
from tests.stages import Finished, recipe_of, run_rows

pytestmark = pytest.mark.ray

LIMITS = {"one_place_up_to": 50, "partition_documents": 40}
LONELY = [{"id": f"ko{i}", "text": f"하나 둘 {i}", "language": "ko"} for i in range(45)]
ROWS = [*make_rows(120), *LONELY]  # 129 with a vector, nine of them copies


def ordered(folder: Path, order: dict[str, Any], **changes: Any) -> Finished:
    return run_rows(folder, ROWS, [{"op": "embed"}, {**LIMITS, **order}], **changes)


@pytest.fixture(scope="module")
def shared(ray_local: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for runs that differ in their last stage only."""
    return tmp_path_factory.mktemp("partitions")


@pytest.fixture(scope="module")
def path(shared: Path) -> Finished:
    return ordered(shared, {"op": "order.path", "dup_cos": 0.999})


def test_every_document_has_a_place_or_a_reason(path: Finished) -> None:
    reasons = path.column("order.path", "drop_reason")
    assert len(reasons) == len(ROWS)
    dropped = [i for i, reason in reasons.items() if reason]
    assert {reasons[i] for i in dropped} == {"order_dup"}
    # Copies are equal, so they lie in one partition; near-copies may lie in two.
    assert 3 <= len(dropped) <= 9
    kept = path.column("order.path", "order_kept_id")
    assert all(reasons[kept[i]] is None for i in dropped)
    found = tours(path)
    assert sorted(i for ids in found.values() for i in ids) == sorted(
        i for i, reason in reasons.items() if reason is None
    )
    # One tour over all partitions; behind it those without a vector, in tours of about 40.
    assert list(found) == ["t00000000", "t00000001", "t00000002"]
    lonely = [i for name in ("t00000001", "t00000002") for i in found[name]]
    assert sorted(lonely) == sorted(row["id"] for row in LONELY)


def test_the_tour_goes_on_across_partitions(path: Finished) -> None:
    figures = path.stage("order.path").steps["tours"]
    rows = {r["doc_id"]: r for r in path.rows("order.path")}
    walk = [rows[i] for i in tours(path)["t00000000"]]
    seams = [r for r in walk if r["link"] == "seam"]
    assert len(seams) == figures["partitions"] - 2 - 1 >= 3
    assert all(r["jump"] for r in seams)
    sims = [r["sim_prev"] for r in walk]
    assert sims[0] is None
    assert figures["adjacency"] == pytest.approx(sum(sims[1:]) / (len(walk) - 1), abs=1e-6)
    assert figures["jumps"] == pytest.approx(sum(r["jump"] for r in walk) / (len(walk) - 1))
    assert figures["documents"] == len(walk)
    assert figures["adjacency"] > figures["adjacency_random"] + 0.1
    topic = {row["id"]: row["source"] for row in ROWS if "source" in row}
    pairs = list(pairwise(tours(path)["t00000000"]))
    assert sum(topic[a] != topic[b] for a, b in pairs) < len(pairs) / 3
    assert any("partitions" in text for text in figures["warnings"])


def test_workers_and_parts_change_nothing(path: Finished, tmp_path: Path) -> None:
    engine = {"part_mb": 0.01, "workers": 1, "exchange_mb": 0.02}
    again = ordered(tmp_path, {"op": "order.path", "dup_cos": 0.999}, engine=engine)
    expected = {r["doc_id"]: r for r in path.rows("order.path")}
    assert {r["doc_id"]: r for r in again.rows("order.path")} == expected


def test_a_partition_that_is_gone_is_the_only_one_made_again(path: Finished) -> None:
    before = path.rows("order.path")
    folder = Path(path.record.run_dir, "stages", path.stage("order.path").stage, "placed")
    folder.joinpath("bucket-00001.parquet").unlink()
    recipe = recipe_of(
        Path(path.record.run_dir).parent,
        ROWS,
        [{"op": "embed"}, {**LIMITS, "op": "order.path", "dup_cos": 0.999}],
    )
    record = run(recipe)
    stage = next(s for s in record.stages if s.op == "order.path")
    assert stage.units - stage.skipped == 1
    assert Finished(record).rows("order.path") == before


@pytest.mark.parametrize(
    "order",
    [
        {"op": "order.icp"},
        {"op": "order.cluster_path", "cluster_tokens": 300},
        {"op": "order.splice", "length": 300},
    ],
    ids=lambda order: order["op"],
)
def test_tours_of_all_partitions_have_names_of_their_own(
    shared: Path, order: dict[str, Any]
) -> None:
    counted = [{"op": "score.heuristics", "windows": False}, {"op": "embed"}]
    done = run_rows(shared / "counted", ROWS, [*counted, {**LIMITS, **order, "dup_action": "keep"}])
    found = tours(done)  # ranks count from 0 in each
    assert sorted(i for ids in found.values() for i in ids) == sorted(r["id"] for r in ROWS)
    assert list(found) == [f"t{t:08d}" for t in range(len(found))]
    figures = done.stage(order["op"]).steps["tours"]
    assert len(found) == figures["tours"] + 2
    assert figures["partitions"] >= 6


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"op": "order.splice", "retriever": "bm25", "length": 300}, "retriever: bm25"),
        ({"op": "order.clusters", "n_clusters": 4}, "n_clusters"),
    ],
    ids=["bm25", "n_clusters"],
)
def test_orders_that_need_all_documents_say_so(
    shared: Path, order: dict[str, Any], reason: str
) -> None:
    counted = [{"op": "score.heuristics", "windows": False}, {"op": "embed"}]
    with pytest.raises(RunError, match=r"more than `one_place_up_to` \(50\)") as told:
        run_rows(shared / "counted", ROWS, [*counted, {**LIMITS, **order}])
    assert reason in told.value.message
    assert "partitions" in told.value.remedy
