"""`prefer.longreward` as steps: pairs from rules, alike for any parts, each fault in its place."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from longctx.engine.barrier import BarrierContext
from longctx.engine.units import PendingWorkError
from longctx.errors import RecipeError, RunError
from longctx.llm.spec import close_client
from longctx.prefer.exporters import IMPORTERS
from longctx.prefer.longreward import CANDIDATE_TABLE, NOTES_TABLE
from longctx.prefer.pairs import PAIRS, pair_id, plain
from longctx.prefer.stages_longreward import PreferLongReward
from longctx.synth.rule_set import rule_set
from tests.conftest import SHARED
from tests.in_process import context_of, corpus_of, run_here
from tests.synthesis import (
    PLANTED,
    SCRIPTED,
    Row,
    contaminated,
    held_out,
    holding,
    output,
    run_op,
    table,
    told_by,
)

pytestmark = pytest.mark.usefixtures("model_ops_here")

REAL = SHARED / "preference"


def document(i: int, sentences: int = 45) -> Row:
    rng = np.random.default_rng(i)
    told = [
        f"Keeper Zora{i} found lamp {1000 * i + k} under stair{k}{' in the fog' * int(n)}."
        for k, n in enumerate(rng.integers(0, 3, sentences))
    ]
    text = " ".join(told)
    return {"doc_id": f"d{i:03d}", "text": text, "source": "ab"[i % 2], "language": "en"} | {
        "n_tokens": len(text.split())
    }


def documents(n: int = 5) -> list[Row]:
    return [document(i) for i in range(n)]


def op_of(**fields: Any) -> PreferLongReward:
    usual: Row = {"op": "prefer.longreward", "generator": SCRIPTED, "rows": 100, "min_tokens": 10}
    usual |= {"n": 8, "notes_chunk": 200, "fact_chunk": 30, "unit_rows": 2, "shard_rows": 4}
    usual |= {"least_completeness": 0, "least_faithfulness": 8, "lang_share": {"en": 1}}
    return PreferLongReward.model_validate({**usual, **fields})


def made(folder: Path, docs: list[Row], parts: int = 2, **fields: Any) -> BarrierContext:
    return run_op(op_of(**fields), folder, docs, parts)


def lines(context: BarrierContext) -> list[Row]:
    files = sorted(Path(context.setting.output).glob("trl-*.jsonl"))
    return [json.loads(line) for f in files for line in f.read_text().splitlines()]


def calls(context: BarrierContext) -> dict[str, int]:
    stages = told_by(context)["stages"]
    return {s: told["usage"]["calls"] for s, told in stages.items() if "usage" in told}


def test_pairs_are_of_the_best_answer_and_a_worse_one(tmp_path: Path) -> None:
    docs = documents()
    context = made(tmp_path, docs)
    rows, told = [plain(row) for row in table(context)], told_by(context)
    assert len(rows) == told["rows"] == told["chosen"] == len(docs)
    texts = {d["doc_id"]: d["text"] for d in docs}
    answers = {(c["id"], c["sample_index"]): c for c in table(context, "candidates")}
    for row in rows:
        best = answers[row["group_id"], 0]
        assert row["chosen"] == best["answer"]
        assert row["score_chosen"] == best["scores"]["total"]
        assert row["margin"] == row["score_chosen"] - row["score_rejected"] >= 2
        assert row["dims_chosen"]["faithfulness"] >= 8
        assert sum(row["dims_rejected"].values()) == row["score_rejected"]
        text = texts[row["doc_id"]]
        assert row["context_ref"] == {
            "doc_id": row["group_id"],
            "start_char": 0,
            "end_char": len(text),
        }
        assert row["id"] == pair_id(
            "longreward", row["group_id"], 1, row["chosen"], row["rejected"]
        )
        assert row["run_id"] == context.setting.recipe_fingerprint
        assert all(row["checks"].values())
        assert all(fact["statement"] in text for fact in best["facts"])
    trl = [IMPORTERS["trl"](line) for line in lines(context)]
    expected = [
        (f"{texts[r['doc_id']]}\n\n{r['messages'][0]['content']}", r["chosen"], r["rejected"])
        for file in range(2)
        for r in sorted(rows, key=lambda r: r["id"])
        if int(r["doc_id"][1:]) // 4 == file
    ]
    assert [(t.prompt[0]["content"], t.chosen, t.rejected) for t in trl] == expected  # type: ignore[index]
    assert told["checks"].keys() >= {"margin", "length_ratio", "evidence", "notes"}
    assert not [n for n, c in told["checks"].items() if c["ok"] is False]
    folder = Path(context.setting.output)
    schemas = {"part": PAIRS, "candidates": CANDIDATE_TABLE, "notes": NOTES_TABLE}
    for kind, schema in schemas.items():
        assert pq.read_schema(folder / f"{kind}-00000.parquet").equals(schema)
    report = json.loads((folder / "judge_report.json").read_text())
    assert report == told["judge"]
    assert report["weak"] == []
    assert report["prompts"] == len(docs)
    listed = {f["name"] for f in json.loads((folder / "manifest.json").read_text())["files"]}
    assert listed == {p.name for p in folder.iterdir()} - {"manifest.json", "_longctx.json"}


def test_calls_are_those_of_the_closed_form_and_every_one_is_accounted_for(tmp_path: Path) -> None:
    context = made(tmp_path, documents())
    told, asked = told_by(context), calls(context)
    facts = [len(c["facts"]) for c in table(context, "candidates")]
    chunks = sum(-(-d["n_tokens"] // 200) for d in documents())
    stages = told["stages"]
    assert list(stages)[:3] == ["question", "sample", "notes"]
    judged = {s: n["rows_in"] for s, n in stages.items() if s not in ("question", "sample", "rows")}
    assert sum(judged.values()) == chunks + sum(4 + f for f in facts)
    assert (asked["question"], asked["sample"], asked["notes"]) == (5, 40, chunks)
    assert len(table(context, "notes")) == chunks
    for stage in stages.values():
        assert stage["rows_in"] == stage["ok"] + sum(stage["rejects"].values())
    # Equal requests are one call, and nothing else is left out.
    assert all(asked[step] <= n for step, n in judged.items())
    assert asked["completeness"] == judged["completeness"] == 40
    plan = {c.stage: c for c in op_of(min_tokens=400, max_tokens=600).model_calls(5)}
    assert plan["longreward.notes"].calls == 5 * -(-500 // 200)
    assert plan["longreward.support"].calls == 5 * 8 * 20
    assert sum(c.calls for s, c in plan.items() if s.split(".")[1] in judged) == 5 * (3 + 8 * 24)


def test_parts_and_units_change_no_byte(tmp_path: Path) -> None:
    docs = documents()
    one = output(made(tmp_path / "one", docs, 1, unit_rows=100))
    three = output(made(tmp_path / "three", docs[::-1], 3, unit_rows=1))
    assert one == three
    assert {name.split("-")[0] for name in one} >= {"part", "trl", "candidates", "notes"}


def test_a_killed_run_goes_on_and_asks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs, usual = documents(), rule_set()
    seen: list[str] = []

    def noted(kind: str) -> Any:
        def said(req: Any) -> str:
            seen.append(json.dumps([kind, req.sample_index, [m["content"] for m in req.messages]]))
            return usual.rules[kind](req)

        return said

    rules = replace(usual, rules={kind: noted(kind) for kind in usual.rules})
    monkeypatch.setattr(PreferLongReward, "rules", lambda self: rules)
    fault = {"kind": "http_401", "stage": "longreward.completeness", "row_id": "d003/4"}
    with pytest.raises(RunError, match="refused the key"):
        made(tmp_path, docs, generator={**SCRIPTED, "faults": [fault]})
    before = len(seen)
    assert before > 100
    close_client()
    context = made(tmp_path, docs)
    assert len(seen) > before
    # Only the request that got no answer is there twice.
    (twice,) = [said for said, n in Counter(seen).items() if n > 1]
    assert json.loads(twice)[0] == "longreward.completeness"
    assert len(seen) == len(set(seen)) + 1
    monkeypatch.undo()
    run_here(monkeypatch)
    assert output(context) == output(made(tmp_path / "whole", docs))


def test_a_weak_judge_ends_the_run_unless_it_is_only_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = rule_set()
    full = json.dumps({"analysis": "Yes.", "level": "full", "evidence": [1]})
    rules = {**usual.rules, "longreward.support": lambda req: full}
    weak = replace(usual, version="weak", rules=rules)
    monkeypatch.setattr(PreferLongReward, "rules", lambda self: weak)
    with pytest.raises(RunError, match=r"the judge fails its controls: .*shuffled_context is 0.00"):
        made(tmp_path / "fails", documents(4))
    context = made(tmp_path / "told", documents(4), on_bad_judge="report")
    assert "shuffled_context" in told_by(context)["judge"]["weak"]
    assert told_by(context)["checks"]["judge_controls"]["ok"] is False
    assert any("judge_controls" in said for said in context.step_stats["files"]["warnings"])


def test_a_judge_of_its_own_has_limits_of_its_own(tmp_path: Path) -> None:
    docs = documents(2)
    judge: Row = {"backend": "scripted", "in_flight": 4}
    with pytest.raises(RunError, match="budget of the model calls is used up"):
        made(tmp_path, docs, judge={**judge, "max_tokens_total": 30_000})
    close_client()
    context = made(tmp_path, docs, judge={**judge, "max_tokens_total": 10_000_000})
    report = told_by(context)["judge"]
    (own,) = (c for c in report["controls"] if c["name"] == "self_judging")
    assert own["passed"] is False
    assert {r["judge_model"] for r in table(context)} == {report["judge"]}
    used = told_by(context)["stages"]["support"]["usage"]
    assert used["cache_hits"] > 0
    assert output(context) == output(made(tmp_path / "alone", docs))


def test_controls_may_be_left_out(tmp_path: Path) -> None:
    context = made(tmp_path, documents(2), control_rows=0, control_share=0)
    report = told_by(context)["judge"]
    assert [c["name"] for c in report["controls"]] == ["self_judging"]
    assert (report["prompts"], report["weak"]) == (0, [])


def test_prompts_of_a_file_are_joined_with_their_documents(tmp_path: Path) -> None:
    prompts: list[Row] = [
        {"id": "q-1", "query": "What did Zora1 find under stair3?", "doc_id": "d001"},
        {"idx": 7, "prompt": "What did Zora1 find under stair9?", "doc_id": "d001"},
        {"id": "own", "question": "Where is Nina's red boat?", "context": OWN, "gold": "In Kiel."},
        {"id": "lost", "query": "What is it?", "doc_id": "d999"},
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(p) + "\n" for p in prompts))
    context = made(tmp_path / "run", documents(), prompts=str(path), min_candidates=2)
    told = told_by(context)
    assert told["prompts"] == {"prompts": 4, "without_document": 1, "out_of_range": 0}
    rows = {row["group_id"]: row for row in table(context)}
    rejected = {row["row_id"] for row in table(context, "rejects")}
    assert rows.keys() | rejected == {"q-1", "7", "own"}
    assert rows.keys() >= {"q-1", "7"}
    assert rows["q-1"]["messages"] == [{"role": "user", "content": prompts[0]["query"]}]
    assert rows["7"]["doc_id"] == "d001"
    assert "question" not in calls(context)
    own = rows["own"]
    assert own["context_ref"] is None
    assert own["messages"][0]["content"] == f"{OWN}\n\n{prompts[2]['question']}"


def test_prompts_with_words_of_evaluation_texts_are_not_answered(tmp_path: Path) -> None:
    prompts: list[Row] = [
        {"id": "ok", "query": "What did Zora1 find under stair3?", "doc_id": "d001"},
        {"id": "asked", "query": f"{PLANTED} What did Zora1 find?", "doc_id": "d001"},
        {"id": "doc", "query": "What did Zora2 find under stair3?", "doc_id": "d002"},
        {"id": "own", "query": "Where is Nina's red boat?", "context": f"{OWN} {PLANTED}"},
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(p) + "\n" for p in prompts))
    docs = documents(3)
    docs[2]["text"] += f" {PLANTED}"
    fields: Row = {"prompts": str(path), "on_bad_judge": "report", "control_rows": 1}
    context = made(tmp_path / "run", docs, **fields, **held_out(tmp_path))
    assert contaminated(context) == dict.fromkeys(("asked", "doc", "own"), "longreward.screened")
    assert {row["group_id"] for row in table(context)} == {"ok"}
    assert holding(context) == []
    assert told_by(context)["judge"]["prompts"] == 1


OWN = " ".join(f"Nina keeps boat number {k} of red wood in harbour{k} of Kiel." for k in range(12))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "JSON"),
        ('{"id": "a"}', "no `query` or `prompt` or `question`"),
        (
            '{"id": "a", "query": "b"}\n{"id": "a", "query": "c"}',
            "there twice",
        ),
        ('{"id": "a", "query": "b", "doc_id": "d", "context": "c"}', "both"),
        ("", "no prompt"),
    ],
)
def test_a_file_of_prompts_is_read_before_anything_is_asked(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(RecipeError) as raised:
        made(tmp_path / "run", documents(2), prompts=str(path))
    assert re.search(said, str(raised.value), re.DOTALL)


def test_lost_calls_are_listed_and_their_candidates_are_not_paired(tmp_path: Path) -> None:
    faults = [
        {"kind": "wrong_schema", "row_id": "d001/0", "stage": "longreward.helpfulness"},
        {"kind": "refusal", "row_id": "d002/notes/0", "stage": "longreward.notes"},
    ]
    generator = {**SCRIPTED, "faults": [{**f, "times": None} for f in faults]}
    context = made(tmp_path, documents(), generator=generator)
    lost = {(r["row_id"], r["stage"], r["code"]) for r in table(context, "calls")}
    assert lost == {
        ("d001/0", "longreward.helpfulness", "schema"),
        ("d002/notes/0", "longreward.notes", "refusal"),
    }
    candidates = {(c["id"], c["sample_index"]): c for c in table(context, "candidates")}
    assert candidates["d001", 0]["status"] == "helpfulness:schema"
    assert candidates["d001", 0]["scores"]["total"] is None
    (row,) = (r for r in table(context) if r["group_id"] == "d001")
    assert row["chosen"] == candidates["d001", 1]["answer"]
    rejects = {r["row_id"]: r["code"] for r in table(context, "rejects")}
    assert rejects == {"d002": "too_few_candidates"}


def test_other_rules_of_pairs_ask_nothing_anew(tmp_path: Path) -> None:
    docs = documents(3)
    first = made(tmp_path, docs)
    before = {r["group_id"]: r["score_rejected"] for r in table(first)}
    again = made(tmp_path, docs, rejected="random", margin=1)
    assert calls(again) == calls(first)
    assert again.skipped > 0
    after = {r["group_id"]: r["score_rejected"] for r in table(again)}
    assert all(after[k] >= before[k] for k in before)
    other, corpus = op_of(n=4), corpus_of(str(tmp_path), docs, 2)
    looking = context_of(other, corpus, 3, tokenizer="whitespace", dry=True)
    with pytest.raises(PendingWorkError):
        other.run(looking)


def test_real_answers_that_are_there_are_scored(tmp_path: Path) -> None:
    source = REAL / "longreward_example_sft.jsonl"
    if not source.is_file():
        pytest.skip(f"no real rows: {source} is not there")
    ready = str(REAL / "longreward_example_sampled_responses.jsonl")
    context = made(
        tmp_path,
        documents(2),
        prompts=str(source),
        candidates=ready,
        notes_chunk=4096,
        fact_chunk=128,
        least_faithfulness=0,
        on_bad_judge="report",
        max_reject_rate=1,
    )
    told = table(context, "candidates")
    assert [c["sample_index"] for c in told] == list(range(10))
    assert {c["id"] for c in told} == {"11"}
    assert "sample" not in calls(context)
    real = json.loads(source.read_text())
    assert len(table(context, "notes")) == -(-len(real["context"].split()) // 4096)
    scored = [c for c in told if c["status"] == "ok"]
    assert len(scored) >= 5
    assert all(f["level"] == "none" or f["evidence"] for c in scored for f in c["facts"])
    assert len(table(context)) + len(table(context, "rejects")) == 1
