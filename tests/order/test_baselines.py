"""The baselines in runs: no vectors needed, every document placed, the columns of all orders."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from longctx.engine.op import DROP_REASON
from longctx.order.stages_semantic import PLACED
from tests.order.test_stages import tours
from tests.stages import Finished, run_rows

pytestmark = pytest.mark.ray


def eight(*sources: str) -> list[dict[str, str]]:
    names = sources or ("s",) * 8
    return [
        {"id": f"d{i}", "text": "" if i == 3 else f"text {i}", "source": source}
        for i, source in enumerate(names)
    ]


def columns(done: Finished) -> list[str]:
    folder = Path(done.record.run_dir) / "stages" / done.record.stages[-1].stage
    return pq.read_schema(next(folder.glob("*.parquet"))).names


def test_random_order_of_eight_documents_at_seed_17(ray_local: int, tmp_path: Path):
    rows = eight()
    for order in (rows, rows[::-1]):  # the order of the input must not matter
        done = run_rows(tmp_path, order, [{"op": "order.random"}], seed=17)
        assert tours(done) == {"t00000000": ["d2", "d4", "d5", "d3", "d1", "d7", "d6", "d0"]}
    assert set(columns(done)) == {*PLACED.names[1:], DROP_REASON}
    link = done.column("order.random", "link")
    assert [link[f"d{i}"] for i in (2, 4, 0)] == ["start", "random", "random"]
    for column, values in (("order_status", {"ok"}), ("sim_prev", {None}), ("jump", {None})):
        assert set(done.column("order.random", column).values()) == values
    other = tours(run_rows(tmp_path, rows, [{"op": "order.random"}], seed=18))
    assert sorted(other["t00000000"]) == sorted(r["id"] for r in rows)
    assert other["t00000000"][0] != "d2"


def test_sources_by_name_and_documents_at_random_inside(ray_local: int, tmp_path: Path):
    rows = eight("web", "arxiv", "web", "web", "arxiv", "code", "web", "arxiv")
    for mb in (0.05, 10):  # several parts and one
        done = run_rows(tmp_path, rows, [{"op": "order.source"}], seed=17, engine={"part_mb": mb})
        assert tours(done) == {
            "t00000000": ["d4", "d1", "d7"],
            "t00000001": ["d5"],
            "t00000002": ["d2", "d3", "d6", "d0"],
        }
    link = done.column("order.source", "link")
    assert [link[i] for i in ("d4", "d1", "d5", "d2")] == ["start", "source", "start", "start"]


def test_one_document(ray_local: int, tmp_path: Path):
    for op in ("order.random", "order.source"):
        done = run_rows(tmp_path, eight("web"), [{"op": op}])
        assert tours(done) == {"t00000000": ["d0"]}


def test_a_random_order_is_packed(ray_local: int, tmp_path: Path):
    rows = [{"id": f"d{i}", "text": f"number {i} " * 50} for i in range(8)]
    stages = [{"op": "order.random"}, {"op": "pack", "length": 128, "shuffle_windows": False}]
    done = run_rows(tmp_path, rows, stages, seed=17)
    seen = [s["doc_id"] for w in done.windows() for s in w["segments"]]
    assert set(seen) == {r["id"] for r in rows}


@pytest.mark.parametrize("op", ["order.random", "order.source"])
def test_ranges_of_priority_change_no_order(ray_local: int, tmp_path: Path, op: str):
    rows = eight("web", "arxiv", "web", "web", "arxiv", "code", "web", "arxiv")
    whole = run_rows(tmp_path / "whole", rows, [{"op": op}], seed=17)
    ranges = run_rows(tmp_path / "ranges", rows, [{"op": op, "one_place_up_to": 2}], seed=17)
    assert ranges.rows(op) == whole.rows(op)
    kept = ("documents", "tours")
    found = (done.stage(op).steps["tours"] for done in (whole, ranges))
    assert len({tuple(figures[k] for k in kept) for figures in found}) == 1
    assert len(ranges.stage(op).steps) > len(whole.stage(op).steps)
