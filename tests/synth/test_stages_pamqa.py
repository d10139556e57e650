"""`synth.pam_qa` as steps: negatives from both retrievers, rows from rules, faults in their check."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from longctx.engine.barrier import BarrierContext
from longctx.llm.spec import close_client
from longctx.synth.rows import PAMQA
from longctx.synth.stages_pamqa import SynthPamQA
from tests.in_process import context_of, corpus_of, run_here

Row = dict[str, Any]
SCRIPTED: Row = {"backend": "scripted"}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    run_here(monkeypatch)
    yield
    close_client()


WORDS = "amber basin coast delta ember fjord grove haven inlet jetty knoll lagoon marsh".split()


def documents(n: int = 60) -> list[Row]:
    """Documents of three sentences, one about a keeper and a pier that stand nowhere else."""
    rng = np.random.default_rng(1)
    found = []
    for i in range(n):
        before, behind = (" ".join(rng.choice(WORDS, 14)) for _ in range(2))
        text = f"The {before}. Keeper Zora{i} built pier q{i}x in the storm. A {behind}."
        row = {"doc_id": f"d{i:03d}", "text": text, "source": "ab"[i % 2], "language": "en"}
        row |= {"meta": json.dumps({"title": f"Harbour of Zora{i}"}), "n_tokens": len(text.split())}
        found.append(row)
    return found


def questions(n: int = 30) -> list[Row]:
    """Every third is given by its gold's text, the others by the id of a document."""
    docs = documents()
    found = []
    for i in range(n):
        gold: Any = f"d{i:03d}"
        if i % 3 == 0:
            gold = {"doc_id": f"own{i}", "title": f"Zora{i}", "text": docs[i]["text"]}
        asked = f"Which pier did keeper Zora{i} build?"
        found.append({"id": f"q{i:02d}", "question": asked, "answers": [f"q{i}x"], "golds": [gold]})
    return found


def table_file(folder: Path, rows: list[Row]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "asked.jsonl"
    file.write_text("".join(json.dumps({"lang": "en", **row}) + "\n" for row in rows))
    return str(file)


def op_of(**fields: Any) -> SynthPamQA:
    usual: Row = {"op": "synth.pam_qa", "rows": 1000, "n_docs": 8, "unit_rows": 7, "shard_rows": 8}
    return SynthPamQA.model_validate({**usual, **fields})


def made(folder: Path, docs: list[Row], parts: int = 2, **fields: Any) -> BarrierContext:
    op = op_of(**fields)
    context = context_of(op, corpus_of(str(folder), docs, parts), len(docs), tokenizer="whitespace")
    op.check(context.setting)
    op.run(context)
    return context


def told_by(context: BarrierContext) -> Row:
    assert context.outcome is not None
    found: Row = context.outcome["synthesis"]
    return found


def table(context: BarrierContext, kind: str = "part") -> list[Row]:
    files = sorted(Path(context.setting.output).glob(f"{kind}-*.parquet"))
    return [row for f in files for row in pq.read_table(f).to_pylist()]


def output(context: BarrierContext) -> dict[str, bytes]:
    folder = Path(context.setting.output)
    return {p.name: p.read_bytes() for p in folder.glob("[pc]*-*")}


def test_rows_of_a_table_need_no_model(tmp_path: Path) -> None:
    context = made(tmp_path, documents(), questions=table_file(tmp_path / "in", questions()))
    told, rows = told_by(context), table(context)
    assert (told["model"], told["rows"], told["rejects"]) == ("none", 30, {})
    assert told["negatives"]["retrievers"] == ["bm25"]
    assert any("BM25 alone" in w for w in context.step_stats["ranked"]["warnings"])
    checks = told["checks"]
    assert {n for n, c in checks.items() if c["ok"] is False} == set()
    assert checks["leave_gold_out"] == {"rows": 30, "answered": 0, "ok": True}
    for row in rows:
        own = f"q{int(row['id'][1:])}x"
        assert len(row["docs"]) == 8
        assert row["response_parts"]["answer"] == own or not row["answerable"]
        golds = [d for d in row["docs"] if d["role"] == "gold"]
        assert [d["idx"] for d in golds] == row["gold_idx"]
        assert all(own in d["text"] for d in golds)
        assert not any(own in d["text"] for d in row["docs"] if d["role"] != "gold")
        assert all(d["title"] for d in row["docs"])
    assert {len(row["gold_idx"]) for row in rows} == {0, 1}
    (first, *_) = sorted(Path(context.setting.output).glob("part-*.parquet"))
    assert pq.read_schema(first).equals(PAMQA)


def test_parts_and_units_change_no_byte(tmp_path: Path) -> None:
    docs, file = documents(), table_file(tmp_path / "in", questions())
    one = output(made(tmp_path / "one", docs, 1, unit_rows=200, questions=file))
    three = output(made(tmp_path / "three", docs[::-1], 3, unit_rows=3, questions=file))
    assert one == three
    assert len(one) == 8
