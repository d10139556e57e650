"""Rows and rejects of a finished synthesis, from the files that its manifest lists.

At most 32 files of each kind are looked into, evenly spaced, and of each at most eight row groups;
of these the columns that figures need. Texts are read of the few rows that are shown, one row group
at a time. `run.json` may come from anybody and name any folder: that is read only if its own marker
names the run, and files only if their columns are those that this version writes.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from longctx.errors import DamagedFileError
from longctx.llm.rejects import REJECT_SCHEMA
from longctx.prefer.longdpo_tree import NODES
from longctx.report.run_links import MARKER, read_json
from longctx.report.scores.data import Looked
from longctx.report.scores.reading import group_sizes, opened, read_group
from longctx.report.scores.sample import spaced

MANIFEST = "manifest.json"
_FILES, _GROUPS, _TREE_GROUPS = 32, 8, 4
_PARTS = re.compile(r"part-\d{5,}\.parquet")
# Of prompts and, beside them, of single calls.
_REJECTS = re.compile(r"(rejects|calls)-\d{5,}\.parquet")
_TREES = re.compile(r"tree-\d{5,}\.parquet")
# What may be null in a row; every other null is filled, so that drawing need not ask.
_NULLABLE = frozenset(
    {
        *("linked_to", "sim", "s_q", "dims", "file", "target_len", "lo", "hi"),
        *("quality", "multihop", "necessity"),
        *("score_chosen", "score_rejected", "margin"),
        *("parent", "R", "s", "u"),
    }
)
# What the other columns hold, too.
_REPEATED = ("messages", "alpaca")
Row = dict[str, Any]


class At(NamedTuple):
    """A row by its file, row group and place in the group."""

    file: str
    group: int
    row: int


class Output(NamedTuple):
    """The files of a synthesis, by their kind, and where they lie."""

    folder: str
    parts: list[str]
    rejects: list[str]
    trees: list[str]


def output_of(run: Row) -> Output | str:
    """The files of a run's rows, or why they are not to be had, in a sentence."""
    folder = str(run["output"])
    marker = read_json(folder, MARKER)
    if marker is None or marker.get("run_dir") != run["run_dir"]:
        return "The rows are not where run.json says, so none are shown."
    manifest = read_json(folder, MANIFEST) or {}
    files = manifest.get("files")
    names = [
        str(f["name"])
        for f in (files if isinstance(files, list) else [])
        if isinstance(f, dict) and "name" in f
    ]
    if not names:
        return "The output has no manifest that lists its files, so no rows are shown."
    kinds = (_PARTS, _REJECTS, _TREES)
    return Output(folder, *(sorted(n for n in names if kind.fullmatch(n)) for kind in kinds))


class Sampled(NamedTuple):
    """Figures of a sample of the rows, each with its place, and how much was looked at."""

    rows: list[tuple[At, Row]]
    looked: Looked


def figures_of(output: Output, schema: pa.Schema, columns: Sequence[str]) -> Sampled | str:
    """Columns of a sample of the rows, or why there are none."""
    chosen = [output.parts[i] for i in spaced(len(output.parts), _FILES)]
    found: list[tuple[At, Row]] = []
    total = read = 0
    for name in chosen:
        file = _opened(output.folder, name)
        if file is None:
            continue
        if not _fits(file, schema):
            return "The rows have other columns than this version writes, so none are shown."
        sizes, read = group_sizes(file), read + 1
        total += sum(sizes)
        for group in spaced(len(sizes), _GROUPS):
            table = read_group(output.folder, name, file, group, [*columns])
            listed = table.to_pylist()
            places = (At(name, group, i) for i in range(len(listed)))
            found += zip(places, (_filled(row, table.schema) for row in listed), strict=True)
    if not read and output.parts:
        return "The files of the rows are gone, so none are shown."
    return Sampled(found, Looked(len(found), total, read, len(output.parts)))


def rows_at(output: Output, schema: pa.Schema, wanted: Sequence[At]) -> Iterator[tuple[At, Row]]:
    """Whole rows but for their rendered turns, which repeat the other columns."""
    columns = [
        name for name in schema.names if name not in _REPEATED or "context" not in schema.names
    ]
    for name, group in sorted({(at.file, at.group) for at in wanted}):
        file = _opened(output.folder, name)
        if file is None:
            continue
        table = read_group(output.folder, name, file, group, columns)
        for at in (a for a in wanted if (a.file, a.group) == (name, group)):
            yield at, _filled(table.slice(at.row, 1).to_pylist()[0], table.schema)


def rejects_of(output: Output) -> Iterator[Row]:
    """Rejects of a sample of their files, in the order of the files."""
    columns = ["stage", "code", "detail", "row_id", "text_head", "finish_reason"]
    for name in (output.rejects[i] for i in spaced(len(output.rejects), _FILES)):
        file = _opened(output.folder, name)
        if file is None or not _fits(file, REJECT_SCHEMA):
            continue
        for group in spaced(len(group_sizes(file)), _GROUPS):
            table = read_group(output.folder, name, file, group, columns)
            yield from (_filled(row, table.schema) for row in table.to_pylist())


def trees_of(output: Output) -> dict[str, list[Row]]:
    """Trees of candidate steps by their prompt, from the beginning of the first file."""
    file = _opened(output.folder, output.trees[0]) if output.trees else None
    if file is None or not _fits(file, NODES):
        return {}
    groups, found = len(group_sizes(file)), dict[str, list[Row]]()
    for group in range(min(groups, _TREE_GROUPS)):
        table = read_group(output.folder, output.trees[0], file, group, NODES.names)
        for row in table.to_pylist():
            found.setdefault(row["id"] or "", []).append(_filled(row, table.schema))
    if groups > _TREE_GROUPS and found:
        # It goes on in a group that was not read.
        found.popitem()
    return found


def _opened(folder: str, name: str) -> pq.ParquetFile | None:
    """A file of the folder; None where it is gone."""
    try:
        return opened(folder, name)
    except DamagedFileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _fits(file: pq.ParquetFile, schema: pa.Schema) -> bool:
    """Whether a file has the columns of a schema, as this version writes them."""
    found = file.schema_arrow
    return all(
        name in found.names and found.field(name).type == schema.field(name).type
        for name in schema.names
    )


def _filled(row: Row, schema: pa.Schema) -> Row:
    return {name: _value(name, value, schema.field(name).type) for name, value in row.items()}


def _value(name: str, value: Any, kind: pa.DataType) -> Any:
    """A value without nulls, but for fields that may be null."""
    if value is None and name in _NULLABLE:
        return None
    if pa.types.is_struct(kind):
        known = value or {}
        return {f.name: _value(f.name, known.get(f.name), f.type) for f in kind}
    if pa.types.is_map(kind):
        return {str(k): v for k, v in value or () if v is not None}
    if pa.types.is_list(kind):
        return [_value("", one, kind.value_type) for one in value or ()]
    return _empty(kind) if value is None else value


def _empty(kind: pa.DataType) -> Any:
    if pa.types.is_string(kind):
        return ""
    return 0.0 if pa.types.is_floating(kind) else False if pa.types.is_boolean(kind) else 0
