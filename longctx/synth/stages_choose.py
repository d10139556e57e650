"""Steps of a synthesis op without a model: which documents, and what all rows look like together.

Every part gives its own first documents of each bin in the order of their hashes, which hold the
first of all; one place takes those part by part, so it never holds more than what is wanted and
what one part gives.
"""

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from longctx.engine import summary
from longctx.engine.corpus import Part
from longctx.engine.op import Setting
from longctx.engine.steps import Stats, StepRef, read_table
from longctx.synth.items import Bin, bin_name, first_of_bins, language_of

if TYPE_CHECKING:
    from longctx.synth.stages_base import Synthesis

CANDIDATES = pa.schema(
    {
        "id": pa.string(),
        "row": pa.int32(),
        "lang": pa.string(),
        "source": pa.string(),
        "n_tokens": pa.int32(),
        "bin": pa.int32(),
    }.items()
)

_COUNTED = ("source", "license", "n_tokens", "n_chars")


def candidates_of(op: "Synthesis", columns: list[str], part: Part, setting: Setting) -> pa.Table:
    """The documents of a part that may be among the chosen ones, and counters of all."""
    table, quotas = part.table(columns), op.quotas
    names = ("doc_id", "row", "language", "source", "n_tokens")
    found: dict[Bin, dict[str, dict[str, Any]]] = {}
    without = 0
    beside = op.choice_column()
    values = table.column(beside).to_pylist() if beside else [None] * len(table)
    for doc_id, row, tag, source, tokens, value in zip(
        *(table.column(n).to_pylist() for n in names), values, strict=True
    ):
        lang = language_of(tag, op.default_language)
        without += lang is None
        if (place := op.bin_of(lang, tokens, source, value)) is not None:
            described = {"id": doc_id, "row": row, "lang": lang, "source": source}
            kept = {**described, "n_tokens": tokens, "bin": place[1]}
            found.setdefault(place, {})[doc_id] = kept
    first = first_of_bins(found, quotas, setting.seed, op.system)
    rows = [found[place][doc_id] for place, ids in sorted(first.items()) for doc_id in ids]
    stats = {
        "summary": summary.summarise(table.select([c for c in _COUNTED if c in columns]), None),
        "available": {bin_name(place): len(docs) for place, docs in found.items()},
        "without_language": without,
    }
    return Stats.attach(pa.Table.from_pylist(rows, schema=CANDIDATES), stats)


def chosen_of(op: "Synthesis", candidates: StepRef, setting: Setting) -> dict[str, Any]:
    """The chosen documents of all parts in ascending order of ids, each with part and file."""
    best: dict[Bin, dict[str, dict[str, Any]]] = {}
    for number, ref in enumerate(candidates.files):
        for row in read_table(candidates.run_dir, ref).to_pylist():
            place = (row["lang"], row["bin"])
            best.setdefault(place, {})[row["id"]] = {**row, "part": number}
        # Only the first ones are carried on, however many parts there are.
        first = first_of_bins(best, op.quotas, setting.seed, op.system)
        best = {place: {i: best[place][i] for i in ids} for place, ids in first.items()}
    rows = sorted((row for docs in best.values() for row in docs.values()), key=lambda r: r["id"])
    for rank, row in enumerate(rows):
        row["file"] = rank // op.shard_rows
    schema = CANDIDATES.append(pa.field("part", pa.int32())).append(pa.field("file", pa.int32()))
    reached = {bin_name(place): len(docs) for place, docs in best.items()}
    table = pa.Table.from_pylist(rows, schema=schema)
    return {"chosen.parquet": Stats.attach(table, {"reached": reached})}


def figures_of(op: "Synthesis", rows: StepRef, setting: Setting) -> dict[str, Any]:
    """The checks over all rows."""
    told: list[tuple[str, str]] = []
    for ref in rows.files:
        table = read_table(rows.run_dir, ref, ["id", "facts"]).drop_null()
        ids, facts = (table.column(name).to_pylist() for name in ("id", "facts"))
        told += zip(ids, facts, strict=True)
    # Sorted, or the order of units would be in the sums of floats.
    checks = op.figures([json.loads(facts) for _, facts in sorted(told)])
    table = pa.table({"check": pa.array(list(checks), pa.string())})
    return {"figures.parquet": Stats.attach(table, {"checks": checks})}
