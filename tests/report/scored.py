"""Run folders with scores, written by hand: documents, sidecars and a `run.json`, without a run."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from longctx.engine.op import DROP_REASON
from longctx.io import paths
from tests.engine.parts import documents, put
from tests.report.recorded import Json, record, stage

Columns = dict[str, Any]
# A sidecar of one part: the columns of its rows, by the part's number.
Sidecar = Callable[[int], Columns]


def write_run(
    folder: Path | str,
    stages: Sequence[tuple[str, Sidecar]],
    *,
    parts: int = 2,
    groups: Sequence[int] = (5, 3),
    columns: Sidecar | None = None,
    settings: dict[str, Json] | None = None,
    steps: dict[str, Json] | None = None,
    **changes: Any,
) -> str:
    """A run folder whose parts have row groups of these sizes; returns its path.

    `stages` are ops with their sidecars; a column `drop_reason` removes rows. `columns` gives the
    documents of a part other columns than `documents` makes up; `settings` and `steps` are what
    the record says of ops.
    """
    rows = sum(groups)
    records = [stage(0, "read", rows * parts)]
    alive = np.ones((parts, rows), dtype=bool)
    for part in range(parts):
        given = columns(part) if columns else {}
        table = documents(rows, f"p{part}-", **given)
        put(str(folder), f"documents/s-{part:04d}.parquet", table, groups)
    for number, (op, sidecar) in enumerate(stages, start=1):
        written = [{**sidecar(part)} for part in range(parts)]
        dropped = [_dropped(own, rows) for own in written]
        now = alive & np.array(dropped)
        for part, own in enumerate(written):
            dead = ~alive[part]
            table = pa.table({n: _without(v, dead) for n, v in own.items()})
            name = f"stages/{number:02d}-{op}/s-{part:04d}.parquet"
            put(str(folder), name, table, groups)
        gone = int(now.sum())
        record_of = stage(number, op, int(alive.sum()), rows_out=int(alive.sum()) - gone)
        record_of |= {"dropped": {"a rule": gone} if gone else {}}
        record_of["settings"] = {"op": op, **(settings or {}).get(op, {})}
        record_of["steps"] = (steps or {}).get(op, {})
        records.append(record_of)
        alive &= ~now
    run = record(records, **{"run_dir": str(folder), **changes})
    paths.write_atomic(paths.join(str(folder), "run.json"), json.dumps(run).encode())
    return str(folder)


def _dropped(columns: Columns, rows: int) -> list[bool]:
    return [reason is not None for reason in columns.get(DROP_REASON, [None] * rows)]


def _without(values: Any, dead: Any) -> pa.Array:
    """A column with nulls where the row was removed before."""
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return pa.array(
        [None if d else v for v, d in zip(array.to_pylist(), dead, strict=True)], array.type
    )


def edit(run_dir: str, change: Callable[[Json], None]) -> None:
    """Change the `run.json` of a run folder."""
    file = Path(run_dir) / "run.json"
    run = json.loads(file.read_text())
    change(run)
    file.write_text(json.dumps(run))
