"""Pieces of a run's files: columns of single row groups, and single rows by their place in a part.

From object stores only the ranges that are asked for are fetched.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from longctx.engine.corpus import intact
from longctx.errors import DamagedFileError
from longctx.io import paths
from longctx.io.parquet_files import parquet_file
from longctx.io.store_errors import persistently

UNALIGNED = "it is not aligned with the documents"


class Address(NamedTuple):
    """A row of a part."""

    part: str
    row: int


def opened(run_dir: str, name: str) -> pq.ParquetFile:
    """A file of the run, of which pieces are read. Raises DamagedFileError."""
    url = paths.inside(run_dir, name)
    with intact(url):
        return persistently(url, lambda: parquet_file(paths.open_ranged(url)))


def read_group(
    run_dir: str, name: str, file: pq.ParquetFile, group: int, columns: list[str]
) -> Any:
    """Columns of one row group of an opened file, as a table. Raises DamagedFileError.

    A column may be a field of a nested one: "docs.list.element.role".
    """
    url = paths.join(run_dir, name)
    roots = {column.partition(".")[0] for column in columns}
    if group >= file.metadata.num_row_groups or not roots <= set(file.schema_arrow.names):
        raise DamagedFileError(UNALIGNED, file=url)
    with intact(url):
        return persistently(
            url, lambda: file.read_row_group(group, columns=columns, use_threads=False)
        )


def group_sizes(file: pq.ParquetFile) -> list[int]:
    """Rows in each row group."""
    meta = file.metadata
    return [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]


def rows_at(
    run_dir: str, folder: str, columns: list[str], wanted: Iterable[Address]
) -> Iterator[tuple[Address, dict[str, Any]]]:
    """Values of single rows from the files of a folder, one row group at a time, each read once.

    Rows that the files do not have are left out.
    """
    by_part: dict[str, list[int]] = {}
    for part, row in dict.fromkeys(wanted):
        by_part.setdefault(part, []).append(row)
    for part, rows in sorted(by_part.items()):
        name = f"{folder}/{part}.parquet"
        file = opened(run_dir, name)
        ends = np.cumsum(group_sizes(file))
        groups = np.searchsorted(ends, rows, side="right")
        for group in sorted(set(groups.tolist())):
            if group == len(ends):
                continue
            table = read_group(run_dir, name, file, group, columns)
            first = int(ends[group - 1]) if group else 0
            for row in (r for r, g in zip(rows, groups.tolist(), strict=True) if g == group):
                values = {c: table.column(c)[row - first].as_py() for c in columns}
                yield Address(part, row), values
