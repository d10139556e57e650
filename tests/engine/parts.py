"""Documents parts and sidecars on disk, small and with several row groups, for tests."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from longctx.engine.commit import FileRef
from longctx.engine.corpus import Corpus, Sidecar, parquet_groups
from longctx.engine.op import DROP_REASON
from longctx.io import paths
from longctx.schema import DOCUMENTS

GROUPS = (3, 1, 4)
ROWS = sum(GROUPS)


def cut(table: pa.Table, groups: Sequence[int]) -> list[pa.Table]:
    """A table cut into row groups of these sizes."""
    assert table.num_rows == sum(groups)
    starts = [sum(groups[:i]) for i in range(len(groups))]
    return [table.slice(s, n) for s, n in zip(starts, groups, strict=True)]


def put(run_dir: str, name: str, table: pa.Table, groups: Sequence[int] = GROUPS) -> FileRef:
    """Write a table below the run folder, as a committed file."""
    data = parquet_groups(cut(table, groups), table.schema)
    paths.write_atomic(paths.join(run_dir, name), data)
    return FileRef(name, len(data), paths.checksum(data), table.num_rows)


def documents(rows: int = ROWS, prefix: str = "d", **columns: Any) -> pa.Table:
    """Documents `d0`, `d1`, … with texts that tell them apart."""
    values: dict[str, Any] = {
        "doc_id": [f"{prefix}{i}" for i in range(rows)],
        "text": [f"text of {prefix}{i}" for i in range(rows)],
        "source": ["even" if i % 2 == 0 else "odd" for i in range(rows)],
        "license": ["MIT" if i % 4 == 0 else None for i in range(rows)],
        "language": [None] * rows,
        "meta": [None] * rows,
    }
    return pa.table({**values, **columns}).select(DOCUMENTS.names).cast(DOCUMENTS)


def corpus(run_dir: str, parts: int = 1, groups: Sequence[int] = GROUPS) -> Corpus:
    """A corpus of some parts without sidecars."""
    tables = [documents(sum(groups), f"p{i}-" if parts > 1 else "d") for i in range(parts)]
    names = (f"documents/s-{i:04d}.parquet" for i in range(parts))
    refs = [put(run_dir, n, t, groups) for n, t in zip(names, tables, strict=True)]
    return Corpus(run_dir, tuple(refs))


def beside(
    found: Corpus, label: str, removes: bool = False, groups: Sequence[int] = GROUPS, **columns: Any
) -> Corpus:
    """The corpus and a sidecar with these columns in every part."""
    table = pa.table(columns)
    refs = tuple(
        put(found.run_dir, f"stages/{label}/{found.part(i).name}.parquet", table, groups)
        for i in range(len(found))
    )
    names = tuple(c for c in columns if c != DROP_REASON or removes)
    return found.with_sidecar(Sidecar(label, names, removes, refs))


def reasons(rows: int = ROWS, **dropped: list[int]) -> pa.Array:
    """A drop reason column: reason=[rows]."""
    found = {row: reason for reason, places in dropped.items() for row in places}
    return pa.array([found.get(i) for i in range(rows)], pa.string())
