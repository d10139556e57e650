"""The files of `export`: written by the workers that have their rows, vouched for at the end."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Part, parquet_groups
from longctx.engine.op import Setting
from longctx.engine.units import Sink
from longctx.errors import RunError
from longctx.io.exported import compressed, json_lines, record_table, row_groups
from longctx.io.output_folder import vouch
from longctx.pack.stream import COPIES

if TYPE_CHECKING:
    from longctx.io.stages_export import Export

_NO_COPIES = (
    f"A mixture gives documents copies, but every document is exported once and says nothing of "
    f"them: name `{COPIES}` in `columns` of export."
)


@dataclass(frozen=True)
class InOrder:
    """Work of a file in the order of the corpus: its rows from the parts that it lies in."""

    op: "Export"
    setting: Setting

    def __call__(self, payload: tuple[str, list[tuple[Part, int]]], sink: Sink) -> dict[str, Any]:
        name, parts = payload
        number, limit = int(name), self.op.shard_bytes
        columns = list(dict.fromkeys([*self.op.shape.reads(), "text"]))
        found = []
        for part, before in parts:
            for table in part.groups(columns):
                size = pc.binary_length(table.column("text")).to_numpy().astype(np.int64) + 1
                begins = before + np.cumsum(size) - size
                before += int(size.sum())
                found.append(table.filter(pa.array(begins // limit == number)))
        return _write(self.op, self.setting, number, pa.concat_tables(found), sink)


@dataclass(frozen=True)
class Sorted:
    """Work of a file of the sorted order: the rows that an exchange brought."""

    op: "Export"
    setting: Setting

    def __call__(self, payload: tuple[str, pa.Table | None], sink: Sink) -> dict[str, Any]:
        name, rows = payload
        if rows is None:
            return {"stats": {}}
        rows = rows.sort_by([("key", "ascending"), ("doc_id", "ascending")])
        return _write(self.op, self.setting, int(name.rpartition("-")[2]), rows, sink)


def _write(
    op: "Export", setting: Setting, number: int, rows: pa.Table, sink: Sink
) -> dict[str, Any]:
    """One file of the output; none where no document begins in it."""
    if not len(rows):
        return {"stats": {}}
    shape, shadowed = op.shape, Counter[str]()
    if op.format == "parquet":
        groups = [record_table(g, shape) for g in row_groups(rows)]
        data: bytes | memoryview = parquet_groups(groups, plain=True)
        ending = "parquet"
    else:
        data = compressed(json_lines(rows, shape, shadowed), op.compression)
        ending = "jsonl" if op.compression == "none" else f"jsonl.{op.compression}"
    sink.write(f"{setting.output}/part-{number:05d}.{ending}", data, len(rows))
    stats = {"files": 1, "documents": len(rows), "bytes": len(data), "shadowed": dict(shadowed)}
    return {"stats": stats}


def publish(op: "Export", context: BarrierContext) -> None:
    """Remove what an earlier run left, and let `manifest.json` vouch for the files."""
    setting, told = context.setting, context.step_stats["files"]
    written = told.get("documents", 0)
    if written != context.rows:
        raise RunError(
            f"{written:,} documents were exported, {context.rows:,} were there",
            where=setting.stage,
            remedy="this is a fault of longctx, please report it with run.json",
        )
    counted = context.step_stats["sizes"]["summary"]
    manifest = {
        "documents": written,
        "tokens": counted["tokens"],
        "format": op.format,
        "compression": op.compression if op.format == "jsonl" else "zstd",
        "fields": [op.shape.called(n) for n in (*op.fields, *op.columns)],
        "order_by": op.order_by.model_dump() if op.order_by else None,
    }
    vouch(setting, context.step_commits["files"], manifest)
    warnings = {
        f"{n:,} documents had a field `{name}` in `meta`, which the record has for something else: "
        "it was left out.": 1
        for name, n in sorted(told.get("shadowed", {}).items())
    }
    if context.corpus.has(COPIES) and COPIES not in op.columns:
        warnings[_NO_COPIES] = 1
    known = {k: told[k] for k in ("files", "documents", "bytes")}
    order = {"order_by": op.order_by.column} if op.order_by else {}
    context.step_stats["files"] = {**known, "format": op.format, **order, "warnings": warnings}
    dropped = {"dropped": {}, "quarantined": 0, "quarantine": {}}
    context.outcome = {**counted, **dropped, "rows_in": context.rows, "rows_out": written}
