"""`synth.longmit` as steps: paths over a planted corpus, necessity, conservation, equal bytes."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from longctx.embed.encoders import load_encoder
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Corpus, Sidecar
from longctx.errors import RunError
from longctx.synth import stages_longmit_work
from longctx.synth.longmit_chains import bounds_of
from longctx.synth.rows import LONGMIT
from longctx.synth.rule_set import rule_set
from longctx.synth.stages_longmit import SynthLongMIT
from tests.conftest import SHARED
from tests.engine.parts import put
from tests.in_process import corpus_of, run_here
from tests.synthesis import (
    PLANTED,
    SCRIPTED,
    Row,
    contaminated,
    held_out,
    holding,
    output,
    run_over,
    table,
    told_by,
)

pytestmark = pytest.mark.usefixtures("model_ops_here")


@pytest.fixture(autouse=True)
def _chart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages_longmit_work, "_encoder", lambda model: Chart())


ENTITIES = 240
D = ENTITIES + 2


def name(e: int) -> str:
    """A fictitious entity of its own."""
    syllables = ["za", "vo", "ri", "mu", "ke", "lo", "pa", "ni"]
    return "".join(syllables[(e >> shift) & 7] for shift in (0, 3, 6)).capitalize() + "th"


NUMBER = {name(e): e for e in range(ENTITIES + 1)}


def number(e: int) -> int:
    return 5_000 + 7 * e


def point(e: int) -> list[float]:
    """Entities that follow one another have a cosine of 0.5, all others of 0."""
    found = [0.0] * D
    found[e] = found[e + 1] = 0.5**0.5
    return found


class Chart:
    """Questions are where their entity is; what names several is nowhere."""

    def encode(self, texts: list[str]) -> tuple[Any, Any]:
        found = np.zeros((len(texts), D), dtype=np.float32)
        for i, text in enumerate(texts):
            named = [NUMBER[word] for word in re.findall(r"\w+th\b", text) if word in NUMBER]
            if len(named) == 1:
                found[i] = point(named[0])
        return found, np.ones(len(texts), dtype=np.float32)


def document(e: int, copied: bool = False) -> str:
    """A number that is the entity's alone, and the name of its successor, `copied` with its own."""
    told = f", which keeps {number(e + 1)} ships" if copied else ""
    fog = " ".join(f"fog{(e + i) % 7}" for i in range(60))
    return f"{name(e)} keeps {number(e)} ships beside {name(e + 1)}{told} in {fog}."


def documents(n: int = 40, copied: bool = False) -> list[Row]:
    """Entities with their vectors; `copied` tells the fact of each once more in the one before."""
    found = []
    for e in range(n):
        text = document(e, copied)
        found.append({"doc_id": f"d{e:03d}", "text": text, "source": "ab"[e % 2]})
        found[-1] |= {"language": "en", "n_tokens": len(text.split()), "embedding": point(e)}
    return found


def op_of(**fields: Any) -> SynthLongMIT:
    usual: Row = {"op": "synth.longmit", "generator": SCRIPTED, "rows": 1000, "min_tokens": 2}
    usual |= {"max_row": 14_000, "max_docs": 6, "k": 4, "prefix_jaccard": 1, "lo": 0.4, "hi": 0.6}
    return SynthLongMIT.model_validate({**usual, "unit_rows": 2, "shard_rows": 3, **fields})


def corpus(folder: str, docs: list[Row], parts: int) -> Corpus:
    """Documents, and beside them their vectors."""
    plain = [{k: v for k, v in row.items() if k != "embedding"} for row in docs]
    found = corpus_of(folder, plain, parts)
    files = []
    for i in range(parts):
        own = [row["embedding"] for row in docs[i::parts]]
        columns = pa.table({"embedding": pa.array(own, pa.list_(pa.float32(), len(own[0])))})
        groups = [len(own) // 2, len(own) - len(own) // 2]
        files.append(put(folder, f"stages/02/s-{i:04d}.parquet", columns, groups))
    return found.with_sidecar(Sidecar("02", ("embedding",), False, tuple(files)))


def made(folder: Path, docs: list[Row], parts: int = 2, **fields: Any) -> BarrierContext:
    return run_over(op_of(**fields), corpus(str(folder), docs, parts), len(docs))


def several(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["hop"] > 1]


def whys(context: BarrierContext) -> Counter[tuple[str, str, str]]:
    return Counter((r["stage"], r["code"], r["detail"]) for r in table(context, "rejects"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> BarrierContext:
    with pytest.MonkeyPatch.context() as patch:
        run_here(patch)
        patch.setattr(stages_longmit_work, "_encoder", lambda model: Chart())
        folder = tmp_path_factory.mktemp("large")
        return made(folder, documents(ENTITIES), unit_rows=30, shard_rows=30)


def test_every_planted_fact_is_needed(large: BarrierContext) -> None:
    told, rows = told_by(large), table(large)
    assert told["chosen"] == told["paths"]["on_paths"] == ENTITIES
    assert told["rejects"] == {}
    assert len(rows) == told["rows"]
    assert len(several(rows)) > 200
    assert {row["scores"]["necessity"] for row in several(rows)} == {True}
    assert {row["scores"]["multihop"] for row in several(rows)} == {True}
    for row in rows:
        for link in row["chain"]:
            e = int(link["doc_id"][1:])
            assert link["q"] == f"What is stated about {name(e)}?"
            assert link["a"] == str(number(e))
        assert all(link["a"] in row["response"] for link in row["chain"])


def test_the_checks_hold_over_all_rows(large: BarrierContext) -> None:
    checks = told_by(large)["checks"]
    assert checks.pop("decontamination")["ok"] is None
    assert {n: c["ok"] for n, c in checks.items()} == dict.fromkeys(checks, True)
    assert checks["necessary"]["share"] == checks["multihop"]["share"] == 1
    assert set(checks["hops"]["counts"]) == {"inter-2", "inter-3", "inter-4", "single-1"}
    (first, *_) = sorted(Path(large.setting.output).glob("part-*.parquet"))
    assert pq.read_schema(first).equals(LONGMIT)


def test_links_are_neighbours_on_one_path(large: BarrierContext) -> None:
    paths = pq.read_table(large.folder + "/paths/paths.parquet").to_pylist()
    path_of = {row["id"]: row["path_id"] for row in paths}
    for row in table(large):
        docs = [doc["doc_id"] for doc in row["docs"]]
        assert len(set(docs)) == len(docs)
        assert [docs[at] for at in row["clue_pos"]] == row["clue_docs"]
        assert {path_of[doc_id] for doc_id in row["clue_docs"]} == {row["path_id"]}
        own = {doc for doc, path_id in path_of.items() if path_id == row["path_id"]}
        roles = {doc["doc_id"]: doc["role"] for doc in row["docs"]}
        assert {doc for doc, role in roles.items() if role != "random"} == own
        for link in row["chain"][1:]:
            before = row["chain"][link["linked_to"]]
            assert abs(int(link["doc_id"][1:]) - int(before["doc_id"][1:])) == 1
            assert link["sim"] == pytest.approx(0.5)


@pytest.mark.parametrize("necessity", ["model", "rule"])
def test_a_fact_told_twice_makes_its_clue_needless(tmp_path: Path, necessity: str) -> None:
    context = made(tmp_path, documents(copied=True), necessity=necessity)
    told = told_by(context)
    # Every link joins an entity and the one whose document tells its number, too.
    assert several(table(context)) == []
    assert {row["hop"] for row in table(context)} == {1}
    needless = told["rejects"]["clue_not_needed"]
    assert whys(context) == {("mit.necessity", "clue_not_needed", ""): needless}
    assert needless == told["stages"]["mit.verify"]["ok"] > 40
    assert told["checks"]["necessary"]["share"] == 0


def test_parts_and_units_change_no_byte(tmp_path: Path) -> None:
    docs = documents(24)
    one = output(made(tmp_path / "one", docs, 1, unit_rows=200))
    three = output(made(tmp_path / "three", docs[::-1], 3, unit_rows=1))
    assert one == three
    assert len(one) > 2


def test_near_duplicates_are_no_neighbours_and_leave_their_path(tmp_path: Path) -> None:
    docs = documents(12)
    again = [{**docs[i], "doc_id": f"d{i:03d}x", "dup": f"c{i}"} for i in (3, 7)]
    listed = [{**row, "dup": f"c{int(row['doc_id'][1:4])}"} for row in docs] + again
    alike = made(tmp_path / "a", listed, prefix_jaccard=0.97)
    dropped = {r["row_id"] for r in table(alike, "rejects") if r["code"] == "near_dup_in_path"}
    assert len(dropped) == 2
    assert {row_id[:4] for row_id in dropped} == {"d003", "d007"}
    assert told_by(alike)["paths"]["near_dup_in_path"] == 2
    apart = made(tmp_path / "b", listed, prefix_jaccard=0.97, cluster_column="dup")
    told = told_by(apart)["paths"]
    assert told["on_paths"] + told["near_dup_in_path"] == len(listed)
    for row in table(apart):
        docs_of = [doc["doc_id"] for doc in row["docs"]]
        clues = {doc_id[:4] for doc_id in row["clue_docs"]}
        assert sum(doc_id[:4] in clues for doc_id in docs_of) == len(clues)


def test_bad_replies_are_rejects_of_their_stage(tmp_path: Path) -> None:
    faults = [
        {"kind": "refusal", "row_id": "d003#0", "stage": "mit.extract", "times": None},
        {"kind": "wrong_schema", "row_id": "d005#0/0", "stage": "mit.answer", "times": None},
        {"kind": "truncated", "row_id": "d008#0/0", "stage": "mit.simplify", "times": None},
    ]
    context = made(tmp_path, documents(12), generator={**SCRIPTED, "faults": faults})
    found = {r["row_id"]: (r["stage"], r["code"]) for r in table(context, "rejects")}
    assert found == {
        "d003#0": ("mit.extract", "refusal"),
        "d005#0/0": ("mit.answer", "schema"),
        "d008#0/0": ("mit.simplify", "truncated"),
    }
    asked = {link["doc_id"] for row in table(context) for link in row["chain"]}
    assert asked == {f"d{e:03d}" for e in range(12)} - {"d003", "d005", "d008"}


def said_by(monkeypatch: pytest.MonkeyPatch, stage: str, rule: Any) -> None:
    """Let a stage be answered by a rule that gets the usual reply and the parts of the prompt."""
    usual = rule_set()

    def say(req: Any) -> str:
        return json.dumps(rule(json.loads(usual.rules[stage](req)), req.parts))

    changed = replace(usual, version=stage, rules={**usual.rules, stage: say})
    monkeypatch.setattr(SynthLongMIT, "rules", lambda self: changed)


def with_second(mark: str, value: Any) -> Any:
    """A rule that marks the questions about one entity otherwise."""
    return lambda reply, parts: {**reply, mark: value} if name(5) in parts["question"] else reply


@pytest.mark.parametrize(
    ("stage", "rule", "code"),
    [
        ("mit.reference", lambda r, p: {"has_reference": True, "span": p["question"][:4]}, None),
        ("mit.answer", with_second("found", False), "not_in_chunk"),
        ("mit.verify", with_second("clarity", 1), "low_score"),
        ("mit.verify", with_second("multihop", False), "not_multihop"),
    ],
)
def test_verdicts_end_a_question_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, rule: Any, code: str | None
) -> None:
    said_by(monkeypatch, stage, rule)
    context = made(tmp_path, documents(12))
    told = told_by(context)
    stages = told["stages"]
    assert stages[stage]["rejects"] == {}
    if code is None:
        assert told["turned_away"] == {"mit.reference": {"unresolved_reference": 12}}
        assert told["rows"] == stages["mit.answer"]["rows_in"] == 0
        return
    turned = told["turned_away"][stage][code]
    assert told["rejects"] == {code: turned}
    assert whys(context) == {(stage, code, ""): turned}
    asked = {row["question"] for row in table(context) if stage != "mit.verify" or row["hop"] > 1}
    assert not any(name(5) in question for question in asked)
    assert stages["mit.verify"]["asked_anew"] == 0
    if stage == "mit.verify":
        passed = told["checks"]["quality_passed" if code == "low_score" else "multihop"]
        assert passed["share"] == round(1 - turned / stages[stage]["ok"], 4)


def test_the_first_failing_merge_ends_its_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(reply: Row, parts: Row) -> Row:
        return (
            {**reply, "answer": "None.", "reasoning": "None."}
            if len(parts["shorts"]) == 3
            else reply
        )

    said_by(monkeypatch, "mit.merge", lose)
    context = made(tmp_path, documents(12), max_reject_rate=1)
    stages = told_by(context)["stages"]
    assert stages["mit.merge-3"]["rows_in"] > 0
    assert stages["mit.merge-3"]["rejects"] == {"semantic": stages["mit.merge-3"]["rows_in"]}
    assert stages["mit.merge-4"]["rows_in"] == 0
    assert {row["hop"] for row in table(context)} == {1, 2}
    assert {why[2] for why in whys(context)} == {"fact_lost"}


def test_what_decides_rows_alone_asks_nothing_anew(tmp_path: Path) -> None:
    docs = documents(12)
    first = made(tmp_path, docs)
    before = {step: c for step, c in first.step_commits.items() if step.startswith("mit.")}
    again = made(tmp_path, docs, max_row=20_000, shard_rows=1, pool_documents=9)
    assert {step: again.step_commits[step] for step in before} == before
    assert {r["id"] for r in table(again)} == {r["id"] for r in table(first)}
    assert all(len(row["docs"]) < 12 for row in table(again))
    assert max(row["token_limit"] for row in table(again)) > 9_904


def test_words_of_evaluation_texts_stand_neither_in_documents_nor_in_merged_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(reply: Row, parts: Row) -> Row:
        planted = name(5) in json.dumps(parts)
        return {**reply, "reasoning": f"{reply['reasoning']} {PLANTED}"} if planted else reply

    docs = documents(24)
    # One of another path than the questions' is a filler in their contexts.
    docs[16]["text"] += f" {PLANTED}"
    said_by(monkeypatch, "mit.merge", add)
    context = made(tmp_path, docs, **held_out(tmp_path))
    told, rows = told_by(context), table(context)
    assert holding(context) == []
    bad = contaminated(context)
    assert bad.pop("d016") == "longmit.screened"
    assert set(bad.values()) == {"longmit.cleared"}
    # Every merged question about the entity, and none of the single ones.
    assert several(rows)
    assert not any("d005" in row["clue_docs"] for row in several(rows))
    assert any("d005" in row["clue_docs"] for row in rows)
    assert {doc["doc_id"] for row in rows for doc in row["docs"]} == {
        doc["doc_id"] for doc in docs
    } - {"d016"}
    assert told["rejects"]["contaminated"] == 1 + len(bad)
    assert told["stages"]["cleared"]["rows_in"] == told["rows"] + len(bad)
    assert told["paths"]["on_paths"] == told["chosen"] - 1
    assert told["checks"]["decontamination"]["ok"] is True


def test_bounds_may_be_measured(tmp_path: Path) -> None:
    context = made(tmp_path, documents(24), lo=None, hi=None)
    rows = several(table(context))
    sims = {round(link["sim"], 3) for row in rows for link in row["chain"][1:]}
    assert sims == {0.5}
    (bounds,) = {tuple(f["bounds"]) for f in facts_of(context)}
    assert bounds == (0.5, 0.5)
    assert bounds_of({0: 60, 5_000: 39, 9_000: 1}) == (0.0, 0.9)
    assert bounds_of({0: 59, 5_000: 41}) == (0.5, 0.5)


def facts_of(context: BarrierContext) -> list[Row]:
    found: list[Row] = []
    for file in sorted(Path(context.folder).glob("rows/*.parquet")):
        said = pq.read_table(file, columns=["facts"]).column("facts").drop_null().to_pylist()
        found += [fact for fact in map(json.loads, said) if fact["row"]]
    return found


def test_paths_keep_to_one_language(tmp_path: Path) -> None:
    docs = documents(16)
    for e in range(1, 16, 4):
        docs[e] |= {
            "text": f"北京港有{number(e)}艘船 。 这里下雨 。",
            "language": "zh",
            "n_tokens": 4,
        }
    context = made(tmp_path, docs, lang_share={"en": 1, "zh": 1})
    lang = {row["doc_id"]: row["language"] for row in docs}
    rows = table(context)
    assert {row["lang"] for row in rows} == {"en", "zh"}
    for row in rows:
        assert {lang[doc["doc_id"]] for doc in row["docs"]} == {row["lang"]}
    # The static encoder knows no Chinese, so nothing says which questions are alike.
    assert {row["hop"] for row in rows if row["lang"] == "zh"} == {1}
    assert any(row["hop"] > 1 for row in rows)


def test_documents_without_any_vector_end_the_run(tmp_path: Path) -> None:
    docs = [{**row, "embedding": [0.0] * D} for row in documents(6)]
    with pytest.raises(RunError, match="none of the 6 chosen documents has a vector"):
        made(tmp_path, docs)


def test_fields_that_cannot_go_together_are_refused() -> None:
    for fields, words in [
        ({"max_row": 12_000}, "max_row 12000 is below 12288"),
        ({"lo": None}, "both numbers, or both null"),
        ({"lo": 0.7}, "nothing lies between lo 0.7 and hi 0.6"),
        ({"k": 40}, "k_search 32 is below k 40"),
    ]:
        with pytest.raises(ValidationError, match=words):
            op_of(**fields)


def test_a_plan_counts_what_fans_out() -> None:
    op = op_of(rows=100, min_tokens=3000, max_tokens=5000, max_docs=20, judge=SCRIPTED)
    calls = {told.stage: told.calls for told in op.model_calls(1000)}
    # Two chunks a document, three questions each; 5 paths of 10 starts, two chains from each.
    assert calls == {
        "mit.extract": 200,
        **dict.fromkeys(("mit.reference", "mit.answer", "mit.simplify"), 600),
        **dict.fromkeys(("mit.merge-2", "mit.merge-3", "mit.merge-4"), 100),
        "mit.verify": 300,
        "mit.necessity": 900,
    }
    assert "mit.necessity" not in {told.stage for told in op_of(necessity="rule").model_calls(9)}


def test_judges_may_be_another_model(tmp_path: Path) -> None:
    judge = {"backend": "scripted", "faults": [{"kind": "refusal", "stage": "mit.verify"}]}
    op = op_of(judge=judge)
    assert op.asks("mit.verify") == op.asks("mit.necessity") == op.judge
    assert op.asks("mit.merge-2") == op.generator
    assert op.fingerprint_fields()["judge"] != op_of().fingerprint_fields()["judge"]


WIKI = SHARED / "posttrain/hipporag_2wiki/2wikimultihopqa_corpus.json"


@pytest.mark.skipif(not WIKI.is_file(), reason=f"no real corpus at {WIKI}")
def test_real_texts_give_sound_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder("static")
    monkeypatch.setattr(stages_longmit_work, "_encoder", lambda model: encoder)
    listed = json.loads(WIKI.read_text())[:80]
    X, _ = encoder.encode([one["text"] for one in listed])
    docs = [
        {"doc_id": f"w{i:04d}", "text": one["text"], "source": "wiki", "language": "en"}
        | {"n_tokens": len(one["text"].split()), "embedding": X[i].tolist()}
        for i, one in enumerate(listed)
    ]
    context = made(
        tmp_path, docs, lo=0.5, hi=0.92, max_reject_rate=1, unit_rows=10, prefix_jaccard=0.75
    )
    told = told_by(context)
    assert told["chosen"] == len(docs)
    assert len(several(table(context))) > 10
    checks = told["checks"]
    assert all(checks[n]["ok"] for n in ("hops", "links", "row_tokens", "support", "sound_rows"))
    assert checks["multihop"]["share"] > 0.85
