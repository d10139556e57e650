"""Both retrievers of `synth.pam_qa`, and the pool of its random passages, part by part.

How data flows. Words of passages are counted per part (`words`) and weighed in one place
(`vocabulary`). With vectors of an earlier `embed` stage questions are embedded in one place
(`queries`). Then every part asks an index of its own documents all questions (`found`): the best by
BM25, the best by cosine (exactly), the golds that are named by id, and the part's share of the pool
of random ones. No index spans parts, and no process numbers all documents.

Cost: words 45 MB/s; q questions and n documents of d dimensions take q·n·d multiply-adds, and q
times the postings of their words. A worker holds the index of its part and all questions.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.arrays import mapped, npy_bytes
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.rows import usable, vectors
from longctx.engine.steps import StepRef, read_table
from longctx.errors import RunError
from longctx.ids import doc_keys, priorities
from longctx.order.stages_bm25 import bounds, count_part, flat, load_vocabulary, weigh_words
from longctx.synth.items import language_of
from longctx.synth.pamqa_mining import first_passage, hash_bound
from longctx.synth.pamqa_table import Asked
from longctx.synth.stages_pamqa_asked import asked_in
from longctx.synth.tokens import token_counter

if TYPE_CHECKING:
    from longctx.synth.stages_pamqa import SynthPamQA

# What a row of `found` is: a hit of either retriever, a gold named by id, one of the pool.
BM25, DENSE, GOLD, POOL = range(4)
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
_SAME = 0.99  # cosine of a text embedded anew to its stored vector
# Fields of the op that the steps read.
_SHOWN = frozenset({"passage_tokens"})
SEARCH = _SHOWN | {"k1", "b", "max_df", "retrieve", "embed_model", "default_language"}

Lists = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


class Steps(NamedTuple):
    """A context with the fields of its op, for steps that ignore most of them."""

    op: "SynthPamQA"
    context: BarrierContext

    def ignore(self, read: Iterable[str]) -> frozenset[str]:
        """All fields but those that a step reads."""
        return frozenset(type(self.op).model_fields) - {"op", *read} | {"prompt_version"}


def search(steps: Steps, asked: StepRef, has_vectors: bool) -> StepRef:
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
        ignore=steps.ignore(SEARCH | {"pool_documents"}),
    )


def _words(op: "SynthPamQA", part: Part, setting: Setting) -> pa.Table:
    counter = token_counter(setting.tokenizer)
    shown = partial(first_passage, counter=counter, most=op.passage_tokens)
    return count_part(0, shown, part, setting)


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
            known = np.flatnonzero(usable(stored))
            if len(known) and stored.shape[1] != encoder.dim:
                found = f"{stored.shape[1]} dimensions against {encoder.dim}"
                raise _other_model(op, found, setting)
            whole = known[table.column("emb_cover").to_numpy()[known] > 1 - 1e-6]
            if not len(whole):
                continue
            at = int(whole[0])
            (own,), _ = encoder.encode([table.column("text")[at].as_py()])
            if (cosine := float(own @ stored[at])) < _SAME:
                doc_id = table.column("doc_id")[at].as_py()
                found = f"that of document {doc_id} has a cosine of {cosine:.2f} to its text anew"
                raise _other_model(op, found, setting)
            return


def _other_model(op: "SynthPamQA", found: str, setting: Setting) -> RunError:
    return RunError(
        f"the vectors of the documents are not those of embed_model {op.embed_model}: {found}",
        where=setting.stage,
        remedy="give `embed_model` the model of the stage `embed`",
    )


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
