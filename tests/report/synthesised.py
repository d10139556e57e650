"""A run folder that ended in rows of a language model, written by hand, for each of the systems."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from longctx.engine import commit
from longctx.engine.commit import Commit, FileRef
from longctx.io import paths
from longctx.llm.rejects import REJECT_SCHEMA
from longctx.report.synth.systems import SYSTEMS
from longctx.synth.film import segments_of
from longctx.synth.film_rows import QA, placed_row
from longctx.synth.longmit import Link, SingleQA
from longctx.synth.longmit_rows import Context, Doc, Merged, Placed, Scores
from longctx.synth.longmit_rows import assemble as longmit_row
from longctx.synth.longwriter import Step
from longctx.synth.longwriter_rows import assemble as longwriter_row
from longctx.synth.pamqa import rendered
from longctx.synth.rows import envelope, table_of
from longctx.synth.tokens import TokenCounter
from tests.engine.parts import documents, put
from tests.report.recorded import Json, record, stage

OPS = {
    "film": "synth.in2",
    "longalign": "synth.longalign",
    "chatqa2": "synth.chatqa2",
    "pamqa": "synth.pam_qa",
    "longmit": "synth.longmit",
    "longwriter": "synth.longwriter",
    "longalpaca": "synth.longalpaca",
}
ROWS = 30
EVIDENCE = "the lamp of pier seven was lit in 1911"
SECRET = "jane.doe@post.example-mail.org"
COUNTER = TokenCounter()


def filler(number: int, words: int = 300) -> str:
    return " ".join(f"w{number}x{i}" for i in range(words))


def shared(system: str, mark: str, i: int, context: str, question: str, answer: str) -> Json:
    turns = [
        {"role": "user", "content": f"{context}\n\n{question}"},
        {"role": "assistant", "content": answer},
    ]
    return envelope(
        id=f"{mark}row{i:02d}",
        system=system,
        lang="en",
        messages=turns,
        instruction=question,
        counter=COUNTER,
        source=f"{mark}books",
        seed=7,
        prompt_version=f"{system}-1",
        context=context,
    )


def said(mark: str, i: int) -> tuple[str, str]:
    return f"{mark}Question {i}? Write to {SECRET}.", f"{mark}Answer {i}."


def source_text(mark: str, i: int) -> str:
    """The document of a row of FILM: two pieces, of which the second is the evidence."""
    return f"{filler(i, 128)} {mark}{EVIDENCE} {filler(i + 500, 120)}"


def film(mark: str, i: int) -> Json:
    doc = f"{mark}row{i:02d}"
    source = segments_of(doc, source_text(mark, i), COUNTER)
    others = segments_of(f"{mark}other", filler(900 + i, 128 * (4 + i % 3)), COUNTER)
    qa = QA(doc, "fine", *said(mark, i), [1], "en", f"{mark}books")
    row = placed_row(qa, source, others, 100_000, COUNTER, 7)
    assert isinstance(row, dict)
    return row


def chatqa2(mark: str, i: int) -> Json:
    question, answer = said(mark, i)
    before, summary = filler(i, 10 * i), f"{mark}{EVIDENCE}"
    context = f"{before} {summary} {filler(i + 500)}"
    start = len(before) + 1
    return shared("chatqa2", mark, i, context, question, answer) | {
        "document_id": f"{mark}doc",
        "question": question,
        "answers": [answer, f"{mark}or else"],
        "summary_start_char": start,
        "summary_end_char": start + len(summary),
        "inserted_start_char": start - 1,
        "inserted_end_char": start + len(summary),
        "depth": start / len(context),
        "context_tokens": COUNTER.count(context),
        "target_len": 5000,
        "mode": "own_document",
        "split": "train",
    }


def longalign(mark: str, i: int) -> Json:
    questions = [f"{mark}Proposed {i} {k}?" for k in range(5)]
    row = shared("longalign", mark, i, filler(i), questions[2], said(mark, i)[1])
    own = {"dataset": "books", "length": row["n_tokens"], "task_type": "summary"}
    return row | own | {"questions": questions, "chosen": 2, "doc_id": f"{mark}doc"}


def longalpaca(mark: str, i: int) -> Json:
    row = shared("longalpaca", mark, i, filler(i), *said(mark, i))
    alpaca = {"instruction": row["instruction"], "input": "", "output": row["response"]}
    return row | {"alpaca": alpaca, "file": None, "category": "book", "kind": "long"}


def pamqa(mark: str, i: int) -> Json:
    question, answer = said(mark, i)
    docs = [
        {
            "doc_id": f"{mark}d{k}",
            "title": f"{mark}Title {k}",
            "text": f"{mark}{EVIDENCE}" if k == i % 5 else f"{mark}{filler(10 * i + k, 40)}",
            "role": "gold" if k == i % 5 else "hard",
        }
        for k in range(5)
    ]
    body = rendered(question, docs, answer)
    row = shared("pamqa", mark, i, body["context"], body["instruction"], answer)
    own = {"question": question, "answerable": True, "n_hard": 4, "n_random": 0}
    return row | body | own


def longmit(mark: str, i: int) -> Json:
    singles = [
        SingleQA(f"{mark}d{k}", 0, f"{mark}Single {k}?", f"{mark}short {k}", f"{mark}because {k}")
        for k in range(2)
    ]
    docs = [
        Placed(Doc(f"{mark}d0", f"{mark}{EVIDENCE}", 8), "clue"),
        Placed(Doc(f"{mark}x", filler(i, 90), 90), "random"),
        Placed(Doc(f"{mark}d1", f"{mark}the second clue {i}", 4), "clue"),
    ]
    made = longmit_row(
        f"{mark}{i:02d}",
        "en",
        f"{mark}books",
        f"{mark}path",
        singles,
        [Link(None, None), Link(0, 0.8125)],
        Merged(*said(mark, i), f"{mark}Reasoning {i}."),
        Context(docs, [0, 2], 4096),
        Scores(9.0, True, None),
        COUNTER,
        7,
    )
    assert isinstance(made, dict)
    return made


def longwriter(mark: str, i: int) -> Json:
    plan = [Step(1, f"{mark}The storm", 200), Step(2, f"{mark}The calm", 400)]
    wrote = [f"{mark} {filler(i, 150)}.", f"{mark} {filler(i + 50, 450)}."]
    task, marks = f"{mark}Write of {i}. {SECRET}", None
    args = ("en", f"{mark}books", plan, wrote, None, marks, 3, COUNTER, 7)
    return longwriter_row(f"{mark}{i:02d}", task, *args)


MADE = {
    "film": film,
    "chatqa2": chatqa2,
    "longalign": longalign,
    "longalpaca": longalpaca,
    "pamqa": pamqa,
    "longmit": longmit,
    "longwriter": longwriter,
}


def rows_of(system: str, mark: str = "", n: int = ROWS) -> list[Json]:
    return [MADE[system](mark, i) for i in range(n)]


def synthesis(system: str, mark: str = "") -> Json:
    """What run.json says of it: 30 rows of 34 documents, two stages, checks of every form."""
    used: Json = {"requests": 40, "cache_hits": 6, "calls": 34, "attempts": 34, "estimated": 0}
    used |= {"prompt_tokens": 50_000, "completion_tokens": 6_000, "cost_usd": 1.25}
    last = {**used, "requests": 31, "cache_hits": 0, "calls": 31, "cost_usd": 0.5}
    fit = {"stat": 7.3, "df": 9, "p": 0.61, "max_dev": 0.2, "tol": 0.9, "warn": False}
    stages = {
        f"{mark}ask": {"rows_in": 34, "ok": 31, "rejects": {"semantic": 2, f"{mark}odd": 1}},
        # Another model, as a judge is: that alone makes no mixture.
        "answer": {
            "rows_in": 31,
            "ok": 31,
            "rejects": {},
            "usage": last,
            "models_reported": {"c": 1},
        },
        "rows": {"rows_in": 31, "ok": 30, "rejects": {"too_long": 1}, "rows": 30},
    }
    stages[f"{mark}ask"] |= {"usage": used, "models_reported": {f"{mark}a": 1, "b": 1}}
    checks: dict[str, Json] = {
        "depth": {**fit, "ok": True},
        "types": {**fit, "ok": None},
        "support": {"share": 0.4, "bound": 0.9, "ok": False},
        "decontamination": {"hits": 0, "ok": None},
        "answer_words": {"min": 1, "mean": 2.5, "max": 9},
        f"{mark}new_check": {f"{mark}seen": 3, f"{mark}why": f"{mark}so", "ok": True},
        "sound_rows": {"problems": {f"{mark}late": 2}, "ok": False},
    }
    quota = {"lang": f"{mark}en", "least": 1, "most": 99, "wanted": 40, "available": 34}
    return {
        "system": system,
        "prompt_version": f"{mark}v1",
        "model": f"{mark}model-1",
        "chosen": 34,
        "rows": ROWS,
        "rejects": {"semantic": 2, f"{mark}odd": 1, "too_long": 1},
        "without_language": 3,
        "quotas": [{**quota, "reached": 34}],
        "stages": stages,
        "checks": checks,
    }


def rejects(system: str, mark: str) -> list[Json]:
    """Rejects of every stage; two of them alike but for their documents."""
    common: Json = dict.fromkeys(REJECT_SCHEMA.names)
    common |= {"system": system, "finish_reason": "stop", "stage": f"{system}.{mark}ask"}
    reply = f'{mark}{{"questions": []}} of {SECRET}'
    found = [
        {"code": "semantic", "detail": f"{mark}off_document", "row_id": f"{mark}r1"},
        {"code": "semantic", "detail": f"{mark}off_document", "row_id": f"{mark}r2"},
        {"code": f"{mark}odd", "detail": "", "row_id": f"{mark}r3"},
    ]
    rows = [{**common, "text_head": reply, **one} for one in found]
    own = {"stage": f"{system}.assemble", "code": "too_long", "detail": f"{mark}9 tokens"}
    return [*rows, {**common, **own, "row_id": f"{mark}r4", "finish_reason": None}]


def write_run(folder: Path, system: str, mark: str = "") -> str:
    """The run folder of a system whose every text begins with `mark`; returns its path."""
    root, output = str(folder / "run"), str(folder / "run" / "output")
    made = rows_of(system, mark)
    name = f"02-{OPS[system]}"
    table = table_of(made, SYSTEMS[system].schema)
    part = put(output, "part-00000.parquet", table, (16, len(made) - 16))
    lost = rejects(system, mark)
    told = pa.Table.from_pylist(lost, schema=REJECT_SCHEMA)
    other = put(output, "rejects-00000.parquet", told, (len(lost),))
    vouch(output, root, [part, other])
    if system == "film":
        film_steps(root, name, mark, len(made))
    last = stage(2, OPS[system], ROWS)
    last["summary"]["synthesis"] = synthesis(system, mark)
    last["steps"] = {"files": {"files": 1, "rows": ROWS, "rejects": 4, "bytes": 9_000}}
    stages = [stage(0, "read"), stage(1, "score.heuristics"), last]
    run = record(stages, name=f"{mark}small", run_dir=root, output=output)
    (folder / "run" / "run.json").write_text(json.dumps(run))
    return root


def vouch(output: str, root: str, files: list[FileRef]) -> None:
    """The marker and the manifest of an output."""
    listed = [{"name": f.name, "rows": f.rows} for f in files]
    put_json = partial(_put_json, output)
    put_json("_longctx.json", {"run_dir": root})
    put_json("manifest.json", {"rows": ROWS, "files": listed})


def _put_json(output: str, name: str, value: Json) -> None:
    paths.write_atomic(paths.join(output, name), json.dumps(value).encode())


def film_steps(root: str, name: str, mark: str, n: int) -> None:
    """Documents, and what the steps `chosen` and `sources` leave of them."""
    ids = [f"{mark}row{i:02d}" for i in range(n)]
    texts = [source_text(mark, i) for i in range(n)]
    table = documents(n, doc_id=ids, text=pa.array(texts, pa.large_string()))
    commit_files(root, "stages/00-read/groups", [put(root, "documents/s-0.parquet", table, (n,))])
    placed = pa.table({"id": ids, "part": [0] * n, "row": list(range(n))})
    chosen = f"stages/{name}/chosen"
    commit_files(root, chosen, [put(root, f"{chosen}/chosen.parquet", placed, (n,))])
    spans = [_spans(text, doc) for doc, text in zip(ids, texts, strict=True)]
    replies: dict[str, Any] = {"id": ids, "reply": [json.dumps({"spans": s}) for s in spans]}
    sources = f"stages/{name}/sources"
    file = put(root, f"{sources}/000000.parquet", pa.table(replies), (n,))
    commit_files(root, sources, [file])


def _spans(text: str, doc: str) -> list[list[int]]:
    sizes = [len(piece.text) for piece in segments_of(doc, text, COUNTER)]
    return [[sum(sizes[:k]), sum(sizes[: k + 1])] for k in range(len(sizes))]


def commit_files(root: str, folder: str, files: list[FileRef]) -> None:
    commit.write(paths.join(root, folder), Commit("all", "f", tuple(files)))
