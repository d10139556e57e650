"""`longctx mix train`: from a run folder to a run table, killed and gone on with; files."""

import json
from pathlib import Path

import numpy as np
import pytest

from longctx.cli import main
from longctx.errors import RecipeError
from longctx.mixture import stages_proxies
from longctx.mixture.proxies import Result
from longctx.mixture.proxy_data import Reading, take
from longctx.mixture.stages_proxy_data import TextUnit, read_unit, units_of
from longctx.mixture.tables import read_losses
from longctx.text.tokenize import load_tokenizer
from tests.conftest import make_rows, write_corpus
from tests.stages import recipe_of, run_rows

MIXTURES = "mixture_id,sea,law\nnatural,0.5,0.5\nm1,0.9,0.1\nm2,0.1,0.9\n"
TINY = (
    *("--layers", "2", "--width", "16", "--heads", "2", "--vocabulary", "128"),
    *("--block", "32", "--batch", "4", "--eval-tokens", "512", "--holdout-fraction", "0.2"),
)


def trained(folder: Path, *more: str, code: int = 0, out: str = "losses.csv") -> None:
    (folder / "m.csv").write_text(MIXTURES)
    given = ("--mixtures", str(folder / "m.csv"), "--data", str(folder / "run"))
    written = ("--out", str(folder / out), "--budget-tokens", "1500", "--noise-seeds", "2")
    assert main(["mix", "train", *given, *written, *TINY, *more]) == code


@pytest.mark.ray
def test_a_killed_command_goes_on_and_ends_with_the_same_table(
    ray_local: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run_rows(tmp_path, make_rows(160), [{"op": "score.heuristics"}, {"op": "dedup.exact"}])
    trained(tmp_path)
    said = capsys.readouterr()
    table = (tmp_path / "losses.csv").read_bytes()
    losses = read_losses(table, "losses.csv")
    assert losses.ids == ("natural", "m1", "m2")
    assert losses.targets == ("sea", "law")
    assert np.isfinite(losses.sd[0]).all()
    assert losses.loss[1, 0] < losses.loss[2, 0]
    assert losses.loss[1, 1] > losses.loss[2, 1]
    assert "4 of 4:" in said.err
    assert "not trained on: bread, code" in said.err
    assert "'natural' with 2 seeds" in said.out
    assert max(map(len, said.out.splitlines())) <= 80
    # Two near-copies are there; the copies that dedup.exact removed are not.
    design = json.loads((tmp_path / "losses.proxies" / "design.json").read_text())
    assert sum(one["docs"] for one in design["sources"].values()) == 80 + 2

    # Killed before the last two were finished: only they are trained.
    finished = sorted((tmp_path / "losses.proxies").glob("[0-9a-f]*[0-9a-f].json"))
    before = {path: path.stat().st_mtime_ns for path in finished}
    finished[0].unlink()
    finished[1].write_text("{")
    trained(tmp_path)
    assert "; 2 are trained already" in capsys.readouterr().err
    assert (tmp_path / "losses.csv").read_bytes() == table
    kept = [path for path in finished if path.stat().st_mtime_ns == before[path]]
    assert kept == finished[2:]

    trained(tmp_path, "--max-epochs", "0.01", code=2)
    assert "mixture 'm1' asks for" in capsys.readouterr().err
    # A learning rate at which nothing can be learnt is a row without a loss, not a crash.
    trained(tmp_path, "--learning-rate", "1e15", "--noise-seeds", "1", out="broken.csv")
    lines = (tmp_path / "broken.csv").read_text().splitlines()
    assert all(",,the training loss is " in line for line in lines[1:])


def files_of(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    return write_corpus(folder, make_rows(40))


def test_files_of_texts_are_read_and_tokenised(tmp_path: Path) -> None:
    folder = files_of(tmp_path)
    (folder / "part-0.jsonl").open("a").write("no json\n")
    units = units_of(str(folder / "*.jsonl"), {"id": "id"}, None)
    reading = Reading(("sea", "law"), 0, 1.0, 0.2, 512, 16)
    found, sea, law = read_unit(units[0], reading)
    assert isinstance(units[0], TextUnit)
    assert found.bad == 1
    assert set(found.counted) == {"sea", "law", "code", "bread"}
    rows = {row["id"]: row["text"] for row in make_rows(40)}
    expected = load_tokenizer("embedded").encode_batch([rows[name] for name in sea.names])
    assert sea.tokens.tolist() == np.concatenate(expected).tolist()
    assert law.names
    assert take([], reading)[1]["sea"].names == []


def test_places_that_cannot_be_trained_on(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no file matches"):
        units_of(str(tmp_path / "none"), {}, None)
    with pytest.raises(RecipeError, match=r"--data: the environment variable NOWHERE is not set"):
        units_of(str(tmp_path / "${NOWHERE}"), {}, None)
    recipe = recipe_of(tmp_path, [], [])
    run = {
        "name": "r", "status": "done", "started": "", "seconds": 1.0, "run_dir": "", "output": "",
        "seed": 1, "fingerprint": "f", "stages": [], "ignored_files": {}, "recipe": recipe,
        "versions": {},
    }  # fmt: skip
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(run))
    with pytest.raises(RecipeError, match="fields and tokens of its own"):
        units_of(str(folder), {"id": "id"}, None)


def test_a_damaged_result_counts_as_none(tmp_path: Path) -> None:
    from longctx.mixture.proxies import Job

    job = Job("m", 0, {"a": 1}, "f" * 32)
    place = tmp_path / f"{job.fingerprint}.json"
    result = Result(job.fingerprint, "m", 0, 1, 1, {"a": 1.0}, "")
    place.write_bytes(result.as_json())
    assert stages_proxies.finished(str(tmp_path), [job]) == {job.fingerprint: result}
    place.write_bytes(result.as_json()[:40])
    assert stages_proxies.finished(str(tmp_path), [job]) == {}


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("mixture_id,a,b\nm1,.5,.5\nm1,.4,.6\n", (), "mixture 'm1' stands twice"),
        ("mixture_id,a,b\nm1,.5,.6\n", (), "the shares of mixture 'm1' sum to 1.1"),
        ("mixture_id,a,b\nm1,.5,x\n", (), "expected a share from 0 to 1, found 'x'"),
        ("mixture_id,a\nm1,1\n", ("--budget-tokens", "10"), "less than one step"),
        ("mixture_id,a\nm1,1\n", ("--heads", "3"), "cannot be cut into 3 heads"),
        ("mixture_id,a\nm1,1\n", ("--model", "2m"), "expected 1m, 15m or 60m"),
    ],
)
def test_arguments_are_refused_before_anything_is_read(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    table: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    (tmp_path / "m.csv").write_text(table)
    given = ("--mixtures", str(tmp_path / "m.csv"), "--data", "x", "--out", str(tmp_path / "l.csv"))
    assert main(["mix", "train", *given, "--budget-tokens", "1e5", *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
