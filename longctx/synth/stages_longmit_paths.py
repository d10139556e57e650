"""The paths of `synth.longmit`: documents along their neighbours, and their texts brought along.

How data flows. `documents` reads of each part the chosen documents with their vectors; `numbered`
puts the vectors into one file that every worker maps, `neighbours` are the lists of
`cluster/stages_knn.py` (exact, above `exact_up_to` in cells). `paths` walks them in one place, on
numbers, clusters and the first hundred characters of each document. `library` brings the texts by
an exchange to the unit of their path, where they are cut into chunks, and those of a sample by hash
to shelves, which fill the contexts of all paths.

One process holds 4·d bytes a document for vectors of d dimensions, then about 1 kB each in `paths`;
none holds the texts of more than a part, a unit or a shelf. Texts are written three times. Lost:
links to documents that were not chosen; neighbours in another language, and those beyond `k_search`
where most of them are near-duplicates.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.cluster.stages_knn import VECTORS, find_neighbours, lists_in_blocks
from longctx.engine.arrays import npy_bytes
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part, parquet_groups
from longctx.engine.op import Setting
from longctx.engine.rows import as_binary, from_binary, usable, vectors
from longctx.engine.steps import BUCKET, Stats, StepRef, read_table
from longctx.engine.units import Sink
from longctx.errors import RunError
from longctx.ids import doc_keys
from longctx.synth.draw import hash_order
from longctx.synth.longmit import (
    SYSTEM,
    chunk_spans,
    traverse,
    without_near_duplicates,
)
from longctx.synth.tokens import token_counter

if TYPE_CHECKING:
    from longctx.synth.stages_longmit import SynthLongMIT

SHELF = 1_000
PREFIX = 100  # characters of a document that are compared on its path
_DESCRIBED = [
    ("id", pa.string()),
    ("lang", pa.string()),
    ("source", pa.string()),
    ("n_tokens", pa.int32()),
    ("cluster", pa.string()),
]
_CHUNKS = pa.list_(pa.list_(pa.int64()))
_MOVED = pa.schema(
    [
        *_DESCRIBED,
        ("text", pa.large_string()),
        ("path", pa.int32()),
        ("place", pa.int32()),
        ("shelved", pa.bool_()),
    ]
)
_PLACED = pa.schema(
    [
        *_DESCRIBED,
        ("path_id", pa.string()),
        ("path", pa.int32()),
        ("place", pa.int32()),
        ("pool", pa.int32()),
    ]
)


class Library(NamedTuple):
    """The paths, and where their texts lie: first the units, then the shelves."""

    paths: StepRef
    texts: StepRef
    units: int
    shelves: int


def library_of(
    op: "SynthLongMIT", context: BarrierContext, chosen: list[dict[str, Any]]
) -> Library:
    """The steps from chosen documents to texts in the order of their paths."""
    own = op.own_fields() | {"prompt_version"}
    documents = context.over_parts(
        "documents",
        _by_part(chosen),
        ["text", "embedding", *([op.cluster_column] if op.cluster_column else [])],
        DocumentsWork(op, context.relative("documents")),
        ignore=own - {"cluster_column"},
    )
    numbered = context.single("numbered", partial(_numbered, documents), [documents], ignore=own)
    n = context.step_stats["numbered"]["with_vector"]
    if not n:
        raise RunError(
            f"none of the {len(chosen):,} chosen documents has a vector",
            where=context.setting.stage,
            remedy="let `embed` take a model that knows their languages",
        )
    found = find_neighbours(
        context, numbered, n, op.k_search, op.exact_up_to, own - {"k_search", "exact_up_to"}
    )
    paths = context.single(
        "paths",
        partial(_paths, op, documents, numbered, found.lists),
        [documents, numbered, *found.steps()],
        ignore=own - {"k", "max_docs", "prefix_jaccard", "pool_documents"},
    )
    told = context.step_stats["paths"]
    units, shelves = -(-told["paths"] // op.unit_rows), -(-told["pool"] // SHELF)
    texts = context.exchange(
        "library",
        [(documents, partial(_to_unit, paths, op.unit_rows, units))],
        partial(_shelved, op.chunk_tokens),
        _MOVED,
        buckets=units + shelves,
        copies=2,
        ignore=own - {"chunk_tokens"},
        depends=[paths.digest, op.unit_rows],
    )
    return Library(paths, texts, units, shelves)


def _by_part(chosen: list[dict[str, Any]]) -> list[list[tuple[int, Any]]]:
    """A unit for each part with chosen documents."""
    of_part: dict[int, list[dict[str, Any]]] = {}
    for row in sorted(chosen, key=lambda r: (r["part"], r["row"])):
        of_part.setdefault(row["part"], []).append(row)
    return [[(part, rows)] for part, rows in of_part.items()]


@dataclass(frozen=True)
class DocumentsWork:
    """Work of the step `documents`: the chosen documents of a part, texts and vectors included."""

    op: "SynthLongMIT"
    folder: str

    def __call__(
        self, payload: tuple[str, list[tuple[Part, list[dict[str, Any]]]]], sink: Sink
    ) -> dict[str, Any]:
        name, [(part, rows)] = payload
        chosen = {row["row"]: row for row in rows}
        cluster = self.op.cluster_column
        tables = []
        for group in part.groups(["text", "embedding", *([cluster] if cluster else [])]):
            mine = group.filter(pa.array(np.isin(group.column(ROW).to_numpy(), list(chosen))))
            if mine.num_rows:
                tables.append(self._described(mine, chosen))
        table = pa.concat_tables(tables)
        sink.write(f"{self.folder}/{name}.parquet", parquet_groups(tables), table.num_rows)
        return {"stats": {"documents": table.num_rows}}

    def _described(self, mine: pa.Table, chosen: dict[int, dict[str, Any]]) -> pa.Table:
        rows = [chosen[row] for row in mine.column(ROW).to_pylist()]
        columns = {
            name: pa.array([row[name] for row in rows], kind)
            for name, kind in _DESCRIBED
            if name != "cluster"
        }
        column = self.op.cluster_column
        named = mine.column(column).to_pylist() if column else [None] * len(rows)
        clusters = [None if value is None else str(value) for value in named]
        texts = mine.column("text").cast(pa.large_string())
        return pa.table(
            {
                **columns,
                "cluster": pa.array(clusters, pa.string()),
                "prefix": pc.utf8_slice_codeunits(texts, 0, PREFIX),
                "text": texts,
                "vector": as_binary(vectors(mine.column("embedding"))),
            }
        )


def _numbered(documents: StepRef, setting: Setting) -> dict[str, Any]:
    """All chosen documents in ascending order of their ids, and the vectors of those with one."""
    table = documents.read(["id", "vector"])
    table = table.take(pc.sort_indices(table.column("id")))
    X = from_binary(table.column("vector"), np.float32)
    known = usable(X)
    ids = table.column("id")
    described = pa.table({"id": ids, "doc_key": doc_keys(ids.to_pylist()), "has_vector": known})
    stats = {"documents": len(ids), "with_vector": int(known.sum())}
    return {
        "documents.parquet": Stats.attach(described, stats),
        VECTORS: npy_bytes(np.ascontiguousarray(X[known])),
    }


def _paths(
    op: "SynthLongMIT",
    documents: StepRef,
    numbered: StepRef,
    lists: StepRef,
    setting: Setting,
) -> "dict[str, pa.Table | bytes | memoryview]":
    """Every chosen document with its path, and its place there or null where it was dropped."""
    table = documents.read([*(name for name, _ in _DESCRIBED), "prefix"])
    table = table.take(pc.sort_indices(table.column("id"))).combine_chunks()
    ids, prefixes, clusters = (table.column(n).to_pylist() for n in ("id", "prefix", "cluster"))
    near = _neighbours(op, table, numbered, lists)
    number = {doc_id: i for i, doc_id in enumerate(ids)}
    order = [number[doc_id] for doc_id in hash_order(ids, setting.seed, SYSTEM, "paths")]
    walked = sorted(
        (
            without_near_duplicates(path, prefixes.__getitem__, op.prefix_jaccard, clusters)
            for path in traverse(near, order, op.max_docs)
        ),
        key=lambda found: ids[found[0][0]],
    )
    places: dict[int, tuple[str, int, int | None]] = {}
    for rank, (path, dropped) in enumerate(walked):
        places |= {doc: (ids[path[0]], rank, place) for place, doc in enumerate(path)}
        places |= dict.fromkeys(dropped, (ids[path[0]], rank, None))
    on_paths = [ids[doc] for doc, (_, _, place) in places.items() if place is not None]
    pool = hash_order(on_paths, setting.seed, SYSTEM, "fillers")
    shelf = {doc_id: i for i, doc_id in enumerate(pool[: op.pool_documents])}
    columns = zip(*(places[i] for i in range(len(ids))), strict=True)
    placed = table.drop_columns(["prefix"])
    for name, values in zip(("path_id", "path", "place"), columns, strict=True):
        placed = placed.append_column(name, pa.array(values, _PLACED.field(name).type))
    placed = placed.append_column("pool", pa.array([shelf.get(i) for i in ids], pa.int32()))
    stats = {
        "documents": len(ids),
        "on_paths": len(on_paths),
        "near_dup_in_path": len(ids) - len(on_paths),
        "paths": len(walked),
        "alone": sum(len(path) == 1 for path, _ in walked),
        "pool": len(shelf),
    }
    return {"paths.parquet": Stats.attach(placed.cast(_PLACED), stats)}


def _neighbours(
    op: "SynthLongMIT", table: pa.Table, numbered: StepRef, lists: StepRef
) -> list[list[int]]:
    """The `k` nearest documents of each: of its language, none of its cluster, never itself."""
    ref = next(f for f in numbered.files if f.name.endswith(".parquet"))
    known = read_table(numbered.run_dir, ref, ["has_vector"]).column("has_vector").to_numpy()
    numbers = np.flatnonzero(known)
    langs, clusters = (table.column(name).to_pylist() for name in ("lang", "cluster"))
    found: list[list[int]] = [[] for _ in range(len(known))]
    for at, block in lists_in_blocks(lists):
        for place, row in zip(at.tolist(), block, strict=True):
            if place >= len(numbers):
                continue
            own = int(numbers[place])
            others = numbers[row[row >= 0]].tolist()
            found[own] = [
                j
                for j in others
                if langs[j] == langs[own]
                and (clusters[own] is None or clusters[j] != clusters[own])
            ][: op.k]
    return found


@lru_cache(maxsize=2)
def _homes(paths: StepRef) -> dict[str, tuple[int, int, int | None]]:
    """Of each document on a path its path, its place there, and its number in the pool."""
    table = paths.read(["id", "path", "place", "pool"])
    rows = zip(*(table.column(n).to_pylist() for n in ("id", "path", "place", "pool")), strict=True)
    return {doc_id: (path, place, pool) for doc_id, path, place, pool in rows if place is not None}


def _to_unit(
    paths: StepRef, unit_rows: int, units: int, table: pa.Table, setting: Setting
) -> pa.Table:
    """Documents to the unit of their path, and those of the pool to their shelf as well."""
    homes = _homes(paths)
    moved: dict[str, list[Any]] = {name: [] for name in ("at", "path", "place", "shelved", BUCKET)}
    for at, doc_id in enumerate(table.column("id").to_pylist()):
        if doc_id not in homes:
            continue
        path, place, pool = homes[doc_id]
        for shelved in [False, *([True] if pool is not None else [])]:
            bucket = units + (pool or 0) // SHELF if shelved else path // unit_rows
            for name, value in zip(moved, (at, path, place, shelved, bucket), strict=True):
                moved[name].append(value)
    found = table.select([*(name for name, _ in _DESCRIBED), "text"])
    found = found.take(pa.array(moved.pop("at"), pa.int64()))
    for name, values in moved.items():
        kind = pa.bool_() if name == "shelved" else pa.int32()
        found = found.append_column(name, pa.array(values, kind))
    return found


def _shelved(chunk_tokens: int, table: pa.Table, setting: Setting) -> pa.Table:
    """A unit in the order of its paths, with the chunks of each document; a shelf by ids."""
    table = table.sort_by([("path", "ascending"), ("place", "ascending")]).combine_chunks()
    counter = token_counter(setting.tokenizer)
    texts, shelved = (table.column(name).to_pylist() for name in ("text", "shelved"))
    chunks = [
        None if on_shelf else [list(span) for span in chunk_spans(text, counter, chunk_tokens)]
        for text, on_shelf in zip(texts, shelved, strict=True)
    ]
    return table.append_column("chunks", pa.array(chunks, _CHUNKS))
