"""The texts of the pieces that rows of `synth.in2` were asked about.

A row of FILM names its pieces but does not hold their texts apart: they are cut once more from the
documents, at the places that the step `sources` left in the run folder. Read are the ids of all
chosen documents, of the step the rows that are wanted, and the few documents.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine import commit
from longctx.engine.commit import FileRef
from longctx.errors import DamagedFileError
from longctx.io import paths
from longctx.report.scores.reading import group_sizes, opened, read_group
from longctx.report.texts import text_files, text_of

_FILES = 512


def pieces_of_rows(
    run_dir: str, run: Mapping[str, Any], stage: str, ids: Iterable[str]
) -> dict[str, str]:
    """Texts by the name of the piece, DOC#K, of documents by id; without those that are gone."""
    wanted, folder = sorted(set(ids)), f"stages/{stage}"
    try:
        placed = {
            row["id"]: (row["part"], row["row"])
            for row in _rows(run_dir, f"{folder}/chosen", wanted, ["id", "part", "row"])
        }
        spans = {
            row["id"]: _spans(row["reply"])
            for row in _rows(run_dir, f"{folder}/sources", wanted, ["id", "reply"])
        }
        parts = text_files(run_dir, run["stages"]) if placed else []
        return dict(_texts(run_dir, parts, placed, spans))
    except DamagedFileError as error:
        # A run folder is tidied up sooner than its output: the page then has no marks.
        if isinstance(error.__cause__, FileNotFoundError):
            return {}
        raise


def _texts(
    run_dir: str,
    parts: list[FileRef],
    placed: Mapping[str, tuple[int, int]],
    spans: Mapping[str, list[tuple[int, int]]],
) -> Iterable[tuple[str, str]]:
    for doc_id, (part, row) in placed.items():
        if not 0 <= part < len(parts):
            continue
        text = text_of(run_dir, parts[part], row)
        for k, (start, end) in enumerate(spans.get(doc_id, [])):
            yield f"{doc_id}#{k}", text[start:end]


def _rows(run_dir: str, folder: str, ids: list[str], columns: list[str]) -> list[dict[str, Any]]:
    """Rows of a step by their id; of very many files the first 512."""
    files = [f for c in commit.load(paths.join(run_dir, folder)).values() for f in c.files]
    named = [f.name for f in files if f.name.startswith(f"{folder}/") and "rejects" not in f.name]
    found: list[dict[str, Any]] = []
    for name in named[:_FILES]:
        file = opened(run_dir, name)
        for group in range(len(group_sizes(file))):
            table = read_group(run_dir, name, file, group, columns)
            mine = pc.is_in(table.column("id"), value_set=pa.array(ids, pa.string()))
            found += table.filter(mine).to_pylist()
    return found


def _spans(reply: Any) -> list[tuple[int, int]]:
    try:
        spans = json.loads(reply)["spans"]
        return [(int(a), int(b)) for a, b in spans]
    except (ValueError, TypeError, KeyError):
        return []
