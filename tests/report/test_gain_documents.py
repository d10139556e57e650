"""`compare --gain-of documents`: what is alive in a run folder, as its stages read it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from longctx.cli import main
from longctx.ids import doc_key
from longctx.report import compare_gain, compare_scoring
from longctx.report.compare_documents import document_pools
from tests.report.judges import Judge
from tests.stages import run_rows

pytestmark = pytest.mark.ray
SECRET = "jane.doe@acme-widgets.org"


def rows() -> list[dict[str, str]]:
    """Documents of 300 words, every other one says all of its first half again; two short ones."""
    found = []
    for number in range(16):
        words = [f"w{i}" for i in np.random.default_rng(number).integers(1, 5_000, 150)]
        more = words if number % 2 else [f"x{i}" for i in range(number * 200, number * 200 + 150)]
        text = " ".join([*words, *more, SECRET, "end"])
        found.append({"id": f"d{number:02d}", "text": text, "source": f"half-{number % 2}"})
    return [*found, *({"id": f"s{i}", "text": "too short", "source": "half-1"} for i in range(2))]


def before_last_stage(run_dir: Path, copy: Path) -> str:
    """A run folder as it would be without the last stage."""
    shutil.copytree(run_dir, copy)
    record = json.loads((copy / "run.json").read_text())
    record["stages"].pop()
    (copy / "run.json").write_text(json.dumps({**record, "name": "whole"}))
    return str(copy)


@pytest.mark.usefixtures("ray_local")
def test_a_filter_is_judged_by_what_it_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = Judge()
    monkeypatch.setattr(compare_gain, "open_model", lambda asked: judge)
    monkeypatch.setattr(compare_scoring, "cache", lambda: tmp_path / "cache")
    monkeypatch.setenv("COLUMNS", "80")
    masked = {"op": "filter.pii", "mask": True}
    dropping = {"op": "decide", "per_source": {"half-0": {"n_chars": {"max": 1}}}}
    stages = [masked, {"op": "score.heuristics"}]
    kept = run_rows(tmp_path / "kept", rows(), [*stages, dropping]).record.run_dir
    whole = before_last_stage(Path(kept), tmp_path / "whole")

    every, some = document_pools([whole, f"kept={kept}"])
    assert [every.name, some.name] == ["whole", "kept"]
    assert len(every.keys) == 18
    assert set(some.keys.tolist()) == {doc_key(r["id"]) for r in rows() if r["source"] != "half-0"}
    texts = dict(some.texts(np.arange(len(some.keys))))
    by_key = {doc_key(r["id"]): r["text"] for r in rows()}
    for row, ((key, text),) in texts.items():
        assert key == int(some.keys[row])
        assert text == by_key[key].replace(SECRET, "<EMAIL>")

    page, figures = tmp_path / "gain.html", tmp_path / "gain.json"
    options = ["--gain-of", "documents", "--long", "256", "--short", "32", "--gain-windows", "8"]
    options += ["--report", str(page), "--json", str(figures)]
    assert main(["compare", f"all={whole}", f"kept={kept}", *options]) == 0
    printed = capsys.readouterr()
    assert "clearly higher in kept" in " ".join(printed.out.split())
    assert "reads " in printed.err
    assert SECRET not in judge.words
    line = json.loads(figures.read_text())["gain"]["lines"][1]
    assert line["shared"] == 1
    assert 0 < line["shared_first"] < 1
    assert line["groups"]["other"]["tokens"] == 0
    assert "clearly higher in kept" in page.read_text()

    shutil.rmtree(next((Path(kept) / "stages").glob("*decide")))
    assert main(["compare", whole, kept, *options]) == 1
    assert "which documents this stage removed are gone" in capsys.readouterr().err
