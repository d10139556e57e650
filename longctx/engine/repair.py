"""Committed files that are no longer what was committed: told by their checksums, made again.

A resume compares sizes, which costs a listing. Damage that leaves the size comes out where a reader
meets it, or in a look at every file. Then the file is removed: the unit that wrote it is done
again, and units that read it find the same bytes, so they stay. Only a checksum condemns a file: a
reader may have failed for another reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from longctx.engine import commit
from longctx.io import paths

_FILES_AT_ONCE = 16


def committed(run_dir: str) -> dict[str, set[str]]:
    """Checksums that commits give to each file, by its URL.

    Several where a commit of an earlier recipe names the same file.
    """
    stages = paths.join(run_dir, "stages")
    names = paths.list_files(stages, recursive=True)
    found: dict[str, set[str]] = {}
    for folder in sorted({n.rpartition("/")[0] for n in names if commit.is_ours(n)}):
        for done in commit.load(paths.join(stages, folder)).values():
            for file in done.files:
                found.setdefault(commit.url_of(run_dir, file.name), set()).add(file.checksum)
    return found


def withdraw(run_dir: str, url: str) -> bool:
    """Remove a committed file if it is damaged; whether a unit must make it again."""
    checksums = committed(run_dir).get(url)
    if checksums is None:
        return False
    data = paths.read_if_exists(url)
    if data is not None and paths.checksum(data) in checksums:
        return False
    paths.remove(url)
    return True


def verify(run_dir: str, workers: int) -> list[str]:
    """Read every committed file of a run and remove the damaged ones; returns their URLs.

    Files that are missing are none of its business: a resume sees that by itself.
    """
    import ray.data

    rows = [{"url": u, "checksums": sorted(c)} for u, c in sorted(committed(run_dir).items())]
    if not rows:
        return []
    blocks = max(1, min(-(-len(rows) // _FILES_AT_ONCE), 64 * workers))
    checked = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        _Check(),
        batch_size=_FILES_AT_ONCE,
        batch_format="pyarrow",
        compute=ray.data.TaskPoolStrategy(size=workers),
    )
    return sorted(row["damaged"] for row in checked.iter_rows())


@dataclass(frozen=True)
class _Check:
    """Removes the damaged among some files and returns their URLs."""

    def __call__(self, table: pa.Table) -> pa.Table:
        damaged = _damaged(table.to_pylist())
        for url in damaged:
            paths.remove(url)
        return pa.table({"damaged": pa.array(damaged, pa.string())})


def _damaged(rows: Iterable[dict[str, list[str]]]) -> list[str]:
    found = []
    for row in rows:
        url = str(row["url"])
        data = paths.read_if_exists(url)
        if data is not None and paths.checksum(data) not in row["checksums"]:
            found.append(url)
    return found
