"""Map and Model stages: a part in, an aligned sidecar out, failing rows into quarantine.

The op sees batches of living rows, bounded in bytes. When a batch raises, it is halved until the
rows that raise stand alone; they go to quarantine with their traceback and the others go on. An op
that knows which rows failed says so (`RowsFailedError`), and nothing is computed twice.
Counters that an op attaches to its columns (`Stats`) are summed over the batches of a part.
"""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine import summary
from longctx.engine.corpus import QUARANTINED, ROW, Part, parquet_groups, scatter
from longctx.engine.op import DROP_REASON, Map, Model, RowsFailedError, Setting
from longctx.engine.summary import Stats
from longctx.engine.units import Sink
from longctx.errors import LongctxError
from longctx.io.records import storable
from longctx.schema import QUARANTINE

Rule = Callable[[pa.Table], pa.Table]
_SAID = 10_000
_COUNTED = ("doc_id", "source", "license")


@dataclass(frozen=True)
class MapWork:
    """Work of a Map stage on one part."""

    op: Map | Model
    setting: Setting
    columns: list[str]
    counted: list[str]
    batch_bytes: int
    folder: str
    model: Any = None

    def load(self) -> "MapWork":
        """The same work with the op's model loaded (Model stages, once per worker)."""
        assert isinstance(self.op, Model)
        return replace(self, model=self.op.load(self.setting))

    def __call__(self, part: Part, sink: Sink) -> dict[str, Any]:
        bad: list[dict[str, Any]] = []
        groups, counted = [], []
        stats: dict[str, Any] = {}
        wanted = list(dict.fromkeys([*_COUNTED, *self.counted, *self.columns]))
        sizes = part.group_sizes()
        start = 0
        read = part.groups(wanted)
        for size in sizes:
            # One group at a time: it may be a document that fills half the memory.
            table = next(read)
            sidecar, more = self._sidecar(table, start, size, bad)
            stats = summary.merge([stats, more])
            groups.append(sidecar)
            counted.append(_counted(table, sidecar, start, self.counted))
            del table
            start += size
        sink.write(f"{self.folder}/{part.name}.parquet", parquet_groups(groups), part.rows)
        write_quarantine(sink, self.setting.stage, part.name, bad)
        before = pa.concat_tables([t for t, _ in counted], promote_options="default")
        reasons = _concat([r for _, r in counted])
        return {**summary.summarise(before, reasons), "stats": stats}

    def _sidecar(
        self, table: pa.Table, start: int, size: int, bad: list[dict[str, Any]]
    ) -> tuple[pa.Table, dict[str, Any]]:
        """One row group of the sidecar: the op's columns spread over all rows, and its counters."""
        outputs, rows, counters = [], [], []
        for batch in _batches(table, self.batch_bytes):
            for kept, output in guarded(self._apply, batch, self.setting.stage, bad):
                bare, stats = Stats.detach(output)
                outputs.append(bare)
                counters.append(stats)
                rows.append(kept.column(ROW).to_numpy() - start)
        if len(outputs) == 1 and len(outputs[0]) == size:
            (spread,) = outputs  # nothing to spread, nothing to copy
        else:
            empty, _ = Stats.detach(self._apply(table.slice(0, 0)))
            merged = pa.concat_tables([empty, *outputs]).combine_chunks()
            places = np.concatenate([np.zeros(0, dtype=np.int64), *rows]).astype(np.int64)
            spread = scatter(merged, places, size)
        here = {b["row"] - start: f"{QUARANTINED}:{b['reason']}" for b in bad if b["row"] >= start}
        return with_reasons(spread, here), summary.merge(counters)

    def _apply(self, table: pa.Table) -> pa.Table:
        if isinstance(self.op, Model):
            return self.op.batch(table, self.setting, self.model)
        return self.op.batch(table, self.setting)


def with_reasons(table: pa.Table, reasons: dict[int, str]) -> pa.Table:
    """Add drop reasons (row -> reason) to those that a sidecar has; the column is always there."""
    values = (
        table.column(DROP_REASON).to_pylist()
        if DROP_REASON in table.column_names
        else [None] * table.num_rows
    )
    for row, reason in reasons.items():
        values[row] = reason
    column = pa.array(values, pa.string())
    if DROP_REASON in table.column_names:
        return table.set_column(table.column_names.index(DROP_REASON), DROP_REASON, column)
    return table.append_column(DROP_REASON, column)


def guarded(
    rule: Rule, table: pa.Table, stage: str, bad: list[dict[str, Any]]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Apply a rule; yields (rows, result) pairs in order and collects the rows that raise."""
    try:
        output = rule(table)
    except (LongctxError, MemoryError):
        raise
    except RowsFailedError as failed:
        _one_for_each(failed.output, table)
        bad += [_row(table.slice(i, 1), stage, failed.errors[i]) for i in sorted(failed.errors)]
        kept = pa.array([i not in failed.errors for i in range(table.num_rows)], pa.bool_())
        yield table.filter(kept), failed.output.filter(kept)
        return
    except Exception as error:
        if table.num_rows > 1:
            half = table.num_rows // 2
            yield from guarded(rule, table.slice(0, half), stage, bad)
            yield from guarded(rule, table.slice(half), stage, bad)
            return
        bad.append(_row(table, stage, error))
        return
    _one_for_each(output, table)
    yield table, output


def _one_for_each(output: pa.Table, table: pa.Table) -> None:
    if output.num_rows != table.num_rows:
        raise ValueError(
            f"an op must return one row for each row: got {output.num_rows} for {table.num_rows}"
        )


def _row(table: pa.Table, stage: str, error: Exception) -> dict[str, Any]:
    """What quarantine says of the one row of a table."""
    return {
        "stage": stage,
        "doc_id": table.column("doc_id")[0].as_py(),
        "location": None,
        "reason": type(error).__name__,
        "detail": "".join(traceback.format_exception(error)),
        "payload": None,
        "row": table.column(ROW)[0].as_py(),
    }


def write_quarantine(sink: Sink, stage: str, name: str, bad: list[dict[str, Any]]) -> None:
    """Write the quarantined rows of a unit; without any, remove those of an earlier run."""
    file = f"quarantine/{stage}/{name}.parquet"
    if bad:
        table = pa.Table.from_pylist([_writable(b) for b in bad], schema=QUARANTINE)
        sink.write(file, parquet_groups([table]), len(bad))
    else:
        sink.discard(file)


def _writable(bad: dict[str, Any]) -> dict[str, Any]:
    # An exception may quote the text that it failed on, whole or with characters UTF-8 lacks.
    return {k: storable(v, _SAID) if isinstance(v, str) else v for k, v in bad.items()}


def _batches(table: pa.Table, limit: int) -> Iterator[pa.Table]:
    """Consecutive slices of at most `limit` bytes; a larger row stands alone."""
    if table.num_rows == 0:
        return
    if "text" not in table.column_names:
        yield table
        return
    sizes = pc.binary_length(table.column("text")).to_numpy()
    start = total = 0
    for i, size in enumerate(sizes):
        if i > start and total + size > limit:
            yield table.slice(start, i - start)
            start, total = i, 0
        total += int(size)
    yield table.slice(start)


def _counted(
    table: pa.Table, sidecar: pa.Table, start: int, counted: list[str]
) -> tuple[pa.Table, pa.Array]:
    """What the summary needs of the rows that came in: source, licence, lengths, reasons."""
    places = pa.array(table.column(ROW).to_numpy() - start)
    columns = {"source": table.column("source"), "license": table.column("license")}
    for name in ("n_tokens", "n_chars"):
        if name in sidecar.column_names:
            columns[name] = sidecar.column(name).take(places)
        elif name in counted:
            columns[name] = table.column(name)
    return pa.table(columns), sidecar.column(DROP_REASON).take(places)


def _concat(arrays: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    return pa.chunked_array([c for a in arrays for c in a.chunks], type=pa.string())
