"""`prefer.logo` as steps: the planted signal comes out, each fault in its table, the same bytes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from longctx.engine.barrier import BarrierContext
from longctx.errors import RunError
from longctx.pack.boundaries import IGNORE
from longctx.prefer.logo_rows import LOGO, context_of
from longctx.prefer.logo_train import TRAIN, sound
from longctx.prefer.stages_logo import PreferLogo
from longctx.synth.rule_set import rule_set
from tests.prefer.logo_documents import ASKED, CHUNK, GOLD, planted
from tests.synthesis import SCRIPTED, Row, output, run_op, table, told_by

pytestmark = pytest.mark.usefixtures("model_ops_here")

WINDOW: Row = {"window": 2_048, "qa_room": 96, "max_seq": 800}
PLACES = (5, 33)


def document(i: int, **fields: Any) -> Row:
    text = planted(tag=str(i), **fields)
    words = {"n_tokens": len(text.split())}
    return {"doc_id": f"d{i:03d}", "text": text, "source": "ab"[i % 2], "language": "en"} | words


def prompt(i: int, gold: str | None = GOLD, **fields: Any) -> Row:
    known = {} if gold is None else {"gold": gold.format(i)}
    return {
        "id": f"q{i:03d}",
        "question": ASKED.format(i),
        "doc_id": f"d{i:03d}",
        **known,
        **fields,
    }


def written(folder: Path, prompts: list[Row]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(p) + "\n" for p in prompts), encoding="utf-8")
    return str(file)


def op_of(**fields: Any) -> PreferLogo:
    usual: Row = {"op": "prefer.logo", "generator": SCRIPTED, "rows": 1000, "min_tokens": 10}
    usual |= {"chunk_tokens": CHUNK, "lang_share": {"en": 1}, **WINDOW}
    return PreferLogo.model_validate({**usual, "unit_rows": 3, "shard_rows": 4, **fields})


def made(
    folder: Path, docs: list[Row], prompts: list[Row] | None = None, parts: int = 2, **fields: Any
) -> BarrierContext:
    if prompts is not None:
        fields["prompts"] = written(folder, prompts)
    return run_op(op_of(**fields), folder, docs, parts)


def rejected(context: BarrierContext) -> dict[str, str]:
    return {r["row_id"]: r["code"] for r in table(context, "rejects")}


def test_the_planted_signal_becomes_triples_pairs_and_training_rows(tmp_path: Path) -> None:
    docs = [document(i) for i in range(9)]
    context = made(tmp_path, docs, [prompt(i) for i in range(9)])
    rows, texts = table(context), {d["doc_id"]: d["text"] for d in docs}
    assert len(rows) == told_by(context)["rows"] == 9
    for row in rows:
        assert "Port Velvet" in row["chosen"]
        assert "Port Velvet" not in row["rejected"] + row["rejected_2"]
        assert row["chosen_chunks"] == [5, 20, 33]
        assert dict(row["checks"])["right_by_gold"] is True
        assert row["judge_model"] is None
        assert row["model"].startswith("scripted:")
    (first, *_) = sorted(Path(context.setting.output).glob("part-*.parquet"))
    assert pq.read_schema(first).equals(LOGO)

    lines = [
        json.loads(line)
        for file in sorted(Path(context.setting.output).glob("trl-*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    assert len(lines) == 18
    wanted = {(r["chosen"], r[name]) for r in rows for name in ("rejected", "rejected_2")}
    assert {(p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in lines} == wanted
    prompts = {line["prompt"][-1]["content"] for line in lines}
    assert prompts == {
        f"{context_of(row, texts[row['doc_id']])}\n\nQuestion: {row['question']}" for row in rows
    }

    trained = table(context, "train")
    assert len(trained) == 18
    assert {t["row_id"] for t in trained} == {r["id"] for r in rows}
    assert all(sound(one, op_of().places) == [] for one in trained)
    by_id = {r["id"]: r for r in rows}
    for one in trained:
        tokens = by_id[one["row_id"]]["tokens"]
        labels = np.asarray(one["reject_2_labels"])
        assert labels[labels != IGNORE].tolist() == tokens["rejected_2"]
        assert by_id[one["row_id"]]["modes"][one["variant"]] == one["mode"]
    (file, *_) = sorted(Path(context.setting.output).glob("train-*.parquet"))
    assert pq.read_schema(file).equals(TRAIN)

    stages = told_by(context)["stages"]
    assert {s: stages[s]["usage"]["calls"] for s in ("answer", "closed")} == {
        "answer": 27,
        "closed": 9,
    }
    checks = told_by(context)["checks"]
    assert not [name for name, check in checks.items() if check.get("ok") is False]


def test_parts_and_units_change_no_byte(tmp_path: Path) -> None:
    docs = [document(i) for i in range(7)]
    prompts = [prompt(i) for i in range(7)]
    one = output(made(tmp_path / "one", docs, prompts, 1, unit_rows=50))
    three = output(made(tmp_path / "three", docs[::-1], prompts[::-1], 3, unit_rows=2))
    assert len(one) == 7
    assert one == three


def test_each_document_that_is_no_triple_has_its_reason(tmp_path: Path) -> None:
    docs = [
        document(0),
        document(1, answers=tuple(range(43)), near=()),
        document(2, near=(), answers=(5, 20, 33)),
        document(3),
    ]
    prompts = [prompt(0), prompt(1), prompt(2), prompt(3, gold="unknown")]
    context = made(tmp_path, docs, prompts)
    assert rejected(context) == {
        "q001": "low_score",  # the answer is everywhere
        "q002": "unverified_pair",  # and here in the half-relevant context
        "q003": "unverified_pair",  # the chosen answer is wrong
    }
    assert [r["group_id"] for r in table(context)] == ["q000"]
    assert told_by(context)["rejects"] == {"low_score": 1, "unverified_pair": 2}


def test_what_is_known_without_a_text_is_no_triple(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = rule_set()
    rules = {**usual.rules, "logo.closed": lambda req: "It was Port Velvet0."}
    known = replace(usual, version="closed", rules=rules)
    monkeypatch.setattr(PreferLogo, "rules", lambda self: known)
    context = made(tmp_path, [document(0)], [prompt(0)], 1)
    assert rejected(context) == {"q000": "closed_book_solvable"}
    assert table(context) == []
    assert table(context, "train") == []
    again = made(tmp_path, [document(0)], [prompt(0)], 1, closed_book=False)
    assert rejected(again) == {}
    assert "closed_book_wrong" not in dict(table(again)[0]["checks"])


def test_without_golds_a_judge_decides_and_is_judged(tmp_path: Path) -> None:
    docs = [document(i) for i in range(5)]
    context = made(tmp_path, docs, [prompt(i, gold=None) for i in range(5)])
    rows = table(context)
    assert len(rows) == 5
    assert {row["judge_model"] for row in rows} == {rows[0]["model"]}
    assert all(dict(row["checks"])["judged_twice"] for row in rows)
    report = told_by(context)["judge"]
    passed = {c["name"]: c["passed"] for c in report["controls"]}
    hard = {c["name"] for c in report["controls"] if c["hard"]}
    assert hard == {"constant:right", "shuffled_context"}
    assert passed["constant:right"] is passed["shuffled_context"] is passed["order"] is True
    assert passed["self_judging"] is False


def test_a_judge_that_reads_no_text_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = rule_set()

    def by_name(req: Any) -> str:
        right = {f"{side}_correct": "Port Velvet" in req.parts[side] for side in "abc"}
        best = next(side.upper() for side in "abc" if right[f"{side}_correct"])
        return json.dumps({"analysis": "x", **right, "better": best})

    blind = replace(usual, version="blind", rules={**usual.rules, "logo.judge": by_name})
    monkeypatch.setattr(PreferLogo, "rules", lambda self: blind)
    docs, prompts = [document(i) for i in range(3)], [prompt(i, gold=None) for i in range(3)]
    with pytest.raises(RunError, match=r"shuffled_context is 0\.00"):
        made(tmp_path / "fail", docs, prompts)
    context = made(tmp_path / "report", docs, prompts, on_bad_judge="report")
    assert told_by(context)["judge"]["weak"] == ["shuffled_context"]
    assert len(table(context)) == 3


def test_a_question_of_the_model_brings_its_answer(tmp_path: Path) -> None:
    docs = [document(i, answers=(5, 33), near=(20,)) for i in range(3)]
    context = made(tmp_path, docs, min_relevant=2, max_reject_rate=1)
    told = told_by(context)
    assert told["stages"]["question"]["ok"] == 3
    assert told["rows"] + sum(told["rejects"].values()) == told["chosen"] == 3


def test_a_prompt_may_bring_its_own_context(tmp_path: Path) -> None:
    own = {k: v for k, v in prompt(7).items() if k != "doc_id"} | {"context": planted(tag="7")}
    row = table(made(tmp_path, [document(0)], [own], 1))[0]
    assert row["doc_id"] is row["context_ref"] is None
    turn = row["messages"][-1]["content"]
    assert turn.startswith(f"{context_of(row, own['context'])}\n\nQuestion: ")
    (file,) = Path(tmp_path, "output").glob("trl-*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["prompt"][-1]["content"] for line in lines} == {turn}


def test_another_window_makes_other_rows_of_the_same_answers(tmp_path: Path) -> None:
    docs, prompts = [document(i) for i in range(3)], [prompt(i) for i in range(3)]
    first = made(tmp_path, docs, prompts)
    before = table(first, "train")
    wide = made(tmp_path, docs, prompts, window=4_096)
    assert wide.step_stats["judged"]["stages"]["answer"]["usage"]["calls"] == 9  # as committed
    after = table(wide, "train")
    assert [t["id"] for t in after] == [t["id"] for t in before]
    assert max(after[0]["chosen_position_ids"]) > 4_000 > max(before[0]["chosen_position_ids"])
    assert [r["chosen"] for r in table(wide)] == [r["chosen"] for r in table(first)]
    short = made(tmp_path, docs, prompts, variants=1, sparse_share=1, qa_room=16)
    assert rejected(short) == dict.fromkeys(("q000", "q001", "q002"), "qa_too_long")


def test_ids_of_a_chat_template_stand_around_the_texts(tmp_path: Path) -> None:
    turns = {"before": [1, 2], "between": [3], "after": [4, 5], "end": [6]}
    row = table(made(tmp_path, [document(0)], [prompt(0)], 1, turn_ids=turns))[0]
    tokens = row["tokens"]
    assert (tokens["prefix"][:2], tokens["prefix"][-1]) == ([1, 2], 3)
    assert tokens["question"][-2:] == [4, 5]
    assert {tokens[side][-1] for side in ("chosen", "rejected_1", "rejected_2")} == {6}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_relevant": 9}, "more than half of chunks 16"),
        ({"min_relevant": 9}, "min_relevant 9 is above max_relevant 8"),
        ({"window": 500}, "window 500 does not hold 16 chunks of 32 tokens and qa_room 96: 624"),
        ({"max_seq": 600}, "max_seq 600 does not hold"),
        ({"turn_ids": {"before": [1]}}, "end"),
    ],
)
def test_fields_that_cannot_go_together_are_refused(fields: Row, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        op_of(**fields)


def test_spacy_is_asked_for_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"spaCy"):
        made(tmp_path, [document(0)], [prompt(0)], 1, evaluator="spacy", spacy_model="../x")


def test_a_plan_knows_how_often_each_stage_is_asked() -> None:
    told = {c.stage: (c.calls, c.prompt_tokens) for c in op_of(rows=10).model_calls(100)}
    assert told["logo.question"][0] == 10
    assert told["logo.answer"] == (30, 30 * (8 * CHUNK + 40))
    assert told["logo.closed"] == (10, 400)
    assert "logo.judge" not in told
    judged = {c.stage: c.calls for c in op_of(rows=10, own_gold=False).model_calls(100)}
    assert judged["logo.judge"] == 20
