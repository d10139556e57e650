"""Barriers without Ray: every unit of a step is worked in this process, the real code around it.

What Ray does for a barrier is to call functions on tables and to bring rows to buckets. Here a loop
calls them, and rows of an exchange come in an order drawn from a seed, as they might from workers.
What depends on processes, on their number or their death, is not tested with it.
"""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longctx.engine import barrier, units
from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import Commit
from longctx.engine.corpus import Corpus, Sidecar
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.settings import stage_folder
from longctx.engine.steps import BUCKET, FilePrepare, Wanted, solver
from longctx.engine.units import Step, Unit, Work, execute
from longctx.schema import DOCUMENTS
from tests.engine.parts import put


def run_here(monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> None:
    """Let the units of barriers run here instead of on Ray; `seed` draws the order of rows."""
    monkeypatch.setattr(units, "compute", _compute)
    monkeypatch.setattr(barrier, "compute", _compute)
    monkeypatch.setattr(barrier, "shuffle", partial(_shuffle, seed))


def context_of(
    op: Barrier,
    corpus: Corpus,
    rows: int,
    *,
    dry: bool = False,
    exchange_bytes: int = 1_000_000,
    **changes: Any,
) -> BarrierContext:
    """A context in which the op can be run over a corpus with so many living rows."""
    setting = Setting(
        **{
            "seed": 3,
            "tokenizer": "embedded",
            "stage": f"09-{op.op}",
            "run_dir": corpus.run_dir,
            "output": f"{corpus.run_dir}/output",
            **changes,
        }
    )
    folder = stage_folder(corpus.run_dir, setting.stage)
    return BarrierContext(
        corpus, op, setting, folder, rows=rows, workers=2, exchange_bytes=exchange_bytes, dry=dry
    )


def corpus_of(folder: str, rows: list[dict[str, Any]], parts: int) -> Corpus:
    """Rows dealt to parts of two row groups; what is no column of documents stands in a sidecar.

    Rows with a `drop_reason` are dead.
    """
    files, beside = [], []
    names = [n for n in rows[0] if n not in (*DOCUMENTS.names, DROP_REASON)]
    columns = pa.table({n: pa.array([r[n] for r in rows]) for n in names})
    for i in range(parts):
        own = rows[i::parts]
        groups = [len(own) // 2, len(own) - len(own) // 2]
        usual = {"text": "text", "source": "s"}
        documents = [{n: r.get(n, usual.get(n)) for n in DOCUMENTS.names} for r in own]
        table = pa.Table.from_pylist(documents, schema=DOCUMENTS)
        files.append(put(folder, f"documents/s-{i:04d}.parquet", table, groups))
        scores = columns.take(pa.array(range(i, len(rows), parts)))
        reasons = pa.array([r.get(DROP_REASON) for r in own], pa.string())
        scores = scores.append_column(DROP_REASON, reasons)
        beside.append(put(folder, f"stages/01/s-{i:04d}.parquet", scores, groups))
    return Corpus(folder, tuple(files), (Sidecar("01", tuple(names), True, tuple(beside)),))


def rows_of(context: BarrierContext) -> dict[str, dict[str, Any]]:
    """doc_id -> the columns that the finished barrier wrote for it."""
    found = {}
    assert context.final is not None
    for i, done in enumerate(context.final.commits):
        ids = context.corpus.documents[i].name
        documents = pq.read_table(f"{context.setting.run_dir}/{ids}", columns=["doc_id"])
        written = pq.read_table(f"{context.setting.run_dir}/{done.files[0].name}")
        for doc_id, row in zip(documents["doc_id"].to_pylist(), written.to_pylist(), strict=True):
            found[doc_id] = row
    return found


def _compute(step: Step, todo: list[Unit], work: Work, **_: Any) -> Iterator[Commit]:
    for unit in todo:
        yield _committed(step.label, execute(step.run_dir, step.folder, unit, work))


def _shuffle(
    seed: int,
    plan: Step,
    sources: list[Any],
    missing: dict[int, Unit],
    work: Work,
    setting: Setting,
    limits: Any,
) -> Iterator[Commit]:
    wanted = np.array(sorted(missing), dtype=np.int32)
    brought = []
    for ref, prepare in sources:
        read = Wanted(FilePrepare(plan.run_dir, prepare, setting), wanted)
        names = [f.name for f in ref.files if f.rows]
        brought += [read(pa.table({"files": [[name]]})) for name in names]
    if not brought:
        return
    rows = pa.concat_tables(brought)
    rows = rows.take(pa.array(np.random.default_rng(seed).permutation(rows.num_rows)))
    solve = solver(plan.run_dir, plan.folder, missing, work)
    buckets = rows.column(BUCKET).to_numpy()
    for bucket in np.unique(buckets):
        done = solve(rows.filter(pa.array(buckets == bucket)))
        yield _committed(plan.label, done.column("commit")[0].as_py())


def _committed(label: str, told: str) -> Commit:
    value = json.loads(told)
    if "failed" in value:
        raise units._run_error(value, f"{label}/{value['failed']}")
    return Commit.from_json(value)
