"""The files of a synthesis op: rows, conversations and rejects, and the manifest that vouches.

A file holds the rows of a range of ids, whichever units made them: `part-N.parquet` in the schema
of the system, `chat-N.jsonl` with their turns as TRL, Axolotl and LLaMA-Factory read them, and
`rejects-N.parquet` with the documents of the range that came to nothing.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine import summary
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import parquet_groups
from longctx.engine.op import Setting
from longctx.engine.steps import BUCKET
from longctx.engine.units import Sink
from longctx.errors import RunError
from longctx.io.output_folder import vouch
from longctx.llm.rejects import reject_table
from longctx.synth.rows import table_of
from longctx.synth.stages_held_out import HeldOut
from longctx.synth.stages_work import REJECT, ROW

if TYPE_CHECKING:
    from longctx.synth.stages_base import Synthesis

_GROUP_ROWS = 64


def to_file(table: pa.Table, setting: Setting) -> pa.Table:
    """Rows of the step `rows`, each with the number of its file as bucket."""
    return table.drop_columns(["facts"]).append_column(BUCKET, table.column("file"))


@dataclass(frozen=True)
class FilesWork:
    """Work of one range of ids: its rows and rejects, as an exchange brought them."""

    op: "Synthesis"
    setting: Setting
    held_out: HeldOut | None = None

    def __call__(self, payload: tuple[str, pa.Table | None], sink: Sink) -> dict[str, Any]:
        name, brought = payload
        if brought is None:
            return {"stats": {}}
        number = int(name.rpartition("-")[2])
        rows = of_kind(brought, ROW)
        table = self.ordered(table_of(map(self.stored, rows), self.op.schema))
        rejects = [
            r | {"run_id": self.setting.recipe_fingerprint} for r in of_kind(brought, REJECT)
        ]
        output, sizes = self.setting.output, 0
        if table.num_rows:
            groups = [table.slice(i, _GROUP_ROWS) for i in range(0, table.num_rows, _GROUP_ROWS)]
            data = parquet_groups(groups, plain=True)
            sink.write(f"{output}/part-{number:05d}.parquet", data, table.num_rows)
            kind, lines = self.lines(table, rows)
            sink.write(f"{output}/{kind}-{number:05d}.jsonl", lines, table.num_rows)
            sizes = len(data) + len(lines)
        if rejects:
            data = parquet_groups([reject_table(rejects)], plain=True)
            sink.write(f"{output}/rejects-{number:05d}.parquet", data, len(rejects))
        self.beside(brought, number, sink)
        told = {"rows": table.num_rows, "rejects": len(rejects), "bytes": sizes}
        if self.held_out is not None:
            told["hits"] = sum(self.held_out.shared(row) is not None for row in rows)
        return {"stats": {**told, "files": int(table.num_rows > 0)}}

    def stored(self, row: dict[str, Any]) -> dict[str, Any]:
        """What of a row stands in the Parquet file."""
        return row

    def ordered(self, table: pa.Table) -> pa.Table:
        """The rows of a file, which come by id, in the order in which they are written."""
        return table

    def lines(self, table: pa.Table, rows: list[dict[str, Any]]) -> tuple[str, bytes]:
        """The name of the JSONL files, and the rows of one as a trainer reads them."""
        return "chat", chat_lines(table)

    def beside(self, brought: pa.Table, number: int, sink: Sink) -> None:
        """Further files of the range of ids, where a system has any."""


def of_kind(brought: pa.Table, kind: str) -> list[Any]:
    """The data of the records of a kind, in the order of their ids."""
    mine = brought.filter(pc.equal(brought.column("kind"), kind)).sort_by("id")
    return [json.loads(data) for data in mine.column("data").to_pylist()]


def chat_lines(table: pa.Table) -> bytes:
    """Conversations, one a line: the id and the turns with `role` and `content`."""
    pairs = zip(table.column("id").to_pylist(), table.column("messages").to_pylist(), strict=True)
    lines = [json.dumps({"id": i, "messages": turns}, ensure_ascii=False) for i, turns in pairs]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def publish(op: "Synthesis", context: BarrierContext, synthesis: dict[str, Any]) -> None:
    """Remove what an earlier run left, and let `manifest.json` vouch for the files."""
    setting, told = context.setting, context.step_stats["files"]
    made, expected = context.step_stats["rows"], op.rows_made(context)
    written, rejected = told.get("rows", 0), told.get("rejects", 0)
    if written != expected or not op.accounted(context, synthesis["chosen"]):
        raise RunError(
            f"{written:,} of {expected:,} rows were written, for {made['ok']:,} documents, and "
            f"{rejected:,} rejects, for {synthesis['chosen']:,} chosen documents",
            where=setting.stage,
            remedy="this is a fault of longctx, please report it with run.json",
        )
    manifest = {
        "system": op.system,
        "prompt_version": op.prompt_version,
        "model": synthesis["model"],
        "rows": written,
        "rejects": rejected,
        "checks": synthesis["checks"],
    }
    vouch(setting, op.vouched(context), manifest)
    warnings = {
        f"The check `{name}` of the rows failed: see `synthesis` in run.json.": 1
        for name, found in synthesis["checks"].items()
        if found.get("ok") is False
    }
    warnings |= {
        f"In stage `{step}` the server called its model {' and '.join(names)}: rows may come from "
        "several models.": 1
        for step, stage in synthesis["stages"].items()
        if len(names := sorted(stage.get("models_reported", {}))) > 1
    }
    known = {k: told.get(k, 0) for k in ("files", "rows", "rejects", "bytes")}
    context.step_stats["files"] = {**known, "warnings": warnings}
    # Documents go through untouched: what was made of them is counted under a key of its own.
    seen = context.step_stats["candidates"]["summary"]
    context.outcome = summary.merge([seen]) | {"rows_out": context.rows, "synthesis": synthesis}
