"""One keyword for each document, as steps of an order: phrases, their frequencies, the draw.

Phrases travel to the bucket of their hash, where their documents are counted; those that are
neither rare nor common travel on to the bucket of their document, which draws its keyword. The
first exchange carries about 0.8 kB a document (31 phrases on average, at most 256), the second what
is left of it; the result is one row a document.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Part
from longctx.engine.op import Setting
from longctx.engine.rows import addressed
from longctx.engine.steps import BUCKET, Stats, StepRef, bucket_of
from longctx.ids import h64
from longctx.text.language import base_language

if TYPE_CHECKING:
    from longctx.order.queries import QueryGenerator
    from longctx.order.rake import Keyword

EXTRACTIVE = "extractive"
MAX_PHRASES = 256
_ENGLISH = ("en", "code")
_PHRASES = pa.schema([("doc_key", pa.uint64()), ("phrase", pa.string()), ("score", pa.float64())])
_DOCUMENTS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("doc_key", pa.uint64()),
        ("n_tokens", pa.int64()),
        ("language", pa.string()),
    ]
)
_BOTH = pa.unify_schemas([_DOCUMENTS, _PHRASES])


class Asking(NamedTuple):
    """How queries are made: the generator, where titles are, stop-words by base language."""

    generator: str
    title_field: str
    stop_words: Mapping[str, list[str]]
    device: str
    batch_size: int


def draw_keywords(
    context: BarrierContext, asking: Asking, least: int, most: int, fields: Iterable[str]
) -> StepRef:
    """Steps that end in one row for each living document: doc_id, n_tokens, language, keyword.

    A keyword stands in `least` to `most` documents; `language` is set where there are no
    stop-words for it, and only there. `fields` are the op's; most of them change nothing here.
    """
    unread = set(fields) - {"op", *Asking._fields}
    counted = {"min_documents", "max_documents", "max_share"}
    columns = ["doc_id", "text", "language", "meta", "n_tokens"]
    found = context.per_part("queries", partial(_keywords, asking), columns, ignore=unread)
    buckets = context.buckets_for([found])
    frequent = context.exchange(
        "frequent",
        [(found, partial(_by_phrase, buckets))],
        partial(_within, least, most),
        _PHRASES,
        buckets=buckets,
        ignore=unread - counted,
    )
    return context.exchange(
        "chosen",
        [(found, partial(_by_document, buckets)), (frequent, partial(_by_document, buckets))],
        _choose,
        _BOTH,
        buckets=buckets,
        ignore=unread,
    )


def _stop_words(asking: Asking, language: str | None) -> frozenset[str] | None:
    """The list for a language; English where none is known, None where there is no list."""
    from longctx.order.rake import STOP_WORDS

    base = base_language(language) if language else "en"
    if base in asking.stop_words:
        return frozenset(asking.stop_words[base])
    return STOP_WORDS if base in _ENGLISH else None


@lru_cache(maxsize=1)
def _generator(name: str, device: str, batch_size: int) -> "QueryGenerator":
    """The generator, loaded once per worker."""
    from longctx.order.doc2query import load_doc2query
    from longctx.order.queries import extractive

    if name == EXTRACTIVE:
        return extractive
    return load_doc2query(name, device=device, batch_size=batch_size)


def _keywords(asking: Asking, part: Part, setting: Setting) -> pa.Table:
    """Documents of a part with their key phrases and scores, at most 256 of each."""
    generate = _generator(asking.generator, asking.device, asking.batch_size)
    found = []
    for table in part.groups(["doc_id", "text", "language", "meta", "n_tokens"]):
        languages = table.column("language").to_pylist()
        lists = [_stop_words(asking, language) for language in languages]
        phrases = _phrases(asking, generate, table, lists)
        unknown = [
            base_language(name) if name and words is None else None
            for name, words in zip(languages, lists, strict=True)
        ]
        rows = addressed(part, table).select(["doc_id", "doc_key"])
        rows = rows.append_column("n_tokens", table.column("n_tokens").cast(pa.int64()))
        rows = rows.append_column("language", pa.array(unknown, pa.string()))
        for name, kind in (("phrase", pa.string()), ("score", pa.float64())):
            values = [[getattr(k, name) for k in best] for best in phrases]
            rows = rows.append_column(name, pa.array(values, pa.list_(kind)))
        found.append(rows)
    rows = pa.concat_tables(found)
    read = {Path(asking.generator).name: rows.column("language").null_count}
    return Stats.attach(rows, {"generator": read})


def _phrases(
    asking: Asking,
    generate: "QueryGenerator",
    table: pa.Table,
    stop_words: list[frozenset[str] | None],
) -> list[list["Keyword"]]:
    """Key phrases of the documents that have stop-words; none for the others."""
    from longctx.order.queries import Document
    from longctx.order.rake import keywords

    titles = _titles(table.column("meta").to_pylist(), asking.title_field)
    texts = table.column("text")
    documents = {
        i: Document(texts[i].as_py(), titles[i], words)
        for i, words in enumerate(stop_words)
        if words is not None
    }
    best: list[list[Keyword]] = [[] for _ in stop_words]
    queries = generate(list(documents.values()))
    for (i, document), asked in zip(documents.items(), queries, strict=True):
        best[i] = keywords(asked, document.stop_words, limit=MAX_PHRASES)
    return best


def _titles(metas: list[str | None], field: str) -> list[str | None]:
    """The title that the input's `meta` kept for each document, if any."""
    values = (json.loads(meta).get(field) if meta else None for meta in metas)
    return [v if isinstance(v, str) and v.strip() else None for v in values]


def _by_phrase(buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    """One row for each phrase of each document, to the bucket of the phrase."""
    phrases = table.column("phrase").combine_chunks()
    keys = np.repeat(table.column("doc_key").to_numpy(), pc.list_value_length(phrases).to_numpy())
    flat = phrases.flatten().dictionary_encode()
    known = [h64(phrase.encode()) for phrase in flat.dictionary.to_pylist()]
    hashes = np.array(known, dtype=np.uint64)[flat.indices.to_numpy()]
    scores = table.column("score").combine_chunks().flatten()
    rows = pa.table([keys, flat.cast(pa.string()), scores], schema=_PHRASES)
    return rows.append_column(BUCKET, bucket_of(hashes, buckets))


def _within(least: int, most: int, table: pa.Table, setting: Setting) -> pa.Table:
    """The phrases that between `least` and `most` documents have."""
    flat = table.column("phrase").combine_chunks().dictionary_encode()
    number = flat.indices.to_numpy()
    documents = np.bincount(number, minlength=len(flat.dictionary))
    usual = (documents >= least) & (documents <= most)
    kept = table.filter(pa.array(usual[number])).sort_by(
        [("doc_key", "ascending"), ("phrase", "ascending")]
    )
    counts = {"phrases": len(documents), "usual_phrases": int(usual.sum())}
    return Stats.attach(kept.select(_PHRASES.names), counts)


def _by_document(buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    """Documents and phrases in one schema, to the bucket of the document."""
    own = _DOCUMENTS if "doc_id" in table.column_names else _PHRASES
    rows = pa.table(
        {
            field.name: table.column(field.name)
            if field.name in own.names
            else pa.nulls(table.num_rows, field.type)
            for field in _BOTH
        },
        schema=_BOTH,
    )
    return rows.append_column(BUCKET, bucket_of(rows.column("doc_key").to_numpy(), buckets))


def _choose(table: pa.Table, setting: Setting) -> pa.Table:
    """The keyword of each document of a bucket, drawn among its best usual phrases."""
    from longctx.order.quest import BEST, representative
    from longctx.order.rake import Keyword

    is_document = table.column("doc_id").is_valid()
    documents = table.filter(is_document).select(_DOCUMENTS.names).sort_by("doc_id")
    phrases = table.filter(pc.invert(is_document)).sort_by(
        [("doc_key", "ascending"), ("score", "descending"), ("phrase", "ascending")]
    )
    owner = phrases.column("doc_key").to_numpy()
    first = np.searchsorted(owner, documents.column("doc_key").to_numpy())
    last = np.searchsorted(owner, documents.column("doc_key").to_numpy(), side="right")
    names = phrases.column("phrase").to_pylist()
    scores = phrases.column("score").to_pylist()
    chosen = [
        representative(
            [Keyword(names[i], scores[i]) for i in range(a, min(a + BEST, b))],
            doc_id,
            setting.seed,
        )
        for doc_id, a, b in zip(
            documents.column("doc_id").to_pylist(), first.tolist(), last.tolist(), strict=True
        )
    ]
    return documents.append_column("keyword", pa.array(chosen, pa.string()))


def in_order(chosen: StepRef) -> pa.Table:
    """All living documents with their keyword, ascending by doc_id as everywhere."""
    table = chosen.read()
    ids = np.array(table.column("doc_id").to_pylist(), dtype=object)
    return table.take(pa.array(np.argsort(ids, kind="stable"))).combine_chunks()
