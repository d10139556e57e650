"""Passages for the questions of `synth.pam_qa`: ranked, drawn, fetched, and brought to their unit.

How data flows. Every part has given its own best documents (`stages_pamqa_search`). One place takes
the best of all parts, fuses both retrievers, draws the random ones, and says what to fetch from
which part (`ranked`). Each part fetches its own (`texts`), but for documents that share a run of
words with evaluation texts, of which the id alone is told, and an exchange brings them to the unit
of their question, in the form of a stage's replies (`documents`).

`ranked` holds some 300 short rows a question, and while it merges `retrieve` hits of each part.
Texts of about 260 passages a question are moved once.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import fingerprint
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.steps import BUCKET, Stats, StepRef, read_table
from longctx.llm.keys import canonical_json
from longctx.synth.pamqa_items import CONTAMINATED, DOCUMENTS
from longctx.synth.pamqa_mining import best, drawn, first_passage, fused, pools
from longctx.synth.stages_held_out import HeldOut
from longctx.synth.stages_pamqa_asked import asked_in
from longctx.synth.stages_pamqa_search import GOLD, POOL, SEARCH, Steps, search
from longctx.synth.stages_work import REPLIES
from longctx.synth.tokens import token_counter

if TYPE_CHECKING:
    from longctx.synth.stages_pamqa import SynthPamQA

KINDS = {"asked": 0, "gold": 1, "hard": 2, "random": 3}
_RANDOM_FOR_EACH = 3  # random documents that are fetched for each one of a row
_MERGED_ROWS = 4_000_000
_NO_VECTORS = "Negatives were found by BM25 alone: no stage `embed` stands before."
_WANTED = pa.schema(
    {"question": pa.int32(), "kind": pa.int8(), "rank": pa.int32(), ROW: pa.int32()}.items()
)
_FETCHED = pa.schema(
    {
        "question": pa.int32(),
        "kind": pa.int8(),
        "rank": pa.int32(),
        "doc": pa.large_string(),
    }.items()
)
_DRAWS = SEARCH | {"n_docs", "pool_documents"}
_SHOWS = _DRAWS | {"title_field", "cluster_column"}


def find_documents(
    op: "SynthPamQA", context: BarrierContext, asked: StepRef, units: Mapping[str, int]
) -> None:
    """The steps that end in `documents`; `units` is the unit of each question by its id."""
    steps = Steps(op, context)
    has_vectors = context.corpus.has("embedding")
    found = search(steps, asked, has_vectors)
    rule = partial(_ranked, op, asked, found, has_vectors)
    ranked = context.single("ranked", rule, [asked, found], ignore=steps.ignore(_DRAWS))
    columns = ["doc_id", "text", "meta", *([op.cluster_column] if op.cluster_column else [])]
    held_out = op.held_out(context)
    texts = context.per_part(
        "texts",
        partial(_texts, op, columns, ranked, held_out),
        columns,
        inputs=[ranked],
        depends=held_out.depends() if held_out else (),
        ignore=steps.ignore(_SHOWS),
    )
    ids = sorted(asked.read(["id"]).column("id").to_pylist())
    unit_of = np.array([units[i] for i in ids], dtype=np.int32)
    context.exchange(
        DOCUMENTS,
        [(texts, partial(_to_unit, unit_of)), (asked, partial(_asked_to_unit, ids, unit_of))],
        partial(_gathered, ids),
        _FETCHED,
        buckets=1 + max(units.values()),
        ignore=steps.ignore(_SHOWS),
        depends=[fingerprint([ids, unit_of.tolist()])],
    )


def _ranked(
    op: "SynthPamQA", asked: StepRef, found: StepRef, has_vectors: bool, setting: Setting
) -> "dict[str, pa.Table | bytes | memoryview]":
    """What to fetch for each question, by part: one file for each part that has any of it."""
    listed = asked_in(asked)
    hits, golds, pool = _merged(op, found)
    pool = pool.take(pc.sort_indices(pool, [("key", "ascending"), ("doc_id", "ascending")]))
    places = pools(pool.column("lang").to_pylist(), sorted({one.lang for one in listed}))
    of_hits, of_golds = _by_question(hits, len(listed)), _by_question(golds, len(listed))
    wanted = [_wanted(0, 0, hits.slice(0, 0))]
    for n, one in enumerate(listed):
        hard = fused(of_hits[n], one.lang)
        random = drawn(setting.seed, one.id, places[one.lang], _RANDOM_FOR_EACH * op.n_docs)
        wanted += [
            _wanted(n, KINDS["gold"], of_golds[n]),
            _wanted(n, KINDS["hard"], of_hits[n].take(pa.array(hard, pa.int64()))),
            _wanted(n, KINDS["random"], pool.take(pa.array(random, pa.int64()))),
        ]
    table = pa.concat_tables(wanted).combine_chunks()
    there = set(zip(*(golds.column(c).to_pylist() for c in ("question", "doc_id")), strict=True))
    missing = sum(
        gold.text is None and (n, gold.doc_id) not in there
        for n, one in enumerate(listed)
        for gold in one.golds
    )
    told: dict[str, Any] = {"missing_golds": missing, "pool": pool.num_rows}
    if not has_vectors:
        told["warnings"] = {_NO_VECTORS: 1}
    files: dict[str, pa.Table | bytes | memoryview] = {
        _file_of(int(p)): table.filter(pc.equal(table.column("part"), p)).drop_columns(["part"])
        for p in pc.unique(table.column("part")).to_pylist()
    }
    empty = _WANTED.empty_table()
    return {**files, "told.parquet": Stats.attach(empty, told)}


def _file_of(part: int) -> str:
    return f"part-{part:06d}.parquet"


def _wanted(question: int, kind: int, rows: pa.Table) -> pa.Table:
    n = rows.num_rows
    return pa.table(
        {
            "question": np.full(n, question, dtype=np.int32),
            "kind": np.full(n, kind, dtype=np.int8),
            "rank": np.arange(n, dtype=np.int32),
            ROW: rows.column(ROW),
            "part": rows.column("part"),
        }
    )


def _by_question(table: pa.Table, questions: int) -> list[pa.Table]:
    """The rows of each question, of a table in the order of their numbers."""
    numbers = table.column("question").to_numpy()
    ends = np.searchsorted(numbers, np.arange(questions + 1))
    return [table.slice(a, b - a) for a, b in pairwise(ends.tolist())]


def _merged(op: "SynthPamQA", found: StepRef) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The best hits of all parts by question, the golds by question, and the pool."""
    waiting: list[pa.Table] = []
    golds: list[pa.Table] = []
    pool: list[pa.Table] = []
    for number, ref in enumerate(found.files):
        table = read_table(found.run_dir, ref)
        table = table.append_column("part", pa.array(np.full(len(table), number, np.int32)))
        kind = table.column("kind")
        pool.append(table.filter(pc.equal(kind, POOL)))
        golds.append(table.filter(pc.equal(kind, GOLD)))
        waiting.append(table.filter(pc.less(kind, GOLD)))
        if sum(t.num_rows for t in waiting) > _MERGED_ROWS:
            waiting = [best(pa.concat_tables(waiting), op.retrieve)]
    hits = best(pa.concat_tables(waiting), op.retrieve)
    order = [("question", "ascending"), ("doc_id", "ascending")]
    return hits, pa.concat_tables(golds).sort_by(order).combine_chunks(), pa.concat_tables(pool)


def _texts(
    op: "SynthPamQA",
    columns: list[str],
    ranked: StepRef,
    held_out: HeldOut | None,
    part: Part,
    setting: Setting,
) -> pa.Table:
    """What is wanted of a part, as it is shown; of contaminated documents the id alone."""
    name = _file_of(part.index)
    file = next((f for f in ranked.files if f.name.endswith(f"/{name}")), None)
    if file is None:
        return _FETCHED.empty_table()
    wanted = read_table(ranked.run_dir, file)
    rows = wanted.column(ROW).to_numpy()
    counter = token_counter(setting.tokenizer)
    docs: dict[int, str] = {}
    bad = 0
    for group in part.groups(columns):
        mine = group.filter(pa.array(np.isin(group.column(ROW).to_numpy(), rows)))
        for row in mine.to_pylist():
            title = _title(row["meta"], op.title_field)
            if held_out and held_out.shared([title, row["text"]]):
                bad += 1
                docs[row[ROW]] = canonical_json({CONTAMINATED: row["doc_id"]})
                continue
            cluster = row[op.cluster_column] if op.cluster_column else None
            shown = {
                "doc_id": row["doc_id"],
                "title": title,
                "text": first_passage(row["text"], counter, op.passage_tokens),
                "cluster_id": None if cluster is None else str(cluster),
            }
            docs[row[ROW]] = canonical_json(shown)
    told = pa.array([docs[row] for row in rows.tolist()], pa.large_string())
    table = wanted.drop_columns([ROW]).append_column("doc", told).cast(_FETCHED)
    return Stats.attach(table, {CONTAMINATED: bad} if held_out else {})


def _title(meta: str | None, field: str | None) -> str:
    """The title of a document, a field of its `meta`; empty where it has none."""
    found = json.loads(meta).get(field) if meta and field else None
    return found if isinstance(found, str) else ""


def _to_unit(unit_of: npt.NDArray[np.int32], table: pa.Table, setting: Setting) -> pa.Table:
    return table.append_column(BUCKET, pa.array(unit_of[table.column("question").to_numpy()]))


def _asked_to_unit(
    ids: Sequence[str], unit_of: npt.NDArray[np.int32], table: pa.Table, setting: Setting
) -> pa.Table:
    number = np.searchsorted(ids, table.column("id").to_pylist()).astype(np.int32)
    nothing = np.zeros(len(table), dtype=np.int32)
    columns = [number, nothing.astype(np.int8), nothing, table.column("asked")]
    return _to_unit(unit_of, pa.table(columns, schema=_FETCHED), setting)


def _gathered(ids: Sequence[str], table: pa.Table, setting: Setting) -> pa.Table:
    """What was fetched for each question of a unit, in the form of replies."""
    order = [(name, "ascending") for name in ("question", "kind", "rank")]
    names = {kind: name for name, kind in KINDS.items()}
    found: dict[int, dict[str, Any]] = {}
    for row in table.sort_by(order).to_pylist():
        own = found.setdefault(row["question"], {name: [] for name in KINDS})
        doc = json.loads(row["doc"])
        if CONTAMINATED not in doc:
            own[names[row["kind"]]].append(doc)
        elif row["kind"] == KINDS["gold"]:
            own.setdefault(CONTAMINATED, []).append(doc[CONTAMINATED])
    listed = [
        {"id": ids[n], "reply": canonical_json({**own, "asked": own["asked"][0]}), "fix": None}
        for n, own in found.items()
    ]
    return pa.Table.from_pylist(listed, schema=REPLIES)
