"""Where the passages of `synth.pam_qa` come from: both retrievers, random ones, and their texts.

How data flows. Words of passages are counted per part and weighed in one place. With vectors of an
earlier `embed` stage questions are embedded in blocks. Then every part asks an index of its own
documents all questions (`found`): the best by BM25, the best by cosine (exactly), the golds that
are named by id, and the part's share of the pool of random ones; no index spans parts, and no
process numbers all documents. One place takes the best of all parts, fuses them, draws the random
ones (`ranked`), and says what to fetch from which part. Each part fetches its own (`texts`), and an
exchange brings them to the unit of their question (`documents`), in the form of a stage's replies.

Cost: words 45 MB/s; q questions and n documents take q·n·d multiply-adds where there are vectors,
and q times the postings of their words. `ranked` holds some 300 short rows a question, and while it
merges `retrieve` hits of each part. Texts of about 260 passages a question are moved once.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.arrays import mapped, npy_bytes
from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import fingerprint
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.rows import usable, vectors
from longctx.engine.steps import BUCKET, Stats, StepRef, read_table
from longctx.errors import RunError
from longctx.ids import doc_keys, priorities
from longctx.llm.keys import canonical_json
from longctx.order.stages_bm25 import bounds, count_part, flat, load_vocabulary, weigh_words
from longctx.synth.items import language_of
from longctx.synth.pamqa_mining import best, drawn, first_passage, fused, hash_bound, pools
from longctx.synth.pamqa_table import Asked, asked_of
from longctx.synth.stages_work import REPLIES
from longctx.synth.tokens import token_counter

if TYPE_CHECKING:
    from longctx.synth.stages_pamqa import SynthPamQA

DOCUMENTS = "documents"
BM25, DENSE, GOLD, POOL = range(4)
KINDS = {"asked": 0, "gold": 1, "hard": 2, "random": 3}
_RANDOM_FOR_EACH = 3  # random documents that are fetched for each one of a row
_MERGED_ROWS = 4_000_000
_NO_VECTORS = "Negatives were found by BM25 alone: no stage `embed` stands before."
_FOUND = pa.schema(
    {
        "question": pa.int32(),
        "kind": pa.int8(),
        "score": pa.float32(),
        "key": pa.uint64(),
        "doc_id": pa.string(),
        ROW: pa.int32(),
        "lang": pa.string(),
    }.items()
)
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
ASKED = pa.schema({"id": pa.string(), "asked": pa.large_string()}.items())
# Fields of the op that each step reads, beside those before it.
_SHOWN = frozenset({"passage_tokens"})
_SEARCH = _SHOWN | {"k1", "b", "max_df", "retrieve", "embed_model", "default_language"}
_DRAWS = _SEARCH | {"n_docs", "pool_documents"}
_SHOWS = _DRAWS | {"title_field", "cluster_column"}


class Steps(NamedTuple):
    """A context with the fields of its op, for steps that ignore most of them."""

    op: "SynthPamQA"
    context: BarrierContext

    def ignore(self, read: Iterable[str]) -> frozenset[str]:
        """All fields but those that a step reads."""
        return frozenset(type(self.op).model_fields) - {"op", *read} | {"prompt_version"}


def find_documents(
    op: "SynthPamQA", context: BarrierContext, asked: StepRef, units: Mapping[str, int]
) -> None:
    """The steps that end in `documents`; `units` is the unit of each question by its id."""
    steps = Steps(op, context)
    has_vectors = context.corpus.has("embedding")
    found = _search(steps, asked, has_vectors)
    rule = partial(_ranked, op, asked, found, has_vectors)
    ranked = context.single("ranked", rule, [asked, found], ignore=steps.ignore(_DRAWS))
    columns = ["doc_id", "text", "meta", *([op.cluster_column] if op.cluster_column else [])]
    texts = context.per_part(
        "texts",
        partial(_texts, op, columns, ranked),
        columns,
        inputs=[ranked],
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


def _search(steps: Steps, asked: StepRef, has_vectors: bool) -> StepRef:
    """The best documents of every question in each part."""
    op, context = steps
    words = context.per_part("words", partial(_words, op), ["text"], ignore=steps.ignore(_SHOWN))
    known = context.single(
        "vocabulary",
        partial(weigh_words, words, context.rows, op.max_df, 1),
        [words],
        ignore=steps.ignore(_SHOWN | {"max_df"}),
    )
    mean = context.step_stats["words"].get("occurrences", 0) / max(1, context.rows)
    inputs, queries = [asked, words, known], None
    if has_vectors:
        embedding = partial(_embedded, op, asked, context.parts())
        queries = context.single(
            "queries",
            embedding,
            [asked],
            columns=["text", "embedding", "emb_cover"],
            ignore=steps.ignore({"embed_model"}),
        )
        inputs.append(queries)
    return context.per_part(
        "found",
        partial(_found, op, asked, words, known, mean, queries, context.rows),
        ["doc_id", "language", *(["embedding"] if has_vectors else [])],
        inputs=inputs,
        depends=[context.rows],
        ignore=steps.ignore(_SEARCH | {"pool_documents"}),
    )


def _words(op: "SynthPamQA", part: Part, setting: Setting) -> pa.Table:
    counter = token_counter(setting.tokenizer)
    shown = partial(first_passage, counter=counter, most=op.passage_tokens)
    return count_part(0, shown, part, setting)


def asked_in(asked: StepRef) -> list[Asked]:
    """All questions in ascending order of their ids, whose places are their numbers."""
    texts = asked.read(["asked"]).column("asked").to_pylist()
    return sorted((asked_of(json.loads(text)) for text in texts), key=lambda one: one.id)


def _embedded(
    op: "SynthPamQA", asked: StepRef, parts: Sequence[Part], setting: Setting
) -> "dict[str, pa.Table | bytes | memoryview]":
    """The questions' vectors; RunError where the documents' are those of another model."""
    from longctx.embed.encoders import load_encoder

    encoder = load_encoder(op.embed_model)
    _same_model(op, encoder, parts, setting)
    found, _ = encoder.encode([one.question for one in asked_in(asked)])
    return {"queries.npy": npy_bytes(np.ascontiguousarray(found, dtype=np.float32))}


def _same_model(op: "SynthPamQA", encoder: Any, parts: Sequence[Part], setting: Setting) -> None:
    """Embed the text of a document that was seen whole, and compare with what is stored."""
    for part in parts:
        for table in part.groups(["doc_id", "text", "embedding", "emb_cover"]):
            stored = vectors(table.column("embedding"))
            cover = table.column("emb_cover").to_numpy()
            whole = np.flatnonzero(usable(stored) & (cover > 1 - 1e-6))
            if not len(whole):
                continue
            at = int(whole[0])
            same = 0.0
            if stored.shape[1] == encoder.dim:
                (own,), _ = encoder.encode([table.column("text")[at].as_py()])
                same = float(own @ stored[at])
            if same < 0.99:
                raise RunError(
                    f"the vectors of the documents are not those of embed_model {op.embed_model}: "
                    f"they have {stored.shape[1]} dimensions against {encoder.dim}, and that of "
                    f"document {table.column('doc_id')[at].as_py()} a cosine of {same:.2f} to its "
                    "text embedded anew",
                    where=setting.stage,
                    remedy="give `embed_model` the model of the stage `embed`",
                )
            return


def _found(
    op: "SynthPamQA",
    asked: StepRef,
    words: StepRef,
    known: StepRef,
    mean: float,
    queries: StepRef | None,
    documents: int,
    part: Part,
    setting: Setting,
) -> pa.Table:
    """What a part gives: hits of both retrievers, golds by id, and its share of the pool."""
    columns = ["doc_id", "language", *(["embedding"] if queries else [])]
    table = part.table(columns).combine_chunks()
    order = pc.sort_indices(table.column("doc_id"))
    table = table.take(order)
    listed = asked_in(asked)
    tables = [_FOUND.empty_table()]
    if len(table) and listed:
        counted = read_table(words.run_dir, words.files[part.index]).take(order).combine_chunks()
        tables.append(_hits(BM25, table, op, _by_words(op, counted, listed, known, mean)))
        if queries:
            tables.append(_hits(DENSE, table, op, _by_vectors(op, table, queries)))
        tables.append(_golds(table, op, listed))
        tables.append(_pool(table, op, hash_bound(documents, op.pool_documents), setting.seed))
    return pa.concat_tables(tables)


Lists = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


def _by_words(
    op: "SynthPamQA", counted: pa.Table, listed: Sequence[Asked], known: StepRef, mean: float
) -> Lists:
    """Documents of a part by BM25, by their places in the part's order of ids; -1 for none."""
    from longctx.order.bm25 import build_index, count_words, search

    vocabulary = load_vocabulary(known)
    index = build_index(
        bounds(counted, "words"),
        flat(counted, "words"),
        flat(counted, "counts"),
        counted.column("length").to_numpy(),
        mean,
        vocabulary,
        op.k1,
        op.b,
    )
    said = [count_words(one.question, len(one.question) + 1) for one in listed]
    ends = np.cumsum([0, *(len(q.words) for q in said)], dtype=np.int64)
    nobody = np.full(len(listed), -1, dtype=np.int64)
    return search(
        index,
        counted.num_rows,
        ends,
        np.concatenate([q.words for q in said]),
        np.concatenate([q.asked for q in said]),
        nobody,
        vocabulary,
        min(op.retrieve, counted.num_rows),
    )


def _by_vectors(op: "SynthPamQA", table: pa.Table, queries: StepRef) -> Lists:
    """Documents of a part by cosine, as `_by_words` gives them."""
    from longctx.cluster.similarity import nearest

    Q, X = mapped(queries, "queries.npy"), vectors(table.column("embedding"))
    rows = np.flatnonzero(usable(X))
    lists, sims = nearest(Q, X[rows], min(op.retrieve, len(rows)))
    places = np.where(lists >= 0, rows[np.maximum(lists, 0)] if len(rows) else -1, -1)
    places[~usable(Q)] = -1
    return places.astype(np.int32), sims


def _hits(kind: int, table: pa.Table, op: "SynthPamQA", lists: Lists) -> pa.Table:
    question, rank = np.nonzero(lists[0] >= 0)
    return _rows(kind, table, op, question, lists[0][question, rank], lists[1][question, rank])


def _rows(
    kind: int, table: pa.Table, op: "SynthPamQA", question: Any, places: Any, scores: Any
) -> pa.Table:
    taken = table.take(pa.array(places))
    langs = [language_of(tag, op.default_language) for tag in taken.column("language").to_pylist()]
    columns = {
        "question": np.asarray(question, dtype=np.int32),
        "kind": np.full(len(taken), kind, dtype=np.int8),
        "score": np.asarray(scores, dtype=np.float32),
        "key": doc_keys(taken.column("doc_id").to_pylist()),
        "doc_id": taken.column("doc_id"),
        ROW: taken.column(ROW),
        "lang": pa.array(langs, pa.string()),
    }
    return pa.table(columns, schema=_FOUND)


def _golds(table: pa.Table, op: "SynthPamQA", listed: Sequence[Asked]) -> pa.Table:
    at = {doc_id: i for i, doc_id in enumerate(table.column("doc_id").to_pylist())}
    pairs = [
        (n, at[gold.doc_id])
        for n, one in enumerate(listed)
        for gold in one.golds
        if gold.doc_id in at
    ]
    question, places = ([p[i] for p in pairs] for i in (0, 1))
    return _rows(GOLD, table, op, question, np.array(places, np.int64), np.zeros(len(pairs)))


def _pool(table: pa.Table, op: "SynthPamQA", bound: int, seed: int) -> pa.Table:
    keys = priorities(doc_keys(table.column("doc_id").to_pylist()), seed)
    places = np.flatnonzero(keys <= np.uint64(bound))
    return _rows(POOL, table, op, np.full(len(places), -1), places, np.zeros(len(places)))


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
    op: "SynthPamQA", columns: list[str], ranked: StepRef, part: Part, setting: Setting
) -> pa.Table:
    """What is wanted of a part, as it is shown."""
    name = _file_of(part.index)
    file = next((f for f in ranked.files if f.name.endswith(f"/{name}")), None)
    if file is None:
        return _FETCHED.empty_table()
    wanted = read_table(ranked.run_dir, file)
    rows = wanted.column(ROW).to_numpy()
    counter = token_counter(setting.tokenizer)
    docs: dict[int, str] = {}
    for group in part.groups(columns):
        mine = group.filter(pa.array(np.isin(group.column(ROW).to_numpy(), rows)))
        for row in mine.to_pylist():
            cluster = row[op.cluster_column] if op.cluster_column else None
            shown = {
                "doc_id": row["doc_id"],
                "title": _title(row["meta"], op.title_field),
                "text": first_passage(row["text"], counter, op.passage_tokens),
                "cluster_id": None if cluster is None else str(cluster),
            }
            docs[row[ROW]] = canonical_json(shown)
    told = pa.array([docs[row] for row in rows.tolist()], pa.large_string())
    return wanted.drop_columns([ROW]).append_column("doc", told).cast(_FETCHED)


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
        own[names[row["kind"]]].append(json.loads(row["doc"]))
    listed = [
        {"id": ids[n], "reply": canonical_json({**own, "asked": own["asked"][0]}), "fix": None}
        for n, own in found.items()
    ]
    return pa.Table.from_pylist(listed, schema=REPLIES)
