"""The mixture of `synth.longalpaca` on the engine: chosen from facts in one place, made in pieces.

How data flows. The step `rows` has made a row of every document that was answered. `mixture` reads
what is known of them (category, hashes of document and question) and the ids of the short rows,
and says which are taken and in which file each stands, in the order of hashes. `taken` goes over
the rows unit by unit, turns what is left out into rejects, and makes the short rows, some at a
time. One process holds some 200 bytes a row, and the file of short rows.
"""

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.engine.steps import Stats, StepRef, read_table
from longctx.engine.units import Sink
from longctx.llm.keys import canonical_json
from longctx.synth.draw import hash_order
from longctx.synth.longalpaca import (
    SYSTEM,
    assemble_short,
    longalpaca_mix,
    short_instruction,
)
from longctx.synth.longalpaca_items import SHORT
from longctx.synth.rows import Reject
from longctx.synth.stages_files import FilesWork, of_kind
from longctx.synth.stages_held_out import HeldOut
from longctx.synth.stages_work import REJECT, ROW, ROWS, own_reject
from longctx.synth.tokens import token_counter

if TYPE_CHECKING:
    from longctx.synth.stages_longalpaca import SynthLongAlpaca

MIXTURE, TAKEN = "mixture", "taken"
_SHORT_ROWS = 1_024
_PLACED = pa.schema({"kind": pa.string(), "id": pa.string(), "file": pa.int32()}.items())


def mixed(
    op: "SynthLongAlpaca", context: BarrierContext, rows: StepRef, files: int, model: str
) -> StepRef:
    """The steps `mixture` and `taken`; the latter has rows and rejects as `rows` has them."""
    ignore = frozenset(type(op).model_fields) - {"op", "rows", "short", "ratio", "quota", "fill"}
    ignore |= {"prompt_version"}
    held_out = op.held_out(context)
    mixture = context.single(
        MIXTURE,
        partial(_mixture, op, rows, files, held_out),
        [rows, *([held_out.step] if held_out else [])],
        ignore=ignore - {"shard_rows", *(["ngram"] if held_out else [])},
    )
    short = context.step_stats[MIXTURE].get("short_taken", 0)
    payloads: list[Any] = [["rows", i] for i in range(len(rows.files))]
    payloads += [[SHORT, a, min(a + _SHORT_ROWS, short)] for a in range(0, short, _SHORT_ROWS)]
    rule = partial(_taken, op, rows, mixture, model)
    ignore -= {"short_lang"}
    return context.spread(TAKEN, rule, payloads, [rows, mixture], ignore=ignore)


def _mixture(
    op: "SynthLongAlpaca",
    rows: StepRef,
    files: int,
    held_out: HeldOut | None,
    setting: Setting,
) -> "dict[str, pa.Table | bytes | memoryview]":
    """Which rows are taken, and the file of each."""
    long = []
    for ref in rows.files:
        table = read_table(rows.run_dir, ref, ["id", "kind", "facts"])
        for row in table.to_pylist():
            if row["kind"] == ROW:
                known = json.loads(row["facts"])
                long.append({"id": row["id"], **known})
    listed = op.short_rows(setting.stage)
    short = [
        {"id": row["id"]}
        for row in listed
        if held_out is None or not held_out.shared([short_instruction(row), row["output"]])
    ]
    mix = longalpaca_mix(
        long, short, op.ratio, op.shares, total=op.rows, seed=setting.seed, fill=op.fill
    )
    placed = [
        {"kind": row["kind"], "id": row["id"], "file": rank * files // len(mix.rows)}
        for rank, row in enumerate(mix.rows)
    ]
    told = {
        "long": len(long),
        "short": len(listed),
        **({"short_contaminated": len(listed) - len(short)} if held_out else {}),
        "duplicates": mix.duplicates,
        "short_taken": sum(row["kind"] == SHORT for row in placed),
        "long_taken": sum(row["kind"] != SHORT for row in placed),
    }
    return {"mixture.parquet": Stats.attach(pa.Table.from_pylist(placed, schema=_PLACED), told)}


def _taken(
    op: "SynthLongAlpaca",
    rows: StepRef,
    mixture: StepRef,
    model: str,
    payload: Any,
    setting: Setting,
) -> pa.Table:
    """The rows of a unit that are taken and rejects for the others; or some of the short rows."""
    table = mixture.read()
    places = {(r["kind"], r["id"]): r["file"] for r in table.to_pylist()}
    if payload[0] == SHORT:
        return _short_rows(op, places, payload[1:], setting)
    listed = []
    for row in read_table(rows.run_dir, rows.files[payload[1]]).to_pylist():
        if row["kind"] == ROW and ("long", row["id"]) not in places:
            category = json.loads(row["facts"])["category"]
            why = f"more of category {category} than the mixture takes, or a document twice"
            reject = own_reject(op, MIXTURE, row["id"], Reject("over_quota", why), model)
            data = json.dumps(reject, ensure_ascii=False)
            row = {**row, "kind": REJECT, "facts": None, "data": data}
        elif row["kind"] == ROW:
            row = {**row, "file": places["long", row["id"]]}
        listed.append(row)
    return pa.Table.from_pylist(listed, schema=ROWS)


def _short_rows(
    op: "SynthLongAlpaca", places: dict[tuple[str, str], int], some: list[int], setting: Setting
) -> pa.Table:
    counter, source = token_counter(setting.tokenizer), op.short_source
    known = sorted((r for r in op.short_rows(setting.stage)), key=lambda r: str(r["id"]))
    mine = [row for row in known if (SHORT, row["id"]) in places][slice(*some)]
    listed = []
    for row in mine:
        made = assemble_short(row, op.short_lang, source, counter, setting.seed)
        own = {"id": row["id"], "file": places[SHORT, row["id"]], "kind": ROW}
        facts = canonical_json(op.facts_of(made))
        listed.append({**own, "facts": facts, "data": json.dumps(made, ensure_ascii=False)})
    return pa.Table.from_pylist(listed, schema=ROWS)


@dataclass(frozen=True)
class MixedFiles(FilesWork):
    """Work of one file of the mixture: rows in the order of their hashes, and in Alpaca form."""

    def ordered(self, table: pa.Table) -> pa.Table:
        ids = table.column("id").to_pylist()
        at = {row_id: i for i, row_id in enumerate(ids)}
        order = hash_order(ids, self.setting.seed, SYSTEM, "file")
        return table.take(pa.array([at[row_id] for row_id in order], pa.int64()))

    def beside(self, brought: pa.Table, number: int, sink: Sink) -> None:
        rows = {row["id"]: row["alpaca"] for row in of_kind(brought, ROW)}
        if not rows:
            return
        order = hash_order(rows, self.setting.seed, SYSTEM, "file")
        lines = "".join(json.dumps(rows[i], ensure_ascii=False) + "\n" for i in order)
        name = f"{self.setting.output}/alpaca-{number:05d}.jsonl"
        sink.write(name, lines.encode("utf-8", "replace"), len(rows))
