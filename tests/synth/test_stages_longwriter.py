"""`synth.longwriter` as steps: sound rows by rule, paragraphs in rounds, faults in their checks."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
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
from longctx.synth import rules_longwriter
from longctx.synth.longwriter import (
    Step,
    agentwrite_input_tokens,
    count_words,
    plan_line,
    required_length,
)
from longctx.synth.longwriter_drafts import Draft, write_all
from longctx.synth.longwriter_figures import facts, figures, histogram
from longctx.synth.longwriter_rows import released
from longctx.synth.rows import LONGWRITER
from longctx.synth.rule_set import rule_set
from longctx.synth.stages_longwriter import SynthLongWriter
from longctx.synth.words import written_in
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

STEPS = ("instructions", "lw.select", "lw.plan", "lw.write", "checked", "lw.judge", "rows")


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
    return run_op(op_of(**fields), folder, docs, parts)


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
    assert (
        json.loads(lines.read_text().splitlines()[0])["messages"] == released(rows[0])["messages"]
    )


def test_parts_and_units_change_no_byte(tmp_path: Path) -> None:
    docs = instructions()
    one = output(made(tmp_path / "one", docs, 1, unit_rows=200))
    three = output(made(tmp_path / "three", docs[::-1], 3, unit_rows=3))
    assert one == three


def test_a_run_that_was_stopped_while_it_wrote_asks_nothing_twice(tmp_path: Path) -> None:
    docs = instructions()
    whole = made(tmp_path / "whole", docs, unit_rows=8)
    spent = told_by(whole)["stages"]["lw.write"]["usage"]
    poor = {**SCRIPTED, "max_tokens_total": (spent["prompt_tokens"] + 20_000)}
    with pytest.raises(RunError, match="budget of the model calls is used up"):
        made(tmp_path / "stopped", docs, unit_rows=8, generator=poor)
    close_client()
    again = made(tmp_path / "stopped", docs, unit_rows=8)
    used = told_by(again)["stages"]["lw.write"]["usage"]
    assert used["calls"] + used["cache_hits"] == used["requests"] == spent["requests"]
    assert min(used["calls"], used["cache_hits"]) > 3
    assert output(again) == output(whole)
    for file in (tmp_path / "stopped/stages").glob("*/lw.write/*.json"):
        file.unlink()
    lost = made(tmp_path / "stopped", docs, unit_rows=8)
    assert told_by(lost)["stages"]["lw.write"]["usage"]["calls"] == 0
    assert output(lost) == output(whole)


def test_other_filters_ask_nothing_again(tmp_path: Path) -> None:
    docs = instructions()
    first = made(tmp_path, docs)
    assert len(table(first)) == 8
    longer = made(tmp_path, docs, min_words=2_500)
    told = told_by(longer)
    assert told["stages"]["checked"]["rejects"] == told["rejects"] == {"too_short": 3}
    assert sum(calls(longer).values()) == sum(calls(first).values())  # of the commits there
    assert {r["detail"] for r in table(longer, "rejects")} == {"min_words: 2100 of 2500"}
    assert told["checks"]["length"]["bound"] == 2_500
    assert told["checks"]["conservation"]["ok_by_stage"] == [8, 8, 8, 8, 5, 5]


def fault(kind: str, row: str, stage: str) -> Row:
    return {"kind": kind, "row_id": row, "stage": stage, "times": None}


def test_bad_replies_end_their_own_text_at_their_paragraph(tmp_path: Path) -> None:
    docs = instructions()
    faults = [
        fault("bad_json", "en000", "lw.select"),
        fault("wrong_schema", "en001", "lw.plan"),
        fault("refusal", "en002/2", "lw.write"),
        fault("truncated", "en003/1", "lw.write"),
        fault("sentinel", "en004/5", "lw.write"),
        fault("http_400_context", "en005/4", "lw.write"),
        fault("empty", "en006/3", "lw.write"),
    ]
    generator = {**SCRIPTED, "faults": faults}
    context = made(tmp_path, docs, generator=generator, max_reject_rate=1)
    found = {r["row_id"]: (r["stage"], r["code"], r["detail"]) for r in table(context, "rejects")}
    assert {row: told[:2] for row, told in found.items()} == {
        "en000": ("lw.select", "not_json"),
        "en001": ("lw.plan", "schema"),
        "en002": ("lw.write", "refusal"),
        "en003": ("lw.write", "truncated"),
        "en004": ("lw.write", "sentinel"),
        "en005": ("lw.write", "context_overflow"),
        "en006": ("lw.write", "empty"),
    }
    assert found["en002"][2].startswith("paragraph 2 of 7")
    assert "maximum context length" in found["en005"][2]
    assert [r["id"] for r in table(context)] == ["longwriter-en007"]
    stage = told_by(context)["stages"]["lw.write"]
    # 2 + 1 + 5 + 4 + 3 paragraphs of the bad ones and 6 of the good one were asked for.
    assert stage["usage"]["requests"] - stage["asked_anew"] == 21
    assert told_by(context)["checks"]["conservation"]["ok_by_stage"] == [8, 7, 6, 1, 1, 1]


def test_instructions_and_paragraphs_with_words_of_evaluation_texts_make_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = instructions(4)
    docs[0]["text"] += f" {PLANTED}"
    says(monkeypatch, "lw.write", "Ora2.", "text")
    context = made(tmp_path, docs, **held_out(tmp_path))
    assert contaminated(context) == {"en000": "longwriter.screened", "en002": "longwriter.cleared"}
    assert holding(context) == []
    told = told_by(context)
    assert told["rejects"] == {"contaminated": 2}
    assert list(told["stages"]) == ["screened", *(s for s in STEPS if s != "lw.judge"), "cleared"]
    assert told["checks"]["conservation"]["ok_by_stage"] == [3] * 7 + [2]
    assert told["checks"]["conservation"]["ok"] is told["checks"]["decontamination"]["ok"] is True


def test_stories_may_speak_of_not_being_able_to_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sad(parts: Row) -> Row:
        return {"text": "I cannot help, said Ann. " + rules_longwriter.write(parts)["text"]}

    ruled(monkeypatch, "lw.write", sad)
    assert len(table(made(tmp_path, instructions(3)))) == 3


def ruled(monkeypatch: pytest.MonkeyPatch, stage: str, rule: Any) -> None:
    """Another rule for a stage: what a model might reply as well."""

    def said(req: Any) -> str:
        reply = rule(req.parts)
        return str(reply["text"]) if "text" in reply else json.dumps(reply)

    rules = replace(rule_set(), rules={**rule_set().rules, stage: said})
    monkeypatch.setattr(SynthLongWriter, "rules", lambda _: rules)


def at(k: int, change: Any) -> Any:
    """The rule of paragraphs with another text for paragraph k."""

    def rule(parts: Row) -> Row:
        text = rules_longwriter.write(parts)["text"]
        return {"text": change(text, parts) if parts["step"][0] == k else text}

    return rule


@pytest.mark.parametrize(
    ("rule", "stage", "code", "detail"),
    [
        (at(2, lambda t, _: t[:90]), "lw.write", "semantic", "2 of 5: paragraph_length"),
        (at(3, lambda _, p: p["paragraphs"][0]), "lw.write", "semantic", "3 of 5: near_copy"),
        (
            at(2, lambda t, p: f"Paragraph 2 - Main Point: X - Word Count: 420 words\n{t}"),
            "lw.write",
            "semantic",
            "2 of 5: plan_line",
        ),
        (at(5, lambda t, _: t[:-1]), "longwriter.checked", "truncated", "cut_end"),
        (
            at(2, lambda t, _: f"{t}\nParagraph 3 goes on."),
            "longwriter.checked",
            "semantic",
            "label_leak",
        ),
        (
            lambda p: {"text": " ".join(rules_longwriter.write(p)["text"].split()[:298]) + "."},
            "longwriter.checked",
            "length_ratio",
            "s_l: 79.5 for 1490 of 2100; min_words: 1490 of 2000",
        ),
        (
            lambda p: {"text": f"{p['step'][0]}说" * 420 + "。"},
            "longwriter.checked",
            "repetition",
            "distinct_4grams: 0.00; language: zh for en; s_l: 66.7 for 4200 of 2100",
        ),
    ],
)
def test_planted_faults_are_caught_by_the_check_meant_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: Any, stage: str, code: str, detail: str
) -> None:
    ruled(monkeypatch, "lw.write", rule)
    context = made(tmp_path, [instruction(0)], 1, max_reject_rate=1)
    assert table(context) == []
    (reject,) = table(context, "rejects")
    assert (reject["stage"], reject["code"]) == (stage, code)
    assert reject["detail"].endswith(detail)


def test_labels_are_taken_off_before_the_next_paragraph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def labelled(parts: Row) -> Row:
        assert not any("Paragraph" in p for p in parts["paragraphs"])
        return {
            "text": f"**Paragraph {parts['step'][0]}:** {rules_longwriter.write(parts)['text']}"
        }

    ruled(monkeypatch, "lw.write", labelled)
    rows = table(made(tmp_path, instructions(3)))
    assert len(rows) == 3
    assert not any("Paragraph" in row["response"] for row in rows)


def test_a_plan_is_asked_for_once_more_with_all_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {"steps": [{"k": k, "main_point": f"Sea {k}", "words": 100} for k in (1, 3)]}
    seen: list[str] = []

    def mended(req: Any) -> str:
        seen.extend(m["content"] for m in req.messages[2:])
        reply = rules_longwriter.plan(req.parts) if len(req.messages) > 1 else bad
        return json.dumps(reply)

    rules = replace(rule_set(), rules={**rule_set().rules, "lw.plan": mended})
    monkeypatch.setattr(SynthLongWriter, "rules", lambda _: rules)
    context = made(tmp_path / "mended", instructions(3))
    assert len(table(context)) == 3
    assert told_by(context)["stages"]["lw.plan"]["asked_anew"] == 3
    assert all("1, 2, 3" in s and "200 to 1,000" in s and "add up" in s for s in seen)

    close_client()
    ruled(monkeypatch, "lw.plan", lambda _: bad)
    context = made(tmp_path / "bad", instructions(3), max_reject_rate=1)
    assert {(r["code"], r["detail"]) for r in table(context, "rejects")} == {
        ("semantic", "plan_numbering, plan_words, plan_sum")
    }
    assert told_by(context)["stages"]["lw.plan"]["asked_anew"] == 3
    assert told_by(context)["checks"] == {}


def test_a_plan_in_lines_is_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lines(parts: Row) -> Row:
        steps = [Step(**step) for step in rules_longwriter.plan(parts)["steps"]]
        return {"text": "\n\n".join(f"- **{plan_line(step)}**" for step in steps)}

    ruled(monkeypatch, "lw.plan", lines)
    context = made(tmp_path, instructions(3))
    assert len(table(context)) == 3
    assert told_by(context)["stages"]["lw.plan"]["asked_anew"] == 0


def test_instructions_are_left_out_by_rule_and_by_the_model(tmp_path: Path) -> None:
    told = ["Write a crawler for pages of shops in 3,000 words.", "Write 3,000 words of erotica."]
    told += ["Write 900 words on tea.", "Write 950 words on tea.", "Write 2,200 words on tea."]
    docs = [{**instruction(i), "text": text} for i, text in enumerate(told)]
    context = made(tmp_path, docs)  # most are left out, and the run goes on
    found = {r["row_id"]: (r["stage"], r["code"], r["detail"]) for r in table(context, "rejects")}
    assert found == {
        "en000": ("longwriter.instructions", "semantic", "scraping"),
        "en001": ("longwriter.instructions", "semantic", "toxic"),
        "en002": ("lw.select", "too_short", "too_short"),
        "en003": ("lw.select", "too_short", "too_short"),
    }
    everything = made(tmp_path, docs, select=False)
    assert tuple(told_by(everything)["stages"]) == tuple(
        s for s in STEPS if s not in ("lw.select", "lw.judge")
    )
    assert told_by(everything)["rejects"] == {"semantic": 2, "too_short": 2}


def test_rejects_of_the_select_stage_that_are_faults_do_end_a_run(tmp_path: Path) -> None:
    generator = {**SCRIPTED, "faults": [{"kind": "bad_json", "stage": "lw.select", "times": None}]}
    with pytest.raises(RunError, match="8 of 8 rows were rejected"):
        made(tmp_path, instructions(), generator=generator)


def test_another_model_judges_what_passed_the_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [fault("sentinel", "en003", "lw.judge"), fault("sentinel", "en004/1", "lw.write")]
    judge = {**SCRIPTED, "faults": faults}
    context = made(tmp_path, instructions(), judged=True, judge=judge, min_words=2_500)
    found = {r["row_id"]: (r["stage"], r["code"]) for r in table(context, "rejects")}
    # Texts of 2,100 words are not judged, and faults of the judge are none of the writer.
    assert found == {
        **dict.fromkeys(("en000", "en003", "en006"), ("longwriter.checked", "too_short"))
    }
    assert calls(context)["lw.judge"] == 5
    judged_more = made(tmp_path, instructions(), judged=True, judge=judge, max_reject_rate=1)
    assert [r["row_id"] for r in table(judged_more, "rejects")] == ["en003"]
    assert told_by(judged_more)["stages"]["lw.judge"]["rejects"] == {"sentinel": 1}
    assert told_by(judged_more)["checks"]["s_q"].keys() >= {"mean", "relevance", "reading"}
    ruled(monkeypatch, "lw.judge", lambda _: {**rules_longwriter.judge(BLANK), "clarity": 6})
    close_client()
    context = made(tmp_path / "marks", instructions(3), judged=True, max_reject_rate=1)
    assert {(r["code"], r["detail"]) for r in table(context, "rejects")} == {
        ("semantic", "mark_range")
    }


BLANK: Row = {"prompt": "tea", "response": "tea"}


def test_languages_and_units(tmp_path: Path) -> None:
    docs = [instruction(i, 2_300, lang) for i, lang in enumerate(["en", "zh", "ko"] * 2)]
    shares = {"en": 1, "zh": 1, "ko": 1}
    context = made(tmp_path, docs, lang_share=shares, rows=6)
    rows = table(context)
    assert Counter((r["lang"], r["required"]["unit"]) for r in rows) == {
        ("en", "word"): 2,
        ("zh", "字"): 2,
        ("ko", "단어"): 2,
    }
    assert failed(told_by(context)["checks"]) == set()


def test_rounds_end_where_their_texts_end() -> None:
    plan = [Step(k, f"Point {k}", 300) for k in (1, 2, 3)]
    required = required_length("900 words")
    drafts = [Draft(i, "Write.", "en", plan[:n], required) for i, n in [("a", 3), ("b", 2)]]
    drafts.append(Draft("c", "Write.", "en", plan, required))
    broken = GenResult(request_id="", key="", error=GenError("transport", None, "cut off"))
    asked: list[list[str]] = []

    def ask(rows: Sequence[tuple[str, Any]]) -> list[Ok | Reject]:
        asked.append([name for name, _ in rows])
        texts = [make().messages[-1]["content"] for _, make in rows]
        # Later calls hold all that was written, and their own step last.
        k = len(asked)
        assert all(f"Said {j}." in t for t in texts for j in range(1, k))
        assert all(f"paragraph {k}, about 300 words" in t.splitlines()[-1] for t in texts)
        bad = Reject(code="transport", result=broken)
        ok = Ok({"text": f"Paragraph {k}: Said {k}."})
        return [bad if name == "c/2" else ok for name, _ in rows]

    rounds = write_all(drafts, ask)
    assert asked == [["a/1", "b/1", "c/1"], ["a/2", "b/2", "c/2"], ["a/3"]]
    assert [len(found) for found in rounds] == [3, 3, 1]
    a, b, c = (draft.outcome() for draft in drafts)
    assert isinstance(a, Ok)
    assert a.value == {"paragraphs": ["Said 1.", "Said 2.", "Said 3."]}
    assert isinstance(b, Ok)
    assert isinstance(c, Reject)
    assert (c.code, c.detail) == ("transport", "paragraph 2 of 3: cut off")


def test_each_figure_has_its_check() -> None:
    sound: Row = {"lang": "en", "length": 2_000, "length_source": "plan", "s_l": 80.0}
    sound |= {"s_q": None, "dims": None, "n_calls": 6, "steps": 4, "problems": []}

    def found(**changed: Any) -> set[str]:
        return failed(figures([sound, {**sound, **changed}], {"en": 1}, 2_000, 80.0))

    assert found() == set()
    assert found(s_l=79.9) == {"s_l"}
    assert found(length=1_999) == {"length"}
    assert found(problems=["calls"]) == {"sound_rows"}
    assert figures([], {"en": 1}, 2_000, 80.0) == {}
    assert histogram([0, 499, 500, 3_999, 20_000], (500, 2_000, 4_000, 20_000)) == {
        "below 500": 2,
        "500 to 2,000": 1,
        "2,000 to 4,000": 1,
        "20,000 and above": 1,
    }


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"n_calls": 3}, "calls"),
        ({"response": "Other."}, "response"),
        ({"paragraph_lengths": [1]}, "lengths"),
        ({"messages": []}, "messages"),
        ({"paragraphs": ["One.", "Two."]}, "missing_step"),
    ],
)
def test_a_row_that_contradicts_itself_is_found(tmp_path: Path, change: Row, problem: str) -> None:
    context = made(tmp_path, [instruction(0)], 1)
    (row,) = table(context)
    assert facts(row, 2, 2_000, 80.0)["problems"] == []
    assert problem in facts({**row, **change}, 2, 2_000, 80.0)["problems"]


def test_a_plan_of_calls_counts_every_paragraph_with_the_text_before_it() -> None:
    op = op_of(rows=10, judged=True, expected_words=5_000)
    select, plan, write, judge = op.model_calls(1_000)
    assert (select.calls, plan.calls, write.calls, judge.calls) == (10, 10, 100, 10)
    assert write.prompt_tokens == 10 * agentwrite_input_tokens(10, 667, 700)
    assert write.completion_tokens == 10 * 10 * 667
    assert judge.prompt_tokens == 10 * (300 + 6_670)
    assert judge.completion_tokens == 10 * 1_024
    assert [c.stage for c in op_of(select=False).model_calls(5)] == ["lw.plan", "lw.write"]


def test_a_judge_without_judging_is_refused() -> None:
    with pytest.raises(ValidationError, match="set judged: true"):
        op_of(judge=SCRIPTED)


def test_real_instructions_go_the_whole_way(tmp_path: Path, shared_data: Path) -> None:
    file = shared_data / "preference" / "longwriter_longbench_write.jsonl"
    told = [json.loads(line) for line in file.read_text().splitlines()]
    docs = [
        {**instruction(i), "text": row["prompt"], "language": written_in(row["prompt"])}
        for i, row in enumerate(told)
        if row["length"] <= 4_000
    ]
    share = {"en": 0.5, "zh": 0.5}
    context = made(tmp_path, docs, lang_share=share, rows=100, unit_rows=50)
    rows, synthesis = table(context), told_by(context)
    assert len(rows) + sum(synthesis["rejects"].values()) == synthesis["chosen"] > 80
    assert synthesis["rejects"].keys() <= {"too_short", "semantic"}
    assert len(rows) >= 25
    assert failed(synthesis["checks"]) == set()
    assert min(row["s_l"] for row in rows) >= 80
