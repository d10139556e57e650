"""The pool of fillers of `synth.in2`: a fixed sample of all pieces, on numbered shelves.

How data flows. `pieces` counts the pieces of each part from its column of tokens: plain numbers,
whose sum says below which hash a piece is in the pool. `segments` reads the texts of documents that
have such a piece, part by part; documents that share n-grams with evaluation texts give none.
`shelves` brings the pieces by an exchange to files by ranges of hashes, and `pool` numbers them:
which piece has which number depends on hashes alone, never on parts.

No process holds the texts of the pool. A worker of `segments` holds the pieces of one part, one of
`shelves` some 2,048, and `pool` about 40 bytes a piece. Lost: pieces that are not in the sample,
and pieces that a document lacks where `n_tokens` was counted with another tokenizer.
"""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.steps import BUCKET, Stats, StepRef, read_table
from longctx.ids import doc_key, doc_keys
from longctx.synth.film import Segment, n_segments, segments_of
from longctx.synth.film_fillers import Pool, hash_bounds, piece_hashes
from longctx.synth.items import language_of
from longctx.synth.rows import SEGMENTS
from longctx.synth.stages_held_out import HeldOut
from longctx.synth.tokens import token_counter

if TYPE_CHECKING:
    from longctx.synth.stages_in2 import SynthIN2

SHELF = 2_048
_HASHED = pa.schema([("hash", pa.uint64()), ("lang", pa.string()), *SEGMENTS])
_COUNTED = pa.schema({"lang": pa.string(), "pieces": pa.int64()}.items())
_READS = frozenset({"lang_share", "default_language", "pool_segments", "cluster_column"})


class PoolRef(NamedTuple):
    """The finished steps of a pool, light enough to be sent to workers."""

    numbers: StepRef
    shelves: StepRef


def pool_of_corpus(op: "SynthIN2", context: BarrierContext) -> PoolRef:
    """The steps of the pool."""
    ignore = op.own_fields() - _READS | {"prompt_version"}
    sample = ignore | {"pool_segments", "cluster_column"}
    columns = ["doc_id", "language", "n_tokens"]
    context.per_part("pieces", partial(_count, op), columns[1:], ignore=sample)
    counts = context.step_stats["pieces"].get("pieces", {})
    bounds = hash_bounds(counts, op.pool_segments)
    held_out = op.held_out(context)
    if op.cluster_column:
        columns.append(op.cluster_column)
    segments = context.per_part(
        "segments",
        partial(_sampled, op, columns, bounds, held_out),
        [*columns, "text"],
        depends=[bounds, *(held_out.depends() if held_out else ())],
        ignore=ignore,
    )
    expected = sum(min(counts[lang], op.pool_segments) for lang in bounds)
    number = max(1, -(-expected // SHELF))
    shelves = context.exchange(
        "shelves",
        [(segments, partial(_to_shelf, bounds, number))],
        _shelved,
        _HASHED,
        buckets=number,
        ignore=ignore,
        depends=[bounds],
    )
    numbers = context.single("pool", partial(_numbered, shelves), [shelves], ignore=ignore)
    return PoolRef(numbers, shelves)


def _count(op: "SynthIN2", part: Part, setting: Setting) -> pa.Table:
    """How many pieces the documents of a part have, by language."""
    found: Counter[str] = Counter()
    table = part.table(["language", "n_tokens"])
    for tag, n in zip(
        *(table.column(c).to_pylist() for c in ("language", "n_tokens")), strict=True
    ):
        if (lang := _wanted(op, tag)) is not None and n is not None:
            found[lang] += n_segments(n)
    rows = [{"lang": lang, "pieces": n} for lang, n in sorted(found.items())]
    return Stats.attach(pa.Table.from_pylist(rows, schema=_COUNTED), {"pieces": dict(found)})


def _wanted(op: "SynthIN2", tag: str | None) -> str | None:
    """The language of a document, if rows are made in it."""
    lang = language_of(tag, op.default_language)
    return lang if any(lang == name and share for name, share in op.lang_share.items()) else None


def _sampled(
    op: "SynthIN2",
    columns: list[str],
    bounds: Mapping[str, int],
    held_out: HeldOut | None,
    part: Part,
    setting: Setting,
) -> pa.Table:
    """The pieces of a part that are in the pool, with their texts."""
    wanted = _chosen(op, bounds, part, setting.seed)
    told = {"contaminated": 0, "absent": 0}
    rows: list[dict[str, Any]] = []
    if wanted:
        counter = token_counter(setting.tokenizer)
        for group in part.groups([*columns, "text"]):
            mine = group.filter(pa.array(np.isin(group.column(ROW).to_numpy(), list(wanted))))
            for row in mine.to_pylist():
                lang, hashes = wanted[row[ROW]]
                if held_out and held_out.shared(row["text"]):
                    told["contaminated"] += 1
                    continue
                cluster = cluster_of(row, op.cluster_column)
                found = segments_of(row["doc_id"], row["text"], counter, cluster)
                told["absent"] += sum(k >= len(found) for k in hashes)
                rows += [
                    {"hash": h, "lang": lang, **found[k]._asdict()}
                    for k, h in hashes.items()
                    if k < len(found)
                ]
    return Stats.attach(pa.Table.from_pylist(rows, schema=_HASHED), told)


def cluster_of(row: Mapping[str, Any], column: str | None) -> str | None:
    """The near-duplicate cluster of a document; None where it has none."""
    found = row[column] if column else None
    return None if found is None else str(found)


def _chosen(
    op: "SynthIN2", bounds: Mapping[str, int], part: Part, seed: int
) -> dict[int, tuple[str, dict[int, int]]]:
    """By row the language and the pieces (k, hash) that are in the pool; no text is read."""
    table = part.table(["doc_id", "language", "n_tokens"])
    tags, tokens = table.column("language").to_pylist(), table.column("n_tokens").to_pylist()
    langs = [_wanted(op, tag) for tag in tags]
    sizes = np.array(
        [
            n_segments(n) if n and lang in bounds else 0
            for lang, n in zip(langs, tokens, strict=True)
        ],
        dtype=np.int64,
    )
    place = np.repeat(np.arange(len(sizes)), sizes)
    k = np.arange(len(place)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    keys = doc_keys(table.column("doc_id").to_pylist())
    hashes = piece_hashes(keys[place], k, seed)
    bound = np.array([bounds.get(lang or "", 0) for lang in langs], dtype=np.uint64)[place]
    rows = table.column(ROW).to_pylist()
    found: dict[int, tuple[str, dict[int, int]]] = {}
    for i in np.flatnonzero(hashes <= bound).tolist():
        at = int(place[i])
        own = found.setdefault(rows[at], (str(langs[at]), {}))
        own[1][int(k[i])] = int(hashes[i])
    return found


def _to_shelf(
    bounds: Mapping[str, int], shelves: int, table: pa.Table, setting: Setting
) -> pa.Table:
    """Pieces with the number of their shelf: of each language as many on every one."""
    most = np.array([float(bounds[lang]) for lang in table.column("lang").to_pylist()])
    share = table.column("hash").to_numpy().astype(np.float64) / np.maximum(most, 1.0)
    shelf = np.minimum((share * shelves).astype(np.int32), shelves - 1)
    return table.append_column(BUCKET, pa.array(shelf, pa.int32()))


def _shelved(table: pa.Table, setting: Setting) -> pa.Table:
    order = [(name, "ascending") for name in ("lang", "hash", "seg_id")]
    return table.sort_by(order).combine_chunks()


def _numbered(shelves: StepRef, setting: Setting) -> "dict[str, pa.Table | bytes | memoryview]":
    """What is drawn from: keys, tokens and places of all pieces, in the order of their numbers."""
    tables: list[pa.Table] = []
    tokens: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for shelf, ref in enumerate(shelves.files):
        columns = ["doc_id", "cluster_id", "lang", "n_tokens"]
        table = read_table(shelves.run_dir, ref, columns)
        clusters = [doc_key(c) if c else 0 for c in table.column("cluster_id").to_pylist()]
        langs, sizes = (table.column(n).to_pylist() for n in ("lang", "n_tokens"))
        counts.update(langs)
        for lang, n in zip(langs, sizes, strict=True):
            tokens[lang] += n
        numbered = {
            "doc": doc_keys(table.column("doc_id").to_pylist()),
            "cluster": np.array(clusters, dtype=np.uint64),
            "lang": pa.array(langs, pa.string()),
            "n_tokens": pa.array(sizes, pa.int32()),
            "shelf": np.full(len(langs), shelf, dtype=np.int32),
            "place": np.arange(len(langs), dtype=np.int32),
        }
        tables.append(pa.table(numbered))
    told = {"segments": dict(counts), "tokens": dict(tokens)}
    return {"pool.parquet": Stats.attach(pa.concat_tables(tables), told)}


class Shelves:
    """A pool in a worker: its numbers by language, and pieces fetched from the shelves."""

    def __init__(self, ref: PoolRef) -> None:
        table = ref.numbers.read()
        self._files, self._run_dir = ref.shelves.files, ref.shelves.run_dir
        columns = {n: table.column(n).to_numpy() for n in table.column_names if n != "lang"}
        self._shelf, self._place = columns["shelf"], columns["place"]
        langs = np.array(table.column("lang").to_pylist(), dtype=object)
        self._of_lang: dict[str, tuple[Any, Pool]] = {}
        for lang in sorted(set(langs.tolist())):
            own = np.flatnonzero(langs == lang)
            docs, clusters = columns["doc"][own], columns["cluster"][own]
            usable = np.ones(len(own), dtype=np.bool_)
            sizes = columns["n_tokens"][own]
            self._of_lang[lang] = own, Pool(docs, clusters, sizes, usable, _no_text)

    def pool(self, lang: str) -> Pool:
        """The pieces of a language, to draw from; their texts are fetched by `pieces`."""
        return self._of_lang[lang][1]

    def pieces(self, lang: str, drawn: list[int]) -> list[int]:
        """Numbers over all languages of the pieces that were drawn from `pool`."""
        return [int(n) for n in self._of_lang[lang][0][drawn]]

    def fetch(self, numbers: set[int]) -> dict[int, Segment]:
        """Pieces by their numbers; of one shelf after the other what is wanted is kept."""
        listed = np.array(sorted(numbers), dtype=np.int64)
        shelves = self._shelf[listed]
        found: dict[int, Segment] = {}
        for shelf in np.unique(shelves).tolist():
            own = listed[shelves == shelf]
            table = read_table(self._run_dir, self._files[shelf], list(Segment._fields))
            taken = table.take(pa.array(self._place[own])).to_pylist()
            found |= {n: Segment(**row) for n, row in zip(own.tolist(), taken, strict=True)}
        return found


def _no_text(number: int) -> Segment:
    raise LookupError(f"piece {number} is to be fetched from its shelf")


@lru_cache(maxsize=2)
def shelves_of(ref: PoolRef) -> Shelves:
    """The pool of a process."""
    return Shelves(ref)
