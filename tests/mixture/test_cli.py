"""`longctx mix`: from the tokens of sources to weights, and what is said on the way."""

import json
from pathlib import Path

import numpy as np
import pytest

from longctx.cli import main
from longctx.mixture.tables import read_mixtures

SLOPES = np.array([[-2, 0.3, -0.5], [0.4, -1.8, -0.2]])
TOKENS = "source,tokens\nweb,8e9\nbooks,1e9\ncode,3e9\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("tokens.csv").write_text(TOKENS)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command prints (on stderr where it fails); no line is wider than a terminal.

    White space is collapsed, because tables and sentences wrap.
    """
    assert main(["mix", *arguments]) == code
    printed = capsys.readouterr()
    if code:
        return " ".join(printed.err.split())
    if "--json" in arguments:
        return printed.out
    assert max(map(len, printed.out.splitlines())) <= 80
    return " ".join(printed.out.split())


def measure(noise: float = 0.003, *, signal: bool = True) -> None:
    """Write what runs of the drawn mixtures would have lost, in long form."""
    mixtures = read_mixtures(Path("mixtures.csv").read_bytes(), "mixtures.csv")
    fallen = np.exp(mixtures.shares @ SLOPES.T) * signal
    Y = 2 + fallen + np.random.default_rng(0).normal(0, noise, fallen.shape)
    lines = ["mixture_id,model_size,tokens,seed,target,loss"]
    for one, (web, books) in zip(mixtures.ids, Y.tolist(), strict=True):
        lines += [f"{one},15000000,1e9,1,web,{web}", f"{one},15000000,1e9,1,books,{books}"]
    Path("losses.csv").write_text("\n".join(lines) + "\n")


def drawn(capsys: pytest.CaptureFixture[str], *more: str) -> str:
    return said(
        capsys,
        "sample",
        "--available",
        "tokens.csv",
        "--runs",
        "24",
        "--out",
        "mixtures.csv",
        *more,
    )


FIT = ("fit", "--mixtures", "mixtures.csv", "--losses", "losses.csv")
OPTIMISE = ("optimise", "--model", "model.json", "--bootstrap", "5")


def test_the_way_from_tokens_to_weights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = drawn(capsys)
    assert "26 mixtures of 3 sources; a law wants 12 runs or more" in text
    mixtures = read_mixtures(Path("mixtures.csv").read_bytes(), "mixtures.csv")
    assert mixtures.ids[-2:] == ("natural", "uniform")
    assert mixtures.shares[-2] == pytest.approx([8 / 12, 1 / 12, 3 / 12])
    assert mixtures.shares.min() >= 0.02 - 1 / 5000
    measure()
    text = said(capsys, *FIT, "--weight", "web=3", "--weight", "books=1", "--out", "model.json")
    for rule in ("law", "own share alone", "plane", "mean loss", "in sample", "weighted sum"):
        assert rule in text
    near = ("--available", "tokens.csv", "--budget-tokens", "8e9")
    text = said(capsys, *OPTIMISE, *near, "--lambda", "0", "--out", "weights.json")
    for word in ("natural", "uniform", "best run", "epochs", "Verdict: gain", "measured"):
        assert word in text
    written = json.loads(Path("weights.json").read_text())
    assert sum(written["weights"].values()) == pytest.approx(1)
    assert written["weights"]["books"] <= 0.5 + 1e-9  # four epochs of 1e9 in 8e9
    assert written["evidence"]["runs"] == 26
    assert set(written["evidence"]["baselines"]) >= {"natural", "uniform"}
    assert written["evidence"]["verdict"] == "gain"
    again = json.loads(said(capsys, *OPTIMISE, *near, "--lambda", "0", "--json"))
    assert again["weights"] == written["weights"]


def test_bounds_and_epochs_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(capsys, "--no-references")
    measure()
    said(capsys, *FIT, "--out", "model.json")
    tight = ("--available", "tokens.csv", "--budget-tokens", "1e10", "--max-epochs", "1")
    text = said(capsys, *OPTIMISE, *tight, "--bounds", "simplex", "--lambda", "0")
    assert "most (tokens)" in text
    assert "A bound holds these back" in text
    assert "shares may lie where no run has been" in text
    more = ("--available", "tokens.csv", "--budget-tokens", "1e11")
    text = said(capsys, *OPTIMISE, *more, code=2)
    assert "the bounds leave no mixture" in text


def test_noise_is_not_solved(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(capsys)
    measure(0.01, signal=False)
    text = said(capsys, *FIT, "--out", "model.json")
    assert "refused (no_signal)" in text
    text = said(capsys, *OPTIMISE, code=2)
    assert "2 of 2 targets are refused" in text
    assert "--force" in text
    text = said(capsys, *OPTIMISE, "--force")
    assert "Verdict: not distinguishable" in text
    assert "Solved although refused" in text


def test_kinds_side_by_side_and_other_tables(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn(capsys, "--runs", "60")
    measure()
    tests = ("--test-mixtures", "mixtures.csv", "--test-losses", "losses.csv")
    wanted = (*FIT, "--target", "web", "--holdout", "2", "--compare", *tests)
    text = said(capsys, *wanted)
    for name in ("law", "trees (LightGBM)", "plane (least squares)", "losses (62 runs)", "Law of"):
        assert name in text
    figures = json.loads(said(capsys, *wanted, "--json"))
    assert figures["model"] == "law"
    assert set(figures["models"]) == {"law", "lightgbm", "linear"}
    assert figures["models"]["law"]["assessment"]["web"]["rules"]["own_share"]


def test_tokens_come_from_a_run_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = {"op": "dedup.exact", "summary": {"by_source": {"web": [3, 70], "books": [1, 30]}}}
    Path("run").mkdir()
    Path("run/run.json").write_text(json.dumps({"stages": [stage]}))
    said(capsys, "sample", "--available", "run", "--runs", "4", "--out", "m.csv")
    mixtures = read_mixtures(Path("m.csv").read_bytes(), "m.csv")
    assert mixtures.shares[-2] == pytest.approx([0.7, 0.3])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["smaple"], "did you mean 'sample'"),
        (["sample", "--out", "m.csv"], "neither --available nor --prior"),
        (["sample", "--out", "m.csv", "--min-share", "2"], "expected a share from 0 to 1"),
        (["sample", "--out", "no/m.csv", "--available", "tokens.csv"], "cannot be written"),
        ([*FIT, "--model", "trees"], "expected auto, law, lightgbm or linear, got 'trees'"),
        ([*FIT], "mixtures.csv: it cannot be read"),
        ([*FIT, "--weight", "web"], "expected TARGET=W"),
        ([*OPTIMISE], "model.json: it cannot be read"),
        (["optimise", "--model", "tokens.csv"], "it is no JSON"),
    ],
)
def test_what_is_wrong_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    text = said(capsys, *arguments, code=2)
    assert words in text
    assert "remedy" in text or "shows the arguments" in text


def test_wrong_tables_end_with_their_place(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn(capsys)
    measure()
    assert "no target 'wbe'; did you mean 'web'" in said(capsys, *FIT, "--target", "wbe", code=2)
    assert "are no pairs" in said(capsys, *FIT, "--test-losses", "losses.csv", code=2)
    lines = Path("losses.csv").read_text().splitlines()
    Path("losses.csv").write_text("\n".join(lines[:9]) + "\n")
    text = said(capsys, *FIT, code=2)
    assert "4 runs with a loss are too few for 3 sources" in text
    Path("losses.csv").write_text("\n".join([*lines, "m9999,15000000,1e9,1,web,2"]) + "\n")
    assert "mixture 'm9999' is not in mixtures.csv" in said(capsys, *FIT, code=2)


@pytest.mark.parametrize("name", ["sample", "train", "fit", "optimise"])
def test_help_fits_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit):
        main(["mix", name, "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
