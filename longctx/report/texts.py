"""Texts of documents as the stages of a run read them, for the few that a page shows.

Where a stage rewrote the text (`filter.pii` with `mask`), what it wrote is shown and never what it
replaced; a document that was dropped before it has no text then.
"""

from collections.abc import Iterable
from typing import Any

from longctx.engine import commit
from longctx.engine.commit import FileRef
from longctx.engine.corpus import open_source
from longctx.io import paths
from longctx.io.parquet_files import parquet_file

TEXT = "text"


def text_files(run_dir: str, stages: Iterable[dict[str, Any]]) -> list[FileRef]:
    """The file with the text of each part, in the order of the parts.

    `stages` are the records of the finished stages, in the order of the recipe.
    """
    folder = paths.join(run_dir, "stages", "00-read", "groups")
    parts = [
        f for c in commit.load(folder).values() for f in c.files if f.name.startswith("documents/")
    ]
    for stage in stages:
        below = f"stages/{stage['stage']}/"
        commits = commit.load(paths.join(run_dir, below)).values()
        files = {_base(f): f for c in commits for f in c.files if f.name.startswith(below)}
        first = next((f for name, f in files.items() if name.endswith(".parquet")), None)
        if first is not None and TEXT in _open(run_dir, first).schema_arrow.names:
            parts = [files[_base(part)] for part in parts]
    return parts


def text_of(run_dir: str, ref: FileRef, row: int) -> str:
    """The text of one document by its part's file and its row there; "" where it has none."""
    file = _open(run_dir, ref)
    for group in range(file.metadata.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        if row < size:
            text = file.read_row_group(group, columns=[TEXT]).column(0)[row].as_py()
            return text or ""
        row -= size
    return ""


def _open(run_dir: str, ref: FileRef) -> Any:
    return parquet_file(open_source(paths.inside(run_dir, ref.name)))


def _base(ref: FileRef) -> str:
    return ref.name.rsplit("/", 1)[-1]
