"""The command line as a new user meets it: exit codes, messages, widths, pipes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from longctx.cli import COMMANDS, main
from longctx.registry import OPS
from tests.conftest import make_recipe, make_rows

Call = Any


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command in this process at 80 columns: exit code, output, errors."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return code, printed.out, printed.err

    return run


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A pipeline in a real shell; `longctx` is this environment's."""
    program = f'longctx() {{ "{sys.executable}" -m longctx.cli "$@"; }}; set -o pipefail; '
    env = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.run(
        ["bash", "-c", program + command], env=env, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that is right, over two documents."""
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"name: small\ninput:\n  - {{path: {tmp_path}/a.jsonl, source: s}}\n"
        f"run_dir: {tmp_path}/run\nstages:\n  - {{op: score.heuristics}}\n"
        "  - op: decide\n    rules: {n_tokens: {min: 1}}\n"
    )
    return path


def test_ops_have_one_line_each(call: Call):
    code, out, _ = call("ops")
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[: len(OPS)]] == list(OPS)
    assert max(map(len, lines)) <= 80
    assert len(lines) == len(OPS) + 2


@pytest.mark.parametrize("op", OPS)
def test_each_op_shows_its_fields_cost_and_source(call: Call, op: str):
    code, out, _ = call("ops", op)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for label in ("kind", "reads", "writes", "cost", "source", "field", "default"):
        assert label in out
    assert "e+" not in out


def test_an_unknown_op_has_a_nearest_name(call: Call):
    code, _, err = call("ops", "order.icpp")
    assert code == 2
    assert "there is no op 'order.icpp'; did you mean 'order.icp'?" in err
    assert "remedy: `longctx ops` lists the ops" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_has_a_help_text(call: Call, command: str, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    description = out.split("\n\n")[1]
    assert description[0].isupper()
    assert description.endswith(".")
    body = out.split("\n\n", 2)[2]
    for line in body.splitlines():
        # An argument too long for its column has its help below it, never nothing.
        assert line.strip() or line == ""
    arguments = [line for line in body.splitlines() if line.startswith("  ") and line[2] != " "]
    following = dict(zip(body.splitlines(), [*body.splitlines()[1:], ""], strict=True))
    for line in arguments:
        has_help = "  " in line.strip() or following[line].startswith("   ")
        assert has_help, f"{line!r} is not explained"


def test_the_main_help_fits_and_lists_all_commands(capsys, call: Call):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert all(f"    {name}" in out for name in COMMANDS)
    assert "exit codes: 0 done" in out


@pytest.mark.parametrize(
    ("arguments", "message", "remedy"),
    [
        ([], "required: COMMAND", "`longctx --help`"),
        (["rnu"], "no command 'rnu'; did you mean 'run'?", "`longctx --help`"),
        (["run"], "required: recipe", "`longctx run --help`"),
        (["run", "x.yaml", "--cpuz", "2"], "did you mean '--cpus'?", "`longctx run --help`"),
        (["run", "x.yaml", "--cpus", "0"], "whole number from 1, got '0'", "run --help"),
        (["plan", "x.yaml", "--cores=x"], "whole number from 1, got 'x'", "plan --help"),
        (["plan", "nothere.yaml"], "nothere.yaml: there is no such recipe", "check the path"),
        (["report", "nothere"], "this is not a run folder", "give the run_dir"),
        (["schema", "--out", "/no/such/x"], "/no/such/x: the file cannot be written", "--out"),
        (["sample-corpus", "x", "--min-mb", "9", "--max-mb", "3"], "--min-mb 9 is above", "lower"),
    ],
)
def test_wrong_arguments_end_with_two_and_a_remedy(call: Call, arguments, message, remedy):
    code, out, err = call(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("longctx: the recipe or the arguments are wrong\n")
    assert message in err
    assert f"remedy: {remedy}" in err or remedy in err.split("remedy:")[1]


def test_validate_says_what_it_found(call: Call, recipe: Path):
    code, out, _ = call("validate", recipe)
    assert code == 0
    assert out.startswith(f"{recipe}: valid, 2 stages, fingerprint ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: small", "name: small\nseeed: 3", ":2: seeed: unknown field; did you mean 'seed'?"),
        ("run_dir", "run_dri", "run_dir: this field is required"),
        ("score.heuristics", "score.heuristic", ":6: stages.0.op: there is no op"),
        ("min: 1", "min: x", ":8: stages.1.rules.n_tokens.min: "),
        ("n_tokens", "n_tokes", "did you mean 'n_tokens'?"),
        ("{op: score.heuristics}", "[x]", "a stage is a mapping with an `op`"),
        ("stages:", "stages: [", "not valid YAML"),
        ("input:", "input: []\nx:", "input: "),
    ],
)
def test_a_wrong_recipe_names_file_line_and_field(call: Call, recipe: Path, old, new, message):
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new, 1))
    for command in ("validate", "plan", "run"):
        code, _, err = call(command, recipe)
        assert code == 2
        assert str(recipe) in err
        assert message in err
        assert "remedy: " in err
    assert not (recipe.parent / "run").exists()


def test_overrides_are_applied_and_checked(call: Call, recipe: Path):
    plain = call("validate", recipe)[1]
    moved = call("validate", recipe, "--set", "stages.1.rules.n_tokens.min=5")[1]
    assert plain != moved
    code, _, err = call("validate", recipe, "--set", "stages.7.op=x")
    assert code == 2
    assert "--set stages.7.op=x: `stages` has no element `7`" in err
    assert call("validate", recipe, "--set", "engine.part_mb=0")[0] == 2


def test_inputs_that_are_not_there(call: Call, recipe: Path):
    (recipe.parent / "a.jsonl").unlink()
    for command in ("plan", "run"):
        code, _, err = call(command, recipe)
        assert code == 2
        assert f"input.0.path: no file matches {recipe.parent}/a.jsonl" in err
        assert "remedy: check the path" in err


def test_the_schema_is_one_that_editors_read(call: Call, tmp_path: Path):
    schema = json.loads(call("schema")[1])
    assert set(schema["properties"]["stages"]["items"]["discriminator"]["mapping"]) == set(OPS)
    file = tmp_path / "schema.json"
    code, out, _ = call("schema", "--out", file)
    assert (code, out) == (0, f"{file}\n")
    assert json.loads(file.read_text()) == schema


def test_a_sample_corpus_prints_an_input_to_paste(call: Call, tmp_path: Path):
    out_dir = tmp_path / "corpus"
    code, out, _ = call("sample-corpus", out_dir, "--min-mb", 0.5, "--max-mb", 1)
    assert code == 0
    summary, _, block = out.partition("\n\n")
    assert len(summary.splitlines()) == 3
    assert "documents" in summary
    recipe = yaml.safe_load(block)
    recipe |= {"name": "x", "run_dir": "r", "stages": [{"op": "score.heuristics"}]}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    code, planned, _ = call("plan", path)
    assert code == 0
    assert "licences" in planned
    again = call("sample-corpus", out_dir)
    assert again[0] == 2
    assert "is not an empty folder" in again[2]
    assert call("sample-corpus", path)[0] == 2


@pytest.mark.parametrize("command", ["ops", "schema", "ops pack", "--help"])
def test_a_closed_pipe_is_no_error(command: str):
    done = shell(f"longctx {command} | head -1")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_a_closed_pipe_before_the_first_line():
    done = shell("longctx schema | true")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_that_knows_ascii_only():
    done = shell("longctx ops pack", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "field" in done.stdout


@pytest.mark.ray
def test_run_report_and_inspect(call: Call, ray_local: int, tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    lines = [json.dumps(row) + "\n" for row in make_rows(40)]
    (data / "a.jsonl").write_text("".join(lines))
    recipe = make_recipe(data, tmp_path / "run")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    code, out, _ = call("run", path, "--quiet")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "09-pack" in out
    again = call("run", path, "--quiet")
    assert again[0] == 0

    page = tmp_path / "run" / "report.html"
    page.unlink()
    code, out, _ = call("report", tmp_path / "run")
    pages = [Path(line) for line in out.splitlines()]
    assert (code, pages[0]) == (0, page)
    assert [p.name for p in pages[1:]] == [
        "01-score.heuristics.html",
        "02-decide.html",
        "correlations.html",
    ]
    assert all(p.is_file() for p in pages)

    from_run, from_output = (call("inspect", tmp_path / "run" / sub)[1] for sub in ("", "output"))
    assert from_run == from_output
    assert "windows in" in from_run

    code, out, err = call("run", path, "--quiet", "--set", "stages.1.rules.n_tokens.min=1e9")
    assert (code, out) == (1, "")
    assert err.startswith("longctx: the run failed\n  02-decide: no rows are left\n  remedy: ")
    assert call("report", tmp_path / "run")[0] == 0
