"""One run over everything that goes wrong in real folders: nothing is lost without being told."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from longctx import run
from longctx.cli import main
from longctx.text.tokenize import load_tokenizer
from tests.stages import Finished

pytestmark = pytest.mark.ray

HUGE = 20_000_000


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def good(name: str) -> bytes:
    return line(id=name, text=f"A plain sentence about {name} that nobody else has written.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("bad") / "data"
    data.mkdir()
    lines = [
        good("first"),
        b'{"id": "broken", "text": "no end\n',
        b"[1, 2, 3]\n",
        line(id="no-text"),
        line(id="null-text", text=None),
        line(id="number", text=3),
        line(id="", text="An id that is empty."),
        line(id="zero", text=""),
        b"\n",
        b'{"id": "latin", "text": "caf\xe9"}\n',
        b'{"id": "surrogate", "text": "\\ud800"}\n',
        line(id="twice", text="The first of two rows with one id."),
        good("last")[:-1],
    ]
    (data / "a.jsonl").write_bytes(b"".join(lines))
    again = line(id="twice", text="The second of two rows with one id.")
    (data / "b.jsonl").write_bytes(good("other") + again + again)
    packed = gzip.compress(b"".join(good(f"gz-{i}") for i in range(2000)), mtime=0)
    (data / "c.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (data / "d.jsonl").write_bytes(b"")
    words = "long document of many words, and then some. "
    (data / "e.jsonl").write_bytes(line(id="huge", text=words * (HUGE // len(words))))
    (data / "f.parquet").write_bytes(b"PAR1 and nothing else")
    table = pa.table({"id": ["p0", None], "text": ["Text in a Parquet file.", "No id here."]})
    pq.write_table(table, data / "g.parquet")
    (data / "h.csv").write_text("id,text\n1,x\n")
    (data / "README").write_text("no ending")
    return data.parent


def recipe(folder: Path, **engine: Any) -> dict[str, Any]:
    return {
        "name": "bad",
        "input": [{"path": str(folder / "data"), "source": "mixed", "id": "id"}],
        "run_dir": str(folder / "run"),
        "stages": [
            {"op": "score.heuristics", "windows": False},
            {"op": "dedup.exact"},
            {"op": "dedup.minhash"},
            {"op": "embed"},
            {"op": "order.path", "dup_action": "keep"},
            {"op": "pack", "length": 65_536},
        ],
        "engine": {"part_mb": 2, **engine},
    }


@pytest.fixture(scope="module")
def done(ray_local: int, folder: Path) -> Finished:
    return Finished(run(recipe(folder, max_quarantine_fraction=1.0)))


def quarantine(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "run" / "quarantine" / "00-read").rglob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_every_row_is_accounted_for(done: Finished, folder: Path):
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["status"] == "done"
    before = None
    for stage in record["stages"]:
        gone = sum(stage["dropped"].values()) + stage["quarantined"]
        assert stage["rows_in"] == stage["rows_out"] + gone
        assert before in (None, stage["rows_in"])
        before = stage["rows_out"]
    assert record["ignored_files"] == {"unknown format .csv": 1, "no file ending": 1}
    assert record["stages"][0]["summary"]["notes"] == {"blank_line": 1}


def test_reasons_are_counted(done: Finished):
    reasons = done.stage("read").summary["quarantine"]
    expected = {"broken_line": 2, "missing_text": 2, "text_type": 1, "duplicate_id": 2}
    assert {k: reasons[k] for k in expected} == expected
    assert reasons["encoding"] == 2
    assert reasons["broken_stream"] == 1
    assert sum(reasons.values()) == done.stage("read").quarantined


def test_quarantine_names_place_and_reason(done: Finished, folder: Path):
    rows = quarantine(folder)
    places = {
        (Path(r["location"].rpartition(":")[0]).name, r["reason"]) for r in rows if r["location"]
    }
    for place in (
        ("a.jsonl", "broken_line"),
        ("a.jsonl", "missing_text"),
        ("a.jsonl", "text_type"),
        ("a.jsonl", "encoding"),
        ("c.jsonl.gz", "broken_stream"),
    ):
        assert place in places
    broken = next(r for r in rows if r["reason"] == "broken_line")
    assert broken["location"].endswith("a.jsonl:2")
    assert b"no end" in broken["payload"]
    assert any("f.parquet" in (r["location"] or "") for r in rows)
    assert {r["stage"] for r in rows} == {"00-read"}


def test_what_a_broken_stream_held_before_its_end_is_kept(done: Finished):
    ids = done.column("read", "drop_reason")
    kept = [i for i in ids if i.startswith("gz-")]
    assert 100 < len(kept) < 2000
    assert "gz-0" in kept


def test_the_first_of_a_repeated_id_stays(done: Finished, folder: Path):
    texts = []
    for file in (folder / "run" / "documents").glob("*.parquet"):
        table = pq.read_table(file, columns=["doc_id", "text"])
        texts += [r["text"] for r in table.to_pylist() if r["doc_id"] == "twice"]
    assert len(texts) == 3
    windows = [s for w in done.windows() for s in w["segments"] if s["doc_id"] == "twice"]
    assert len(windows) == 1
    window = next(w for w in done.windows() if any(s["doc_id"] == "twice" for s in w["segments"]))
    place = windows[0]
    tokens = window["input_ids"][place["start"] : place["end"]]
    assert "The first of two" in load_tokenizer("embedded").decode(tokens)


def test_empty_and_huge_documents_go_their_way(done: Finished):
    packed = {s["doc_id"] for w in done.windows() for s in w["segments"]}
    assert {"first", "last", "other", "huge", "p0"} <= packed
    assert "zero" not in packed
    assert done.stage("pack").dropped == {"no_tokens": 1}
    spans = [s for w in done.windows() for s in w["segments"] if s["doc_id"] == "huge"]
    tokens = done.column("score.heuristics", "n_tokens")["huge"]
    assert sum(s["end"] - s["start"] for s in spans) == tokens + 1


def test_by_default_the_run_ends_with_the_reasons(
    done: Finished, folder: Path, capsys: pytest.CaptureFixture[str]
):
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(folder)))
    assert main(["run", str(path), "--quiet"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "longctx: the run failed\n  00-read: " in printed.err
    for word in ("rows were quarantined", "broken_line 2", "allowed 1.0%", "remedy: read "):
        assert word in printed.err
    assert "Traceback" not in printed.err
