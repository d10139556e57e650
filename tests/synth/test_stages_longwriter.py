"""`synth.longwriter` as steps: sound rows from rules, rounds of paragraphs, faults in their checks."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from longctx.engine.barrier import BarrierContext
from longctx.errors import RunError
from longctx.llm.ask import Ok
from longctx.llm.rejects import Reject
from longctx.llm.spec import close_client
from longctx.llm.types import GenError, GenResult
from longctx.synth import rules_longwriter, stages_longwriter
from longctx.synth.longwriter import Step, agentwrite_input_tokens, count_words, required_length
from longctx.synth.longwriter_drafts import Draft, write_all
from longctx.synth.longwriter_figures import figures, histogram
from longctx.synth.longwriter_rows import released
from longctx.synth.rows import LONGWRITER
from longctx.synth.rule_set import rule_set
from longctx.synth.stages_longwriter import SynthLongWriter
from tests.in_process import context_of, corpus_of, run_here

Row = dict[str, Any]
SCRIPTED: Row = {"backend": "scripted"}
SHARED = Path(__file__).parents[3] / "shared/data/preference/longwriter_longbench_write.jsonl"
STEPS = ("instructions", "lw.select", "lw.plan", "lw.write", "checked", "lw.judge", "rows")


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    run_here(monkeypatch)
    yield
    close_client()


def instruction(i: int, words: int = 2_100, lang: str = "en") -> Row:
    told = {
        "en": f"Write a {words:,}-word history of the harbour of Port Ora{i}.",
        "zh": f"写一篇{words}字的第{i}号海港历史",
        "ko": f"제{i} 항구의 역사를 {words}단어로 쓰십시오.",
    }[lang]
    return {"doc_id": f"{lang}{i:03d}", "text": told, "source": "ab"[i % 2], "language": lang} | {
        "n_tokens": len(told.split())
    }


def instructions(n: int = 8) -> list[Row]:
    """Of different lengths, so that texts end in different rounds."""
    return [instruction(i, 2_100 + 500 * (i % 3)) for i in range(n)]


def op_of(**fields: Any) -> SynthLongWriter:
    usual: Row = {"op": "synth.longwriter", "generator": SCRIPTED, "rows": 100, "unit_rows": 3}
    usual |= {"lang_share": {"en": 1}, "shard_rows": 4}
    return SynthLongWriter.model_validate({**usual, **fields})


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


def failed(checks: Row) -> set[str]:
    return {name for name, found in checks.items() if found.get("ok") is False}


def calls(context: BarrierContext) -> dict[str, int]:
    stages = told_by(context)["stages"]
    return {step: stages[step]["usage"]["calls"] for step in stages if step.startswith("lw.")}


def test_rows_are_planned_texts_of_the_length_they_were_asked_for(tmp_path: Path) -> None:
    docs = instructions()
    context = made(tmp_path, docs, judged=True)
    rows, told = table(context), told_by(context)
    assert len(rows) == told["chosen"] == len(docs)
    tasks = {f"longwriter-{d['doc_id']}": d["text"] for d in docs}
    for row in rows:
        assert row["prompt"] == row["instruction"] == tasks[row["id"]]
        assert [m["content"] for m in row["messages"]] == [row["prompt"], row["response"]]
        assert len(row["plan"]) == len(row["paragraphs"]) == row["n_calls"] - 3
        assert row["response"] == "\n\n".join(row["paragraphs"])
        assert count_words(row["response"]) == row["length"] == sum(row["paragraph_lengths"])
        assert row["required"]["x"] == int(row["prompt"].split("-")[0].split()[-1].replace(",", ""))
        assert (row["length_source"], row["loss_weighting"]) == ("stated", "token")
        assert row["s_l"] > 99
        assert 0 <= row["s_q"] <= 100
        assert set(row["dims"].values()) <= {1, 2, 3, 4, 5}
        # Each paragraph is of its own step.
        for step, paragraph in zip(row["plan"], row["paragraphs"], strict=True):
            assert count_words(paragraph) == step["words"]
            assert str(step["k"] * 10_000) in paragraph
        assert row["context"] == ""
    assert tuple(told["stages"]) == STEPS
    assert told["stages"]["lw.write"]["usage"]["requests"] == sum(len(r["plan"]) for r in rows)
    assert told["stages"]["lw.write"]["asked_anew"] == 0
    checks = told["checks"]
    assert failed(checks) == set()
    assert {n for n, c in checks.items() if c.get("ok")} == {
        *("s_l", "length", "sound_rows", "conservation")
    }
    assert checks["stated_lengths"] == {"rows": 8, "share": 1}
    assert checks["conservation"]["ok_by_stage"] == [8] * 7
    assert checks["n_calls"]["total"] == sum(calls(context).values())
    (first, *_) = sorted(Path(context.setting.output).glob("part-*.parquet"))
    assert pq.read_schema(first).equals(LONGWRITER)
    (lines, *_) = sorted(Path(context.setting.output).glob("chat-*.jsonl"))
    assert json.loads(lines.read_text().splitlines()[0])["messages"] == released(rows[0])["messages"]
