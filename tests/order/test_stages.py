"""Orders in runs: every living document once, with the fewest documents too."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_rows
from tests.stages import Finished, run_rows

pytestmark = pytest.mark.ray

ORDERS = [
    {"op": "order.path"},
    {"op": "order.path", "improve": "none"},
    {"op": "order.icp"},
    {"op": "order.icp", "graph": "directed", "pick": "min"},
    {"op": "order.icp", "variant": "released"},
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for runs that differ in their last stage only."""
    return tmp_path_factory.mktemp("shared")


def ordered(folder: Path, rows: list[dict[str, Any]], order: dict[str, Any]) -> Finished:
    return run_rows(folder, rows, [{"op": "embed"}, order])


def tours(done: Finished) -> dict[str, list[str]]:
    """tour -> ids by rank, of the documents that were not dropped."""
    op = done.record.stages[-1].op
    found: dict[str, list[tuple[int, str]]] = {}
    for row in done.rows(op):
        if row["drop_reason"] is None:
            found.setdefault(row["tour_id"], []).append((row["rank"], row["doc_id"]))
    for placed in found.values():
        assert sorted(rank for rank, _ in placed) == list(range(len(placed)))
    return {tour: [i for _, i in sorted(placed)] for tour, placed in sorted(found.items())}


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_documents_are_ordered_too(ray_local: int, tmp_path: Path, n: int):
    rows = make_rows(24)[:n]
    for order in ORDERS:
        # In one folder: what comes before the order is not run again.
        done = ordered(tmp_path, rows, {**order, "dup_action": "keep"})
        placed = [i for ids in tours(done).values() for i in ids]
        assert sorted(placed) == sorted(r["id"] for r in rows)


@pytest.mark.parametrize("order", [ORDERS[0], ORDERS[2], {**ORDERS[4], "cap": 4}], ids=str)
def test_topics_lie_together(ray_local: int, shared: Path, order: dict[str, Any]):
    rows = make_rows(48)
    done = ordered(shared, rows, {**order, "dup_action": "keep"})
    found = tours(done)
    assert sorted(i for ids in found.values() for i in ids) == sorted(r["id"] for r in rows)
    assert done.record.stages[-1].dropped == {}
    pairs = [pair for ids in found.values() for pair in pairwise(ids)]
    topic = {r["id"]: r["source"] for r in rows}
    assert sum(topic[a] != topic[b] for a, b in pairs) < len(pairs) / 3
    similarity = done.column(order["op"], "sim_prev")
    assert all(similarity[ids[0]] is None for ids in found.values())
    assert all(similarity[b] is not None for _, b in pairs)


def test_documents_without_a_vector_come_last_in_a_tour_of_their_own(
    ray_local: int, tmp_path: Path
):
    rows = [
        *make_rows(12)[:12],
        {"id": "korean", "text": "하나 둘 셋 넷", "language": "ko"},
        {"id": "unknown", "text": "🦀 🦀 🦀"},
        {"id": "blank", "text": ""},
    ]
    done = ordered(tmp_path, rows, {"op": "order.path", "dup_action": "keep"})
    assert done.column("embed", "emb_cover")["korean"] == 0
    status = done.column("order.path", "order_status")
    lonely = {i for i, s in status.items() if s == "no_embedding"}
    assert lonely == {"korean", "unknown", "blank"}
    placed = tours(done)
    assert set(placed["t00000001"]) == lonely
    assert len(placed["t00000000"]) == 12


def test_only_documents_without_a_vector(ray_local: int, tmp_path: Path):
    rows = [{"id": f"{i}", "text": f"말 {i}", "language": "ko"} for i in range(3)]
    done = ordered(tmp_path, rows, {"op": "order.icp"})
    assert [sorted(ids) for ids in tours(done).values()] == [["0", "1", "2"]]


def test_near_copies_leave_and_name_the_one_that_stays(ray_local: int, tmp_path: Path):
    rows = make_rows(40)
    counted = [{"op": "score.heuristics", "windows": False}, {"op": "embed"}]
    done = run_rows(tmp_path, rows, [*counted, {"op": "order.path", "dup_cos": 0.999}])
    reasons = done.column("order.path", "drop_reason")
    kept, similarity = (done.column("order.path", c) for c in ("order_kept_id", "order_kept_sim"))
    gone = [i for i, reason in reasons.items() if reason]
    # Three exact copies and six that differ in two words, of 49 documents.
    assert len(gone) == 9
    assert {reasons[i] for i in gone} == {"order_dup"}
    for i in gone:
        assert reasons[kept[i]] is None
        assert similarity[i] >= 0.999


def test_equal_vectors_keep_one_document_or_all(ray_local: int, tmp_path: Path):
    rows = [{"id": f"{i}", "text": "the very same words"} for i in range(6)]
    dropped = ordered(tmp_path, rows, {"op": "order.path"})
    assert tours(dropped) == {"t00000000": ["0"]}
    kept = ordered(tmp_path, rows, {"op": "order.path", "dup_action": "keep"})
    assert sorted(i for ids in tours(kept).values() for i in ids) == list("012345")
