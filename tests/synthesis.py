"""Ops that ask a model, run in this process: what they made, told and wrote."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Corpus
from longctx.synth import rule_set
from longctx.synth.stages_base import Synthesis
from tests.in_process import context_of, corpus_of

Row = dict[str, Any]
SCRIPTED: Row = {"backend": "scripted"}
# Ten words of an evaluation text, and how they are planted.
HELD_OUT = "alpha bravo charlie delta echo foxtrot golf hotel india juliet"
PLANTED = "Alpha, BRAVO: charlie\n\ndelta -- echo (foxtrot) Golf; *hotel* India. Juliet!"
# They hold the time of the run, or what names it.
_OF_THE_RUN = ("rejects-", "calls-", "manifest", "_")


def run_over(op: Synthesis, corpus: Corpus, rows: int, *, dry: bool = False) -> BarrierContext:
    """The op checked and run over a corpus with so many living rows, words for tokens."""
    context = context_of(op, corpus, rows, tokenizer="whitespace", dry=dry)
    op.check(context.setting)
    op.run(context)
    return context


def run_op(
    op: Synthesis, folder: Path, docs: list[Row], parts: int = 2, *, dry: bool = False
) -> BarrierContext:
    """The same over documents dealt to parts in a folder."""
    alive = sum(not doc.get("drop_reason") for doc in docs)
    return run_over(op, corpus_of(str(folder), docs, parts), alive, dry=dry)


def told_by(context: BarrierContext) -> Row:
    """What run.json will say of the synthesis."""
    assert context.outcome is not None
    found: Row = context.outcome["synthesis"]
    return found


def table(context: BarrierContext, kind: str = "part") -> list[Row]:
    """The rows of all files of a kind."""
    files = sorted(Path(context.setting.output).glob(f"{kind}-*.parquet"))
    return [row for f in files for row in pq.read_table(f).to_pylist()]


def output(context: BarrierContext) -> dict[str, bytes]:
    """The files that depend on input, seed and answers alone, by their names."""
    folder = Path(context.setting.output)
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(_OF_THE_RUN)}


def failed(context: BarrierContext) -> set[str]:
    """The checks over all rows that do not hold."""
    return {name for name, found in told_by(context)["checks"].items() if found.get("ok") is False}


def held_out(folder: Path) -> Row:
    """The field `against`, for a set with one text to look for."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "exam.jsonl"
    file.write_text(json.dumps({"question": f"{HELD_OUT}?", "answer": "short"}) + "\n")
    return {"against": [{"path": str(file)}]}


def says(monkeypatch: pytest.MonkeyPatch, stage: str, about: str, field: str) -> None:
    """Let the rule of a stage add the planted words where its prompt holds some others.

    Where the field is a list they go into its last text.
    """
    real = rule_set._RULES[stage]

    def rule(parts: Mapping[str, Any]) -> Row:
        said = real(parts)
        if about not in json.dumps(parts):
            return said
        *first, last = [said[field]] if isinstance(said[field], str) else said[field]
        more = f"{last} {PLANTED}"
        return {**said, field: more if isinstance(said[field], str) else [*first, more]}

    monkeypatch.setitem(rule_set._RULES, stage, rule)


def holding(context: BarrierContext) -> list[str]:
    """Files with rows or turns that hold the ten words, whatever stands between."""
    found = []
    for file in sorted(Path(context.setting.output).iterdir()):
        if file.suffix == ".jsonl":
            rows = [json.loads(line) for line in file.read_text().splitlines()]
        elif file.name.startswith("part-"):
            rows = pq.read_table(file).to_pylist()
        else:
            continue
        words = (" ".join(re.findall(r"[a-z]+", text.lower())) for text in _leaves(rows))
        found += [file.name] if any(HELD_OUT in text for text in words) else []
    return found


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)


def contaminated(context: BarrierContext) -> Row:
    """What was rejected for words of an evaluation text: the stage of each id."""
    rejects = table(context, "rejects")
    return {r["row_id"]: r["stage"] for r in rejects if r["code"] == "contaminated"}
