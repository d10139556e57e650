"""`plan` for another size and another cluster: the printed page, JSON, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from longctx.cli import main
from longctx.engine.api import plan_at
from longctx.engine.scaling import ScalePlan
from tests.conftest import make_recipe

BILLION = ["--docs", "1e9", "--tokens-per-doc", "1000", "--nodes", "64", "--cores-per-node", "16"]
BILLION += ["--memory-per-node", "256GB", "--gpus", "32"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(make_recipe(tmp_path / "nothere", tmp_path / "run")))
    return path


def at(folder: Path, **size: Any) -> ScalePlan:
    usual = {"docs": 1e6, "tokens_per_doc": 1000, "cores_per_node": 16, "memory_per_node": 256e9}
    return plan_at(make_recipe(folder / "nothere", folder / "run"), **{**usual, **size})


def seconds(found: ScalePlan) -> float:
    return sum(e.seconds for e in found.known)


def test_the_page_fits_a_terminal_and_says_what_does_not_fit(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    in_one_place = ["--set", "stages.6.one_place_clusters=1000000000"]
    assert main(["plan", str(recipe), *BILLION, *in_one_place]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "1.00 B documents" in out
    assert "64 nodes with 16 cores and 256 GB each, 32 GPUs in all" in out
    assert "No stage of the recipe uses a GPU" in out
    lines = " ".join(out.split())
    assert "07-cluster.kmeans/centroids" in lines
    assert "does not fit a node of 256 GB: lower `one_place_clusters`" in lines


def test_a_gpu_stage_says_that_no_gpu_was_measured(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(recipe), *BILLION, "--set", "stages.4.num_gpus=1"]) == 0
    out = capsys.readouterr().out
    assert "GPU not calibrated: CPU rate shown" in out
    assert "05-embed *" in out


def test_an_op_that_was_not_measured_has_no_figure(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["--set", "stages.4.model=/somewhere/else"]
    assert main(["plan", str(recipe), *BILLION, *overrides]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith(" 05-embed"))
    assert row.split()[1:] == ["not", "calibrated", "-", "-", "-", "-"]
    assert "Not calibrated, and in no sum: 05-embed" in " ".join(out.split())


def test_json_holds_the_same_figures(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(recipe), *BILLION, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["docs"] == 1e9
    assert found["fits"] is True
    assert found["not_calibrated"] == []
    assert found["cluster"] == {"nodes": 64, "cores": 16, "memory": 256e9, "gpus": 32}
    stages = {s["stage"]: s for s in found["stages"]}
    assert len(stages) == 10
    assert stages["08-order.path"]["form"] == "partitions"
    assert stages["04-dedup.minhash"]["form"] == "rounds"
    assert stages["09-pack"]["estimate"]["exchange_bytes"] > 1e12


def test_time_grows_with_documents_and_shrinks_with_nodes(tmp_path: Path) -> None:
    few, more = at(tmp_path), at(tmp_path, docs=1e7)
    assert seconds(more) > 5 * seconds(few)
    wide = at(tmp_path, docs=1e7, nodes=4)
    assert seconds(wide) < seconds(more)
    assert at(tmp_path, docs=1e7, gpus=8).stages == more.stages


def test_longer_documents_cost_where_text_is_read(tmp_path: Path) -> None:
    short, long = at(tmp_path), at(tmp_path, tokens_per_doc=4000)
    by_stage = {s.stage: s.estimate for s in short.stages}
    for stage in long.stages:
        before = by_stage[stage.stage]
        assert before is not None
        assert stage.estimate is not None
        if stage.stage == "01-score.heuristics":
            assert stage.estimate.cpu_seconds > 3.5 * before.cpu_seconds
        if stage.stage == "02-decide":
            assert stage.estimate.cpu_seconds == before.cpu_seconds


def test_the_mean_document_is_that_of_the_inputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("x" * 3000)
    (tmp_path / "b.txt").write_text("x" * 1000)
    raw = {
        "name": "mean",
        "input": [{"path": f"{tmp_path}/*.txt", "source": "s"}],
        "run_dir": str(tmp_path / "run"),
        "stages": [{"op": "dedup.exact"}],
    }
    assert plan_at(raw, docs=1e9).text_bytes == 2e12
    assert plan_at(raw, nodes=3).docs == 2
    assert plan_at(raw, tokens_per_doc=1000).docs == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--docs", "0"], "expected a number above 0, such as 1e9, got '0'"),
        (["--docs", "many"], "got 'many'"),
        (["--docs", "nan"], "got 'nan'"),
        (["--nodes", "-1"], "--nodes"),
        (["--nodes", "1.5"], "expected a whole number from 1, got '1.5'"),
        (["--memory-per-node", "lots"], "expected a size such as 256GB, got 'lots'"),
        (["--memory-per-node", "0GB"], "got '0GB'"),
        (["--cores-per-node", "0"], "expected a whole number from 1"),
        (["--tokens-per-doc", "-5"], "--tokens-per-doc"),
        (["--docs", "1e9", "--cores", "4"], "--cores is for this machine alone"),
        (["--docs", "1e9"], "no file matches"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(
    recipe: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["plan", str(recipe), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "remedy:" in error
    assert "Traceback" not in error
