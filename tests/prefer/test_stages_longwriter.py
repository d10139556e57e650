"""`prefer.longwriter` as steps: the best answer against a worse, faults in their own samples."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from longctx.engine.barrier import BarrierContext
from longctx.errors import RunError
from longctx.llm.spec import close_client
from longctx.prefer.longwriter import SYSTEM, Sample, facts, figures, pair_of
from longctx.prefer.pairs import PAIRS, Group
from longctx.prefer.stages_longwriter import PreferLongWriter
from longctx.synth import rules_longwriter
from longctx.synth.longwriter import DIMENSIONS
from longctx.synth.rows import Reject
from longctx.synth.rule_set import rule_set
from tests.synthesis import (
    PLANTED,
    SCRIPTED,
    Row,
    contaminated,
    held_out,
    holding,
    output,
    run_op,
    says,
    table,
    told_by,
)

pytestmark = pytest.mark.usefixtures("model_ops_here")

TASK = "Write a 900-word history of the grey harbour of Port Ora{} with its keepers and fires."


def instructions(n: int = 6) -> list[Row]:
    return [
        {"doc_id": f"d{i}", "text": TASK.format(i), "source": "s", "language": "en", "n_tokens": 9}
        for i in range(n)
    ]


def made(folder: Path, docs: list[Row], parts: int = 2, **fields: Any) -> BarrierContext:
    usual: Row = {"op": "prefer.longwriter", "generator": SCRIPTED, "rows": 100, "unit_rows": 4}
    usual |= {"lang_share": {"en": 1}, "shard_rows": 4}
    op = PreferLongWriter.model_validate({**usual, **fields})
    return run_op(op, folder, docs, parts)


def ruled(monkeypatch: pytest.MonkeyPatch, stage: str, rule: Any) -> None:
    """Another rule for a stage: what a model might reply as well."""

    def said(req: Any) -> str:
        reply = rule(req.parts)
        return str(reply["text"]) if "text" in reply else json.dumps(reply)

    rules = replace(rule_set(), rules={**rule_set().rules, stage: said})
    monkeypatch.setattr(PreferLongWriter, "rules", lambda _: rules)


def test_the_best_answer_is_chosen_and_a_worse_one_rejected(tmp_path: Path) -> None:
    docs = instructions()
    context = made(tmp_path, docs)
    rows, samples = table(context), table(context, "candidates")
    assert len(rows) == len(docs)
    assert len(samples) == 4 * len(docs)
    for row in rows:
        own = [s for s in samples if s["id"] == row["group_id"]]
        score = {s["text"]: s["score"] for s in own}
        assert [s["sample_index"] for s in own] == [0, 1, 2, 3]
        assert all(s["score"] == (s["s_l"] + s["s_q"]) / 2 for s in own)
        # The rule's first answer is the longest and holds most of the task.
        assert row["chosen"] == own[0]["text"]
        assert row["score_chosen"] == max(score.values())
        assert row["score_chosen"] - score[row["rejected"]] == row["margin"] >= 2
        assert row["messages"] == [{"role": "user", "content": TASK.format(row["group_id"][1:])}]
        assert dict(row["dims_chosen"]).keys() == {*DIMENSIONS, "s_l", "s_q"}
    assert len({row["rejected"].split("\n")[0].count(" ") for row in rows}) > 1
    (first, *_) = sorted(Path(context.setting.output).glob("part-*.parquet"))
    assert pq.read_schema(first).equals(PAIRS)
    (lines, *_) = sorted(Path(context.setting.output).glob("trl-*.jsonl"))
    record = json.loads(lines.read_text().splitlines()[0])
    assert record["chosen"][0]["content"] in {row["chosen"] for row in rows}
    told = told_by(context)
    assert told["stages"]["lw.sample"]["rows_in"] == told["stages"]["lw.judge"]["rows_in"] == 24
    checks = told["checks"]
    assert checks["margin"]["ok"] is checks["sound_rows"]["ok"] is True
    assert checks["samples"] == {"ok": 24}
    assert checks["chosen_longer"]["share"] == 1
    controls = {c["name"]: c["passed"] for c in told["judge"]["controls"]}
    assert all(controls[f"constant:{name}"] for name in DIMENSIONS)
    assert controls["refusal"] is True


def test_parts_units_and_lost_commits_change_no_byte(tmp_path: Path) -> None:
    docs = instructions()
    one = output(made(tmp_path / "one", docs, 1, unit_rows=100))
    close_client()
    three = made(tmp_path / "three", docs[::-1], 3, unit_rows=2)
    assert output(three) == one
    for file in (tmp_path / "three/stages").glob("*/judged/*.json"):
        file.unlink()
    close_client()
    again = made(tmp_path / "three", docs[::-1], 3, unit_rows=2)
    assert output(again) == one
    assert told_by(again)["stages"]["lw.sample"]["usage"]["calls"] == 0


def test_instructions_and_answers_with_words_of_evaluation_texts_make_no_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = instructions(4)
    docs[1]["text"] += f" {PLANTED}"
    says(monkeypatch, "lw.sample", "Ora2 ", "text")
    context = made(tmp_path, docs, **held_out(tmp_path))
    bad, rows = contaminated(context), table(context)
    assert bad.pop("d1") == f"{SYSTEM}.screened"
    assert list(bad.values()) == [f"{SYSTEM}.cleared"]
    assert {row["group_id"] for row in rows} == {"d0", "d3"}
    assert holding(context) == []
    told = told_by(context)
    assert told["stages"]["screened"]["rejects"] == {"contaminated": 1}
    assert told["stages"]["cleared"]["rejects"] == {"contaminated": 1}
    assert told["stages"]["lw.sample"]["rows_in"] == 12
    assert told["checks"]["decontamination"] == {"hits": 0, "texts": 1, "ngram": 10, "ok": True}


def test_a_lost_sample_costs_its_prompt_no_pair(tmp_path: Path) -> None:
    bad = [{"kind": "refusal", "row_id": "d1", "stage": "lw.sample", "nth": None, "times": None}]
    bad += [{"kind": "bad_json", "row_id": "d2/0", "stage": "lw.judge", "times": None}]
    bad += [
        {"kind": "bad_json", "row_id": f"d3/{k}", "stage": "lw.judge", "times": None}
        for k in (0, 1, 3)
    ]
    generator = {**SCRIPTED, "faults": bad}
    context = made(tmp_path, instructions(), generator=generator, max_reject_rate=1)
    rejects = {r["row_id"]: (r["code"], r["detail"]) for r in table(context, "rejects")}
    assert rejects == {
        "d1": ("too_few_candidates", "0 of 4 samples have a score, two are needed"),
        "d3": ("too_few_candidates", "1 of 4 samples have a score, two are needed"),
    }
    samples = {(s["id"], s["sample_index"]): s for s in table(context, "candidates")}
    assert samples["d2", 0]["status"] == "lw.judge:not_json"
    assert samples["d2", 0]["score"] is samples["d2", 0]["s_q"] is None
    assert samples["d2", 0]["s_l"] is not None
    assert samples["d1", 2]["status"] == "lw.sample:refusal"
    second = next(r for r in table(context) if r["group_id"] == "d2")
    assert second["chosen"] == samples["d2", 1]["text"]
    assert {r["code"] for r in table(context, "calls")} == {"refusal", "not_json"}


def test_what_cannot_make_a_pair_is_rejected_and_another_margin_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = instructions()
    docs[0]["text"] = "Write 900 words of erotica."
    context = made(tmp_path, docs)
    assert {r["row_id"]: r["detail"] for r in table(context, "rejects")} == {"d0": "toxic"}
    strict = made(tmp_path, docs, margin=90)
    assert told_by(strict)["rejects"] == {"semantic": 1, "small_margin": 5}
    assert strict.step_stats["judged"] == context.step_stats["judged"]
    close_client()
    ruled(monkeypatch, "lw.sample", lambda p: rules_longwriter.sample({**p, "sample": 0}))
    alike = made(tmp_path / "alike", instructions(), on_bad_judge="report")
    assert told_by(alike)["rejects"] == {"small_margin": 6}
    assert "constant:clarity" in told_by(alike)["judge"]["weak"]
    close_client()
    with pytest.raises(RunError, match="the judge fails its controls"):
        made(tmp_path / "ends", instructions())


def test_prompts_of_a_file_may_name_their_length(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    rows: list[Row] = [
        {"id": f"p{i}", "prompt": f"Tell of harbour Ora{i}.", "lang": "en"} for i in range(3)
    ]
    rows[0]["target_length"] = 500
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    context = made(tmp_path / "run", instructions(), prompts=str(file), on_bad_judge="report")
    samples = table(context, "candidates")
    assert {s["id"]: s["s_l"] is None for s in samples} == {"p0": False, "p1": True, "p2": True}
    assert all(s["score"] == s["s_q"] for s in samples if s["id"] != "p0")


def sample(index: int, score: float, text: str) -> Row:
    told = Sample(index, text, marks=dict.fromkeys(DIMENSIONS, 3), length=3).told()
    return {**told, "score": score}


def test_pairs_are_drawn_below_the_margin_alone() -> None:
    told = [sample(i, s, f"text {i} {'abc'[i]}") for i, s in enumerate([80.0, 79.0, 60.0])]

    def picked(name: str, **changes: Any) -> Any:
        group = Group(
            system=SYSTEM, group_id=name, lang="en", source="s", seed=1, prompt_version="1",
            messages=[{"role": "user", "content": "Write."}], model="m",
        )  # fmt: skip
        return pair_of(told, group, **{"margin": 2.0, "max_ratio": 4.0, **changes})

    assert {picked(f"g{i}")["rejected"] for i in range(8)} == {"text 2 c"}
    assert {picked(f"g{i}", margin=1)["rejected"] for i in range(8)} == {"text 1 b", "text 2 c"}
    lost = picked("g", margin=21)
    assert isinstance(lost, Reject)
    assert lost == ("small_margin", "the worst is 20.0 below the best of 21")
    row = picked("g1")
    known = facts(row, told, 4.0)
    assert known["problems"] == []
    assert figures([known], 2.0)["margin"]["ok"] is True
    assert figures([known], 21.0)["margin"]["ok"] is False
    worse = facts({**row, "score_chosen": 79.0, "rejected": row["chosen"]}, told, 4.0)
    assert worse["problems"] == ["duplicate", "not_the_best"]
    assert figures([worse], 2.0)["sound_rows"]["ok"] is False


def test_a_plan_counts_every_sample() -> None:
    op = PreferLongWriter.model_validate(
        {"op": "prefer.longwriter", "generator": SCRIPTED, "rows": 10, "expected_words": 3_000}
    )
    asked, judged = op.model_calls(1_000)
    assert (asked.calls, asked.prompt_tokens, asked.completion_tokens) == (40, 12_000, 160_000)
    assert (judged.calls, judged.prompt_tokens, judged.completion_tokens) == (40, 172_000, 40_960)
