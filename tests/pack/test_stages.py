"""`pack` in runs: what lies in the windows under each setting, and whose folder they go to.

All runs that pack the same corpus share one run folder, so only the last stage runs again.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from longctx import run
from longctx.errors import RunError
from longctx.text.tokenize import load_tokenizer
from tests.conftest import make_rows
from tests.stages import Finished, recipe_of, run_rows

pytestmark = pytest.mark.ray

ORDER = {"op": "order.icp", "variant": "released", "cap": 6, "dup_action": "keep"}
LONG = {"id": "long", "source": "book", "license": "CC0-1.0", "text": "one two three. " * 400}
KOREAN = {"id": "korean", "source": "ko", "text": "하나 둘 셋", "language": "ko"}
BLANK = {"id": "blank", "text": ""}
ROWS = [*make_rows(36)[:36], LONG, KOREAN, BLANK]


@pytest.fixture(scope="module")
def folder(ray_local: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pack")


def packed(folder: Path, **fields: Any) -> Finished:
    settings = {"length": 512, "shard_tokens": 4_000, **fields}
    return run_rows(folder, ROWS, [{"op": "embed"}, ORDER, {"op": "pack", **settings}])


def framed(text: str, *, eos: bool = True) -> list[int]:
    tokenizer = load_tokenizer("embedded")
    ids = tokenizer.encode_batch([text])[0].tolist()
    return [*ids, tokenizer.eos_id] if eos else ids


TEXTS = {row["id"]: row["text"] for row in ROWS}


def documents(windows: list[dict[str, Any]], *, eos: bool = True) -> set[str]:
    """Check every segment against the text that it names; the documents that were seen."""
    seen: set[str] = set()
    known = {i: framed(text, eos=eos) for i, text in TEXTS.items()}
    for window in windows:
        assert len(window["input_ids"]) == window["n_tokens"]
        at = 0
        for s in window["segments"]:
            assert s["start"] == at
            at = s["end"]
            ids, size = known[s["doc_id"]], s["end"] - s["start"]
            assert (
                window["input_ids"][s["start"] : s["end"]]
                == ids[s["doc_start"] : s["doc_start"] + size]
            )
            seen.add(s["doc_id"])
        assert at == window["n_tokens"]
    return seen


def assert_next_tokens(windows: list[dict[str, Any]]) -> None:
    """`next_token` is what follows the last token in its document, or null where that ends."""
    known = {i: framed(text) for i, text in TEXTS.items()}
    for window in windows:
        last = window["segments"][-1]
        after = last["doc_start"] + last["end"] - last["start"]
        ids = known[last["doc_id"]]
        assert window["next_token"] == (ids[after] if after < len(ids) else None)


@pytest.mark.parametrize("strategy", ["window", "concat", "best_fit"])
def test_every_document_with_tokens_is_packed_and_traced(folder: Path, strategy: str):
    done = packed(folder, strategy=strategy)
    windows = done.windows()
    assert documents(windows) == set(TEXTS) - {"blank"}
    assert done.stage("pack").dropped == {"no_tokens": 1}
    assert max(w["n_tokens"] for w in windows) <= 512
    assert_next_tokens(windows)
    book = [s for w in windows for s in w["segments"] if s["doc_id"] == "long"]
    assert {(s["source"], s["license"]) for s in book} == {("book", "CC0-1.0")}
    assert sum(s["end"] - s["start"] for s in book) == len(framed(LONG["text"]))
    manifest = json.loads(Path(done.record.output, "manifest.json").read_text())
    assert manifest["windows"] == len(windows)
    if strategy == "concat":
        assert sorted(w["n_tokens"] for w in windows)[1:] == [512] * (len(windows) - 1)


def test_without_crossing_a_window_has_one_tour(folder: Path):
    crossing = packed(folder, strategy="concat").windows()
    kept_apart = packed(folder, strategy="concat", cross_tours=False).windows()
    assert any(w["tour_id"] is None or w["stats"]["n_tours"] > 1 for w in crossing)
    assert all(w["stats"]["n_tours"] == 1 and w["tour_id"] for w in kept_apart)
    tour = {row["doc_id"]: row["tour_id"] for row in packed(folder).rows("order.icp")}
    for window in kept_apart:
        assert {tour[s["doc_id"]] for s in window["segments"]} == {window["tour_id"]}


def test_drop_last_leaves_full_windows_and_says_what_it_cost(folder: Path):
    done = packed(folder, strategy="concat", drop_last=True)
    assert {w["n_tokens"] for w in done.windows()} == {512}
    audit = done.stage("pack").steps["audit"]
    assert 0 < audit["dropped_short_window"] < 512


def test_without_eos_only_text_is_packed(folder: Path):
    done = packed(folder, eos=False)
    windows = done.windows()
    assert documents(windows, eos=False) == set(TEXTS) - {"blank"}
    eos = load_tokenizer("embedded").eos_id
    assert all(eos not in w["input_ids"] for w in windows)


def test_a_bos_that_the_tokenizer_lacks_is_refused_before_anything_runs(
    ray_local: int, tmp_path: Path
):
    with pytest.raises(RunError, match=r"has no BOS token\n.*bos: false"):
        packed(tmp_path, bos=True)
    assert not (tmp_path / "run" / "stages").exists()


def test_windows_of_one_token(ray_local: int, tmp_path: Path):
    rows = [{"id": "a", "text": "one two three"}, {"id": "b", "text": "four"}]
    for strategy in ("concat", "window"):
        stages = [{"op": "embed"}, ORDER, {"op": "pack", "length": 1, "strategy": strategy}]
        windows = run_rows(tmp_path, rows, stages).windows()
        assert {len(w["input_ids"]) for w in windows} == {1}
        text = [i for r in rows for i in framed(r["text"], eos=False)]
        tokens = [w["input_ids"][0] for w in windows]
        assert sorted(set(tokens) - {load_tokenizer("embedded").eos_id}) == sorted(set(text))


def test_counted_tokens_and_own_tokens_give_the_same_windows(ray_local: int, tmp_path: Path):
    rows = make_rows(12)[:12]
    found = []
    for first in ([], [{"op": "score.heuristics", "windows": False}]):
        stages = [*first, {"op": "embed"}, ORDER, {"op": "pack", "length": 256}]
        done = run_rows(tmp_path / str(len(first)), rows, stages)
        found.append([(w["window_id"], w["input_ids"]) for w in done.windows()])
    assert found[0] == found[1]


def test_the_order_of_windows_is_shuffled_and_can_be_kept(folder: Path):
    shuffled = [w["window_id"] for w in packed(folder).windows()]
    kept = [w["window_id"] for w in packed(folder, shuffle_windows=False).windows()]
    assert shuffled != kept
    assert sorted(shuffled) == sorted(kept)


def test_shards_of_an_earlier_plan_are_removed(folder: Path):
    output = Path(packed(folder).record.output)
    many = sorted(p.name for p in output.glob("part-*.parquet"))
    done = packed(folder, shard_tokens=2**24)
    assert len(many) > 1
    assert [p.name for p in output.glob("part-*.parquet")] == ["part-00000.parquet"]
    manifest = json.loads((output / "manifest.json").read_text())
    assert [f["name"] for f in manifest["files"]] == ["part-00000.parquet"]
    assert documents(done.windows()) == set(TEXTS) - {"blank"}


def test_a_removed_shard_is_written_again(folder: Path):
    done = packed(folder)
    output = Path(done.record.output)
    before = {p.name: p.read_bytes() for p in output.glob("part-*.parquet")}
    (output / "part-00001.parquet").unlink()
    again = packed(folder)
    assert again.stage("pack").units - again.stage("pack").skipped == 1
    assert {p.name: p.read_bytes() for p in output.glob("part-*.parquet")} == before


def test_a_folder_of_another_run_is_refused(folder: Path, tmp_path: Path):
    output = packed(folder).record.output
    shutil.copytree(folder / "run", tmp_path / "run")
    stages = [{"op": "embed"}, ORDER, {"op": "pack", "length": 512}]
    other = recipe_of(folder, ROWS, stages, run_dir=str(tmp_path / "run"), output={"path": output})
    with pytest.raises(RunError, match=r"belongs to the run .*\n.*output\.path"):
        run(other)


def test_a_folder_with_foreign_files_is_refused_and_left_alone(folder: Path, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    stages = [{"op": "embed"}, ORDER, {"op": "pack", "length": 512}]
    recipe = recipe_of(folder, ROWS, stages, output={"path": str(tmp_path)})
    with pytest.raises(RunError, match=r"not empty \(thesis\.tex"):
        run(recipe)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
