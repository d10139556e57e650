"""Killed drivers, dying workers, damaged files and rows that raise: what a run makes of each."""

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from longctx import registry, run
from longctx.cli import main
from longctx.engine.manifest import RunRecord
from longctx.engine.op import Map, Model, Setting
from longctx.engine.progress import Silent
from longctx.engine.units import Sink, Step, Unit, execute, pending
from longctx.errors import RunError
from longctx.io import paths
from tests.conftest import make_recipe, make_rows, output_bytes, write_corpus
from tests.servers import Command, run_command, wait_until

POISON = "POISON"
STAGES = [
    {"op": "score.heuristics"},
    {"op": "dedup.minhash"},
    {"op": "embed"},
    {"op": "order.path", "dup_action": "keep"},
    {"op": "pack", "length": 512, "shard_tokens": 2048},
]

INSTANTS = [
    "00-read/groups",
    "01-score.heuristics",
    "02-dedup.minhash/edges",
    "03-embed",
    "05-pack/windows",
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("small"), make_rows(40))


@pytest.fixture(scope="module")
def undisturbed(ray_local: int, small: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run(recipe_for(small, tmp_path_factory.mktemp("undisturbed")))


def recipe_for(corpus: Path, run_dir: Path, **changes: Any) -> dict[str, Any]:
    return make_recipe(corpus, run_dir, **{"stages": STAGES, **changes})


def commits_of(run_dir: Path) -> dict[Path, int]:
    """Every commit file with the time it was written; what a kill left half-written is none."""
    return {
        file: file.stat().st_mtime_ns
        for file in run_dir.glob("stages/**/*.commit.json")
        if not file.name.startswith(paths.TEMPORARY)
    }


def leftovers(run_dir: Path) -> list[Path]:
    return [p for p in run_dir.rglob("*") if paths.TEMPORARY in p.name]


class Raises(Map):
    """Raises on rows with the poison in their text."""

    op: Literal["test.raises"]
    summary: ClassVar[str] = "raises"
    reads: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[tuple[str, ...]] = ("looked",)

    def batch(self, table: pa.Table, setting: Setting) -> pa.Table:
        if any(POISON in text for text in table.column("text").to_pylist()):
            raise ValueError("cannot digest this")
        return pa.table({"looked": pa.array([True] * table.num_rows, pa.bool_())})


class Dies(Map):
    """Kills its worker at the poison: always, or once if `marker` names a file to remember by."""

    op: Literal["test.dies"]
    marker: str = ""
    summary: ClassVar[str] = "dies"
    reads: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[tuple[str, ...]] = ("looked",)

    def batch(self, table: pa.Table, setting: Setting) -> pa.Table:
        poisoned = any(POISON in text for text in table.column("text").to_pylist())
        if poisoned and not (self.marker and os.path.exists(self.marker)):
            if self.marker:
                Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return pa.table({"looked": pa.array([True] * table.num_rows, pa.bool_())})


class Unloadable(Model):
    """A model whose files are not there."""

    op: Literal["test.unloadable"]
    summary: ClassVar[str] = "cannot be loaded"
    writes: ClassVar[tuple[str, ...]] = ("looked",)

    def load(self, setting: Setting) -> Any:
        raise RunError("the model is not there", where="weights.bin", remedy="fetch it")


@pytest.fixture
def test_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in (Raises, Dies, Unloadable):
        name = f"test.{cls.__name__.lower()}"
        monkeypatch.setitem(registry.OPS, name, f"{__name__}:{cls.__name__}")


def poisoned(folder: Path, count: int) -> Path:
    folder.mkdir()
    rows = make_rows(20)
    for row in rows[:count]:
        row["text"] += POISON
    return write_corpus(folder, rows)


# Killed drivers


@pytest.mark.faults
@pytest.mark.ray
def test_driver_killed_at_five_instants(
    undisturbed: RunRecord, small: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    recipe = recipe_for(small, run_dir)
    committed: dict[Path, int] = {}
    with contextlib.ExitStack() as open_until_the_end:
        killed = []
        for instant in INSTANTS:
            command = open_until_the_end.enter_context(Command(recipe, tmp_path))
            command.wait_for(has_commits(run_dir / "stages" / instant), instant)
            command.kill()
            killed.append(command)
            committed |= commits_of(run_dir)
            assert json.loads((run_dir / "run.json").read_text())["status"] == "running"
            wait_until(only_agents_run(command), f"the end of Ray after {instant}")
        last = run_command(recipe, tmp_path)
        # Ray's agents end by themselves, too: 60 s after they lost their control store.
        wait_until(lambda: not killed[0].descendants(), "the end of Ray's agents")

    assert last.code == 0, last.said
    assert output_bytes(run_dir) == output_bytes(undisturbed.run_dir)
    after = commits_of(run_dir)
    assert [str(f) for f, written in committed.items() if after[f] != written] == []
    stages = json.loads((run_dir / "run.json").read_text())["stages"]
    assert all(s["skipped"] == s["units"] for s in stages[:-1])
    assert stages[-1]["skipped"] > 0
    assert leftovers(run_dir) == []


def has_commits(folder: Path) -> Callable[[], bool]:
    return lambda: any(folder.glob("*.commit.json"))


def only_agents_run(command: Command) -> Callable[[], bool]:
    return lambda: all("Agent" in name for name in command.running())


@pytest.mark.faults
@pytest.mark.ray
def test_temporary_files_are_neither_read_nor_kept(
    undisturbed: RunRecord, small: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    scored = run(recipe_for(small, run_dir, stages=STAGES[:1]))
    half = run_dir / "stages" / "01-score.heuristics"
    name = next(half.glob("*.parquet")).name
    strays = [half / f".tmp-00-{name}", run_dir / "documents" / f".tmp-00-{name}"]
    strays += [run_dir / "output" / ".tmp-00-part-00000.parquet", half / ".tmp-0-x.commit.json"]
    for stray in strays:
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(b"half a file")
    done = run(recipe_for(small, run_dir))
    assert scored.stages[1].units == done.stages[1].skipped
    assert output_bytes(run_dir) == output_bytes(undisturbed.run_dir)
    assert leftovers(run_dir) == []


def test_crash_at_every_write_of_a_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever write is the last, a unit is valid only with all files of one attempt."""
    run_dir, folder = str(tmp_path), str(tmp_path / "stages" / "s")
    write, remove = paths.write_atomic, paths.remove

    def attempt(content: bytes, calls_left: int) -> bool:
        def once(call: Callable[..., None]) -> Callable[..., None]:
            def guarded(*arguments: Any) -> None:
                nonlocal calls_left
                if calls_left == 0:
                    raise KeyboardInterrupt
                calls_left -= 1
                call(*arguments)

            return guarded

        monkeypatch.setattr(paths, "write_atomic", once(write))
        monkeypatch.setattr(paths, "remove", once(remove))
        try:
            execute(run_dir, folder, Unit("u", content.decode(), content), two_files)
        except KeyboardInterrupt:
            return False
        return True

    assert attempt(b"old", 99)
    crashes = 0
    while not attempt(b"new", crashes):
        crashes += 1
        step = Step(run_dir, folder, [Unit("u", "old", b"old")])
        if pending(step).valid:
            assert (tmp_path / "stages/s/a").read_bytes() == b"old"
            assert (tmp_path / "stages/s/b").read_bytes() == b"old"
        assert not pending(Step(run_dir, folder, [Unit("u", "new", b"new")])).valid
    assert crashes == 4  # revoke, two files, commit
    assert pending(Step(run_dir, folder, [Unit("u", "new", b"new")])).valid


def two_files(payload: bytes, sink: Sink) -> dict[str, Any]:
    for name in "ab":
        sink.write(f"stages/s/{name}", payload, 1)
    return {}


@pytest.mark.faults
@pytest.mark.ray
def test_second_run_in_one_folder_refuses(
    undisturbed: RunRecord, small: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(small, tmp_path / "run")
    second = []

    class Intruder(Silent):
        def stage(self, name: str, note: str = "") -> None:
            if name == "02-dedup.minhash":
                second.append(run_command(recipe, tmp_path))

    run(recipe, reporter=Intruder())
    (ended,) = second
    assert ended.code == 1
    assert f"in use by process {os.getpid()}" in ended.said
    assert "remedy: wait for that run to end" in ended.said
    assert "Traceback" not in ended.said
    assert output_bytes(tmp_path / "run") == output_bytes(undisturbed.run_dir)


# Dying workers


@pytest.mark.faults
@pytest.mark.ray
def test_worker_killed_once_changes_nothing(ray_local: int, test_ops: None, tmp_path: Path) -> None:
    corpus, marker = poisoned(tmp_path / "in", 1), tmp_path / "died"
    stages = [{"op": "test.dies", "marker": str(marker)}]
    record = run(recipe_for(corpus, tmp_path / "run", stages=stages))
    assert marker.exists()
    assert record.stages[-1].rows_out == record.stages[-1].rows_in == 29


@pytest.mark.faults
@pytest.mark.ray
def test_worker_that_always_dies_ends_the_run(
    ray_local: int, test_ops: None, tmp_path: Path
) -> None:
    corpus = poisoned(tmp_path / "in", 1)
    recipe = recipe_for(corpus, tmp_path / "run", stages=[{"op": "test.dies"}])
    with pytest.raises(RunError, match=r"a worker died 4 times in a row") as caught:
        run(recipe)
    assert caught.value.where == "01-test.dies"
    assert "memory" in caught.value.remedy


# Rows that raise


@pytest.mark.ray
def test_rows_that_raise_are_quarantined(ray_local: int, test_ops: None, tmp_path: Path) -> None:
    corpus = poisoned(tmp_path / "in", 2)
    engine = {"part_mb": 0.05, "max_quarantine_fraction": 0.2}
    recipe = recipe_for(corpus, tmp_path / "run", stages=[{"op": "test.raises"}], engine=engine)
    stage = run(recipe).stages[-1]
    bad = [row for f in quarantine(tmp_path / "run") for row in pq.read_table(f).to_pylist()]
    assert stage.quarantined == len(bad) == 2
    assert stage.rows_in == stage.rows_out + stage.quarantined == 29
    assert {row["reason"] for row in bad} == {"ValueError"}
    assert {row["doc_id"] for row in bad} == {"sea-0000", "law-0001"}
    assert all("cannot digest this" in row["detail"] for row in bad)


@pytest.mark.ray
def test_too_many_bad_rows_stop_the_run(ray_local: int, test_ops: None, tmp_path: Path) -> None:
    corpus = poisoned(tmp_path / "in", 2)
    recipe = recipe_for(corpus, tmp_path / "run", stages=[{"op": "test.raises"}])
    with pytest.raises(RunError, match=r"2 of 29 rows were quarantined \(ValueError 2\)") as caught:
        run(recipe)
    assert "max_quarantine_fraction" in caught.value.remedy
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "failed"


def quarantine(run_dir: Path) -> list[Path]:
    return sorted(run_dir.glob("quarantine/01-test.raises/*.parquet"))


# Damaged files


@pytest.fixture(scope="module")
def damaged(ray_local: int, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose files the tests damage, one after another."""
    run_dir = tmp_path_factory.mktemp("damaged")
    run(recipe_for(small, run_dir))
    return run_dir


def delete(file: Path) -> None:
    file.unlink()


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.parametrize("damage", [delete, truncate])
@pytest.mark.parametrize(
    "pattern",
    [
        "documents/*.parquet",
        "stages/01-score.heuristics/*.parquet",
        "stages/02-dedup.minhash/edges/*.parquet",
        "output/part-*.parquet",
    ],
)
def test_missing_and_short_files_are_made_again(
    undisturbed: RunRecord, damaged: Path, small: Path, pattern: str, damage: Callable[[Path], None]
) -> None:
    file = sorted(damaged.glob(pattern))[0]
    whole = file.read_bytes()
    damage(file)
    record = run(recipe_for(small, damaged))
    again = {s.stage: s.units - s.skipped for s in record.stages if s.units != s.skipped}
    assert sum(again.values()) == 1, again
    assert file.read_bytes() == whole
    assert output_bytes(damaged) == output_bytes(undisturbed.run_dir)


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 255
    file.write_bytes(data)


def middle_of_texts(file: Path) -> int:
    text = pq.ParquetFile(file).metadata.row_group(0).column(1)
    start = min(o for o in (text.dictionary_page_offset, text.data_page_offset) if o)
    return start + text.total_compressed_size // 2


@pytest.mark.faults
@pytest.mark.ray
def test_flipped_bits_are_found_where_they_are_read_and_made_again(
    undisturbed: RunRecord, small: Path, tmp_path: Path
) -> None:
    run(recipe_for(small, tmp_path / "run", stages=STAGES[:1]))
    file = sorted((tmp_path / "run/documents").glob("*.parquet"))[0]
    flip(file, middle_of_texts(file))
    record = run(recipe_for(small, tmp_path / "run"))
    assert record.repaired == [str(file)]
    assert output_bytes(tmp_path / "run") == output_bytes(undisturbed.run_dir)


@pytest.mark.faults
@pytest.mark.ray
def test_a_damaged_matrix_is_made_again(undisturbed: RunRecord, damaged: Path, small: Path) -> None:
    file = next(damaged.glob("stages/04-order.path/*/vectors.npy"))
    flip(file, file.stat().st_size // 2)
    for later in sorted(damaged.glob("stages/04-order.path/*/*.parquet")):
        if later.parent != file.parent:
            later.unlink()
    record = run(recipe_for(small, damaged))
    assert record.repaired == [str(file)]
    assert output_bytes(damaged) == output_bytes(undisturbed.run_dir)


@pytest.mark.faults
@pytest.mark.ray
def test_verify_finds_what_a_resume_trusts(
    undisturbed: RunRecord, damaged: Path, small: Path
) -> None:
    stages = ["01-score.heuristics", "03-embed"]
    whole = {}
    for stage in stages:
        file = sorted((damaged / "stages" / stage).glob("*.parquet"))[0]
        whole[file] = file.read_bytes()
        flip(file, file.stat().st_size // 2)
    trusting = run(recipe_for(small, damaged))
    assert trusting.repaired == []
    assert {file: file.read_bytes() for file in whole} != whole
    record = run(recipe_for(small, damaged), verify=True)
    assert record.repaired == sorted(map(str, whole))
    assert [s.stage for s in record.stages if s.units != s.skipped] == stages
    assert {file: file.read_bytes() for file in whole} == whole
    assert output_bytes(damaged) == output_bytes(undisturbed.run_dir)


# What the terminal shows


@pytest.mark.ray
def test_failing_run_says_one_thing(
    ray_local: int, test_ops: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A worker's error as the user of the command sees it."""
    stages = [{"op": "test.unloadable"}]
    recipe = recipe_for(poisoned(tmp_path / "in", 0), tmp_path / "run", stages=stages)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["run", "--quiet", str(tmp_path / "recipe.yaml")]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "longctx: the run failed",
        "  01-test.unloadable/load: weights.bin: the model is not there",
        "  remedy: fetch it",
    ]
