"""`prefer.longdpo` as steps: planted quality comes out in pairs, planted denials are skipped."""

import json
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from longctx.engine.barrier import BarrierContext
from longctx.errors import RunError
from longctx.llm.scripted import Cut
from longctx.llm.spec import RuleSet
from longctx.llm.types import GenRequest
from longctx.prefer import rules_longdpo
from longctx.prefer.exporters import chatml
from longctx.prefer.longdpo_tree import NODES
from longctx.prefer.pairs import PAIRS
from longctx.prefer.rules_longdpo import REPEATED, RULES
from longctx.prefer.stages_longdpo import PreferLongDPO
from tests.synthesis import SCRIPTED, Row, output, run_op, table, told_by

pytestmark = pytest.mark.usefixtures("model_ops_here")

N = 8


def document(i: int) -> Row:
    text = f"Write a report of {300 + 20 * i} words on harbour number {i}."
    return {"doc_id": f"d{i:03d}", "text": text, "source": "ab"[i % 2], "language": "en"} | {
        "n_tokens": len(text.split())
    }


def documents(n: int = N) -> list[Row]:
    return [document(i) for i in range(n)]


def op_of(**fields: Any) -> PreferLongDPO:
    usual: Row = {"op": "prefer.longdpo", "generator": SCRIPTED, "rows": 1000}
    usual |= {"lang_share": {"en": 1}, "depth": 3, "unit_rows": 3, "shard_rows": 4}
    return PreferLongDPO.model_validate({**usual, **fields})


def made(folder: Path, docs: list[Row], parts: int = 2, **fields: Any) -> BarrierContext:
    return run_op(op_of(**fields), folder, docs, parts)


def groups(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: (r["group_id"], r["depth"])):
        found.setdefault(row["group_id"], []).append(row)
    return found


def test_planted_quality_comes_out_in_pairs_of_steps(tmp_path: Path) -> None:
    context = made(tmp_path, documents())
    rows, trees = table(context), table(context, "tree")
    told = told_by(context)
    assert len(rows) == told["rows"] == 3 * N
    assert told["rejects"] == {}
    assert {n: c["ok"] for n, c in told["checks"].items() if c["ok"] is False} == {}
    for name in ("depths", "prefixes", "permutations", "s_l", "margin", "length_ratio"):
        assert told["checks"][name]["ok"] is True
    for depths in groups(rows).values():
        assert [row["depth"] for row in depths] == [1, 2, 3]
        assert depths[0]["prefix"] == ""
        for row, after in pairwise(depths):
            assert after["prefix"] == row["prefix"] + row["chosen"]
        assert [dict(row["checks"])["terminal"] for row in depths] == [False, False, True]
        assert {row["messages"][0]["content"][:14] for row in depths} == {"Write a report"}
    # The best candidate says nothing twice, whichever sample it was.
    for row in rows:
        sentences = row["chosen"].split(". ")
        assert len(set(sentences)) == len(sentences)
        assert dict(row["dims_chosen"])["p5"] == 5
        assert dict(row["dims_rejected"])["p5"] < 5
        assert row["margin"] >= 0.02
        assert row["model"] == row["judge_model"] == "scripted:longdpo-1"
    (first, *_) = sorted(Path(context.setting.output).glob("part-*.parquet"))
    assert pq.read_schema(first).equals(PAIRS)
    _trees_are_whole(trees)
    finals = table(context, "final")
    assert [(f["code"], f["steps"], f["pairs"]) for f in finals] == [("", 3, 3)] * N
    assert all(f["s_l"] >= 80 and f["u_full"] > 0.7 for f in finals)
    judge = json.loads((Path(context.setting.output) / "judge_report.json").read_text())
    assert judge["weak"] == []
    assert {c["name"]: c["passed"] for c in judge["controls"]} == {
        "constant:R": True,
        "planted_contradiction": True,
        # It reads repeats and nothing else, and all steps are of one length.
        "refusal": False,
        "length": None,
        "self_judging": False,
    }
    assert told["trees"]["trees"] == N
    seen, near = told["trees"]["pairs_seen"], told["trees"]["pairs_passed"]
    assert 0 < near <= seen
    assert told["checks"]["near_facts"] == {
        "ok": True,
        "share": near / seen,
        "pairs": seen,
        "near": near,
    }


def _trees_are_whole(trees: list[Row]) -> None:
    by_tree: dict[str, list[Row]] = {}
    for node in trees:
        by_tree.setdefault(node["id"], []).append(node)
    assert set(trees[0]) == set(NODES.names)
    for nodes in by_tree.values():
        assert [node["node"] for node in nodes] == list(range(13))
        roles = Counter(node["role"] for node in nodes)
        assert (roles["chosen"], roles["rejected"]) == (3, 3)
        for node in nodes[1:]:
            assert len(node["marks"]) == 7
            assert node["depth"] == nodes[node["parent"]]["depth"] + 1
        marks = {node["R"] for node in nodes[1:5]}
        assert len(marks) == len(REPEATED)


def test_lines_for_trl_are_strings_that_end_in_the_prefix(tmp_path: Path) -> None:
    context = made(tmp_path, documents(3))
    files = sorted(Path(context.setting.output).glob("trl-*.jsonl"))
    lines = [json.loads(line) for f in files for line in f.read_text().splitlines()]
    assert len(lines) == 9
    wanted = {
        (chatml(row["messages"]) + row["prefix"], row["chosen"], row["rejected"])
        for row in table(context)
    }
    assert {(p["prompt"], p["chosen"], p["rejected"]) for p in lines} == wanted


def test_parts_and_units_change_no_byte(tmp_path: Path) -> None:
    docs = documents()
    one = output(made(tmp_path / "one", docs, 1, unit_rows=100))
    three = output(made(tmp_path / "three", docs[::-1], 3, unit_rows=2))
    assert one == three
    kinds = {name.partition("-")[0] for name in one}
    assert kinds == {"part", "trl", "tree", "final", "judge_report.json"}


def test_trees_of_mcts_are_followed_to_their_best_text(tmp_path: Path) -> None:
    context = made(tmp_path, documents(3), search="mcts", rollouts=6, children=3, depth=2)
    rows, trees = table(context), table(context, "tree")
    assert told_by(context)["checks"]["depths"]["ok"] is True
    assert {row["depth"] for row in rows} <= {1, 2}
    roots = [node for node in trees if node["node"] == 0]
    assert [node["N"] for node in roots] == [6] * 3
    for node in trees:
        below = [n for n in trees if (n["id"], n["parent"]) == (node["id"], node["node"])]
        if any(n["N"] for n in below):
            assert node["N"] == sum(n["N"] for n in below)
    usage = told_by(context)["stages"]["judge"]["usage"]
    assert usage["requests"] == sum(n["R"] is not None for n in trees) + 6 * 3


def rules_with(**changed: Any) -> RuleSet:
    version = f"test-{sorted(changed)}"
    return RuleSet(version, {**RULES, **{f"longdpo.{k}": v for k, v in changed.items()}})


def denying(req: GenRequest) -> str:
    """The best second step denies the first sentence of the text so far."""
    parts: Mapping[str, Any] = req.parts or {}
    text = rules_longdpo.step(parts)
    best = REPEATED[(parts["sample"] + parts["depth"]) % len(REPEATED)] == 0
    if parts["depth"] != 2 or not best:
        return text
    fact = parts["prefix"].partition(".")[0].strip()
    return Cut(f"\n\nIt is not true that {fact}. {text.strip()}")


def test_a_planted_denial_is_skipped_and_may_be_the_rejected_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PreferLongDPO, "rules", lambda self: rules_with(step=denying))
    context = made(tmp_path, documents())
    assert told_by(context)["trees"]["contradictions"] == N
    rows = [row for row in table(context) if row["depth"] == 2]
    assert len(rows) == N
    assert not any("It is not true" in row["chosen"] for row in rows)
    against = [row for row in rows if row["rejected_rule"] == "inconsistent"]
    assert against
    assert all("It is not true" in row["rejected"] and row["margin"] < 0 for row in against)
    dead = [node for node in table(context, "tree") if node["status"] == "dead"]
    assert len(dead) == N
    assert all("It is not true" in node["detail"] for node in dead)
    # Without a memory it is chosen.
    free = made(tmp_path / "free", documents(2), memory=False)
    chosen = [row["chosen"] for row in table(free) if row["depth"] == 2]
    assert all("It is not true" in text for text in chosen)


def test_weak_steps_are_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def weak(req: GenRequest) -> str:
        """A step that repeats itself and has the right length, or a sound one of half of that."""
        parts = {**(req.parts or {})}
        short = parts["sample"] % 2
        parts["target"] //= 1 + short
        rank = 0 if short else len(REPEATED) - 1
        return Cut(rules_longdpo.step({**parts, "sample": rank - parts["depth"] + 100}))

    monkeypatch.setattr(PreferLongDPO, "rules", lambda self: rules_with(step=weak))
    docs = documents(2)
    # Length decides the first steps; of the second ones the sound one is long enough.
    usual: Row = {"children": 2, "depth": 2, "eta": 4.0, "w_len": 2.0}
    context = made(tmp_path / "inline", docs, **usual)
    told = told_by(context)["trees"]
    assert (told["critiques"], told["refinements"], told["refined"]) == (2 * 7, 2, 2)
    for row in table(context):
        assert "Say nothing twice" not in row["messages"][0]["content"]
        assert dict(row["dims_chosen"])["p5"] == 5
    nodes = table(context, "tree")
    assert Counter(n["status"] for n in nodes)["refined"] == 2
    assert all(n["role"] == "chosen" for n in nodes if n["status"] == "refined")
    off = made(tmp_path / "off", docs, **usual, refine="off")
    assert "critiques" not in told_by(off)["trees"]
    assert all(n["status"] != "refined" for n in table(off, "tree"))


def test_faults_are_told_and_cost_their_own_calls_alone(tmp_path: Path) -> None:
    faults = [
        {"kind": "bad_json", "stage": "longdpo.judge", "probability": 0.6, "times": None},
        {"kind": "empty", "stage": "longdpo.step", "probability": 0.1, "times": None},
        {"kind": "refusal", "stage": "longdpo.step", "probability": 0.1, "times": None},
        {"kind": "truncated", "stage": "longdpo.facts", "probability": 0.2, "times": None},
    ]
    docs = documents()
    context = made(
        tmp_path, docs, generator={**SCRIPTED, "faults": faults}, max_reject_rate=1, min_s_l=0
    )
    told = told_by(context)
    lost = Counter((r["stage"], r["code"]) for r in table(context, "calls"))
    assert {stage for stage, _ in lost} <= {"longdpo.judge", "longdpo.step", "longdpo.facts"}
    assert lost["longdpo.judge", "not_json"] == told["stages"]["judge"]["rejects"]["not_json"]
    assert told["stages"]["step"]["rejects"].keys() == {"empty", "refusal"}
    for stage in ("step", "judge", "facts", "contradiction"):
        got = told["stages"][stage]
        assert got["rows_in"] == got["ok"] + sum(got["rejects"].values())
    rejected = {r["row_id"] for r in table(context, "rejects")}
    assert rejected | {row["group_id"] for row in table(context)} == {d["doc_id"] for d in docs}
    assert told["checks"]["depths"]["ok"] is True
    marks = [node["status"] for node in table(context, "tree")]
    assert marks.count("judge_failed") == told["trees"]["judge_failed"] > 0


def test_texts_of_the_wrong_length_give_no_pairs(tmp_path: Path) -> None:
    docs = documents(2)
    docs[0]["text"] = "Write a report of 9,000 words on a harbour."
    docs[0]["n_tokens"] = 9
    context = made(tmp_path, docs, step_tokens=64, max_reject_rate=1)
    assert not table(context, "rejects")  # the rules write what is asked, whatever the budget
    rules = rules_with(step=lambda req: "A short end to it all is written here.")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PreferLongDPO, "rules", lambda self: rules)
        context = made(tmp_path / "short", docs, on_bad_judge="report")
    assert {r["code"] for r in table(context, "rejects")} == {"too_short"}
    assert {r["detail"][:9] for r in table(context, "rejects")} == {"1 steps, "}
    assert {f["code"] for f in table(context, "final")} == {"too_short"}
    assert told_by(context)["rejects"] == {"too_short": 2}


def test_another_margin_asks_nothing_again(tmp_path: Path) -> None:
    docs = documents(4)
    first = made(tmp_path, docs)
    before, rows = calls(first), table(first)
    again = made(tmp_path, docs, margin=0.3, rejected="worst")
    after, fewer = calls(again), table(again)
    assert len(rows) == 12 > len([row for row in rows if row["margin"] >= 0.3])
    assert len(fewer) == 12
    assert all(row["margin"] >= 0.3 for row in fewer)
    assert before == after
    assert before["step"] == 4 * 12
    # Searched anew, the same is asked: texts that their budget cut are in the cache like others.
    other = calls(made(tmp_path, docs, eta=3.0))
    assert set(other.values()) == {0}


def calls(context: BarrierContext) -> dict[str, int]:
    stages = told_by(context)["stages"]
    return {step: told["usage"]["calls"] for step, told in stages.items() if "usage" in told}


def test_a_bound_that_lets_nothing_through_is_told(tmp_path: Path) -> None:
    context = made(tmp_path, documents(), tau=1.0)
    assert told_by(context)["checks"]["near_facts"]["ok"] is False
    assert "contradiction" not in told_by(context)["stages"]
    (warning,) = context.step_stats["files"]["warnings"]
    assert "near_facts" in warning


def test_a_constant_judge_ends_the_run(tmp_path: Path) -> None:
    weights = {f"p{i}": [0, 0, 1, 0, 0] for i in range(1, 8)}
    flat = json.dumps({"analysis": "All the same.", **weights})
    rules = RuleSet("flat", {**RULES, "principles": lambda req: flat})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PreferLongDPO, "rules", lambda self: rules)
        with pytest.raises(RunError, match=r"constant:R is 0\.00"):
            made(tmp_path, documents(2))
        context = made(tmp_path, documents(2), on_bad_judge="report")
    assert {r["code"] for r in table(context, "rejects")} == {"small_margin"}


def test_prompts_of_a_file_say_their_length(tmp_path: Path) -> None:
    tmp_path.mkdir(exist_ok=True)
    file = tmp_path / "prompts.jsonl"
    lines = [
        {"id": "a", "prompt": "Tell of a port.", "target_length": 330, "lang": "en"},
        {"id": "b", "prompt": "Sum the text up.", "doc_id": "d001", "target_length": 660},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    docs = documents(3)
    assert op_of(prompts=str(file), depth=2).model_calls(100)[0].calls == 2 * 2 * 4
    context = made(tmp_path, docs, prompts=str(file))
    found = groups(table(context))
    assert found.keys() == {"a", "b"}
    assert {f["id"]: f["target"] for f in table(context, "final")} == {"a": 330, "b": 660}
    (row, *_) = found["b"]
    assert row["context_ref"]["doc_id"] == "d001"
    assert row["messages"] == [{"role": "user", "content": "Sum the text up."}]


def test_fields_that_cannot_go_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="extra_pairs belongs to search: mcts"):
        op_of(extra_pairs=True)
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        op_of(children=1)


def test_a_plan_counts_what_a_search_may_ask() -> None:
    step, judge, facts, denials, critique, refine = op_of(
        rows=10, depth=4, target_length=2000
    ).model_calls(100)
    assert (step.stage, step.calls, step.completion_tokens) == ("longdpo.step", 160, 160 * 704)
    assert (judge.calls, facts.calls) == (170, 30)
    assert denials.calls == 10 * 6 * 2 * 3
    assert critique.calls == refine.calls == 0
    wide = op_of(rows=1, depth=4, search="mcts").model_calls(100)
    assert wide[0].calls == 4 * 49
    assert wide[1].calls == 4 * 49 + 16
