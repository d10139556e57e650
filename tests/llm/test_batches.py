"""Ops whose model answers in batches: the rows, rejects and figures of a run that asks as it goes.

A first run asks a rule and notes every reply by what was asked. The engine of the second replies
from these notes, so the same op must make the same of them, in as few executions as it has rounds.
"""

import importlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.errors import RunError
from longctx.llm import spec, stages_batches, stages_vllm
from longctx.llm.keys import canonical_json
from longctx.llm.scripted import ScriptedBackend
from longctx.llm.spec import ScriptedGenerator, VLLMGenerator
from longctx.llm.stages_batches import Piece, batches_of
from longctx.llm.stages_vllm import Prepare
from longctx.llm.types import Answer, GenRequest, LLMJobError
from longctx.llm.vllm_rows import sampling_params
from longctx.synth.stages_base import Synthesis
from longctx.synth.stages_longalign import SynthLongAlign
from tests.llm.fake_vllm import Letters, Row, Table, processor_here
from tests.synthesis import run_op, table, told_by

pytestmark = pytest.mark.usefixtures("model_ops_here")
# The first three replies cannot be used: no JSON, not what was asked for, cut off.
FAULTS = [
    {"kind": kind, "nth": n} for n, kind in enumerate(("bad_json", "wrong_schema", "truncated"), 1)
]
CONTEXT = 10**6


@dataclass
class Notes:
    """Replies by what was asked, and what the engine was sent since it was last looked at."""

    replies: dict[tuple[str, str], Answer] = field(default_factory=dict)
    executions: list[int] = field(default_factory=list)
    broken: bool = False

    def note(self, req: GenRequest, answer: Answer) -> None:
        asked = "".join(m["content"] for m in req.messages)
        self.replies[asked, canonical_json(sampling_params(req))] = answer

    def rule(self, row: Row) -> tuple[str, int]:
        asked = "".join(map(chr, row["ids"]))
        answer = self.replies[asked, canonical_json(row["sampling"])]
        return answer.text, row["max_tokens"] if answer.finish_reason == "length" else 3

    def process(self, data: Table) -> Table:
        self.executions.append(data.table.num_rows)
        if self.broken:
            raise RuntimeError("no GPU\nCUDA out of memory")
        return processor_here(self.rule, Prepare("", CONTEXT))(data)

    def sent(self) -> list[int]:
        found, self.executions = self.executions, []
        return found


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    """vLLM is there, and its engines reply from these notes."""
    kept, attempt = Notes(), ScriptedBackend.attempt

    async def noted(self: ScriptedBackend, req: GenRequest, key: str) -> Answer:
        answer = await attempt(self, req, key)
        kept.note(req, answer)
        return answer

    def requests(pieces: list[Piece]) -> Table:
        rows = [{"url": u, "group": g, "rows": r} for u, g, r in pieces]
        return Table(stages_batches._read(pa.Table.from_pylist(rows)))

    monkeypatch.setattr(ScriptedBackend, "attempt", noted)
    monkeypatch.setattr(spec, "require_vllm", lambda: None)
    monkeypatch.setattr(stages_vllm, "_chat", lambda _: Letters())
    monkeypatch.setattr(stages_vllm, "processor_of", lambda *_: kept.process)
    monkeypatch.setattr(stages_batches, "_requests", requests)
    return kept


@pytest.fixture
def vllm(tmp_path: Path) -> Row:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return {"backend": "vllm", "model": str(folder), "max_context": CONTEXT}


def documents(n: int = 10) -> list[Row]:
    found = []
    for i in range(n):
        told = [f"The keeper Zora{i}x{k} built pier {100 * i + k}." for k in range(10 + i)]
        row = {"doc_id": f"d{i:03d}", "text": " ".join(told), "source": "ab"[i % 2]}
        found.append(row | {"language": "en", "n_tokens": 10 * len(told)})
    return found


def longalign(generator: Row, **changes: Any) -> Synthesis:
    usual: Row = {"rows": 10, "min_tokens": 50, "max_tokens": 600, "bin_tokens": 600}
    usual |= {"lang_share": {"en": 1}, "unit_rows": 3, "op": "synth.longalign"}
    return SynthLongAlign.model_validate({**usual, "generator": generator, **changes})


def rows_of(context: BarrierContext) -> list[Row]:
    """Rows without what names the model or the run."""
    named = ("model", "models", "generator", "judge", "policy_model", "judge_model", "run_id")
    return [{n: v for n, v in row.items() if n not in named} for row in table(context)]


def usage(context: BarrierContext, step: str) -> Row:
    told = told_by(context)["stages"]
    found: Row = told[step]["usage"]
    return {n: found[n] for n in ("requests", "cache_hits", "calls")}


def test_a_synthesis_makes_the_same_rows_in_one_execution_a_round(
    notes: Notes, vllm: Row, tmp_path: Path
) -> None:
    scripted = run_op(
        longalign({"backend": "scripted", "faults": FAULTS}), tmp_path / "one", documents()
    )
    batched = run_op(longalign(vllm), tmp_path / "two", documents())
    assert rows_of(batched) == rows_of(scripted)
    assert len(rows_of(batched)) == 10
    assert told_by(batched)["rejects"] == told_by(scripted)["rejects"] == {}
    # Four units, two steps; three replies of the first were asked for once more.
    assert notes.sent() == [10, 3, 10]
    for step, calls in (("questions", 13), ("answer", 10)):
        assert usage(batched, step) == usage(scripted, step)
        assert usage(batched, step)["calls"] == calls
    spent = told_by(batched)["stages"]["questions"]["usage"]
    limit = longalign(vllm).call("questions").max_tokens
    assert spent["completion_tokens"] == 3 * 12 + limit
    assert spent["prompt_tokens"] > 13 * 500
    assert not list((tmp_path / "two" / "batches").rglob("*.parquet"))


def test_what_was_answered_is_never_sent_again(notes: Notes, vllm: Row, tmp_path: Path) -> None:
    run_op(longalign({"backend": "scripted"}), tmp_path / "one", documents())
    shared = {**vllm, "cache": str(tmp_path / "cache")}
    first = run_op(longalign(shared), tmp_path / "two", documents())
    assert notes.sent() == [10, 10]
    again = run_op(longalign(shared), tmp_path / "two", documents())
    assert again.skipped == again.units
    elsewhere = run_op(longalign(shared), tmp_path / "three", documents())
    assert notes.sent() == []
    assert rows_of(elsewhere) == rows_of(first)
    hits = usage(elsewhere, "answer")
    assert (hits["calls"], hits["cache_hits"]) == (0, 10)


def test_failures_are_rejects_of_their_rows_and_asked_again_by_the_next_run(
    notes: Notes, vllm: Row, tmp_path: Path
) -> None:
    run_op(longalign({"backend": "scripted"}), tmp_path / "one", documents())
    lost = next(asked for asked in notes.replies if "Zora4x3 built" in asked[0])
    reply = notes.replies.pop(lost)  # the rule raises KeyError, which is no fault of the request
    found = run_op(longalign(vllm, max_reject_rate=0.5), tmp_path / "two", documents())
    assert told_by(found)["rejects"] == {"transport": 1}
    assert len(table(found)) == 9
    (reject,) = table(found, "rejects")
    assert (reject["code"], reject["row_id"]) == ("transport", "d004")
    # What the engine says may quote the prompt: that stands in no table.
    assert "Zora4x3 built" not in json.dumps(reject, default=str)
    assert notes.sent() == [10, 9 if "question" in reject["stage"] else 10]
    with pytest.raises(RunError, match="more than"):
        run_op(longalign(vllm, max_reject_rate=0.01), tmp_path / "three", documents())
    notes.sent()
    notes.replies[lost] = reply
    mended = run_op(longalign(vllm, max_reject_rate=0.01), tmp_path / "three", documents())
    assert len(table(mended)) == 10
    assert notes.sent()[0] == 1


@pytest.mark.parametrize(
    ("module", "n", "executions"),
    [
        ("synth.test_stages_longwriter", 4, 9),
        ("synth.test_stages_longmit", 20, 9),
        ("prefer.test_stages_longreward", 4, 13),
        ("prefer.test_stages_longdpo", 4, 13),
    ],
)
def test_units_of_many_rounds_come_to_the_same(
    module: str,
    n: int,
    executions: int,
    notes: Notes,
    vllm: Row,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Paragraphs one after the other, paths of documents, marks of a judge, a search in trees."""
    system = importlib.import_module(f"tests.{module}")
    if hasattr(system, "Chart"):
        monkeypatch.setattr(system.stages_longmit_work, "_encoder", lambda model: system.Chart())
    docs = getattr(system, "instructions", None) or system.documents
    scripted = system.made(tmp_path / "one", docs(n))
    batched = system.made(tmp_path / "two", docs(n), generator={**vllm, "rounds": 200})
    assert rows_of(batched) == rows_of(scripted) != []
    mine, other = (told_by(c)["stages"] for c in (batched, scripted))
    assert {s: counts(v) for s, v in mine.items()} == {s: counts(v) for s, v in other.items()}
    assert len(notes.sent()) == executions


def counts(told: Row) -> Row:
    found = {n: told.get(n) for n in ("rows_in", "ok", "rejects")}
    usage = told.get("usage") or {}
    return found | {n: usage.get(n) for n in ("requests", "calls", "cache_hits")}


def test_too_many_rounds_end_the_run_with_what_to_do(
    notes: Notes, vllm: Row, tmp_path: Path
) -> None:
    run_op(longalign({"backend": "scripted", "faults": FAULTS}), tmp_path / "one", documents())
    with pytest.raises(RunError, match=r"1 of 4 units .* still wait .* \(1 times\)") as raised:
        run_op(longalign({**vllm, "rounds": 1}), tmp_path / "two", documents())
    assert "backend openai" in raised.value.remedy
    assert notes.sent() == [10]
    # What was answered is not sent again.
    run_op(longalign(vllm), tmp_path / "two", documents())
    # The text that was cut off is in no cache.
    assert notes.sent() == [1, 3, 10]


def test_the_limit_of_tokens_holds_before_anything_is_sent(
    notes: Notes, vllm: Row, tmp_path: Path
) -> None:
    run_op(longalign({"backend": "scripted"}), tmp_path / "one", documents())
    limited = {**vllm, "max_tokens_total": 4_000}
    with pytest.raises(LLMJobError, match="budget") as raised:
        run_op(longalign(limited), tmp_path / "two", documents())
    assert raised.value.code == "budget"
    (sent,) = notes.sent()
    assert 0 < sent < 10
    run_op(longalign(vllm), tmp_path / "two", documents())
    assert notes.sent() == [10 - sent, 10]


def test_engines_that_cannot_start_end_the_run(notes: Notes, vllm: Row, tmp_path: Path) -> None:
    notes.broken = True
    with pytest.raises(RunError, match=r"came to no end: RuntimeError: CUDA out of memory"):
        run_op(longalign(vllm), tmp_path / "two", documents())


def test_both_models_of_a_step_answer_in_batches_or_neither(vllm: Row, tmp_path: Path) -> None:
    setting = Setting(0, "", "09-x", str(tmp_path), "")
    one, other = VLLMGenerator.model_validate(vllm), ScriptedGenerator(backend="scripted")
    assert batches_of(setting, "s", {"": other}) is None
    assert batches_of(setting, "s", {"": one, "judge": one}) is not None
    with pytest.raises(LLMJobError, match="either both of backend vllm"):
        batches_of(setting, "s", {"": one, "judge": other})
