"""Paragraphs of other documents for `synth.chatqa2`: a pool of them, and those that a row takes.

How data flows. `marks` counts the marks of each part from its column of tokens: plain numbers,
whose sum says below which hash a mark is drawn (`chatqa2_pool`). `paragraphs` reads the texts of
documents with a drawn mark, part by part, and cuts them; one that shares a run of words with an
evaluation text gives none. `pool` takes in one place, of each language, the `pool_paragraphs` of
the smallest hashes, without repeated texts, and writes them to shelves; `vectors` embeds each
shelf, `index` puts the vectors into one file that workers map. What is in the pool depends on
hashes alone, never on parts. After the stages, `related` ranks the pool for each summary, drops
what holds an answer, and leaves a row's paragraphs as replies are left.

`pool` and every worker of `related` hold the texts of the pool, at most `pool_paragraphs` times
`paragraph_tokens` tokens a language (about 110 MB for 100,000 of 256, most of them shorter), and
`pool` some 150 bytes for each of the `MARKS` times as many that it chooses from. Vectors take 4·d
bytes a paragraph of d dimensions (1,024 for `hash`: 410 MB; 256 for `static`): `index` holds them,
workers of a machine share one mapped copy. `related` holds the texts of its unit's contexts as
well, and they are written twice, here and in the rows. Nothing is held for every document of the
corpus.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from longctx.embed.named import embedder_of
from longctx.engine.arrays import Matrix, mapped
from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import FileRef
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.rows import as_binary, from_binary, usable
from longctx.engine.steps import Stats, StepRef, read_table
from longctx.engine.units import Sink
from longctx.ids import doc_keys, h64
from longctx.synth.chatqa2_pages import Paragraph, clean_page, related_paragraphs
from longctx.synth.chatqa2_pool import F32, MARKS, n_marks, paragraphs_of, rank_paragraphs
from longctx.synth.chatqa2_rows import paragraph_budget
from longctx.synth.film_fillers import hash_bounds, piece_hashes
from longctx.synth.items import Item, language_of
from longctx.synth.stages_held_out import HeldOut
from longctx.synth.stages_in2_pool import cluster_of
from longctx.synth.stages_in2_work import clusters_of, write_replies
from longctx.synth.stages_work import Groups, items_of
from longctx.synth.tokens import TokenCounter, token_counter

if TYPE_CHECKING:
    from longctx.synth.stages_chatqa2 import SynthChatQA2

RELATED = "related"
SHELF = 2_048
_COUNTED = pa.schema({"lang": pa.string(), "marks": pa.int64()}.items())
_POOL = pa.schema(
    {
        "hash": pa.uint64(),
        "digest": pa.uint64(),
        "lang": pa.string(),
        "para_id": pa.string(),
        "doc_id": pa.string(),
        "n_tokens": pa.int32(),
        "cluster": pa.string(),
        "text": pa.large_string(),
    }.items()
)
_ORDER = [("lang", "ascending"), ("hash", "ascending"), ("para_id", "ascending")]
_VECTORS = "vectors.npy"


class PoolRef(NamedTuple):
    """The finished steps of a pool, light enough to be sent to workers."""

    texts: StepRef
    vectors: StepRef


def pool_of_corpus(op: "SynthChatQA2", context: BarrierContext) -> PoolRef:
    """The steps of the pool; `step_stats["index"]` says how large it is in which language."""
    held_out = op.held_out(context)
    own = op.own_fields() | {"prompt_version"}
    counts = own - {"lang_share", "default_language", "paragraph_tokens"}
    columns = ["language", "n_tokens"]
    context.per_part("marks", partial(_count, op), columns, ignore=counts)
    marks = context.step_stats["marks"].get("marks", {})
    bounds = hash_bounds(marks, MARKS * op.pool_paragraphs)
    cut = context.per_part(
        "paragraphs",
        partial(_cut, op, bounds, held_out),
        ["doc_id", *columns, "text", *op.clustered()],
        depends=[bounds, *(held_out.depends() if held_out else ())],
        ignore=counts - {"cluster_column"},
    )
    pool = context.single("pool", partial(_pool, op, cut), [cut], ignore=own - {"pool_paragraphs"})
    shelves = [vars(ref) for ref in pool.files]
    embedded = context.spread(
        "vectors", partial(_embedded, op.embedder), shelves, [], ignore=own - {"embedder"}
    )
    index = context.single("index", partial(_index, pool, embedded), [pool, embedded], ignore=own)
    return PoolRef(pool, index)


def _count(op: "SynthChatQA2", part: Part, setting: Setting) -> pa.Table:
    """How many marks the documents of a part have, by language."""
    found: Counter[str] = Counter()
    table = part.table(["language", "n_tokens"])
    tags, tokens = (table.column(c).to_pylist() for c in ("language", "n_tokens"))
    for tag, n in zip(tags, tokens, strict=True):
        if (lang := language_of(tag, op.default_language)) in op.languages() and n:
            found[str(lang)] += n_marks(n, op.paragraph_tokens)
    rows = [{"lang": lang, "marks": n} for lang, n in sorted(found.items())]
    return Stats.attach(pa.Table.from_pylist(rows, schema=_COUNTED), {"marks": dict(found)})


def _cut(
    op: "SynthChatQA2",
    bounds: Mapping[str, int],
    held_out: HeldOut | None,
    part: Part,
    setting: Setting,
) -> pa.Table:
    """The paragraphs of a part whose first mark is drawn; none of a document that was held out."""
    counter, most = token_counter(setting.tokenizer), op.paragraph_tokens
    wanted = _documents(op, bounds, part, setting.seed)
    rows: list[dict[str, Any]] = []
    contaminated = 0
    for group in part.groups(["doc_id", "text", *op.clustered()]) if wanted else ():
        mine = group.filter(pa.array(np.isin(group.column(ROW).to_numpy(), list(wanted))))
        for row in mine.to_pylist():
            if held_out is not None and held_out.shared(row["text"]) is not None:
                contaminated += 1
                continue
            lang, drawn = wanted[row[ROW]]
            rows += [
                {
                    "hash": drawn[cut.mark],
                    "digest": h64(cut.text.encode("utf-8", "replace")),
                    "lang": lang,
                    "para_id": f"{row['doc_id']}#{cut.mark}",
                    "doc_id": row["doc_id"],
                    "n_tokens": cut.n_tokens,
                    "cluster": cluster_of(row, op.cluster_column),
                    "text": cut.text,
                }
                for cut in paragraphs_of(clean_page(row["text"]), counter, most)
                if cut.mark in drawn
            ]
    table = pa.Table.from_pylist(rows, schema=_POOL)
    return Stats.attach(table, {"contaminated": contaminated})


def _documents(
    op: "SynthChatQA2", bounds: Mapping[str, int], part: Part, seed: int
) -> dict[int, tuple[str, dict[int, int]]]:
    """By row of a document its language and its drawn marks with their hashes; reads no text."""
    table = part.table(["doc_id", "language", "n_tokens"])
    names = ("doc_id", "language", "n_tokens")
    ids, tags, tokens = (table.column(c).to_pylist() for c in names)
    keys = doc_keys(ids)
    found: dict[int, tuple[str, dict[int, int]]] = {}
    for i, row in enumerate(table.column(ROW).to_pylist()):
        lang = language_of(tags[i], op.default_language)
        if lang is None or lang not in bounds or not tokens[i]:
            continue
        marks = np.arange(n_marks(tokens[i], op.paragraph_tokens))
        hashes = piece_hashes(np.full(len(marks), keys[i]), marks, seed)
        drawn = np.flatnonzero(hashes <= np.uint64(bounds[lang]))
        if len(drawn):
            own = zip(drawn.tolist(), hashes[drawn].tolist(), strict=True)
            found[row] = lang, dict(own)
    return found


def _pool(op: "SynthChatQA2", cut: StepRef, setting: Setting) -> dict[str, Any]:
    """The shelves: of each language the paragraphs of the smallest hashes, each text once."""
    heads = [
        read_table(cut.run_dir, ref, ["hash", "digest", "lang", "para_id"])
        .append_column("file", pa.array(np.full(ref.rows, number, dtype=np.int32)))
        .append_column("place", pa.array(np.arange(ref.rows, dtype=np.int32)))
        for number, ref in enumerate(cut.files)
    ]
    table = pa.concat_tables(heads).sort_by(_ORDER)
    columns = (table.column(c).to_pylist() for c in ("lang", "digest", "file", "place"))
    taken: Counter[str] = Counter()
    seen: set[tuple[str, int]] = set()
    wanted: dict[int, list[int]] = {}
    repeated = 0
    for lang, digest, number, place in zip(*columns, strict=True):
        if taken[lang] == op.pool_paragraphs:
            continue
        if (lang, digest) in seen:
            repeated += 1
            continue
        seen.add((lang, digest))
        taken[lang] += 1
        wanted.setdefault(number, []).append(place)
    found = [_POOL.empty_table()]
    found += [
        read_table(cut.run_dir, cut.files[number]).take(pa.array(places))
        for number, places in wanted.items()
    ]
    pool = pa.concat_tables(found).sort_by(_ORDER).drop_columns(["hash", "digest"])
    shelves = [pool.slice(at, SHELF) for at in range(0, max(1, pool.num_rows), SHELF)]
    shelves[0] = Stats.attach(shelves[0], {"repeated": repeated})
    return {f"shelf-{i:05d}.parquet": shelf for i, shelf in enumerate(shelves)}


def _embedded(embedder: str, shelf: Mapping[str, Any], setting: Setting) -> pa.Table:
    """The vectors of a shelf, which is always embedded together: a batch may show in a last bit."""
    texts = read_table(setting.run_dir, FileRef(**shelf), ["text"]).column("text").to_pylist()
    found = np.ascontiguousarray(embedder_of(embedder)(texts), dtype=np.float32)
    return pa.table({"vector": as_binary(found)})


def _index(pool: StepRef, embedded: StepRef, setting: Setting) -> dict[str, Any]:
    """The vectors of the pool, without those of no direction, and what each belongs to."""
    matrix, filled = None, 0
    places: list[Any] = []
    for shelf, ref in enumerate(embedded.files):
        X = from_binary(read_table(embedded.run_dir, ref).column("vector"), np.float32)
        known = np.flatnonzero(usable(X))
        if len(known):
            matrix = matrix or Matrix(pool.rows, X.shape[1])
            matrix.rows[filled : filled + len(known)] = X[known]
            places.append(shelf * SHELF + known)
            filled += len(known)
    matrix = matrix or Matrix(0, 1)
    at = pa.array(np.concatenate([np.empty(0, np.int64), *places]).astype(np.int64))
    described = pool.read(["lang", "n_tokens"]).take(at)
    numbers = described.append_column("place", at)
    counted = numbers.group_by("lang").aggregate([("n_tokens", "sum"), ("n_tokens", "count")])
    langs, tokens, counts = (
        counted.column(c).to_pylist() for c in ("lang", "n_tokens_sum", "n_tokens_count")
    )
    told = {
        "paragraphs": dict(sorted(zip(langs, counts, strict=True))),
        "tokens": dict(sorted(zip(langs, tokens, strict=True))),
        "without_vector": pool.rows - filled,
    }
    return {"index.parquet": Stats.attach(numbers, told), _VECTORS: matrix.content(filled)}


class Pool:
    """A pool in a worker: its texts, and its vectors as mapped from their file."""

    def __init__(self, ref: PoolRef) -> None:
        self._texts = ref.texts.read(list(Paragraph._fields)).combine_chunks()
        (numbers,) = (f for f in ref.vectors.files if f.name.endswith(".parquet"))
        table = read_table(ref.vectors.run_dir, numbers, ["lang", "place"])
        self._places = table.column("place").to_numpy()
        langs = np.array(table.column("lang").to_pylist(), dtype=object)
        found = {lang: np.flatnonzero(langs == lang) for lang in set(langs.tolist())}
        # A language lies together, so its vectors are a view.
        self._ranges = {lang: (int(at[0]), int(at[-1]) + 1) for lang, at in found.items()}
        self._vectors = mapped(ref.vectors, _VECTORS)

    def ranked(self, lang: str, summary: F32, first: int) -> Iterator[Paragraph]:
        """The paragraphs of a language by their likeness to a vector, the most similar first."""
        start, end = self._ranges.get(lang, (0, 0))
        for number in rank_paragraphs(self._vectors[start:end], summary, first):
            (row,) = self._texts.slice(int(self._places[start + number]), 1).to_pylist()
            yield Paragraph(**row)


@lru_cache(maxsize=1)
def pool_in_worker(ref: PoolRef) -> Pool:
    """The pool of a process."""
    return Pool(ref)


@dataclass(frozen=True)
class RelatedWork:
    """Work of the step `related`: the paragraphs that each row of a unit takes, the best first."""

    op: "SynthChatQA2"
    setting: Setting
    folder: str
    pool: PoolRef

    def __call__(self, payload: tuple[str, Groups], sink: Sink) -> dict[str, Any]:
        name, groups = payload
        counter = token_counter(self.setting.tokenizer)
        items = items_of(self.setting.run_dir, groups)
        clusters = clusters_of(groups, self.op.cluster_column)
        replies = {item.id: self._related(item, clusters.get(item.id), counter) for item in items}
        write_replies(sink, f"{self.folder}/{name}.parquet", replies)
        told = {
            "taken": sum(len(found["paragraphs"]) for found in replies.values()),
            "with_answer": sum(found["with_answer"] for found in replies.values()),
        }
        return {"stats": {"rows": len(items), **told}}

    def _related(self, item: Item, cluster: str | None, counter: TokenCounter) -> dict[str, Any]:
        op, seed = self.op, self.setting.seed
        qa, summary = op.asked_of(item, seed), op.summary_of(item)
        page = op.page_of(item, counter)
        budget = paragraph_budget(qa, page, summary, counter, op.settings, seed)
        if not budget:
            return {"paragraphs": [], "with_answer": 0}
        # One summary at a time, whatever the units are: a batch might show in the last bit.
        vector = np.ascontiguousarray(embedder_of(op.embedder)([summary])[0], dtype=np.float32)
        if not usable(vector[None])[0]:
            return {"paragraphs": [], "with_answer": 0, "no_vector": True}
        first = 64 + 2 * budget // op.paragraph_tokens
        ranked = pool_in_worker(self.pool).ranked(item.lang, vector, first)
        found = related_paragraphs(ranked, item.id, qa.answers, budget, cluster)
        listed = [paragraph._asdict() for paragraph in found.paragraphs]
        return {"paragraphs": listed, "with_answer": found.with_answer}
