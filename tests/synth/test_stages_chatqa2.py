"""`synth.chatqa2` as steps: sound rows from rules, the same for any parts, each fault in its check.

Sentences have names of their own, and documents are far longer than contexts: so a window seldom
holds the beginning that the rule takes for a summary, and nothing else tells what it tells.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from longctx.engine.barrier import BarrierContext
from longctx.synth import chatqa2_rows
from longctx.synth.chatqa2 import Inserted, boundaries, insert_summary
from longctx.synth.chatqa2_figures import figures, spread_depth
from longctx.synth.chatqa2_pages import index_page
from longctx.synth.chatqa2_rows import (
    QA,
    Settings,
    build_row,
    messages,
    row_problems,
    without_summary,
)
from longctx.synth.checks import chi2_uniform, depth_counts
from longctx.synth.draw import generator
from longctx.synth.rows import CHATQA2
from longctx.synth.rule_set import rule_set
from longctx.synth.stages_chatqa2 import SynthChatQA2
from longctx.synth.tokens import TokenCounter
from tests.synthesis import SCRIPTED, Row, failed, output, run_op, table, told_by

pytestmark = pytest.mark.usefixtures("model_ops_here")

LEAST, MOST = 100, 330
STAGES = ("chatqa.summary", "chatqa.qa")


def document(i: int, sentences: int) -> Row:
    """Sentences of five to eleven words, with names and numbers that stand nowhere else."""
    rng = np.random.default_rng(i)
    told = [
        f"Keeper Zora{i}x{k} built pier {1000 * i + k}{' in the fog' * int(n)}."
        for k, n in enumerate(rng.integers(0, 3, sentences))
    ]
    text = " ".join(told)
    return {"doc_id": f"d{i:03d}", "text": text, "source": "ab"[i % 2], "language": "en"} | {
        "n_tokens": len(text.split())
    }


def documents(n: int = 24, sentences: int = 120) -> list[Row]:
    return [document(i, sentences) for i in range(n)]


def op_of(**fields: Any) -> SynthChatQA2:
    usual: Row = {"op": "synth.chatqa2", "generator": SCRIPTED, "rows": 1000, "min_tokens": 10}
    usual |= {"min_context": LEAST, "slack": 30, "max_row": MOST, "summary_words": [20, 60]}
    return SynthChatQA2.model_validate({**usual, "unit_rows": 7, "shard_rows": 8, **fields})


def made(folder: Path, docs: list[Row], parts: int = 2, **fields: Any) -> BarrierContext:
    return run_op(op_of(**fields), folder, docs, parts)


def test_rows_hold_a_summary_of_their_own_document(tmp_path: Path) -> None:
    docs = documents()
    context = made(tmp_path, docs)
    texts = {r["doc_id"]: r["text"] for r in docs}
    rows = table(context)
    assert len(rows) == told_by(context)["chosen"] == len(docs)
    for row in rows:
        text = texts[row["document_id"]]
        summary = row["context"][row["summary_start_char"] : row["summary_end_char"]]
        assert text.startswith(summary)
        assert 20 <= len(summary.split()) <= 60
        assert row_problems(row, text, summary, MOST) == []
        assert without_summary(row) in text
        assert row["answers"][0] in summary
        assert row["question"].startswith("What is stated about ")
        assert (
            row["question"]
            == row["instruction"]
            == row["messages"][1]["content"][-len(row["question"]) :]
        )
        assert row["messages"] == messages(row["context"], row["question"], row["response"], "en")
        assert LEAST <= len(row["context"].split()) == row["context_tokens"] <= row["target_len"]
        assert row["n_tokens"] <= MOST
    assert {row["mode"] for row in rows} == {"own_document"}
    assert len({row["question"].split("x")[-1] for row in rows}) > 2
    (first, *_) = sorted(Path(context.setting.output).glob("part-*.parquet"))
    assert pq.read_schema(first).equals(CHATQA2)


def test_the_checks_hold_over_five_hundred_rows(tmp_path: Path) -> None:
    context = made(tmp_path, documents(500), shard_rows=500, unit_rows=500)
    told = told_by(context)
    assert told["rows"] == told["chosen"] == 500
    checks = told["checks"]
    # No evaluation texts are named that rows could be compared with.
    assert checks.pop("decontamination")["ok"] is None
    assert {n: c["ok"] for n, c in checks.items()} == dict.fromkeys(checks, True)
    assert checks["support"]["share"] == 1
    assert checks["leave_summary_out"]["share"] >= 0.95
    assert not context.step_stats["files"]["warnings"]


def test_parts_and_units_change_no_byte(tmp_path: Path) -> None:
    docs = documents()
    one = output(made(tmp_path / "one", docs, 1, unit_rows=200))
    three = output(made(tmp_path / "three", docs[::-1], 3, unit_rows=3))
    assert one == three


def test_documents_too_short_for_a_context_are_rejected(tmp_path: Path) -> None:
    docs = documents() + [document(50 + i, 6) for i in range(6)] + [document(60, 13)]
    context = made(tmp_path, docs)
    rejects = table(context, "rejects")
    assert {r["row_id"] for r in rejects} == {f"d{50 + i:03d}" for i in range(6)}
    assert {(r["code"], r["stage"]) for r in rejects} == {("too_short", "chatqa2.assemble")}
    told = told_by(context)
    assert told["rejects"] == {"too_short": 6}
    assert told["chosen"] == len(docs) == told["rows"] + 6
    # A document that fits whole stays whole.
    (whole,) = (r for r in table(context) if r["document_id"] == "d060")
    assert without_summary(whole) == docs[-1]["text"]


def test_bad_replies_are_rejects_of_their_stage(tmp_path: Path) -> None:
    docs = documents()
    faults = [
        {"kind": "wrong_schema", "row_id": "d003", "stage": "chatqa.summary", "times": None},
        {"kind": "refusal", "row_id": "d005", "stage": "chatqa.qa", "times": None},
    ]
    context = made(tmp_path, docs, generator={**SCRIPTED, "faults": faults})
    found = {r["row_id"]: (r["stage"], r["code"]) for r in table(context, "rejects")}
    assert found == {"d003": ("chatqa.summary", "schema"), "d005": ("chatqa.qa", "refusal")}
    stages = told_by(context)["stages"]
    assert [(stages[s]["rows_in"], stages[s]["ok"]) for s in STAGES] == [(24, 23), (23, 22)]
    assert told_by(context)["rows"] == 22


def test_summaries_and_answers_that_nothing_supports_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = json.dumps({"summary": " ".join(f"odd{i}" for i in range(30))})
    asked = json.dumps({"qas": [{"question": "What of it?", "answer": "Silk ribbons."}]})
    wrong = {"chatqa.summary": lambda req: strange, "chatqa.qa": lambda req: asked}
    usual = rule_set()
    for stage, say in wrong.items():
        rules = replace(usual, version=stage, rules={**usual.rules, stage: say})
        monkeypatch.setattr(SynthChatQA2, "rules", lambda self, rules=rules: rules)
        context = made(tmp_path / stage, documents(6), max_reject_rate=1)
        rejects = table(context, "rejects")
        assert {(r["stage"], r["code"], r["detail"]) for r in rejects} == {
            (stage, "semantic", "unsupported")
        }
        assert len(rejects) == 6
        assert told_by(context)["checks"] == {}


def short_rows(n: int) -> list[Row]:
    """Rows of a page of 15 sentences."""
    text, counter = document(1, 15)["text"], TokenCounter()
    page = index_page(text, counter)
    settings = Settings(lo=20, hi=2_000, slack=500)
    asked = [QA(f"r{i}", "d", "What of it?", ["Zora1x2"]) for i in range(n)]
    rows = [build_row(qa, page, "A summary.", counter, settings, 1) for qa in asked]
    return [row for row in rows if isinstance(row, dict)]


def depths_of(rows: list[Row]) -> dict[str, Any]:
    spread = [
        spread_depth(
            row, generator(0, "t", "u", row["id"]).random(), boundaries(without_summary(row))
        )
        for row in rows
    ]
    assert min(spread) >= 0
    assert max(spread) < 1
    return dict(chi2_uniform(depth_counts([(0, 1)] * len(rows), spread)))


def test_places_in_short_pages_are_judged_by_what_they_stand_for() -> None:
    rows = short_rows(1000)
    assert len(rows) == 1000
    assert depths_of(rows)["ok"] is True
    plain = [min(row["depth"], 0.999) for row in rows]
    assert chi2_uniform(depth_counts([(0, 1)] * 1000, plain))["ok"] is False


def test_a_place_by_sentences_fails_the_check_of_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chatqa2_rows, "nearest", lambda offsets, u: int(len(offsets) * u * u))
    assert depths_of(short_rows(600))["ok"] is False


def test_lengths_drawn_otherwise_fail_the_check_of_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = chatqa2_rows.draw_target

    def longer(qa: Any, counter: TokenCounter, settings: Any, rng: Any) -> int | None:
        return max(real(qa, counter, settings, rng) or 0, real(qa, counter, settings, rng) or 0)

    monkeypatch.setattr(chatqa2_rows, "draw_target", longer)
    assert failed(made(tmp_path, documents(120))) == {"target_len"}


def test_what_the_page_tells_anyway_fails_the_check_without_the_summary(tmp_path: Path) -> None:
    # Whole pages hold the sentences that the summary was made of.
    context = made(tmp_path, [document(i, 16) for i in range(20)])
    assert failed(context) == {"leave_summary_out"}
    assert told_by(context)["checks"]["leave_summary_out"]["share"] <= 0.1


def test_answers_of_another_text_fail_the_check_of_support(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = build_row

    def strange(qa: Any, *rest: Any) -> Any:
        return real(qa._replace(answers=["Silk ribbons."]), *rest)

    monkeypatch.setattr("longctx.synth.stages_chatqa2.build_row", strange)
    assert failed(made(tmp_path, documents(12))) == {"support", "leave_summary_out"}


def test_a_broken_insertion_fails_the_check_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inside(page: str, summary: str, b: int, between: str) -> Inserted:
        return insert_summary(page, summary, max(0, page.rfind(" ", 0, max(0, b - 2)) + 1))

    monkeypatch.setattr(chatqa2_rows, "insert_summary", inside)
    context = made(tmp_path, documents(12))
    assert "sound_rows" in failed(context)
    assert told_by(context)["checks"]["sound_rows"]["problems"].keys() == {"inside_sentence"}


def test_each_figure_has_its_check() -> None:
    sound = {"depth": 0.5, "support": 1.0, "left_out": True, "problems": []}
    sound |= {"context_tokens": LEAST, "n_tokens": MOST}
    settings = op_of().settings

    def found(**changed: Any) -> set[str]:
        rows = [{**sound, "target": (i + 0.5) / 20} for i in range(20)]
        checks = figures([*rows[:-1], {**rows[-1], **changed}], settings)
        return {name for name, check in checks.items() if check["ok"] is False}

    assert found() == found(support=0.1, left_out=False) == set()
    assert found(context_tokens=LEAST - 1) == {"context_tokens"}
    assert found(n_tokens=MOST + 1) == {"row_tokens"}
    assert found(problems=["round_trip"]) == {"sound_rows"}


def calls(context: BarrierContext) -> list[int]:
    stages = told_by(context)["stages"]
    return [stages[step]["usage"]["calls"] for step in STAGES]


def test_other_lengths_make_other_rows_of_the_same_replies(tmp_path: Path) -> None:
    docs = documents(8)
    first = made(tmp_path, docs)
    before = [r["target_len"] for r in table(first)]
    assert calls(first) == [8, 8]
    longer = made(tmp_path, docs, max_row=900)
    assert longer.step_stats["chatqa.qa"]["usage"]["calls"] == 8  # of the commits that are there
    assert [r["target_len"] for r in table(longer)] != before
    assert calls(made(tmp_path, docs, max_row=900, questions=2)) == [8, 8]
    assert {len(r["answers"]) for r in table(made(tmp_path, docs))} == {1}
    assert [r["target_len"] for r in table(made(tmp_path, docs))] == before


def test_fields_that_cannot_go_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="leaves no length to draw"):
        op_of(max_row=130)
    with pytest.raises(ValidationError, match="the fewest words come first"):
        op_of(summary_words=[60, 20])
    with pytest.raises(ValidationError, match="max_tokens 5 is below"):
        op_of(max_tokens=5)


def test_a_plan_knows_that_questions_read_the_summary_alone() -> None:
    read, short = op_of(rows=20, min_tokens=1000, max_tokens=3000).model_calls(1000)
    assert (read.stage, read.calls, read.prompt_tokens) == ("chatqa.summary", 20, 40_000)
    assert (short.stage, short.calls, short.prompt_tokens) == ("chatqa.qa", 20, 20 * 2048)
