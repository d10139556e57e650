"""`synth.longalign` as steps: rows from rules, the same for any parts, faults caught, resumed."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from longctx import plan
from longctx.engine.barrier import BarrierContext
from longctx.errors import RecipeError, RunError
from longctx.io import paths
from longctx.llm import classify
from longctx.llm.client import Client
from longctx.llm.faults import Fault, FaultPlan
from longctx.llm.rejects import REJECT_SCHEMA
from longctx.llm.scripted import ScriptedBackend
from longctx.llm.spec import close_client
from longctx.llm.types import Answer, AttemptError, GenRequest, GenResult
from longctx.recipe import from_dict
from longctx.report.plan import plan_view
from longctx.synth import longalign_instruct, stages_base, stages_longalign
from longctx.synth.longalign_instruct import TASK_TYPES
from longctx.synth.rows import LONGALIGN
from longctx.synth.rule_set import rule_set
from longctx.synth.stages_longalign import SynthLongAlign
from tests.in_process import run_here
from tests.llm.fault_server import FaultServer
from tests.stages import recipe_of, run_rows
from tests.synthesis import (
    HELD_OUT,
    PLANTED,
    SCRIPTED,
    Row,
    contaminated,
    held_out,
    holding,
    run_op,
    says,
    table,
    told_by,
)

pytestmark = pytest.mark.usefixtures("model_ops_here")


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


def op_of(generator: Row = SCRIPTED, **fields: Any) -> SynthLongAlign:
    usual: Row = {"rows": 20, "min_tokens": 50, "max_tokens": 600, "bin_tokens": 100}
    usual |= {"lang_share": {"en": 1}, "unit_rows": 4, "shard_rows": 8}
    return SynthLongAlign.model_validate(
        {"op": "synth.longalign", "generator": generator, **usual, **fields}
    )


def made(
    folder: Path, docs: list[Row], parts: int = 3, *, dry: bool = False, **fields: Any
) -> BarrierContext:
    return run_op(op_of(**fields), folder, docs, parts, dry=dry)


def output(context: BarrierContext, kind: str = "") -> dict[str, bytes]:
    folder = Path(context.setting.output)
    return {p.name: p.read_bytes() for p in sorted(folder.glob(f"{kind}*")) if p.name[0] != "_"}


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
        "bad_json": "not_json",
        "http_400_context": "context_overflow",
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
    # Broken JSON and a wrong schema, twice each.
    assert told["asked_anew"] == 4
    (first, *_) = sorted(Path(context.setting.output).glob("rejects-*.parquet"))
    assert pq.read_schema(first).equals(REJECT_SCHEMA)


@pytest.mark.parametrize(
    ("stage", "reply", "code", "detail"),
    [
        ("questions", {"questions": ["Who was it?"] * 5}, "semantic", "duplicate"),
        ("questions", {"questions": ["Who built the pier?"]}, "semantic", "question_count"),
        (
            "questions",
            {"questions": [f"Zyx {i}000?" for i in range(5)]},
            "semantic",
            "off_document",
        ),
        ("answer", {"answer": "Paris exports copper to Peru."}, "semantic", "unsupported"),
        ("answer", {"answer": "As an AI, I cannot help with piers."}, "refusal", "refusal"),
    ],
)
def test_what_a_reply_may_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, reply: Row, code: str, detail: str
) -> None:
    rules = rule_set()
    name = f"longalign.{stage}"

    def says(req: GenRequest) -> str:
        return json.dumps(reply) if req.row_id.endswith("7") else rules.rules[name](req)

    planted = replace(rules, version="planted", rules={**rules.rules, name: says})
    monkeypatch.setattr(SynthLongAlign, "rules", lambda self: planted)
    context = made(tmp_path, documents(), max_reject_rate=0.5)
    rejects = table(context, "rejects")
    assert {r["row_id"][-1] for r in rejects} == {"7"}
    assert {(r["stage"], r["code"], r["detail"]) for r in rejects} == {(name, code, detail)}
    assert not [r for r in table(context) if r["doc_id"].endswith("7")]


def calls(context: BarrierContext) -> dict[str, int]:
    """Calls that were made for the units of each stage."""
    stages = told_by(context)["stages"]
    return {step: stages[step]["usage"]["calls"] for step in ("questions", "answer")}


def test_a_finished_run_asks_nothing_more(tmp_path: Path) -> None:
    rows = documents()
    first = made(tmp_path, rows)
    chosen = told_by(first)["chosen"]
    assert calls(first) == {"questions": chosen, "answer": chosen}
    before = output(first)
    again = made(tmp_path, rows, generator={**SCRIPTED, "in_flight": 3}, max_reject_rate=0.1)
    assert (again.skipped, again.units) == (first.units, first.units)
    assert output(again) == before
    assert made(tmp_path, rows, dry=True).skipped == first.units


def test_other_units_and_lost_commits_pay_nothing_twice(tmp_path: Path) -> None:
    rows = documents()
    before = output(made(tmp_path, rows))
    for file in (tmp_path / "stages").glob("*/answer/*.json"):
        file.unlink()
    lost = made(tmp_path, rows)
    assert calls(lost)["answer"] == 0
    assert told_by(lost)["stages"]["answer"]["usage"]["cache_hits"] == told_by(lost)["chosen"]
    assert calls(made(tmp_path, rows, unit_rows=7)) == {"questions": 0, "answer": 0}
    assert output(made(tmp_path, rows)) == before


def test_a_run_that_ends_in_a_unit_goes_on_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = documents()
    whole = output(made(tmp_path / "whole", rows))
    fields: Row = {"unit_rows": 200, "generator": {**SCRIPTED, "in_flight": 1}}
    with monkeypatch.context() as patch:
        patch.setattr(ScriptedBackend, "attempt", _ends_after(9))
        with pytest.raises(RunError, match="refused the key"):
            made(tmp_path / "killed", rows, **fields)
    close_client()
    context = made(tmp_path / "killed", rows, **fields)
    assert calls(context)["questions"] == told_by(context)["chosen"] - 9
    assert rows_files(output(context)) == rows_files(whole)


def rows_files(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name != "manifest.json"}


def _ends_after(answers: int) -> Any:
    real, left = ScriptedBackend.attempt, [answers]

    async def attempt(self: ScriptedBackend, req: GenRequest, key: str) -> Answer:
        if not left[0]:
            raise AttemptError("auth")
        left[0] -= 1
        return await real(self, req, key)

    return attempt


def test_a_server_gives_the_rows_of_its_replies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Client.generate
    docs, faults = documents(), [Fault(kind="bad_json", nth=2), Fault(kind="truncated", nth=5)]
    with FaultServer(rule_set().rules, FaultPlan(faults), together=4) as server:

        def generate(client: Client, reqs: Sequence[GenRequest]) -> list[GenResult]:
            server.know(reqs)
            return real(client, reqs)

        monkeypatch.setattr(Client, "generate", generate)
        described = {"backend": "openai", "base_url": server.url, "model": "scripted"}
        context = made(tmp_path / "server", docs, generator={**described, "in_flight": 4})
        close_client()
    assert server.in_flight_peak == 4
    assert server.requests == 2 * told_by(context)["chosen"] + 2
    monkeypatch.undo()
    run_here(monkeypatch)
    assert output(context, "chat") == output(made(tmp_path / "rules", docs), "chat")


def test_another_model_or_prompt_is_asked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = documents()
    chosen = told_by(made(tmp_path, rows))["chosen"]
    monkeypatch.setattr(SynthLongAlign, "rules", lambda self: replace(rule_set(), version="new"))
    assert calls(made(tmp_path, rows)) == {"questions": chosen, "answer": chosen}
    monkeypatch.setattr(SynthLongAlign, "prompt_version", "longalign-2")
    # The wording is the same here, so the cache knows the replies, and they are checked again.
    context = made(tmp_path, rows)
    assert calls(context) == {"questions": 0, "answer": 0}
    assert context.why["settings or input changed"] > 8


def test_documents_and_replies_with_words_of_evaluation_texts_make_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs, against = documents(), held_out(tmp_path)
    plain = made(tmp_path / "run", docs)
    ids = sorted(row["doc_id"] for row in table(plain))
    # What hits nothing asks nothing anew, and changes no row.
    close = made(tmp_path / "run", docs, **against)
    assert {s: close.step_commits[s] for s in ("questions", "answer", "rows")} == {
        s: plain.step_commits[s] for s in ("questions", "answer", "rows")
    }
    assert rows_files(output(close)) == rows_files(output(plain))
    planted = [{**d, "text": f"{d['text']} {PLANTED * (d['doc_id'] == ids[0])}"} for d in docs]
    # Of this one nine of the words, and another.
    planted[int(ids[1][1:])]["text"] += HELD_OUT.replace("juliet", "kilo")
    lund = f"Lund{int(ids[2][1:])} "
    # One of five questions, whether it is drawn or not.
    says(monkeypatch, "longalign.questions", lund, "questions")
    close_client()
    context = made(tmp_path / "planted", planted, **against)
    assert contaminated(context) == {ids[0]: "longalign.screened", ids[2]: "longalign.cleared"}
    assert holding(context) == []
    told = told_by(context)
    assert told["rows"] == told["chosen"] - 2
    assert told["rejects"] == {"contaminated": 2}
    assert told["stages"]["questions"]["ok"] == told["chosen"] - 1
    assert told["stages"]["cleared"] == {
        "rows_in": told["chosen"] - 1,
        "ok": told["chosen"] - 2,
        "rejects": {"contaminated": 1},
    }
    assert told["checks"]["decontamination"] == {"hits": 0, "texts": 1, "ngram": 10, "ok": True}
    told_why = f"10 words in a row of an evaluation text: {HELD_OUT}"
    assert {r["detail"] for r in table(context, "rejects")} == {told_why}
    # Without these steps the check over what was written fails.
    monkeypatch.setattr(stages_base, "screened", lambda op, c, held, chosen, model: list(chosen))
    monkeypatch.setattr(stages_base, "cleared", lambda op, c, held, rows, model: rows)
    blind = made(tmp_path / "blind", planted, **against)
    found = told_by(blind)["checks"]["decontamination"]
    assert (found["hits"], found["ok"]) == (2, False)
    assert {name.partition("-")[0] for name in holding(blind)} == {"chat", "part"}
    assert [w for w in blind.step_stats["files"]["warnings"] if "`decontamination`" in w]


def test_nothing_held_out_is_said_and_nothing_to_look_for_ends_the_run(tmp_path: Path) -> None:
    docs = documents(20)
    found = told_by(made(tmp_path / "none", docs))["checks"]["decontamination"]
    note = "`against` names no evaluation texts, so nothing was held out"
    assert found == {"hits": None, "texts": 0, "ngram": 10, "ok": None, "note": note}
    against = held_out(tmp_path)
    with pytest.raises(RunError, match="no evaluation set has a text of at least 11 tokens"):
        made(tmp_path / "long", docs, ngram=11, **against)
    full = [{**d, "text": f"{d['text']} {PLANTED}"} for d in docs]
    with pytest.raises(RunError, match=r"all \d+ chosen documents share a run of 10 words"):
        made(tmp_path / "full", full, **against)
    with pytest.raises(RecipeError, match="no file matches"):
        made(tmp_path / "none", docs, against=[{"path": str(tmp_path / "no.jsonl")}])


def test_too_many_rejects_end_the_run_behind_their_stage(tmp_path: Path) -> None:
    rows = documents()
    bad = {**SCRIPTED, "faults": [{"kind": "bad_json", "stage": "longalign.questions"}]}
    bad["faults"][0]["times"] = None
    with pytest.raises(RunError, match=r"14 of 14 rows were rejected .*not_json 14.*20%"):
        made(tmp_path, rows, generator=bad)
    (stage,) = (tmp_path / "stages").glob("*synth*")
    written = [pq.read_table(f) for f in stage.glob("questions/*-rejects.parquet")]
    assert sum(t.num_rows for t in written) == 14
    assert not (stage / "answer").exists()
    assert not (tmp_path / "output/manifest.json").exists()
    context = made(tmp_path, rows, generator=bad, max_reject_rate=1)
    assert told_by(context)["rows"] == 0
    assert told_by(context)["rejects"] == {"not_json": 14}
    assert len(table(context, "rejects")) == 14


def test_what_failed_on_its_way_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = documents()

    async def fails(self: ScriptedBackend, req: GenRequest, key: str) -> Answer:
        raise AttemptError("timeout")

    with monkeypatch.context() as patch:
        patch.setattr(ScriptedBackend, "attempt", fails)
        patch.setitem(classify.RULES, "timeout", replace(classify.RULES["timeout"], retries=0))
        with pytest.raises(RunError, match=r"transport 14"):
            made(tmp_path, rows)
    close_client()
    assert told_by(made(tmp_path, rows))["rows"] == 14


def test_the_limit_of_tokens_holds_over_all_stages_and_runs(tmp_path: Path) -> None:
    rows = documents()
    usage = [
        s["usage"] for n, s in told_by(made(tmp_path / "a", rows))["stages"].items() if n != "rows"
    ]
    spent = [u["prompt_tokens"] + u["completion_tokens"] for u in usage]
    few = {**SCRIPTED, "max_tokens_total": spent[0] + spent[1] // 2 + 2048, "clients": 1}
    for _ in range(2):
        with pytest.raises(RunError, match="budget of the model calls is used up"):
            made(tmp_path / "b", rows, generator=few)
        close_client()
    context = made(tmp_path / "b", rows)
    assert rows_files(output(context)) == rows_files(output(made(tmp_path / "a", rows)))


def test_nothing_to_ask_about_is_said_before_any_call(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no document has 900 to 1,000 tokens.*languages en"):
        made(tmp_path, documents(), min_tokens=900, max_tokens=1000)
    silent = [{**r, "language": None} for r in documents()]
    with pytest.raises(RunError, match="no document has"):
        made(tmp_path / "silent", silent)
    context = made(tmp_path / "told", silent, default_language="en")
    assert told_by(context)["rows"] == 14


def test_checks_over_all_rows_are_told_and_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_kind(seed: int, doc_id: str) -> str:
        return "summary"

    for module in (longalign_instruct, stages_longalign):
        monkeypatch.setattr(module, "task_type", one_kind)
    context = made(tmp_path, documents(600), rows=400, unit_rows=200, min_tokens=80, max_tokens=390)
    checks = told_by(context)["checks"]
    assert checks["task_type"]["ok"] is False
    assert checks["chosen"]["ok"] is True
    assert checks["support"]["ok"] is checks["length"]["ok"] is True
    assert [w for w in context.step_stats["files"]["warnings"] if "`task_type`" in w]


def test_a_plan_counts_calls_before_the_first(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text('{"scripted:synth-1": {"input": 1, "output": 2}}')
    op = op_of({**SCRIPTED, "price_file": str(prices)}, question_tokens=100, answer_tokens=50)
    five, one = op.model_calls(1000)
    assert (five.stage, five.calls, one.calls) == ("longalign.questions", 20, 20)
    # 20 rows over six bins of 100 in [50, 600], of which the first two give four each.
    tokens = 4 * 99.5 + 4 * 199.5 + 3 * (299.5 + 399.5 + 499.5 + 575.0)
    assert five.prompt_tokens == one.prompt_tokens == int(tokens)
    assert five.usd == pytest.approx((five.prompt_tokens + 2 * 2000) / 1e6)
    assert "nothing rejected" in five.assumed
    assert [c.calls for c in op.model_calls(7)] == [7, 7]


def test_the_plan_is_shown_without_a_call(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text('{"scripted:synth-1": {"input": 1000, "output": 0}}')
    op = op_of({**SCRIPTED, "price_file": str(prices)}).model_dump(mode="json")
    found = plan(recipe_of(tmp_path, documents(), [{"op": "score.heuristics"}, op]))
    shown = io.StringIO()
    Console(width=80, file=shown).print(plan_view(found, 2))
    lines = [line.split() for line in shown.getvalue().splitlines()]
    assert ["longalign.questions", "20", "~6,516", "10,240", "6.52"] in lines
    assert "nothing rejected, nothing asked for again" in " ".join(shown.getvalue().split())
    assert not (tmp_path / "run").exists()


@pytest.mark.ray
def test_actors_on_ray_ask_and_write(ray_local: int, tmp_path: Path) -> None:
    docs = [{"id": r["doc_id"], **r} for r in documents(12)]
    fields = op_of(unit_rows=3, shard_rows=100).model_dump(mode="json")
    stages = [{"op": "score.heuristics"}, {**fields, "min_tokens": 100, "max_tokens": 2000}]
    finished = run_rows(tmp_path, docs, stages, engine={"part_mb": 1})
    told = finished.stage("synth.longalign").summary["synthesis"]
    assert told["rows"] == told["chosen"] > 3
    assert told["stages"]["questions"]["usage"]["calls"] == told["chosen"]
    (chat,) = Path(finished.record.output).glob("chat-*.jsonl")
    assert len(chat.read_text().splitlines()) == told["rows"]
    report = Path(finished.record.run_dir, "report.html").read_text()
    assert f"(scripted:synth-1) was asked about {told['chosen']} of them" in report


def test_formats_of_windows_are_refused(tmp_path: Path) -> None:
    stages = [{"op": "score.heuristics"}, op_of().model_dump(mode="json")]
    recipe = recipe_of(tmp_path, documents(2), stages, output={"format": ["mds"]})
    with pytest.raises(RecipeError, match=r"formats of windows; `synth.longalign` writes Parquet"):
        from_dict(recipe)
    with pytest.raises(RecipeError, match=r"`synth.longalign` must be the last stage"):
        from_dict(recipe_of(tmp_path, documents(2), [*stages, {"op": "export"}]))
