"""The questions of `synth.pam_qa`: chosen from a table, or made of the replies about documents."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from longctx.engine import summary
from longctx.engine.corpus import Part
from longctx.engine.op import Setting
from longctx.engine.steps import Stats, StepRef, read_table
from longctx.llm.keys import canonical_json
from longctx.synth.draw import hash_order
from longctx.synth.items import language_of
from longctx.synth.pamqa import SYSTEM
from longctx.synth.pamqa_table import Asked, Gold, asked_of
from longctx.synth.stages_choose import CANDIDATES

if TYPE_CHECKING:
    from longctx.synth.stages_pamqa import SynthPamQA

_ASKED = pa.schema({"id": pa.string(), "asked": pa.large_string()}.items())
_CHOSEN = CANDIDATES.append(pa.field("part", pa.int32())).append(pa.field("file", pa.int32()))


def asked_in(asked: StepRef) -> list[Asked]:
    """All questions in ascending order of their ids, whose places are their numbers."""
    texts = asked.read(["asked"]).column("asked").to_pylist()
    return sorted((asked_of(json.loads(text)) for text in texts), key=lambda one: one.id)


def seen(op: "SynthPamQA", columns: list[str], part: Part, setting: Setting) -> pa.Table:
    """Counters of a part, none of whose documents is asked about."""
    table = part.table(columns)
    langs = [language_of(tag, op.default_language) for tag in table.column("language").to_pylist()]
    stats = {
        "summary": summary.summarise(table.drop_columns(["language", "row"]), None),
        "available": {},
        "without_language": sum(lang is None for lang in langs),
    }
    return Stats.attach(CANDIDATES.empty_table(), stats)


def chosen_of_table(op: "SynthPamQA", setting: Setting) -> dict[str, Any]:
    """The first questions of the table in the order of their hashes, ascending by id."""
    listed = {one.id: one for one in op.table(setting.stage)}
    first = sorted(hash_order(listed, setting.seed, SYSTEM, "select")[: op.rows])
    rows = [
        {
            "id": row_id,
            "row": None,
            "lang": listed[row_id].lang,
            "source": listed[row_id].source,
            "n_tokens": 0,
            "bin": 0,
            "part": 0,
            "file": rank // op.shard_rows,
        }
        for rank, row_id in enumerate(first)
    ]
    table = pa.Table.from_pylist(rows, schema=_CHOSEN)
    told = {"reached": {}, "questions": len(listed)}
    return {"chosen.parquet": Stats.attach(table, told)}


def of_table(
    op: "SynthPamQA", chosen: StepRef, away: StepRef | None, setting: Setting
) -> dict[str, Any]:
    """The chosen questions but for those that were turned away."""
    ids, bad = (
        set(step.read(["id"]).column("id").to_pylist()) if step else set()
        for step in (chosen, away)
    )
    ids -= bad
    return _asked_file([one for one in op.table(setting.stage) if one.id in ids])


def of_replies(chosen: StepRef, replies: StepRef, setting: Setting) -> dict[str, Any]:
    """Questions on chosen documents, whose golds are these."""
    described = {row["id"]: row for row in chosen.read(["id", "lang", "source"]).to_pylist()}
    found: list[Asked] = []
    for ref in replies.files:
        if ref.name.endswith("-rejects.parquet"):
            continue
        for row in read_table(replies.run_dir, ref, ["id", "reply"]).to_pylist():
            said, of = json.loads(row["reply"]), described[row["id"]]
            question, answer = said["question"].strip(), said["answer"].strip()
            golds = [Gold(row["id"])]
            found.append(Asked(row["id"], question, [answer], golds, of["lang"], of["source"]))
    return _asked_file(found)


def _asked_file(found: Sequence[Asked]) -> dict[str, Any]:
    rows = [{"id": one.id, "asked": canonical_json(one.plain())} for one in found]
    return {"asked.parquet": pa.Table.from_pylist(rows, schema=_ASKED)}
