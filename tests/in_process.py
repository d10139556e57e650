"""Barriers without Ray: every unit of a step is worked in this process, the real code around it.

What Ray does for a barrier is to call functions on tables and to bring rows to buckets. Here a loop
calls them, and rows of an exchange come in an order drawn from a seed, as they might from workers.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from longctx.engine import barrier, units
from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import Commit
from longctx.engine.corpus import Corpus
from longctx.engine.op import Barrier, Setting
from longctx.engine.settings import stage_folder
from longctx.engine.steps import BUCKET, FilePrepare, Wanted, solver
from longctx.engine.units import Step, Unit, Work, execute


class InProcess:
    """Replaces Ray in this process for one test; `seed` draws the order in which rows arrive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> None:
        self.seed = seed
        monkeypatch.setattr(units, "compute", self._compute)
        monkeypatch.setattr(barrier, "compute", self._compute)
        monkeypatch.setattr(barrier, "shuffle", self._shuffle)

    def run(
        self, op: Barrier, corpus: Corpus, rows: int, exchange_bytes: int = 256_000_000
    ) -> BarrierContext:
        """Run an op on a corpus; the context knows its steps, and `corpus` with its sidecars."""
        stage = f"02-{op.op}"
        place = {"run_dir": corpus.run_dir, "output": f"{corpus.run_dir}/output"}
        setting = Setting(seed=1, tokenizer="embedded", stage=stage, **place)
        context = BarrierContext(
            corpus,
            op,
            setting,
            stage_folder(corpus.run_dir, stage),
            rows=rows,
            workers=2,
            exchange_bytes=exchange_bytes,
        )
        op.run(context)
        return context

    def _compute(self, step: Step, todo: list[Unit], work: Work, **_: Any) -> Iterator[Commit]:
        for unit in todo:
            yield _told(execute(step.run_dir, step.folder, unit, work))

    def _shuffle(
        self,
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
        rows = rows.take(pa.array(np.random.default_rng(self.seed).permutation(rows.num_rows)))
        solve = solver(plan.run_dir, plan.folder, missing, work)
        buckets = rows.column(BUCKET).to_numpy()
        for bucket in np.unique(buckets):
            done = solve(rows.filter(pa.array(buckets == bucket)))
            yield _told(done.column("commit")[0].as_py())


def _told(answer: str) -> Commit:
    value = json.loads(answer)
    if "failed" in value:
        raise AssertionError(value.get("traceback", value))
    return Commit.from_json(value)
