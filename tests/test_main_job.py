"""The main job from rows to windows, on the local Ray."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from longctx import run
from longctx.engine.manifest import RunRecord
from tests.conftest import make_recipe, output_bytes

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def finished(ray_local: int, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run(make_recipe(corpus, tmp_path_factory.mktemp("run")))


def test_rows_are_accounted_for(finished: RunRecord) -> None:
    assert finished.status == "done"
    before = None
    for stage in finished.stages:
        stage.check(before)
        before = stage.rows_out
    by_op = {s.op: s for s in finished.stages}
    assert by_op["read"].rows_in == 249
    assert by_op["dedup.exact"].dropped == {"exact": 3}
    assert by_op["dedup.minhash"].dropped == {"minhash": 6}


def test_every_token_can_be_traced(finished: RunRecord) -> None:
    from longctx.text.tokenize import load_tokenizer

    texts = {}
    for file in Path(finished.run_dir, "documents").glob("*.parquet"):
        for row in pq.read_table(file).to_pylist():
            texts[row["doc_id"]] = row["text"]
    tokenizer = load_tokenizer("embedded")
    windows = pq.read_table(sorted(Path(finished.output).glob("part-*.parquet"))[0]).to_pylist()
    for window in windows:
        for segment in window["segments"]:
            ids = [*tokenizer.encode_batch([texts[segment["doc_id"]]])[0], tokenizer.eos_id]
            start = segment["doc_start"]
            size = segment["end"] - segment["start"]
            packed = window["input_ids"][segment["start"] : segment["end"]]
            assert packed == ids[start : start + size]


def test_manifest_counts_what_lies_there(finished: RunRecord) -> None:
    manifest = json.loads(Path(finished.output, "manifest.json").read_text())
    parts = sorted(Path(finished.output).glob("part-*.parquet"))
    assert len(parts) > 1
    windows = [w for p in parts for w in pq.read_table(p).to_pylist()]
    assert manifest["windows"] == len(windows)
    assert manifest["tokens"] == sum(w["n_tokens"] for w in windows)
    index = json.loads(Path(finished.output, "mds", "index.json").read_text())
    assert sum(s["samples"] for s in index["shards"]) == len(windows)


def test_neighbours_belong_together(finished: RunRecord) -> None:
    order = next(s for s in finished.stages if s.op == "order.path")
    figures = order.steps["tours"]
    assert figures["adjacency"] > figures["adjacency_random"] + 0.1
    assert figures["adjacency"] <= figures["top2_bound"]


def test_resume_skips_everything(finished: RunRecord) -> None:
    before = output_bytes(finished.run_dir)
    again = run({**finished.recipe})
    assert all(s.units == s.skipped for s in again.stages)
    assert output_bytes(finished.run_dir) == before


def test_report_is_written(finished: RunRecord) -> None:
    page = Path(finished.run_dir, "report.html").read_text()
    assert "small" in page
    assert "dedup.minhash" in page
