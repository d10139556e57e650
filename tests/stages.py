"""Running a few stages on rows that a test gives, and reading back what each stage wrote."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from longctx import run
from longctx.engine import commit
from longctx.engine.manifest import RunRecord, StageRecord
from longctx.engine.stored import restored

Row = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A finished run whose stages are named by their op."""

    record: RunRecord

    def stage(self, op: str) -> StageRecord:
        """The record of the first stage with this op."""
        return next(s for s in self.record.stages if s.op == op)

    def column(self, op: str, name: str) -> dict[str, Any]:
        """doc_id -> value of a column that a stage wrote; None for rows that were dead already."""
        return {row["doc_id"]: row[name] for row in self.rows(op)}

    def rows(self, op: str) -> list[Row]:
        """What a stage's sidecar holds for every document that was read."""
        run_dir = Path(self.record.run_dir)
        found: list[Row] = []
        folder = run_dir / "stages" / self.stage(op).stage
        for part, done in sorted(commit.load(str(folder)).items()):
            ids = pq.read_table(run_dir / "documents" / f"{part}.parquet", columns=["doc_id"])
            own = next(f.name for f in done.files if f.name.endswith(f"{part}.parquet"))
            columns = restored(pq.read_table(run_dir / own)).to_pylist()
            found += [{**i, **c} for i, c in zip(ids.to_pylist(), columns, strict=True)]
        return found

    def windows(self) -> list[Row]:
        """All packed windows in the order of the files."""
        parts = sorted(Path(self.record.output).glob("part-*.parquet"))
        return [w for p in parts for w in pq.read_table(p).to_pylist()]


def recipe_of(folder: Path, rows: Iterable[Row], stages: list[Row], **changes: Any) -> Row:
    """A recipe over these rows, which are written to two JSONL files of `folder`."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    rows = [{"source": "s", **row} for row in rows]
    for half in range(2):
        lines = [json.dumps(row) + "\n" for row in rows[half::2]]
        (data / f"{half}.jsonl").write_text("".join(lines), encoding="utf-8")
    recipe = {
        "name": "stages",
        "input": [{"path": f"{data}/*.jsonl", "source_field": "source", "id": "id"}],
        "run_dir": str(folder / "run"),
        "seed": 3,
        "stages": stages,
        "engine": {"part_mb": 0.05},
    }
    return {**recipe, **changes}


def run_rows(folder: Path, rows: Iterable[Row], stages: list[Row], **changes: Any) -> Finished:
    """Run stages over rows on the shared Ray."""
    return Finished(run(recipe_of(folder, rows, stages, **changes)))
