"""`longctx inspect` on windows that a test wrote: lists, seams, and names made to confuse."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longctx.cli import main
from longctx.schema import WINDOWS
from longctx.text.tokenize import load_tokenizer

SEA = "The harbour was quiet and the fishing boats lay at anchor in the bay. " * 8
LAW = "The court held that the contract was void and dismissed the appeal. " * 8
SEA_ID = "[bold]sea[/bold]/漢字.txt"
LAW_ID = "law\x1b[31m\nred\u202etxt"


def window(name: str, documents: list[tuple[str, str]], **more: Any) -> dict[str, Any]:
    tokenizer = load_tokenizer("embedded")
    ids: list[int] = []
    segments = []
    for doc_id, text in documents:
        start = len(ids)
        ids += [*tokenizer.encode_batch([text])[0].tolist(), tokenizer.eos_id]
        place = {"start": start, "end": len(ids), "doc_start": 0}
        segments.append({"doc_id": doc_id, **place, "source": "[red]s", "license": None})
    stats = {"fill": 0.5, "n_docs": len(documents), "n_sources": 1, "n_tours": 1}
    return {
        "window_id": name,
        "input_ids": ids,
        "n_tokens": len(ids),
        "segments": segments,
        "tour_id": "t00000000",
        "next_token": None,
        "stats": {**stats, "coherence": None, "adjacent": None},
        **more,
    }


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("windows")
    rows = [
        window("aaaa1111", [(SEA_ID, SEA), (LAW_ID, LAW), ("copy", LAW)]),
        window("aaaa2222", [("alone", "漢字　かな \x00\x07 done")]),
        window("bbbb", [("a", "x"), ("b", "🦀"), ("c", "\n\n  indented")]),
    ]
    for i, part in enumerate((rows[:2], rows[2:])):
        table = pa.Table.from_pylist(part, schema=WINDOWS)
        pq.write_table(table, folder / f"part-{i:05d}.parquet")
    (folder / "manifest.json").write_text(json.dumps({"tokenizer": "embedded"}))
    return folder


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["inspect", *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_windows_are_listed(inspect, windows: Path):
    code, out, _ = inspect(windows)
    assert code == 0
    assert [n in out for n in ("aaaa1111", "aaaa2222", "bbbb")] == [True] * 3
    assert "3 of 3 windows" in out
    assert "[bold]sea[/bold]" in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert "1 of 3 windows" in inspect(windows, "--limit", 1)[1]


def test_a_window_shows_documents_similarity_and_seams(inspect, windows: Path):
    code, out, _ = inspect(windows, "--window", "aaaa1")
    assert code == 0
    assert "3 documents, tour t00000000" in out
    table = [line for line in out.splitlines() if line[:3] in (" 1 ", " 2 ", " 3 ")]
    assert len(table) == 3
    unlike, equal = float(table[1].split()[1]), float(table[2].split()[1])
    assert equal == pytest.approx(1.0, abs=0.005)
    assert unlike < 0.6
    assert "seam 1" in out
    assert "seam 2" in out
    assert "seam 3" not in out
    assert "[bold]sea[/bold]/漢字.txt" in out
    assert "[red]s" in out
    assert not {"\x1b", "\u202e"} & set(out)


def test_each_seam_has_the_end_and_the_beginning(inspect, windows: Path):
    _, out, _ = inspect(windows, "--window", "aaaa1", "--chars", 24)
    first = out.split("seam 1")[1].split("seam 2")[0]
    assert SEA.strip()[-20:] in first
    assert LAW[:20] in first
    assert LAW[:60] not in first


def test_one_seam_is_shown_whole(inspect, windows: Path):
    _, out, _ = inspect(windows, "--window", "aaaa1", "--seam", 1)
    flowing = " ".join(out.split())
    assert " ".join(SEA.split()) in flowing
    assert " ".join(LAW.split()) in flowing
    assert "seam 2" not in out


def test_control_characters_are_shown_and_scripts_are_kept(inspect, windows: Path):
    _, out, _ = inspect(windows, "--window", "bbbb", "--seam", 2)
    assert "🦀" in out
    assert "    indented" in out
    alone = inspect(windows, "--window", "aaaa2")[1]
    assert "1 document," in alone
    assert "seam" not in alone


def test_a_document_without_a_vector_has_no_similarity(inspect, windows: Path):
    _, out, _ = inspect(windows, "--window", "bbbb")
    table = [line.split() for line in out.splitlines() if line[:3] in (" 2 ", " 3 ")]
    assert [row[1] for row in table] == ["-", "-"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "zz"], "no window begins with 'zz'"),
        (["--window", "aaab"], "did you mean 'aaaa'?"),
        (["--window", "aaaa"], "2 windows begin with 'aaaa': aaaa1111, aaaa2222"),
        (["--window", "aaaa1", "--seam", "3"], "this window has 2 seams, got 3"),
        (["--window", "aaaa2", "--seam", "1"], "this window holds one document"),
        (["--seam", "1"], "--seam needs --window"),
        (["--seam", "0"], "expected a whole number from 1, got '0'"),
        (["--limit", "none"], "expected a whole number from 1, got 'none'"),
    ],
)
def test_wrong_arguments_are_explained(inspect, windows: Path, arguments, message):
    code, out, err = inspect(windows, *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_whole_id_is_never_ambiguous(inspect, tmp_path: Path):
    rows = [window("ab", [("a", "x")]), window("abc", [("b", "y")])]
    table = pa.Table.from_pylist(rows, schema=WINDOWS)
    pq.write_table(table, tmp_path / "part-00000.parquet")
    code, out, _ = inspect(tmp_path, "--window", "ab", "--tokenizer", "embedded")
    assert code == 0
    assert "window ab\n" in out


def test_windows_that_were_made_elsewhere_can_be_read(inspect, tmp_path: Path):
    row = window("[i]x", [("a", "one two"), ("b", "three")])
    bare = {k: row[k] for k in ("window_id", "input_ids")}
    bare["segments"] = [{k: s[k] for k in ("doc_id", "start", "end")} for s in row["segments"]]
    pq.write_table(pa.Table.from_pylist([bare]), tmp_path / "x.parquet")
    code, out, _ = inspect(tmp_path)
    assert code == 0
    assert "[i]x" in out
    code, _, err = inspect(tmp_path, "--window", "[i]")
    assert code == 2
    assert "name it with --tokenizer" in err
    code, out, _ = inspect(tmp_path, "--window", "[i]", "--tokenizer", "embedded")
    assert code == 0
    assert "2 documents" in out


def test_one_file_of_windows_can_be_named(inspect, windows: Path):
    code, out, _ = inspect(windows / "part-00001.parquet")
    assert code == 0
    assert "1 of 1 windows" in out
    assert "1 document" in inspect(windows / "part-00000.parquet", "--window", "aaaa2")[1]
    code, _, err = inspect(windows / "part-00009.parquet")
    assert (code, "there are no windows here" in err) == (2, True)


def test_other_folders_are_refused(inspect, tmp_path: Path):
    code, _, err = inspect(tmp_path / "nothere")
    assert (code, "there are no windows here" in err) == (2, True)
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "x.parquet")
    code, _, err = inspect(tmp_path)
    assert (code, "the column `input_ids` is missing" in err) == (2, True)
    (tmp_path / "y.parquet").write_text("not Parquet")
    (tmp_path / "x.parquet").unlink()
    code, _, err = inspect(tmp_path)
    assert code == 2
    assert "y.parquet" in err


def test_an_output_of_documents_is_told_as_that(inspect, tmp_path: Path):
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "part-00000.parquet")
    (tmp_path / "manifest.json").write_text('{"documents": 1, "files": []}')
    code, _, err = inspect(tmp_path)
    assert code == 2
    assert "holds documents, not windows: its recipe ends in `export`" in err


def test_a_run_without_windows_is_told_as_that(inspect, tmp_path: Path):
    record = {"status": "done", "stages": [{"op": "decide"}], "run_dir": str(tmp_path)}
    (tmp_path / "run.json").write_text(json.dumps(record))
    code, _, err = inspect(tmp_path)
    assert code == 2
    assert "this run wrote no windows: its recipe ends without `pack`" in err
