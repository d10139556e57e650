"""The same bytes whatever the workers, parts and order of files; and what a change redoes."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longctx import run
from longctx.engine.manifest import RunRecord
from tests.conftest import make_recipe, make_rows, output_bytes, write_corpus
from tests.servers import run_command

pytestmark = pytest.mark.ray
# Neither the cut of the documents nor that of the exchanges is one that a result may depend on.
SMALL_PARTS = {"part_mb": 0.03, "exchange_mb": 0.02}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("small"), make_rows(60))


@pytest.fixture(scope="module")
def expected(
    ray_local: int, small: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Output of the main job with two workers and several parts."""
    run_dir = tmp_path_factory.mktemp("expected")
    record = run(make_recipe(small, run_dir, engine=SMALL_PARTS))
    assert len(list((run_dir / "documents").iterdir())) > 4
    # Without these every comparison below would be empty.
    assert next(s for s in record.stages if s.op == "dedup.minhash").dropped == {"minhash": 6}
    assert next(s for s in record.stages if s.op == "order.path").steps["tours"]["documents"] == 60
    return output_bytes(run_dir)


def windows(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without the manifest, which names the recipe and so the paths of its inputs."""
    return {name: data for name, data in files.items() if name != "manifest.json"}


@pytest.mark.parametrize(
    "engine",
    [
        {**SMALL_PARTS, "workers": 1},
        {"part_mb": 64},
        {"part_mb": 0.01, "batch_mb": 0.01, "exchange_mb": 0.005},
    ],
    ids=["one worker", "one part", "many parts and buckets"],
)
def test_workers_and_parts_change_nothing(
    expected: dict[str, bytes], small: Path, tmp_path: Path, engine: dict[str, float]
) -> None:
    run(make_recipe(small, tmp_path / "run", engine=engine))
    assert output_bytes(tmp_path / "run") == expected


def test_one_cpu(expected: dict[str, bytes], small: Path, tmp_path: Path) -> None:
    """A Ray of one CPU: the actors of `embed` hold all of it."""
    ended = run_command(
        make_recipe(small, tmp_path / "run", engine=SMALL_PARTS), tmp_path, "--cpus", "1"
    )
    assert ended.code == 0, ended.said
    assert output_bytes(tmp_path / "run") == expected


def shuffled(small: Path, folder: Path) -> list[str]:
    """The files made in another order, and named to the recipe in that order."""
    files = sorted(small.iterdir(), reverse=True)
    for file in files:
        shutil.copy(file, folder)
    return [str(folder / f.name) for f in files]


def merged(small: Path, folder: Path) -> list[str]:
    """All rows in one file, last file first."""
    texts = [f.read_text() for f in sorted(small.iterdir(), reverse=True)]
    (folder / "all.jsonl").write_text("".join(texts))
    return [str(folder / "all.jsonl")]


def split(small: Path, folder: Path) -> list[str]:
    """Rows dealt to many files."""
    lines = [x for f in sorted(small.iterdir()) for x in f.read_text().splitlines()]
    write_corpus(folder, [json.loads(x) for x in reversed(lines)], files=9)
    return [str(folder / "*.jsonl")]


@pytest.mark.parametrize("arrange", [shuffled, merged, split])
def test_files_change_nothing_when_rows_bring_their_ids(
    expected: dict[str, bytes],
    small: Path,
    tmp_path: Path,
    arrange: Callable[[Path, Path], list[str]],
) -> None:
    (tmp_path / "in").mkdir()
    recipe = make_recipe(small, tmp_path / "run", engine=SMALL_PARTS)
    recipe["input"][0]["path"] = arrange(small, tmp_path / "in")
    run(recipe)
    assert windows(output_bytes(tmp_path / "run")) == windows(expected)


# What a change recomputes


@pytest.fixture(scope="module")
def settled(
    ray_local: int, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Any]]:
    """Brings one run folder to the state of the main job and returns its recipe."""
    folder = tmp_path_factory.mktemp("settled")
    corpus = write_corpus(tmp_path_factory.mktemp("changing"), make_rows(40))
    recipe = make_recipe(corpus, folder, engine={"part_mb": 0.02})

    def settle() -> dict[str, Any]:
        run(recipe)
        copy: dict[str, Any] = json.loads(json.dumps(recipe))
        return copy

    return settle


def redone(record: RunRecord) -> dict[str, int]:
    """Op -> units that were made again; ops that were skipped entirely are left out."""
    return {s.op: s.units - s.skipped for s in record.stages if s.units != s.skipped}


def steps_written(run_dir: str, op: str, since: int) -> set[str]:
    """Steps of a stage of which a unit was committed after a moment."""
    (folder,) = Path(run_dir, "stages").glob(f"*-{op}")
    files = folder.rglob("*.commit.json")
    return {str(f.parent.relative_to(folder)) for f in files if f.stat().st_mtime_ns > since}


def now(recipe: dict[str, Any]) -> int:
    """The time of the file system, by a file that a run has just written."""
    return os.stat(Path(recipe["run_dir"], "report.html")).st_mtime_ns


AFTER_DECIDE = {"dedup.exact", "dedup.minhash", "embed", "dedup.semantic", "cluster.kmeans"}


def test_nothing_changed_nothing_redone(settled: Callable[..., dict[str, Any]]) -> None:
    assert redone(run(settled())) == {}


def test_threshold_of_decide(settled: Callable[..., dict[str, Any]]) -> None:
    recipe = settled()
    parts = len(list(Path(recipe["run_dir"], "documents").iterdir()))
    recipe["stages"][1]["rules"] = {"n_tokens": {"min": 500}}
    record = run(recipe)
    found = redone(record)
    assert record.stages[2].dropped
    assert found.keys() == {"decide", *AFTER_DECIDE, "order.path", "pack"}
    assert found["decide"] == parts


def test_threshold_that_moves_no_row(settled: Callable[..., dict[str, Any]]) -> None:
    """What a stage reads decides, not whether an earlier stage ran."""
    recipe = settled()
    recipe["stages"][1]["rules"] = {"n_tokens": {"min": 11}}
    assert redone(run(recipe)).keys() == {"decide"}


def test_eps_of_semantic_dedup_cuts_again(settled: Callable[..., dict[str, Any]]) -> None:
    recipe = settled()
    before = now(recipe)
    recipe["stages"][5]["eps"] = 0.3
    record = run(recipe)
    assert redone(record).keys() <= {"dedup.semantic", "cluster.kmeans", "order.path", "pack"}
    assert steps_written(recipe["run_dir"], "dedup.semantic", before) == {"."}


def test_survivors_of_minhash_are_chosen_again(settled: Callable[..., dict[str, Any]]) -> None:
    recipe = settled()
    before = now(recipe)
    recipe["stages"][3]["min_kept_sim"] = 0.999
    record = run(recipe)
    assert steps_written(recipe["run_dir"], "dedup.minhash", before) == {"."}
    assert not {"read", "score.heuristics", "decide", "dedup.exact"} & redone(record).keys()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("engine", "workers"), 1),
        (("engine", "batch_mb"), 0.5),
        (("engine", "max_quarantine_fraction"), 0.5),
        (("stages", 3, "local_edges"), 1000),
        (("stages", 4, "threads"), 2),
    ],
)
def test_neutral_fields_recompute_nothing(
    settled: Callable[..., dict[str, Any]], place: tuple[Any, ...], value: Any
) -> None:
    recipe = settled()
    *path, last = place
    target: Any = recipe
    for step in path:
        target = target[step]
    target[last] = value
    assert redone(run(recipe)) == {}


def test_changed_file_recomputes_its_parts_in_map_stages(
    settled: Callable[..., dict[str, Any]],
) -> None:
    recipe = settled()
    folder = Path(recipe["input"][0]["path"]).parent
    file = sorted(folder.iterdir())[0]
    original = file.read_text()
    # A document of which there is no copy, so that no other part loses or gains a row.
    line = original.splitlines()[5]
    changed = json.dumps({**json.loads(line), "text": json.loads(line)["text"] + " One more."})
    try:
        file.write_text(original.replace(line, changed))
        record = run(recipe)
        found = redone(record)
        scored = next(s for s in record.stages if s.op == "score.heuristics")
        assert found["score.heuristics"] == 1
        assert found["embed"] == 1
        assert scored.units > 4
        assert scored.why == {"settings or input changed": 1}
    finally:
        file.write_text(original)
