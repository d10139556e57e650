"""`plan` without Ray: rows from footers, estimates that say so, and what a resume would skip."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from longctx import plan, run
from longctx.cli import main
from longctx.engine.planning import Plan
from longctx.errors import RecipeError
from tests.conftest import make_recipe

STAGES = [{"op": "score.heuristics"}, {"op": "decide", "rules": {"n_tokens": {"min": 3}}}]


def planned(folder: Path, *inputs: dict[str, Any], **more: Any) -> Plan:
    body = {"name": "p", "input": list(inputs), "run_dir": str(folder / "run"), "stages": STAGES}
    return plan({**body, **more})


def states(found: Plan) -> dict[str, str]:
    return {s.stage: s.state for s in found.stages}


def test_parquet_rows_come_from_footers(tmp_path: Path):
    texts = [f"text number {i} " * 50 for i in range(300)]
    for i in range(2):
        table = pa.table({"id": range(300), "text": texts, "other": ["x" * 1000] * 300})
        pq.write_table(table, tmp_path / f"{i}.parquet", row_group_size=40)
    found = planned(tmp_path, {"path": str(tmp_path / "*.parquet"), "source": "s"})
    only = found.inputs[0]
    assert (only.source, only.files, only.rows, only.exact) == ("s", 2, 600, True)
    text = 2 * sum(map(len, texts))
    # The other column does not count; Parquet's own encoding may save a little.
    assert 0.2 * text < only.text_bytes < 1.1 * text
    assert found.rows == 600


def test_jsonl_rows_are_counted_when_small_and_estimated_when_large(tmp_path: Path):
    row = json.dumps({"text": "x" * 90}) + "\n"
    (tmp_path / "small.jsonl").write_text(row * 2 + row.strip())
    (tmp_path / "large.jsonl").write_text(row * 30_000)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress((row * 100).encode()))
    (tmp_path / "empty.jsonl").write_text("")
    found = planned(
        tmp_path,
        *(
            {"path": str(tmp_path / f"{n}"), "source": n}
            for n in ("small.jsonl", "large.jsonl", "packed.jsonl.gz", "empty.jsonl")
        ),
    )
    by_source = {i.source: i for i in found.inputs}
    assert (by_source["small.jsonl"].rows, by_source["small.jsonl"].exact) == (3, True)
    assert by_source["large.jsonl"].rows == pytest.approx(30_000, rel=0.01)
    assert not by_source["large.jsonl"].exact
    assert not by_source["packed.jsonl.gz"].exact
    assert (by_source["empty.jsonl"].rows, by_source["empty.jsonl"].exact) == (0, True)


def test_text_files_are_one_row_each(tmp_path: Path):
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text("words")
    (tmp_path / "x.csv").write_text("a,b")
    found = planned(tmp_path, {"path": str(tmp_path), "source": "s"})
    assert (found.rows, found.text_bytes) == (3, 15)
    assert found.ignored == {"unknown format .csv": 1}


def test_a_broken_footer_does_not_stop_the_plan(tmp_path: Path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    found = planned(tmp_path, {"path": str(tmp_path), "source": "s"})
    assert (found.rows, found.inputs[0].exact) == (0, False)


def test_nothing_is_written_and_everything_is_to_do(tmp_path: Path):
    (tmp_path / "a.txt").write_text("words")
    found = planned(tmp_path, {"path": str(tmp_path / "a.txt"), "source": "s"})
    assert set(states(found).values()) == {"to do"}
    assert list(states(found)) == ["00-read", "01-score.heuristics", "02-decide"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_missing_inputs_are_named(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"no file matches .*nothere"):
        planned(tmp_path, {"path": str(tmp_path / "nothere"), "source": "s"})


def test_costs_grow_with_text_and_models_are_actors(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x" * 1_000)
    (tmp_path / "b.txt").write_text("x" * 3_000)
    stages = [*STAGES, {"op": "embed"}, {"op": "dedup.minhash"}]
    small, large = (
        planned(tmp_path, {"path": str(tmp_path / n), "source": "s"}, stages=stages)
        for n in ("a.txt", "b.txt")
    )
    for a, b in zip(small.stages, large.stages, strict=True):
        assert a.cpu_seconds is not None
        assert b.cpu_seconds is not None
        assert a.cpu_seconds <= b.cpu_seconds
        assert a.worker_bytes == pytest.approx(b.worker_bytes, rel=0.01)
    assert large.stages[1].cpu_seconds > small.stages[1].cpu_seconds  # type: ignore[operator]
    by_kind = {s.kind: s.workers for s in small.stages}
    assert by_kind == {"read": "tasks", "map": "tasks", "model": "actors", "barrier": "tasks"}
    assert {s.stage: bool(s.exchange_bytes) for s in small.stages}["04-dedup.minhash"]


@pytest.fixture(scope="module")
def finished(
    ray_local: int, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    recipe = make_recipe(corpus, tmp_path_factory.mktemp("plan") / "run")
    run(recipe)
    return recipe


@pytest.mark.ray
def test_a_finished_run_has_nothing_left(finished: dict[str, Any]):
    assert set(states(plan(finished)).values()) == {"done"}


@pytest.mark.ray
@pytest.mark.parametrize(
    ("override", "first", "state"),
    [
        ("stages.1.rules.n_tokens.min=11", "02-decide", "to do"),
        ("stages.3.min_kept_sim=0.99", "04-dedup.minhash", "from step result"),
        ("stages.3.threshold=0.8", "04-dedup.minhash", "from step edges"),
        ("stages.5.eps=0.01", "06-dedup.semantic", "from step result"),
        ("stages.7.dup_action=drop", "08-order.path", "from step tours"),
        ("stages.8.length=1024", "09-pack", "from step plan"),
    ],
)
def test_a_changed_field_leaves_what_comes_before_it(
    finished: dict[str, Any], override: str, first: str, state: str
):
    found = states(plan(finished, [override]))
    names = list(found)
    at = names.index(first)
    assert {found[n] for n in names[:at]} == {"done"}
    assert found[first] == state
    assert all(found[n] == "to do" for n in names[at + 1 :])


@pytest.mark.ray
@pytest.mark.parametrize("override", ["engine.workers=1", "stages.4.threads=2", "name=other"])
def test_what_changes_no_byte_leaves_everything_done(finished: dict[str, Any], override: str):
    assert set(states(plan(finished, [override])).values()) == {"done"}


@pytest.mark.ray
def test_the_plan_is_what_a_run_then_does(finished: dict[str, Any]):
    changed = ["stages.5.eps=0.0005"]
    expected = states(plan(finished, changed))
    record = run(finished, changed)
    did = {s.stage: s.units - s.skipped for s in record.stages}
    assert {n for n, s in expected.items() if s == "done"} <= {n for n, k in did.items() if not k}
    assert did["06-dedup.semantic"] > 0
    run(finished)


@pytest.mark.ray
def test_a_removed_part_is_to_be_made_again(finished: dict[str, Any]):
    folder = Path(finished["run_dir"], "stages", "01-score.heuristics")
    part = sorted(folder.glob("*.parquet"))[0]
    data = part.read_bytes()
    part.unlink()
    try:
        total = len(list(Path(finished["run_dir"], "documents").glob("*.parquet")))
        assert states(plan(finished))["01-score.heuristics"] == f"1 of {total} parts"
    finally:
        part.write_bytes(data)


@pytest.mark.ray
def test_the_printed_plan_fits_and_says_what_is_left(
    finished: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(finished))
    assert main(["plan", str(path)]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "Nothing is left to do" in out
    assert main(["plan", str(path), "--cores", "8", "--set", "stages.8.length=512"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "on 8 cores" in out
    assert "length 512" in out
    stage = next(line for line in out.splitlines() if line.startswith(" 09-pack"))
    assert stage.endswith("from step plan")
