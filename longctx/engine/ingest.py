"""The first stage: raw files to `documents/`, cut into parts, every id once.

Rows are read once and written once; bad rows go to quarantine with their place in the file. Ids
that occur twice are found by an exchange over their keys: the first in canonical order stays, the
others are quarantined (their text stays readable in the documents part).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import Commit, fingerprint
from longctx.engine.corpus import ROW, Corpus, Part, parquet_groups
from longctx.engine.inputs import Group, Listing
from longctx.engine.mapwork import write_quarantine
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.steps import BUCKET, bucket_of, quarantine_reason
from longctx.engine.units import Sink, Step, Unit
from longctx.errors import RunError
from longctx.ids import doc_keys
from longctx.io import paths
from longctx.io.read import Bad, Item, Note, Row, read
from longctx.schema import DOCUMENTS, SCHEMA_VERSION

STAGE = "00-read"
_GROUP_BYTES = 8 << 20
_KEYS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("doc_key", pa.uint64()),
        ("part", pa.int32()),
        (ROW, pa.int32()),
    ]
)


@dataclass
class _Writer:
    """Cuts a stream of rows into row groups and parts; holds at most one part."""

    sink: Sink
    name: str
    part_bytes: int
    groups: list[pa.Table] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    row_bytes: int = 0
    part_total: int = 0
    parts: int = 0
    text_bytes: int = 0

    def add(self, row: Row, size: int) -> None:
        if self.part_total and self.part_total + size > self.part_bytes:
            self.close_part()
        if self.rows and self.row_bytes + size > _GROUP_BYTES:
            self._close_group()
        self.rows.append(row)
        self.row_bytes += size
        self.part_total += size

    def close_full_part(self) -> None:
        """Write the part if no row fits any more, so that a large one is gone before the next."""
        if self.part_total > self.part_bytes:
            self.close_part()

    def _close_group(self) -> None:
        if self.rows:
            columns = {n: [getattr(r, n) for r in self.rows] for n in DOCUMENTS.names}
            table = pa.table(columns, schema=DOCUMENTS)
            self.text_bytes += pc.sum(pc.binary_length(table.column("text"))).as_py()
            self.groups.append(table)
            self.rows, self.row_bytes = [], 0

    def close_part(self) -> None:
        self._close_group()
        if not self.groups:
            return
        count = sum(g.num_rows for g in self.groups)
        file = f"documents/{self.name}-{self.parts:04d}.parquet"
        self.sink.write(file, parquet_groups(self.groups, DOCUMENTS), count)
        self.groups, self.part_total = [], 0
        self.parts += 1


@dataclass(frozen=True)
class ReadWork:
    """Work of the reading step on one group of files."""

    part_bytes: int

    def __call__(self, group: Group, sink: Sink) -> dict[str, Any]:
        writer = _Writer(sink, group.name, self.part_bytes)
        notes: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        by_source: Counter[str] = Counter()
        bad: list[dict[str, Any]] = []
        rows = quarantined = characters = 0
        for item in _items(group):
            if isinstance(item, Note):
                notes[item.name] += 1
            elif isinstance(item, Bad):
                quarantined += item.rows
                reasons[item.reason] += item.rows
                bad.append(_quarantined(item))
            else:
                # len() of the encoded text would copy it; an over-estimate only shortens parts.
                writer.add(item, len(item.text) * (1 if item.text.isascii() else 3))
                by_source[item.source] += 1
                characters += len(item.text)
                rows += 1
            del item
            writer.close_full_part()
        writer.close_part()
        write_quarantine(sink, STAGE, group.name, bad)
        return {
            "rows_in": rows + quarantined,
            "rows_out": rows,
            "quarantined": quarantined,
            "quarantine": dict(sorted(reasons.items())),
            "notes": dict(sorted(notes.items())),
            "chars": characters,
            "text_bytes": writer.text_bytes,
        }


def _items(group: Group) -> Iterator[Item]:
    for file in group.files:
        yield from read(file.url, file.key, group.spec)


def _quarantined(item: Bad) -> dict[str, Any]:
    return {
        "stage": STAGE,
        "doc_id": item.doc_id,
        "location": item.location,
        "reason": item.reason,
        "detail": item.detail,
        "payload": item.payload,
    }


def group_step(listing: Listing, run_dir: str, part_bytes: int) -> Step:
    """The step that reads: one unit for each group of files."""
    units = [_unit(g, part_bytes) for g in listing.groups]
    return Step(run_dir, paths.join(run_dir, "stages", STAGE, "groups"), units)


def _unit(group: Group, part_bytes: int) -> Unit:
    files = [(f.url, f.key, f.size, f.stamp) for f in group.files]
    spec = group.spec.model_dump(mode="json", exclude={"path"})
    seen = fingerprint([SCHEMA_VERSION, spec, files, part_bytes])
    return Unit(group.name, seen, group)


def corpus_of(run_dir: str, commits: list[Commit]) -> Corpus:
    """The documents parts in canonical order. Raises RunError if there are none."""
    files = [f for c in commits for f in c.files if f.name.startswith("documents/")]
    if not files:
        raise RunError(
            "no documents were read",
            where=STAGE,
            remedy="look into quarantine/00-read of the run folder for the reasons",
        )
    return Corpus(run_dir, tuple(files))


def remove_stale(corpus: Corpus) -> None:
    """Remove documents parts that an earlier state of the inputs left behind."""
    folder = paths.join(corpus.run_dir, "documents")
    current = {f.name.rsplit("/", 1)[-1] for f in corpus.documents}
    for name in paths.list_files(folder):
        if name not in current:
            paths.remove(paths.join(folder, name))


class CheckIds(Barrier):
    """Not named by recipes: every run checks that ids are unique."""

    op: str = "read"
    summary: ClassVar[str] = "documents with unique ids"
    writes: ClassVar[tuple[str, ...]] = (DROP_REASON,)

    def run(self, context: BarrierContext) -> None:
        keys = context.per_part("keys", _part_keys, ["doc_id"])
        count = context.buckets_for([keys])
        found = context.exchange(
            "repeated",
            [(keys, partial(_by_key, count))],
            _repeated,
            _KEYS,
            buckets=count,
        )
        brought = pa.schema([(ROW, pa.int32())])
        context.sidecar(
            "", [(found, _by_part)], _quarantine_repeated, brought, (DROP_REASON,), removes=True
        )


def _part_keys(part: Part, setting: Setting) -> pa.Table:
    table = part.table(["doc_id"])
    ids = table.column("doc_id").to_pylist()
    return pa.table(
        {
            "doc_id": table.column("doc_id"),
            "doc_key": doc_keys(ids),
            "part": pa.array(np.full(len(ids), part.index, dtype=np.int32)),
            ROW: table.column(ROW),
        },
        schema=_KEYS,
    )


def _by_key(buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    keys = table.column("doc_key").to_numpy()
    return table.append_column(BUCKET, bucket_of(keys, buckets))


def _repeated(table: pa.Table, setting: Setting) -> pa.Table:
    """Rows whose id occurred before, in (part, row) order; different ids must not share a key."""
    table = table.sort_by([("doc_key", "ascending"), ("part", "ascending"), (ROW, "ascending")])
    keys = table.column("doc_key").to_numpy()
    again = np.concatenate([[False], keys[1:] == keys[:-1]]) if len(keys) else np.zeros(0, bool)
    places = np.flatnonzero(again)
    ids = table.column("doc_id")
    for place in places:
        if ids[place] != ids[place - 1]:
            raise RunError(
                f"the ids {ids[place]} and {ids[place - 1]} have the same 64-bit key",
                where=STAGE,
                remedy="rename one of the two documents",
            )
    return table.select(["part", ROW]).take(pa.array(places))


def _by_part(table: pa.Table, setting: Setting) -> pa.Table:
    return pa.table({ROW: table.column(ROW), BUCKET: table.column("part")})


def _quarantine_repeated(base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    repeated = np.isin(base.column(ROW).to_numpy(), brought.column(ROW).to_numpy())
    reason = quarantine_reason("duplicate_id")
    return pa.table({DROP_REASON: pa.array([reason if r else None for r in repeated], pa.string())})
