"""Ops that ask a model, run in this process: what they made, told and wrote."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Corpus
from longctx.synth.stages_base import Synthesis
from tests.in_process import context_of, corpus_of

Row = dict[str, Any]
SCRIPTED: Row = {"backend": "scripted"}
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
