"""What the steps of a barrier run in workers: rules over parts, buckets and single places.

Rules are the ops' own functions; the classes here read for them, write for them and count.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from longctx.engine import summary
from longctx.engine.commit import FileRef, fingerprint
from longctx.engine.corpus import (
    QUARANTINED,
    ROW,
    Part,
    committed_bytes,
    intact,
    open_parquet,
    parquet_groups,
    scatter,
)
from longctx.engine.mapwork import write_quarantine
from longctx.engine.op import DROP_REASON, Setting
from longctx.engine.stored import restored
from longctx.engine.summary import Stats as Stats
from longctx.engine.units import Sink, Unit, Work, execute
from longctx.io import paths

BUCKET = "bucket"
PART = "part"


@dataclass(frozen=True)
class StepRef:
    """Files of a finished step, by unit; light enough to be sent to workers."""

    run_dir: str
    units: tuple[tuple[str, tuple[FileRef, ...]], ...]

    @property
    def files(self) -> list[FileRef]:
        """All files in the order of the units."""
        return [f for _, files in self.units for f in files]

    @property
    def rows(self) -> int:
        """Rows over all files."""
        return sum(f.rows for f in self.files)

    @property
    def digest(self) -> str:
        """Fingerprint of the content."""
        return fingerprint([f.checksum for f in self.files])

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """All rows, concatenated. For steps whose result fits one process."""
        tables = [read_table(self.run_dir, f, columns) for f in self.files]
        return pa.concat_tables(tables)

    def bytes(self, name: str) -> bytes:
        """Content of the file with this base name."""
        ref = next(f for f in self.files if f.name.rsplit("/", 1)[-1] == name)
        return committed_bytes(self.run_dir, ref)


def read_table(run_dir: str, ref: FileRef, columns: list[str] | None = None) -> pa.Table:
    """One committed Parquet file as a table."""
    file = open_parquet(run_dir, ref)
    with intact(paths.join(run_dir, ref.name)):
        return restored(file.read(columns=columns, use_threads=False))


Prepare = Callable[[pa.Table, Setting], pa.Table]
PartRule = Callable[[Part, Setting], pa.Table]
BucketRule = Callable[[pa.Table, Setting], pa.Table]
SpreadRule = Callable[[Any, Setting], pa.Table]
SingleRule = Callable[[Setting], "dict[str, pa.Table | bytes | memoryview]"]
PartSidecarRule = Callable[[pa.Table, pa.Table, Setting], pa.Table]


@dataclass(frozen=True)
class PartWork:
    """One table per part; not aligned."""

    rule: PartRule
    setting: Setting
    folder: str

    def __call__(self, part: Part, sink: Sink) -> dict[str, Any]:
        table, stats = Stats.detach(self.rule(part, self.setting))
        sink.write(f"{self.folder}/{part.name}.parquet", parquet_groups([table]), table.num_rows)
        return {"stats": stats}


@dataclass(frozen=True)
class SingleWork:
    """One unit that may write several files."""

    rule: SingleRule
    setting: Setting
    folder: str

    def __call__(self, payload: Any, sink: Sink) -> dict[str, Any]:
        stats: dict[str, Any] = {}
        for name, content in self.rule(self.setting).items():
            if isinstance(content, bytes | memoryview):
                sink.write(f"{self.folder}/{name}", content, 0)
                continue
            table, more = Stats.detach(content)
            stats |= more
            sink.write(f"{self.folder}/{name}", parquet_groups([table]), table.num_rows)
        return {"stats": stats}


@dataclass(frozen=True)
class BucketWork:
    """One bucket of an exchange."""

    rule: BucketRule
    setting: Setting
    folder: str
    schema: pa.Schema

    def __call__(self, payload: tuple[str, pa.Table | None], sink: Sink) -> dict[str, Any]:
        name, rows = payload
        table, stats = Stats.detach(
            self.rule(self.schema.empty_table() if rows is None else rows, self.setting)
        )
        sink.write(f"{self.folder}/{name}.parquet", parquet_groups([table]), table.num_rows)
        return {"stats": stats}


@dataclass(frozen=True)
class SidecarWork:
    """Rows that an exchange brought to a part, as a sidecar aligned with it."""

    rule: PartSidecarRule
    setting: Setting
    folder: str
    columns: list[str]
    schema: pa.Schema

    def __call__(self, payload: tuple[Part, pa.Table | None], sink: Sink) -> dict[str, Any]:
        part, rows = payload
        counted = [c for c in ("n_tokens", "n_chars") if c in part.columns()]
        base = part.table(
            list(dict.fromkeys(["doc_id", "source", "license", *counted, *self.columns]))
        )
        base = base.append_column(PART, pa.array(np.full(len(base), part.index, np.int32)))
        brought = self.schema.empty_table() if rows is None else rows.sort_by(ROW)
        table, stats = Stats.detach(self.rule(base, brought, self.setting))
        if DROP_REASON not in table.column_names:
            table = table.append_column(DROP_REASON, pa.nulls(table.num_rows, pa.string()))
        places = base.column(ROW).to_numpy().astype(np.int64)
        aligned = scatter(table.combine_chunks(), places, part.rows)
        groups, start = [], 0
        for size in part.group_sizes():
            groups.append(aligned.slice(start, size))
            start += size
        sink.write(f"{self.folder}/{part.name}.parquet", parquet_groups(groups), part.rows)
        self._quarantine(part, base, table.column(DROP_REASON), sink)
        return {**summary.summarise(base, table.column(DROP_REASON)), "stats": stats}

    def _quarantine(self, part: Part, base: pa.Table, reasons: pa.Array, sink: Sink) -> None:
        """Rows that the rule put into quarantine; their text stays readable in the part."""
        if not self.folder.endswith(self.setting.stage):
            return  # an inner step: only the stage's result decides
        bad = [
            {
                "stage": self.setting.stage,
                "doc_id": doc_id,
                "location": f"{part.documents.name}#row={row}",
                "reason": reason.partition(":")[2],
            }
            for doc_id, row, reason in zip(
                base.column("doc_id").to_pylist(),
                base.column(ROW).to_pylist(),
                reasons.to_pylist(),
                strict=True,
            )
            if reason is not None and summary.is_quarantine(reason)
        ]
        write_quarantine(sink, self.setting.stage, part.name, bad)


@dataclass(frozen=True)
class FilePrepare:
    """Read side of an exchange: committed files to rows with a bucket number."""

    run_dir: str
    prepare: Prepare
    setting: Setting

    def __call__(self, table: pa.Table) -> pa.Table:
        tables = []
        for name in chain.from_iterable(table.column("files").to_pylist()):
            ref = FileRef(name, 0, "", 0)
            tables.append(self.prepare(read_table(self.run_dir, ref), self.setting))
        return pa.concat_tables(tables)


def solver(
    run_dir: str, folder: str, units: dict[int, Unit], work: Work
) -> Callable[[pa.Table], pa.Table]:
    """Solve side of an exchange: all rows of one bucket, committed as one unit.

    A function, because Ray's map_groups takes the name of what it is given.
    """

    def solve(table: pa.Table) -> pa.Table:
        unit = units[table.column(BUCKET)[0].as_py()]
        rows = table.drop_columns([BUCKET])
        filled = Unit(unit.name, unit.fingerprint, (unit.payload, rows))
        done = execute(run_dir, folder, filled, work, received=rows.nbytes)
        return pa.table({"commit": pa.array([done], pa.large_string())})

    return solve


@dataclass(frozen=True)
class Wanted:
    """Drops rows of buckets that are already committed before they are shuffled."""

    prepare: FilePrepare
    buckets: Any

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = self.prepare(table)
        keep = np.isin(rows.column(BUCKET).to_numpy(), self.buckets)
        return rows if keep.all() else rows.filter(pa.array(keep))


@dataclass(frozen=True)
class SpreadWork:
    rule: SpreadRule
    setting: Setting
    folder: str

    def __call__(self, payload: tuple[str, Any], sink: Sink) -> dict[str, Any]:
        name, value = payload
        table, stats = Stats.detach(self.rule(value, self.setting))
        sink.write(f"{self.folder}/{name}.parquet", parquet_groups([table]), table.num_rows)
        return {"stats": stats}


def bucket_of(keys: Any, buckets: int) -> pa.Array:
    """Bucket numbers (int32) of uint64 keys: the high bits, so that equal keys meet."""
    high = np.asarray(keys, dtype=np.uint64) >> np.uint64(32)
    return pa.array(((high * np.uint64(buckets)) >> np.uint64(32)).astype(np.int32))


def quarantine_reason(reason: str) -> str:
    """The drop reason of a quarantined row."""
    return f"{QUARANTINED}:{reason}"
