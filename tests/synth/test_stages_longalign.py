"""`synth.longalign` as steps: rows from rules, the same for any parts, faults caught, resumed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from longctx.engine.barrier import BarrierContext
from longctx.io import paths
from longctx.llm.rejects import REJECT_SCHEMA
from longctx.llm.spec import close_client
from longctx.synth.longalign_instruct import TASK_TYPES
from longctx.synth.rows import LONGALIGN
from longctx.synth.stages_longalign import SynthLongAlign
from tests.in_process import context_of, corpus_of, run_here

Row = dict[str, Any]
SCRIPTED: Row = {"backend": "scripted"}


@pytest.fixture(autouse=True)
def _here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if "ray_local" not in request.fixturenames:
        run_here(monkeypatch)
    yield
    close_client()


def documents(n: int = 40, seed: int = 1) -> list[Row]:
    """Documents of 8 to 40 sentences, each about a name and a year of its own."""
    rng = np.random.default_rng(seed)
    found: list[Row] = []
    for i in range(n):
        sentences = [
            f"The keeper {chr(65 + i % 26)}ora{k} Lund{i} built pier number {rng.integers(999)}."
            for k in range(int(rng.integers(8, 40)))
        ]
        tokens = 10 * len(sentences)
        text = " ".join(sentences)
        found.append({"doc_id": f"d{i:03d}", "text": text, "source": "ab"[i % 2]})
        found[-1] |= {"language": "en", "n_tokens": tokens}
    return found


def made(
    folder: Path, rows: list[Row], parts: int = 3, generator: Row = SCRIPTED, **fields: Any
) -> BarrierContext:
    usual: Row = {"rows": 20, "min_tokens": 50, "max_tokens": 600, "bin_tokens": 100}
    usual |= {"lang_share": {"en": 1}, "unit_rows": 4, "shard_rows": 8}
    op = SynthLongAlign.model_validate(
        {"op": "synth.longalign", "generator": generator, **usual, **fields}
    )
    alive = sum(not r.get("drop_reason") for r in rows)
    context = context_of(op, corpus_of(str(folder), rows, parts), alive, tokenizer="whitespace")
    op.check(context.setting)
    op.run(context)
    return context


def output(context: BarrierContext, kind: str = "") -> dict[str, bytes]:
    folder = Path(context.setting.output)
    return {p.name: p.read_bytes() for p in sorted(folder.glob(f"{kind}*")) if p.name[0] != "_"}


def told_by(context: BarrierContext) -> Row:
    """What run.json will say of the synthesis."""
    assert context.outcome is not None
    found: Row = context.outcome["synthesis"]
    return found


def table(context: BarrierContext, kind: str = "part") -> list[Row]:
    files = sorted(Path(context.setting.output).glob(f"{kind}-*.parquet"))
    return [row for f in files for row in pq.read_table(f).to_pylist()]


def test_every_chosen_document_becomes_a_row(tmp_path: Path) -> None:
    rows = documents()
    context = made(tmp_path, rows)
    texts = {r["doc_id"]: r["text"] for r in rows}
    found = table(context)
    told = told_by(context)
    assert len(found) == told["rows"] == told["chosen"] > 12
    assert told["rejects"] == {}
    for row in found:
        user, assistant = row["messages"]
        assert user["content"] == f"{texts[row['doc_id']]}\n\n{row['questions'][row['chosen']]}"
        assert assistant["content"] == row["response"]
        assert row["task_type"] in TASK_TYPES
    (first, *_) = sorted(Path(context.setting.output).glob("part-*.parquet"))
    assert pq.read_schema(first).equals(LONGALIGN)
    lines = [json.loads(x) for d in output(context, "chat").values() for x in d.splitlines()]
    assert [x["messages"] for x in lines] == [r["messages"] for r in found]
    assert all(q["reached"] == min(q["wanted"], q["available"]) for q in told["quotas"])
    assert told["checks"]["support"]["min"] >= 0.5
    assert context.outcome is not None
    assert context.outcome["rows_in"] == context.outcome["rows_out"] == len(rows)


def test_the_manifest_vouches_for_every_file(tmp_path: Path) -> None:
    context = made(tmp_path, documents())
    files = output(context)
    manifest = json.loads(files.pop("manifest.json"))
    listed = {f["name"]: f for f in manifest["files"]}
    assert listed.keys() == files.keys()
    assert all(listed[n]["blake2b_128"] == paths.checksum(d) for n, d in files.items())
    assert manifest["model"] == "scripted:synth-1"
    assert len(files) == 4


def test_parts_and_units_change_no_byte(tmp_path: Path) -> None:
    rows = documents()
    one = output(made(tmp_path / "one", rows, 1, unit_rows=200))
    three = output(made(tmp_path / "three", rows[::-1], 3, unit_rows=3))
    for files in (one, three):
        files.pop("manifest.json")
    assert one == three


def test_a_planted_fault_is_a_reject_with_its_reason(tmp_path: Path) -> None:
    rows = documents()
    ids = sorted(r["doc_id"] for r in table(made(tmp_path / "all", rows)))
    kinds = {
        "refusal": "refusal",
        "empty": "empty",
        "bad_json": "not_json",
        "http_500": "transport",
    }
    kinds |= {"wrong_schema": "schema", "repeat_loop": "degenerate", "sentinel": "sentinel"}
    faults = [
        {"kind": kind, "row_id": ids[i], "stage": "longalign.answer", "times": None}
        for i, kind in enumerate(kinds)
    ]
    monkey = {**SCRIPTED, "faults": faults}
    context = made(tmp_path / "some", rows, generator=monkey, max_reject_rate=0.5)
    rejects = {r["row_id"]: r for r in table(context, "rejects")}
    assert {i: rejects[i]["code"] for i in rejects} == dict(zip(ids, kinds.values(), strict=False))
    assert sorted(r["doc_id"] for r in table(context)) == [i for i in ids if i not in rejects]
    told = told_by(context)["stages"]["answer"]
    assert told["rejects"] == dict.fromkeys(sorted(kinds.values()), 1)
    assert told["rows_in"] == told["ok"] + len(kinds)
    (first, *_) = sorted(Path(context.setting.output).glob("rejects-*.parquet"))
    assert pq.read_schema(first).equals(REJECT_SCHEMA)
