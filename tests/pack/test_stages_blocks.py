"""`pack` in blocks of the order: the same windows for any workers, and every token once."""

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from longctx import run
from longctx.text.tokenize import load_tokenizer
from tests.conftest import make_rows, output_bytes
from tests.stages import Finished, recipe_of, run_rows

pytestmark = pytest.mark.ray

LONG = {"id": "long", "text": "one two three. " * 400, "source": "book"}
BLANK = {"id": "blank", "text": ""}
ROWS = [*make_rows(150)[:150], LONG, BLANK]
APART = {"one_place_up_to": 50, "partition_documents": 40}
ORDER = {"op": "order.path", "dup_action": "keep", **APART}
PACK = {"op": "pack", "length": 512, "shard_tokens": 4_000, "one_place_up_to": 50}


def packed(folder: Path, **changes: Any) -> Finished:
    fields = changes.pop("pack", {})
    return run_rows(folder, ROWS, [{"op": "embed"}, ORDER, {**PACK, **fields}], **changes)


@pytest.fixture(scope="module")
def folder(ray_local: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for runs that differ in their last stage only."""
    return tmp_path_factory.mktemp("blocks")


@pytest.fixture(scope="module")
def done(folder: Path) -> tuple[Finished, dict[str, bytes]]:
    found = packed(folder)
    return found, output_bytes(found.record.run_dir)


def assert_each_token_once(windows: Iterable[dict[str, Any]]) -> None:
    """Every framed token of every document stands in one window, as the text has it."""
    tokenizer = load_tokenizer("embedded")
    texts = [row["text"] for row in ROWS]
    framed = {
        row["id"]: [*ids.tolist(), tokenizer.eos_id]
        for row, ids in zip(ROWS, tokenizer.encode_batch(texts), strict=True)
        if len(ids)
    }
    found: dict[str, list[tuple[int, list[int]]]] = {i: [] for i in framed}
    for window in windows:
        for s in window["segments"]:
            found[s["doc_id"]].append((s["doc_start"], window["input_ids"][s["start"] : s["end"]]))
    for doc_id, spans in found.items():
        assert [t for _, ids in sorted(spans) for t in ids] == framed[doc_id], doc_id


def test_every_token_is_placed_once(done: tuple[Finished, dict[str, bytes]]) -> None:
    found, _ = done
    windows = found.windows()
    assert_each_token_once(windows)
    stage = found.stage("pack")
    assert (stage.rows_in, stage.rows_out, stage.dropped) == (152, 151, {"no_tokens": 1})
    plan = stage.steps["plan"]
    assert plan["blocks"] == 4
    target = plan["targets"]["512"]
    assert target["documents"] == 151
    assert sum(target["choice"]["blocks"].values()) == 4
    assert stage.steps["audit"]["windows"] == len(windows)


def test_windows_are_shuffled_over_blocks(done: tuple[Finished, dict[str, bytes]]) -> None:
    found, _ = done
    rank = {r["doc_id"]: r["rank"] for r in found.rows("order.path")}
    first = [rank[w["segments"][0]["doc_id"]] for w in found.windows()]
    assert len(list(Path(found.record.output).glob("part-*.parquet"))) > 4
    rising = sum(a < b for a, b in pairwise(first)) / (len(first) - 1)
    assert 0.35 < rising < 0.65


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_and_parts_change_nothing(
    done: tuple[Finished, dict[str, bytes]], tmp_path: Path, workers: int
) -> None:
    engine = {"part_mb": 0.02 * workers, "workers": workers, "exchange_mb": 0.02}
    again = packed(tmp_path, engine=engine)
    named = output_bytes(again.record.run_dir)
    expected = done[1]
    assert named.keys() == expected.keys()
    # The manifest names the recipe, and so the paths of its inputs.
    assert [n for n in named if named[n] != expected[n] and n != "manifest.json"] == []


def test_a_block_that_is_gone_is_made_again(done: tuple[Finished, dict[str, bytes]]) -> None:
    found, expected = done
    run_dir = Path(found.record.run_dir)
    stage = found.stage("pack").stage
    (run_dir / "stages" / stage / "blocks" / "bucket-00002.parquet").unlink()
    next((run_dir / "output").glob("part-*.parquet")).unlink()
    record = run(recipe_of(run_dir.parent, ROWS, [{"op": "embed"}, ORDER, PACK]))
    again = next(s for s in record.stages if s.op == "pack")
    assert again.units - again.skipped == 2
    assert output_bytes(run_dir) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"strategy": "concat", "shuffle_windows": False},
        {"lengths": [{"length": 512, "share": 0.5}, {"length": 128, "share": 0.5}]},
        {"split_at": "sentence", "strategy": "best_fit"},
    ],
    ids=["concat in order", "two lengths", "sentences"],
)
def test_other_plans_place_every_token_too(folder: Path, fields: dict[str, Any]) -> None:
    settings = {**PACK, **fields}
    if "lengths" in fields:
        settings.pop("length")
    found = run_rows(folder, ROWS, [{"op": "embed"}, ORDER, settings])
    output = Path(found.record.output)
    folders = sorted(output.glob("length-*")) if "lengths" in fields else [output]
    windows = [w for f in folders for w in windows_of(f)]
    assert_each_token_once(windows)
    if "lengths" in fields:
        shares = json.loads((output / "manifest.json").read_text())["lengths"]
        assert all(abs(s["share_reached"] - 0.5) < 0.25 for s in shares)
    if fields.get("strategy") == "concat":
        rank = {
            r["doc_id"]: r["rank"] for r in found.rows("order.path") if r["tour_id"] == "t00000000"
        }
        first = [rank.get(w["segments"][0]["doc_id"], 10**6) for w in windows]
        assert first == sorted(first)
        assert sum(w["n_tokens"] < 512 for w in windows) <= 4


def windows_of(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return [w for p in sorted(folder.glob("part-*.parquet")) for w in pq.read_table(p).to_pylist()]
