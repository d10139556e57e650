"""Prompts from a file, on the engine: joined with the documents that they name.

Every worker reads the file once and keeps the last one, so it is to be small beside the corpus:
questions, not contexts. Parts give the prompts of their documents, one place takes the first of all
in the order of their hashes; prompts without a document go with the first part. The step `question`
leaves what a prompt says as a model's question would be left.
"""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from longctx.engine import summary
from longctx.engine.corpus import Part, parquet_groups
from longctx.engine.op import Setting
from longctx.engine.steps import Stats, StepRef, read_table
from longctx.engine.units import Sink
from longctx.llm.keys import canonical_json
from longctx.prefer.asked import parse_answers, parse_prompts
from longctx.synth.draw import hash_order
from longctx.synth.items import bin_name, language_of
from longctx.synth.stages_table import content_of, records_of
from longctx.synth.stages_work import REPLIES, Groups
from longctx.synth.words import written_in

if TYPE_CHECKING:
    from longctx.prefer.stages_base import Preference

PROMPTED = pa.schema(
    {
        "id": pa.string(),
        "row": pa.int32(),
        "lang": pa.string(),
        "source": pa.string(),
        "n_tokens": pa.int32(),
        "bin": pa.int32(),
        "part": pa.int32(),
    }.items()
)
_WHAT = "prompts"
_ELSEWHERE = "prompts"  # the source of what has no document


def prompts_of(location: str, where: str) -> dict[str, dict[str, Any]]:
    """The prompts of a file by id; kept until the file or another is asked for anew."""
    return _prompts(location, where, content_of(location, _WHAT, where))


def answers_of(location: str, where: str) -> dict[str, dict[int, str]]:
    """The ready answers of a file; kept until the file or another is asked for anew."""
    return _answers(location, where, content_of(location, _WHAT, where))


@functools.lru_cache(maxsize=1)
def _prompts(location: str, where: str, content: str) -> dict[str, dict[str, Any]]:
    return parse_prompts(records_of(location, _WHAT, where), location)


@functools.lru_cache(maxsize=1)
def _answers(location: str, where: str, content: str) -> dict[str, dict[int, str]]:
    return parse_answers(records_of(location, _WHAT, where))


def candidates_of_prompts(
    op: "Preference", columns: list[str], part: Part, setting: Setting
) -> pa.Table:
    """The prompts about documents of a part, and counters of all its documents."""
    assert op.prompts is not None
    named: dict[str, list[dict[str, Any]]] = {}
    for prompt in prompts_of(op.prompts, setting.stage).values():
        if "doc_id" in prompt:
            named.setdefault(prompt["doc_id"], []).append(prompt)
    table, rows, without = part.table(columns), [], 0
    out_of_range = 0
    names = ("doc_id", "row", "language", "source", "n_tokens")
    for doc_id, row, tag, source, tokens in zip(
        *(table.column(n).to_pylist() for n in names), strict=True
    ):
        wanted = named.get(doc_id, ())
        fits = tokens is not None and op.min_tokens <= tokens <= op.max_tokens
        out_of_range += 0 if fits else len(wanted)
        for prompt in wanted if fits else ():
            lang = prompt.get("lang") or language_of(tag, op.default_language)
            without += lang is None
            kept = {"id": prompt["id"], "row": row, "source": source, "n_tokens": tokens, "bin": 0}
            rows.append({**kept, "lang": lang or written_in(prompt["question"]), "part": 0})
    stats = {
        "summary": summary.summarise(table.drop_columns(["doc_id", "language", "row"]), None),
        "available": _by_lang(rows),
        "without_language": without,
        "out_of_range": out_of_range,
    }
    return Stats.attach(pa.Table.from_pylist(rows, schema=PROMPTED), stats)


def _by_lang(rows: list[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        name = bin_name((row["lang"], 0))
        found[name] = found.get(name, 0) + 1
    return found


def chosen_of_prompts(op: "Preference", candidates: StepRef, setting: Setting) -> dict[str, Any]:
    """The first prompts in the order of their hashes, in ascending order of ids."""
    assert op.prompts is not None
    found: dict[str, dict[str, Any]] = {}
    for number, ref in enumerate(candidates.files):
        for row in read_table(candidates.run_dir, ref).to_pylist():
            found[row["id"]] = {**row, "part": number}
    prompts = prompts_of(op.prompts, setting.stage)
    with_document = sum("doc_id" in p for p in prompts.values())
    lost = with_document - len(found)
    for prompt in prompts.values():
        if "doc_id" not in prompt:
            lang = prompt.get("lang") or op.default_language or written_in(prompt["question"])
            own = {"id": prompt["id"], "row": None, "lang": lang, "source": _ELSEWHERE}
            found[prompt["id"]] = {**own, "n_tokens": 0, "bin": 0, "part": 0}
    first = hash_order(found, setting.seed, op.system, "select")[: op.rows]
    rows = [{**found[i], "file": at // op.shard_rows} for at, i in enumerate(sorted(first))]
    schema = PROMPTED.append(pa.field("file", pa.int32()))
    stats = {"reached": _by_lang(rows), "prompts": len(prompts), "without_document": lost}
    table = pa.Table.from_pylist(rows, schema=schema)
    return {"chosen.parquet": Stats.attach(table, stats)}


@dataclass(frozen=True)
class PromptsWork:
    """Work of the step `question` where a file asks: what it says of a unit's prompts."""

    op: "Preference"
    setting: Setting
    folder: str

    def __call__(self, payload: tuple[str, Groups], sink: Sink) -> dict[str, Any]:
        assert self.op.prompts is not None
        name, groups = payload
        prompts = prompts_of(self.op.prompts, self.setting.stage)
        ids = [row["id"] for _, brought in groups for row in brought["rows"]]
        listed = [{"id": i, "reply": canonical_json(prompts[i]), "fix": None} for i in ids]
        table = pa.Table.from_pylist(listed, schema=REPLIES)
        sink.write(f"{self.folder}/{name}.parquet", parquet_groups([table]), table.num_rows)
        return {"stats": {"rows": len(ids)}}
