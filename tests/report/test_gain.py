"""`longctx compare --gain`: samples, what is read again, errors, and the command itself."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from longctx.cli import main
from longctx.compare.excerpt import Piece, joined
from longctx.compare.gain import Lengths
from longctx.compare.result import Gain
from longctx.errors import RecipeError, RunError
from longctx.ids import priorities
from longctx.report import compare as command
from longctx.report import compare_scoring
from longctx.report.compare import compare
from longctx.report.compare_gain import Asked, Pool, measure_gain, open_model
from longctx.report.compare_scoring import Scoring
from longctx.score.causal_lm import TokenScores
from tests.compare.packed import foreign, output, save, written
from tests.report.judges import Judge, coupled, couples
from tests.score.models import tiny_model

DOCUMENTS = couples(10, 160)
RELATED = written(DOCUMENTS, coupled(DOCUMENTS))
SHUFFLED = written(DOCUMENTS, coupled(DOCUMENTS, 3))
ASKED = Asked(model="judge", long=256, short=32, threads=1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compare_scoring, "cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    found = Judge()
    monkeypatch.setattr(command, "open_model", lambda asked: found)
    return found


def gain(*runs: object, asked: Asked = ASKED, **more: Any) -> Gain:
    found = compare([str(r) for r in runs], length=2_048, gain=asked, most_windows=1, **more).gain
    assert found is not None
    return found


def test_an_order_that_brings_repetition_together_is_seen(judge: Judge, tmp_path: Path) -> None:
    found = gain(output(tmp_path / "shuffled", SHUFFLED), output(tmp_path / "related", RELATED))
    shuffled, related = found.lines
    assert [line.name for line in found.lines] == ["shuffled", "related"]
    assert shuffled.units == related.units == 10
    assert related.difference is not None
    assert related.difference["all"].longfilter.side == 1
    assert related.difference["other"].longfilter.side == 1
    assert related.difference["same"].longfilter.side == 0
    assert (related.shared, related.shared_first) == (1, 1)
    # 20 excerpts, one call each.
    assert judge.read == 20


def test_borders_are_read_where_documents_begin(judge: Judge, tmp_path: Path) -> None:
    """The second document of each window begins 64 tokens before the end of what is read."""
    runs = [output(tmp_path / "shuffled", SHUFFLED), output(tmp_path / "related", RELATED)]
    borders = replace(ASKED, of="borders", long=192)
    shuffled, related = gain(*runs, asked=borders).lines
    for line in (shuffled, related):
        assert line.units == 10
        assert line.groups["other"].tokens == line.groups["all"].tokens == 64 * 10
    assert related.difference is not None
    assert related.difference["other"].longfilter.side == 1
    assert abs(shuffled.groups["other"].longfilter.value or 0) < 0.01
    # There is one border in each window, with 161 tokens before it.
    with pytest.raises(RecipeError, match="256 tokens that judge knows, around the beginning"):
        gain(*runs, asked=replace(borders, long=256))


def test_files_their_order_and_threads_change_nothing(judge: Judge, tmp_path: Path) -> None:
    turned = RELATED.take(np.random.default_rng(2).permutation(RELATED.num_rows))
    whole = output(tmp_path / "whole" / "x", RELATED)
    parts = output(tmp_path / "parts" / "x", turned)
    save(parts, turned.slice(0, 3), turned.slice(3))
    five = replace(ASKED, units=5)
    one, other = (gain(run, asked=five).lines[0] for run in (whole, parts))
    assert one.groups == other.groups
    assert [u["key"] for u in one.scored] == [u["key"] for u in other.scored]
    assert judge.read == 5
    (again,) = gain(whole, asked=replace(five, threads=3)).lines
    assert again == one
    seeded = gain(whole, asked=replace(five, seed=1)).lines[0]
    assert {u["key"] for u in seeded.scored} != {u["key"] for u in one.scored}


def test_windows_of_others_give_the_same_gain(judge: Judge, tmp_path: Path) -> None:
    """The form of borders does not matter; without ids it is not known what runs share."""
    forms = foreign(RELATED, DOCUMENTS)
    ours = output(tmp_path / "ours", RELATED)
    theirs = save(tmp_path / "theirs", forms["ends"])
    one, other = gain(ours, theirs).lines
    assert one.groups == other.groups
    assert other.shared is None
    # The same tokens are read once.
    assert judge.read == 10


def test_what_was_read_is_read_again_only_where_it_must(
    judge: Judge, tmp_path: Path, own_cache: Path
) -> None:
    run = output(tmp_path / "x", RELATED)
    first = gain(run)
    files = [f for f in own_cache.rglob("*") if f.is_file()]
    assert len(files) == judge.read == 10
    assert gain(run) == first
    assert judge.read == 10
    # Cut off, and of another length.
    files[0].write_bytes(files[0].read_bytes()[:-4])
    assert gain(run) == first
    assert judge.read == 11
    gain(run, asked=replace(ASKED, short=16))
    assert judge.read == 21
    judge.name = "another"
    gain(run)
    assert judge.read == 31


def test_a_place_that_cannot_be_written_is_no_obstacle(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compare_scoring, "cache", lambda: tmp_path / "file")
    run = output(tmp_path / "x", RELATED)
    assert gain(run) == gain(run)
    assert judge.read == 20


def test_what_it_costs_is_told_before_it_is_read(judge: Judge, tmp_path: Path) -> None:
    said: list[str] = []
    gain(output(tmp_path / "x", RELATED), say=lambda line: said.append(f"{judge.read} {line}"))
    (told,) = [line for line in said if "tokens: about" in line]
    assert told.startswith("0 judge reads 10 windows, 6,400 tokens: about ")


def pool(texts: dict[int, list[tuple[int, str]]], name: str = "run") -> Pool:
    keys = np.array(sorted(texts), dtype=np.uint64)
    rows = sorted(texts)
    documents = np.unique([key for pieces in texts.values() for key, _ in pieces])
    return Pool(
        name,
        f"/runs/{name}",
        keys,
        documents.astype(np.uint64),
        lambda asked: ((row, texts[rows[row]]) for row in asked.tolist()),
    )


def text(seed: int, n: int) -> str:
    return " ".join(f"w{i}" for i in np.random.default_rng(seed).integers(1, 5_000, n))


def test_short_documents_are_passed_over_and_counted() -> None:
    texts = {i: [(i, text(i, 300 if i % 4 == 0 else 60))] for i in range(40)}
    found = measure_gain([pool(texts)], Judge(), replace(ASKED, units=8, of="documents"))
    (line,) = found.lines
    assert (found.of, found.unit) == ("documents", "document")
    assert line.units == 8
    assert line.held == 40
    assert 8 < line.looked <= 40
    assert line.groups["same"].share == 1
    assert all(unit["row"] % 4 == 0 for unit in line.scored)
    assert {unit["n_scored"] for unit in line.scored} == {255}


def test_a_document_is_drawn_in_every_run_that_keeps_it() -> None:
    """A filter keeps half of the documents: the sample of the rest is that of the whole."""
    every = {i: [(i, text(i, 260))] for i in range(30)}
    kept = {i: pieces for i, pieces in every.items() if i % 2}
    asked = replace(ASKED, units=10, of="documents")
    whole, half = measure_gain([pool(every, "all"), pool(kept, "kept")], Judge(), asked).lines
    here = priorities(np.array(list(kept), dtype=np.uint64), asked.seed)
    kept_keys = {f"{key:016x}" for key in here.tolist()}
    drawn, from_all = ({unit["key"] for unit in line.scored} for line in (half, whole))
    assert from_all & kept_keys <= drawn <= kept_keys
    assert len(from_all & kept_keys) > 1
    assert half.shared == 1
    assert 0 < (half.shared_first or 0) < 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (replace(ASKED, units=50), "10 of 10 windows looked at in x have 256 tokens"),
        (replace(ASKED, long=1000), "none of 10 windows looked at in x have 1,000 tokens"),
    ],
)
def test_fewer_windows_than_asked_for_are_an_error(
    judge: Judge, tmp_path: Path, asked: Asked, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        gain(output(tmp_path / "x", RELATED), asked=asked)
    assert judge.read == 0


def test_fewer_than_usual_are_taken_from_all_where_no_number_was_given(judge: Judge) -> None:
    few = {i: [(i, text(i, 260))] for i in range(6)}
    many = {i: [(i, text(i, 260))] for i in range(10, 60)}
    found = measure_gain([pool(few), pool(many, "many")], judge, ASKED)
    assert [line.units for line in found.lines] == [6, 6]
    assert found.wanted == 32


def test_likelihoods_that_are_no_numbers_end_it(judge: Judge, tmp_path: Path) -> None:
    real = judge.scores
    judge.scores = lambda asked: [  # type: ignore[method-assign]
        TokenScores(np.full_like(s.nll, np.nan), s.hit) for s in real(asked)
    ]
    with pytest.raises(RunError, match="gave likelihoods that are not numbers"):
        gain(output(tmp_path / "x", RELATED))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"), max_position_embeddings=512)


def test_lengths_that_do_not_fit_are_refused(tiny: Path) -> None:
    with pytest.raises(RecipeError, match="reads 511 tokens at once, fewer than the 512"):
        open_model(Asked(model=str(tiny), long=512, short=16))
    with pytest.raises(RecipeError, match="up to 511 tokens nothing is left of 512"):
        open_model(Asked(model=str(tiny), long=512, short=256))
    assert open_model(Asked(model=str(tiny), long=511, short=255)).limit == 512


def test_threads_and_company_change_no_bit(tiny: Path, own_cache: Path) -> None:
    model = open_model(Asked(model=str(tiny), long=500, short=60))
    g = np.random.default_rng(1)
    excerpts = [joined([Piece(i, g.integers(0, 250, 500).astype(np.int32))], 0) for i in range(5)]
    alone = [Scoring(model, Lengths(500, 60)).losses([one])[0] for one in excerpts]
    shutil.rmtree(own_cache)
    together = Scoring(model, Lengths(500, 60), threads=3).losses(excerpts)
    for one, other in zip(alone, together, strict=True):
        assert one.tobytes() == other.tobytes()
    known = Scoring(model, Lengths(500, 60), threads=3).losses(excerpts)
    assert [k.tobytes() for k in known] == [a.tobytes() for a in alone]


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Call:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["compare", *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_the_command_with_a_model_from_a_folder(call: Call, tmp_path: Path, tiny: Path) -> None:
    a, b = output(tmp_path / "a", SHUFFLED), output(tmp_path / "b", RELATED)
    options = ["--windows", 1, "--length", 2048, "--json", "found.json", "--gain-windows", 6]
    options += ["--gain", "--gain-model", tiny, "--long", 400, "--short", 64, "--dtype", "float32"]
    code, out, err = call(a, b, *options)
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
    assert "Gain of far context" in out
    assert "Where far context lies" in out
    assert "a and b hold the same documents" in " ".join(out.split())
    assert "reads 12 windows" in err
    found = json.loads((tmp_path / "found.json").read_text())["gain"]
    assert (found["of"], found["long"], found["short"], found["dtype"]) == (
        "windows",
        400,
        64,
        "float32",
    )
    assert [len(line["scored"]) for line in found["lines"]] == [6, 6]
    assert found["lines"][1]["difference"]["all"]["dnll"]["low"] is not None
    page = (tmp_path / "compare.html").read_text()
    assert 'id="gain"' in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--long", "512"], "--long belongs to the yardstick, which was not asked for"),
        (
            ["--gain-of", "document"],
            "expected windows, borders or documents, got 'document'; did you",
        ),
        (["--gain", "--dtype", "float16"], "expected bfloat16 or float32, got 'float16'"),
        (["--gain", "--seed", "-1"], "expected a whole number from 0"),
        (["--gain", "--gain-windows", "0"], "expected a whole number from 1"),
        (["--gain-of", "documents"], "this is not a run folder: it has no run.json"),
    ],
)
def test_wrong_options_are_explained(
    call: Call, tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch, options, message
) -> None:
    monkeypatch.setattr("longctx.report.compare_gain.open_model", lambda asked: judge)
    code, out, err = call(output(tmp_path / "x", RELATED), *options)
    assert (code, out) == (2, "")
    assert message in err
    assert "remedy: " in err
    assert "Traceback" not in err
    assert not (tmp_path / "compare.html").exists()


def test_a_tokenizer_that_is_gone_is_told(call: Call, tmp_path: Path, tiny: Path) -> None:
    run = output(tmp_path / "x", RELATED, tokenizer=str(tmp_path / "gone"))
    code, _, err = call(run, "--gain", "--gain-model", tiny, "--long", 400, "--short", 64)
    assert code == 1
    assert "no tokenizer at" in err
    assert "Traceback" not in err


def test_a_model_that_is_gone_is_told_before_anything_is_read(call: Call, tmp_path: Path) -> None:
    code, _, err = call(
        output(tmp_path / "x", RELATED), "--gain", "--gain-model", tmp_path / "nothing"
    )
    assert code == 1
    assert "cannot load the language model" in err
    assert "reading" not in err


def test_windows_with_nothing_but_separators(judge: Judge, tmp_path: Path) -> None:
    table = pa.table({"input_ids": [[judge.tokenizer.eos_id] * 300, [5, 6, 7] * 100]})
    with pytest.raises(RecipeError, match="none of 2 windows"):
        gain(save(tmp_path / "x", table), asked=ASKED)
