"""`synth.pam_qa` as steps: negatives of both retrievers, rows from rules, faults in their check."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longctx.engine.barrier import BarrierContext
from longctx.errors import RecipeError, RunError
from longctx.llm.spec import close_client
from longctx.synth import pamqa_negatives, pamqa_rows, rule_set, stages_pamqa_search
from longctx.synth.rows import PAMQA
from longctx.synth.stages_pamqa import SynthPamQA
from tests.conftest import SHARED
from tests.in_process import context_of, corpus_of
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

ZH = SHARED / "posttrain/pam_qa_repo/passage_retrieval_zh_1.jsonl"
NQ = SHARED / "posttrain/lost_in_middle/nq-open-oracle.jsonl.gz"


WORDS = ["amber", "basin", "coast", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty"]


def documents(n: int = 60) -> list[Row]:
    """Documents of three sentences, one about a keeper and a pier that stand nowhere else."""
    rng = np.random.default_rng(1)
    found = []
    for i in range(n):
        before, behind = (" ".join(rng.choice(WORDS, 14)) for _ in range(2))
        text = f"The {before}. Keeper Zora{i} built pier Q{i}x in the storm. A {behind}."
        row = {"doc_id": f"d{i:03d}", "text": text, "source": "ab"[i % 2], "language": "en"}
        row |= {"meta": json.dumps({"title": f"Harbour of Zora{i}"}), "n_tokens": len(text.split())}
        found.append(row)
    return found


def questions(n: int = 30) -> list[Row]:
    """Every third is given by its gold's text, the others by the id of a document."""
    docs = documents()
    found = []
    for i in range(n):
        gold: Any = f"d{i:03d}"
        if i % 3 == 0:
            gold = {"doc_id": f"own{i}", "title": f"Zora{i}", "text": docs[i]["text"]}
        asked = f"Which pier did keeper Zora{i} build?"
        found.append({"id": f"q{i:02d}", "question": asked, "answers": [f"Q{i}x"], "golds": [gold]})
    return found


def table_file(folder: Path, rows: list[Row]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "asked.jsonl"
    file.write_text("".join(json.dumps({"lang": "en", **row}) + "\n" for row in rows))
    return str(file)


def op_of(**fields: Any) -> SynthPamQA:
    usual: Row = {"op": "synth.pam_qa", "rows": 1000, "n_docs": 8, "unit_rows": 7, "shard_rows": 8}
    usual |= {} if "questions" in fields or "generator" in fields else {"questions": "asked.jsonl"}
    return SynthPamQA.model_validate({**usual, **fields})


def made(folder: Path, docs: list[Row], parts: int = 2, **fields: Any) -> BarrierContext:
    return run_op(op_of(**fields), folder, docs, parts)


def test_rows_of_a_table_need_no_model(tmp_path: Path) -> None:
    context = made(tmp_path, documents(), questions=table_file(tmp_path / "in", questions()))
    told, rows = told_by(context), table(context)
    assert (told["model"], told["rows"], told["rejects"]) == ("none", 30, {})
    assert told["negatives"]["retrievers"] == ["bm25"]
    assert any("BM25 alone" in w for w in context.step_stats["ranked"]["warnings"])
    checks = told["checks"]
    assert {n for n, c in checks.items() if c["ok"] is False} == set()
    assert checks["leave_gold_out"] == {"rows": 30, "answered": 0, "ok": True}
    for row in rows:
        own = f"Q{int(row['id'][1:])}x"
        assert len(row["docs"]) == 8
        assert row["response_parts"]["answer"] == own or not row["answerable"]
        golds = [d for d in row["docs"] if d["role"] == "gold"]
        assert [d["idx"] for d in golds] == row["gold_idx"]
        assert all(own in d["text"] for d in golds)
        assert not any(own in d["text"] for d in row["docs"] if d["role"] != "gold")
        assert all(d["title"] for d in row["docs"])
    assert {len(row["gold_idx"]) for row in rows} == {0, 1}
    (first, *_) = sorted(Path(context.setting.output).glob("part-*.parquet"))
    assert pq.read_schema(first).equals(PAMQA)


def test_parts_and_units_change_no_byte(tmp_path: Path) -> None:
    docs, file = documents(), table_file(tmp_path / "in", questions())
    one = output(made(tmp_path / "one", docs, 1, unit_rows=200, questions=file))
    three = output(made(tmp_path / "three", docs[::-1], 3, unit_rows=3, questions=file))
    assert one == three
    assert len(one) == 8


def test_passages_and_questions_with_words_of_evaluation_texts_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs, asked = documents(40), questions(12)
    fields: Row = {"answer": True, "generator": SCRIPTED, "unanswerable_share": 0}
    file = table_file(tmp_path / "plain", asked)
    used = {
        d["doc_id"]
        for r in table(made(tmp_path / "a", docs, questions=file, **fields))
        for d in r["docs"]
    }
    fillers = sorted(used - {f"d{i:03d}" for i in range(12)})[:5]
    assert len(fillers) == 5
    for doc in docs:
        if doc["doc_id"] in {*fillers, "d001"}:
            doc["text"] += f" {PLANTED}"
    # A title counts as the text does.
    titled = next(d for d in docs if d["doc_id"] not in fillers and d["doc_id"] > "d012")
    titled["meta"] = json.dumps({"title": PLANTED})
    asked[0]["golds"][0]["text"] += f" {PLANTED}"
    asked[2]["question"] = f"{PLANTED} {asked[2]['question']}"
    says(monkeypatch, "pam.answer", "Zora4 ", "answer")
    close_client()
    file = table_file(tmp_path / "in", asked)
    context = made(tmp_path / "b", docs, questions=file, **fields, **held_out(tmp_path))
    assert contaminated(context) == {
        "q00": "pamqa.screened",
        "q02": "pamqa.screened",
        "q01": "pam.answer",
        "q04": "pamqa.cleared",
    }
    rows, told = table(context), told_by(context)
    assert holding(context) == []
    shown = {d["doc_id"] for row in rows for d in row["docs"]}
    assert not shown & {*fillers, "d001", titled["doc_id"]}
    assert (len(rows), told["rejects"]) == (8, {"contaminated": 4})
    assert told["negatives"]["contaminated"] >= 6
    assert all(len(row["docs"]) == 8 for row in rows)
    assert told["checks"]["decontamination"] == {"hits": 0, "texts": 1, "ngram": 10, "ok": True}


def test_documents_without_a_table_are_asked_about(tmp_path: Path) -> None:
    context = made(tmp_path, documents(), generator=SCRIPTED, rows=40, min_tokens=10)
    told, rows = told_by(context), table(context)
    assert (told["rows"], told["stages"]["pam.question"]["usage"]["calls"]) == (40, 40)
    assert {n for n, c in told["checks"].items() if c["ok"] is False} == set()
    for row in rows:
        assert row["question"].startswith("What is stated about ")
        golds = [d["doc_id"] for d in row["docs"] if d["role"] == "gold"]
        assert golds == ([row["id"]] if row["answerable"] else [])
    again = made(tmp_path, documents(), generator=SCRIPTED, rows=40, min_tokens=10)
    assert again.skipped == again.units == context.units
    for step in ("pam.question", "found", "texts", "documents", "rows"):
        for file in (tmp_path / "stages").glob(f"*/{step}/*.json"):
            file.unlink()
    before = output(context)
    lost = made(tmp_path, documents(), generator=SCRIPTED, rows=40, min_tokens=10)
    assert output(lost) == before
    assert told_by(lost)["stages"]["pam.question"]["usage"]["calls"] == 0


def with_vectors(docs: list[Row]) -> list[Row]:
    from longctx.embed.encoders import load_encoder

    found, cover = load_encoder("static").encode([d["text"] for d in docs])
    return [
        {**d, "embedding": v.tolist(), "emb_cover": float(c)}
        for d, v, c in zip(docs, found, cover, strict=True)
    ]


def vectors_as_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpus of tests has vectors as lists of doubles; stages write a fixed size."""
    real = stages_pamqa_search.vectors

    def cast(column: pa.ChunkedArray) -> np.ndarray:
        width = len(column[0])
        return real(column.cast(pa.list_(pa.float32(), width)))

    monkeypatch.setattr(stages_pamqa_search, "vectors", cast)


def test_vectors_find_what_shares_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors_as_stored(monkeypatch)
    far = {"doc_id": "far", "text": "The physician treated sick people daily."}
    docs = [*documents(12), {**documents(1)[0], **far}]
    asked = [
        {
            "id": "q",
            "question": "Which doctor cured patients?",
            "answers": ["Zora5"],
            "golds": ["d005"],
        }
    ]
    file = table_file(tmp_path / "in", asked)
    fields: Row = {"questions": file, "unanswerable_share": 0, "retrieve": 1, "hard_share": 0.1}
    plain = table(made(tmp_path / "words", docs, **fields))[0]
    assert "far" not in {d["doc_id"] for d in plain["docs"] if d["role"] == "hard"}
    context = made(tmp_path / "both", with_vectors(docs), **fields)
    (row,) = table(context)
    assert "far" in {d["doc_id"] for d in row["docs"] if d["role"] == "hard"}
    assert told_by(context)["negatives"]["retrievers"] == ["bm25", "embedding"]
    assert "warnings" not in context.step_stats["ranked"]
    other = with_vectors(docs)
    for one in other:
        one["embedding"] = one["embedding"][::-1]
    with pytest.raises(RunError, match="are not those of embed_model static"):
        made(tmp_path / "other", other, **fields)


def test_a_judge_decides_where_answers_are_no_extracts(tmp_path: Path) -> None:
    docs = documents()
    asked = [
        {
            "id": f"q{i}",
            "question": f"Did keeper Zora{i} build pier Q{i}x in the storm?",
            "answers": ["yes"],
            "golds": [f"d{i:03d}"],
        }
        for i in range(12)
    ]
    file = table_file(tmp_path / "in", asked + questions(4)[3:])
    without = told_by(made(tmp_path / "without", docs, questions=file))
    assert without["rejects"] == {"answer_not_extractive": 12}
    fields: Row = {"generator": SCRIPTED, "support": True, "unanswerable_share": 0}
    context = made(tmp_path / "with", docs, questions=file, **fields)
    told, rows = told_by(context), table(context)
    assert (told["rows"], told["rejects"]) == (13, {})
    assert told["checks"]["leave_gold_out"]["rows"] == 1
    assert {r["response_parts"]["answer"] for r in rows} == {"yes", "Q3x"}
    calls = told["stages"]["pam.support"]["usage"]["calls"]
    assert 12 * 9 <= calls <= 12 * 17
    fault = {"kind": "refusal", "stage": "pam.support", "row_id": "q2/0", "times": None}
    generator = {**SCRIPTED, "faults": [fault]}
    broken = made(tmp_path / "fault", docs, questions=file, **{**fields, "generator": generator})
    assert {r["row_id"]: (r["stage"], r["code"]) for r in table(broken, "rejects")} == {
        "q2": ("pam.support", "refusal")
    }


def test_answers_in_sentences_keep_an_accepted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = table_file(
        tmp_path / "in", [*questions(), {**questions()[1], "id": "z", "golds": ["?"]}]
    )
    fields: Row = {"questions": file, "generator": SCRIPTED, "answer": True, "max_reject_rate": 0}
    context = made(tmp_path / "sound", documents(), **fields)
    told, rows = told_by(context), table(context)
    answered = [r for r in rows if r["answerable"]]
    # A question without a gold, and those that refuse, take no call.
    assert told["stages"]["pam.answer"]["usage"]["calls"] == len(answered) < 30
    assert (told["rejects"], told["negatives"]["missing_golds"]) == ({"no_gold": 1}, 1)
    assert all(r["response_parts"]["answer"].startswith("Keeper Zora") for r in answered)
    assert told["checks"]["sound_rows"]["ok"] is True
    monkeypatch.setitem(rule_set._RULES, "pam.answer", lambda parts: {"answer": "Nobody knows."})
    close_client()
    lost = made(tmp_path / "lost", documents(), **{**fields, "max_reject_rate": 1})
    details = {(r["stage"], r["detail"]) for r in table(lost, "rejects")}
    assert details == {("pam.answer", "answer_lost"), ("pam.answer", "")}


@pytest.mark.parametrize(
    ("row", "field", "found"),
    [
        ({"question": None}, "question", "there is none; the row has answers, golds, id, lang"),
        ({"question": " "}, "question", "a text is expected, found an empty one"),
        ({"answers": 7}, "answers", "a list of texts is expected, found int"),
        ({"golds": "x"}, "golds", "a list is expected, found a text"),
        ({"golds": [{"title": "t"}]}, r"golds\[0\]", "neither a `text` nor the `doc_id`"),
        ({"golds": [{"doc_id": "a", "text": 5}]}, r"golds\[0\].text", "found int"),
        ({"golds": [True]}, r"golds\[0\]", "found true or false"),
        ({"lang": "fr"}, "lang", "'fr' is not one of en, zh, ko"),
        ({"id": "q00"}, "id", "'q00' is the id of an earlier row, too"),
    ],
)
def test_bad_rows_of_a_table_are_told_with_their_place(
    tmp_path: Path, row: Row, field: str, found: str
) -> None:
    file = table_file(tmp_path, [questions(1)[0], {**questions(2)[1], **row}])
    with pytest.raises(RecipeError, match=f"field `{field}` of a question: .*{found}") as error:
        op_of(questions=file).table("09")
    assert str(error.value.where).endswith("asked.jsonl:2")


def test_tables_come_in_several_forms(tmp_path: Path) -> None:
    rows = [{"lang": "en", **q} for q in questions(3)]
    plain = op_of(questions=table_file(tmp_path, questions(3))).table("09")
    (tmp_path / "asked.json").write_text(json.dumps(rows))
    (tmp_path / "asked.jsonl.gz").write_bytes(
        gzip.compress("\n".join(map(json.dumps, rows)).encode())
    )
    golds = [
        {"golds": [q["golds"][0] if i == 0 else {"doc_id": f"d{i:03d}"}]}
        for i, q in enumerate(rows)
    ]
    pq.write_table(
        pa.Table.from_pylist([{**q, **g} for q, g in zip(rows, golds, strict=True)]),
        tmp_path / "asked.parquet",
    )
    for name in ("asked.json", "asked.jsonl.gz", "asked.parquet"):
        op = op_of(questions=str(tmp_path / name))
        assert op.table("09") == plain
    with pytest.raises(RecipeError, match="there is no such file"):
        op_of(questions=str(tmp_path / "none.jsonl")).table("09")
    (tmp_path / "asked.csv").write_text("a")
    with pytest.raises(RecipeError, match="cannot tell the format"):
        op_of(questions=str(tmp_path / "asked.csv")).table("09")
    (tmp_path / "bad.jsonl").write_text("{}\n{")
    with pytest.raises(RecipeError, match="the table of questions cannot be read: not JSON"):
        op_of(questions=str(tmp_path / "bad.jsonl")).table("09")
    (tmp_path / "bad.parquet").write_text("PAR1")
    with pytest.raises(RecipeError, match="the table of questions cannot be read"):
        op_of(questions=str(tmp_path / "bad.parquet")).table("09")


def facts_of(n: int, **changes: Any) -> list[Row]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        place = int(rng.integers(20))
        fact = {"place": place, "n": 20, "u": float(rng.random()), "golds": [place]}
        fact |= {"answerable": bool(rng.random() >= 0.1), "extractive": True, "problems": []}
        fact |= {"tokens": 500}
        found.append({**fact, **{k: c(fact) if callable(c) else c for k, c in changes.items()}})
    return found


def test_each_planted_fault_fails_its_check() -> None:
    def failed(n: int = 2000, **changes: Any) -> set[str]:
        checks = op_of().figures(facts_of(n, **changes))
        return {name for name, check in checks.items() if check["ok"] is False}

    assert failed() == set()
    biased = op_of().figures(facts_of(2000, place=lambda f: f["place"] // 2))
    assert biased["gold_position"]["p"] < 1e-12
    assert failed(place=lambda f: f["place"] // 2) == {"gold_position"}
    assert failed(answerable=True) == {"unanswerable"}
    assert failed(problems=["negative_with_answer"]) == {"leave_gold_out", "sound_rows"}
    assert failed(problems=["prompt_parse_back"]) == {"sound_rows"}
    assert failed(tokens=9000) == {"lengths"}
    assert failed(counts={"short_of_hard": 2}) == {"short_of_hard"}
    assert failed(golds=lambda f: [0, 1, 2]) == {"adjacent"}
    assert op_of().figures([]) == {}
    assert (
        op_of(unanswerable_share=0).figures(facts_of(50, answerable=False))["unanswerable"]["ok"]
        is False
    )


def test_settings_that_do_not_fit_are_told() -> None:
    with pytest.raises(ValueError, match=r"stages pam\.question ask a model: name it"):
        op_of(questions=None)
    with pytest.raises(ValueError, match="min_docs 9 is above n_docs 8"):
        op_of(questions="a.jsonl", min_docs=9)
    with pytest.raises(ValueError, match="max_prompt 7500 is above max_row 100"):
        op_of(questions="a.jsonl", max_row=100)


def test_a_plan_counts_what_a_judge_reads(tmp_path: Path) -> None:
    file = table_file(
        tmp_path, [{**q, "answers": ["yes"]} for q in questions(5)] + questions(9)[5:]
    )
    fields: Row = {"generator": SCRIPTED, "support": True, "answer": True}
    support, answer = op_of(questions=file, **fields).model_calls(1000)
    assert (support.calls, support.prompt_tokens) == (5 * 17, 5 * 17 * 300)
    assert (answer.calls, answer.stage) == (8, "pam.answer")
    (asked,) = op_of(generator=SCRIPTED, rows=50).model_calls(1000)
    assert (asked.calls, asked.stage) == (50, "pam.question")
    assert op_of(questions=file).model_calls(1000) == []


@pytest.mark.skipif(not NQ.exists(), reason=f"no real questions at {NQ}")
def test_rows_of_real_questions(tmp_path: Path) -> None:
    with gzip.open(NQ, "rt") as lines:
        listed = [json.loads(line) for line, _ in zip(lines, range(150), strict=False)]
    docs: list[Row] = []
    asked: list[Row] = []
    for i, one in enumerate(listed):
        (gold,) = one["ctxs"]
        row = {"doc_id": f"p{i:03d}", "text": gold["text"], "language": "en", "n_tokens": 1}
        docs.append({**row, "meta": json.dumps({"title": gold["title"]})})
        told = {"question": one["question"], "answers": one["answers"]}
        asked.append({"id": f"nq{i:03d}", **told, "golds": [f"p{i:03d}"]})
    file = table_file(tmp_path / "in", asked)
    context = made(tmp_path, docs, questions=file, n_docs=20, passage_tokens=None, unit_rows=50)
    told = told_by(context)
    assert told["rows"] + sum(told["rejects"].values()) == 150
    assert set(told["rejects"]) <= {"answer_not_extractive"}
    assert told["rows"] > 140
    assert {n for n, c in told["checks"].items() if c["ok"] is False} == set()
    assert told["checks"]["short_of_hard"]["rows"] <= 5


def test_bad_replies_are_rejects_of_their_stage(tmp_path: Path) -> None:
    kinds = {"d003": "wrong_schema", "d005": "refusal", "d007": "truncated", "d009": "bad_json"}
    faults = [{"kind": kind, "row_id": row_id, "times": None} for row_id, kind in kinds.items()]
    fields: Row = {"rows": 40, "min_tokens": 10, "generator": {**SCRIPTED, "faults": faults}}
    context = made(tmp_path, documents(40), **fields)
    found = {r["row_id"]: (r["stage"], r["code"]) for r in table(context, "rejects")}
    codes = {"d003": "schema", "d005": "refusal", "d007": "truncated", "d009": "not_json"}
    assert found == {row_id: ("pam.question", code) for row_id, code in codes.items()}
    stage = told_by(context)["stages"]["pam.question"]
    assert (stage["rows_in"], stage["ok"], told_by(context)["rows"]) == (40, 36, 36)


def test_faults_in_the_making_of_rows_show_in_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = table_file(tmp_path / "in", questions())

    def failed(folder: str) -> set[str]:
        checks = told_by(made(tmp_path / folder, documents(), questions=file))["checks"]
        return {name for name, found in checks.items() if found["ok"] is False}

    real = pamqa_rows.rendered

    def misnumbered(*args: Any) -> Row:
        body = real(*args)
        return {**body, "gold_idx": [i % len(body["docs"]) + 1 for i in body["gold_idx"]]}

    with monkeypatch.context() as patch:
        patch.setattr(pamqa_rows, "rendered", misnumbered)
        assert failed("misnumbered") == {"sound_rows"}
    with monkeypatch.context() as patch:
        patch.setattr(pamqa_negatives.Negatives, "accepts", lambda self, doc: True)
        assert failed("unfiltered") == {"leave_gold_out", "sound_rows"}
    with monkeypatch.context() as patch:
        patch.setattr(pamqa_rows, "mine", lambda *args: [])
        assert failed("no hard ones") == {"short_of_hard"}


@pytest.mark.skipif(not ZH.exists(), reason=f"no Chinese passages at {ZH}")
def test_passages_in_chinese(tmp_path: Path) -> None:
    with ZH.open(encoding="utf-8") as lines:
        texts = [
            text
            for line, _ in zip(lines, range(3), strict=False)
            for text in re.split(r"\n?\[\d+\] ", json.loads(line)["context"])
            if text.strip()
        ]
    docs: list[Row] = [
        {"doc_id": f"p{i:02d}", "text": text, "language": "zh-Hans", "n_tokens": 100}
        for i, text in enumerate(texts)
    ]
    fields: Row = {"generator": SCRIPTED, "lang_share": {"zh": 1}, "max_reject_rate": 1}
    op = op_of(**fields, rows=20, passage_tokens=120)
    corpus = corpus_of(str(tmp_path), docs, 2)
    context = context_of(op, corpus, len(docs), tokenizer="embedded")
    op.run(context)
    rows, told = table(context), told_by(context)
    assert len(rows) >= 10
    assert {n for n, c in told["checks"].items() if c["ok"] is False} <= {"short_of_hard"}
    assert all(row["prompt"].startswith("问题：关于") for row in rows)
    assert all("相关文档：" in row["response"] for row in rows)
