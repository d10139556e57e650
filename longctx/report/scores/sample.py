"""A bounded sample of a run's rows with all their scores, read from the sidecars.

All rows of a small run; of a larger one at most 64 parts, 128 row groups and 30,000 rows, evenly
spaced over the corpus in the order of its parts, so the same run gives the same sample. Columns are
read by row group, from object stores by ranges: neither the tokens that lie beside the scores nor
the texts are touched. What grows with the corpus is one listing of the names of its parts.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.engine.op import DROP_REASON
from longctx.errors import DamagedFileError
from longctx.io import paths
from longctx.report.scores.catalogue import is_score, scores_of
from longctx.report.scores.reading import UNALIGNED, Address, group_sizes, opened, read_group
from longctx.report.scores.statistics import F64, I64

PARTS, GROUPS, ROWS = 64, 128, 30_000
TOKENS = "n_tokens"
_READERS = 8
_STATUS = "_status"


class Group(NamedTuple):
    """A row group of a part, and the first of its rows."""

    part: str
    number: int
    first: int


@dataclass(frozen=True)
class StageColumns:
    """Columns of one stage for the rows of the sample: numbers (NaN is null) and words."""

    numbers: dict[str, F64] = field(default_factory=dict)
    words: dict[str, npt.NDArray[np.object_]] = field(default_factory=dict)

    @property
    def status(self) -> npt.NDArray[np.object_] | None:
        """What the stage said of each row that it could not score."""
        return next((v for n, v in self.words.items() if n.endswith(_STATUS)), None)


@dataclass(frozen=True)
class Sample:
    """Rows of a run: `row` counts inside the part, `group` numbers `places`, `sources` number
    `source_names`.

    `died` is the number of the stage that removed the row, or that of all stages; `reasons` says
    why. `schemas` has every column that a stage wrote. `parts` of `parts_all` were looked into.
    """

    run_dir: str
    places: list[Group]
    group: I64
    row: I64
    doc_ids: npt.NDArray[np.object_]
    sources: I64
    source_names: list[str]
    died: I64
    reasons: npt.NDArray[np.object_]
    stages: dict[str, StageColumns]
    schemas: dict[str, pa.Schema]
    parts: int
    parts_all: int

    @property
    def text_stage(self) -> str:
        """The last stage that wrote texts anew; none did where it is empty."""
        return next((s for s, found in reversed(self.schemas.items()) if "text" in found.names), "")

    @property
    def texts(self) -> str:
        """The folder of the files with the texts as the last stages read them."""
        return f"stages/{self.text_stage}" if self.text_stage else "documents"

    def alive(self, stage: int) -> npt.NDArray[np.bool_]:
        """Rows that the stage of this number got."""
        return self.died >= stage

    def address(self, row: int) -> Address:
        """Where a row of the sample lies."""
        return Address(self.places[int(self.group[row])].part, int(self.row[row]))

    @property
    def tokens(self) -> F64 | None:
        """Tokens of each row, where a stage counted them."""
        counted = (c.numbers[TOKENS] for c in self.stages.values() if TOKENS in c.numbers)
        return next(counted, None)


def spaced(n: int, k: int) -> list[int]:
    """At most k of the numbers below n, evenly spaced."""
    return list(range(n)) if k >= n else [(2 * i + 1) * n // (2 * k) for i in range(k)]


def draw(run_dir: str, stages: Sequence[dict[str, Any]]) -> Sample | None:
    """The sample of a run's rows; None where its documents are gone.

    `stages` are those of `run.json`. Raises DamagedFileError for a file that cannot be read, and
    RunError for a stage whose name leads out of the run folder.
    """
    names = sorted(
        n.removesuffix(".parquet")
        for n in paths.list_files(paths.join(run_dir, "documents"))
        if n.endswith(".parquet")
    )
    if not names:
        return None
    parts = [names[i] for i in spaced(len(names), PARTS)]
    with ThreadPoolExecutor(_READERS) as pool:
        sizes = list(pool.map(partial(_sizes, run_dir), parts))
        groups = [
            Group(part, number, sum(found[:number]))
            for part, found in zip(parts, sizes, strict=True)
            for number in range(len(found))
        ]
        rows_of = [n for found in sizes for n in found]
        chosen = spaced(len(groups), GROUPS)
        total = sum(rows_of[i] for i in chosen)
        taken = [_rows(rows_of[i], total) for i in chosen]
        places = [groups[i] for i in chosen]
        if not places:
            return None
        wanted = _by_part(places, taken)
        schemas = _schemas(run_dir, stages, parts[0])
        columns = {
            s["stage"]: _wanted(s, schemas[s["stage"]]) for s in stages if s["stage"] in schemas
        }
        read = partial(_read, run_dir, {name: names for name, names in columns.items() if names})
        tables = [t for found in pool.map(read, wanted.items()) for t in found]
    return _assembled(run_dir, stages, places, taken, tables, schemas, len(names))


def _schemas(run_dir: str, stages: Sequence[dict[str, Any]], part: str) -> dict[str, pa.Schema]:
    """What each stage wrote beside a part; stages that write elsewhere, as `pack` does, are out."""
    found = {}
    for stage in stages:
        try:
            file = opened(run_dir, f"stages/{stage['stage']}/{part}.parquet")
        except DamagedFileError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            continue
        found[stage["stage"]] = file.schema_arrow
    return found


def _rows(size: int, total: int) -> I64:
    """Places of the rows that are taken from a row group."""
    share = size if total <= ROWS else max(1, size * ROWS // total)
    return np.array(spaced(size, share), dtype=np.int64)


def _by_part(places: Sequence[Group], taken: Sequence[I64]) -> dict[str, list[tuple[int, I64]]]:
    found: dict[str, list[tuple[int, I64]]] = {}
    for place, rows in zip(places, taken, strict=True):
        found.setdefault(place.part, []).append((place.number, rows))
    return found


def _sizes(run_dir: str, part: str) -> list[int]:
    return group_sizes(opened(run_dir, f"documents/{part}.parquet"))


def _read(
    run_dir: str, columns: dict[str, list[str]], part: tuple[str, list[tuple[int, I64]]]
) -> list[dict[str, pa.Table]]:
    """For each row group of a part: columns of the documents ("") and of each stage."""
    name, groups = part
    found: list[dict[str, pa.Table]] = [{} for _ in groups]
    for stage, names in {"": ["doc_id", "source"], **columns}.items():
        file_name = f"stages/{stage}/{name}.parquet" if stage else f"documents/{name}.parquet"
        file = opened(run_dir, file_name)
        for into, (group, rows) in zip(found, groups, strict=True):
            table = read_group(run_dir, file_name, file, group, names)
            if len(rows) and table.num_rows <= rows[-1]:
                raise DamagedFileError(UNALIGNED, file=paths.join(run_dir, file_name))
            into[stage] = table.take(pa.array(rows))
    return found


def _wanted(stage: dict[str, Any], schema: pa.Schema) -> list[str]:
    """Columns of a sidecar that the pages need."""
    removed = bool(stage["dropped"] or stage["quarantined"])
    fields = list(schema)
    wanted = [f.name for f in fields if f.name == DROP_REASON and removed]
    if is_score(stage["op"]):
        words = scores_of(stage["op"]).words
        return [
            *wanted,
            *(f.name for f in fields if _is_number(f.type)),
            *(f.name for f in fields if f.name.endswith(_STATUS) or f.name in words),
        ]
    return [*wanted, *(f.name for f in fields if f.name == TOKENS or f.name.startswith("cut_"))]


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    )


def _assembled(
    run_dir: str,
    stages: Sequence[dict[str, Any]],
    places: list[Group],
    taken: list[I64],
    tables: list[dict[str, pa.Table]],
    schemas: dict[str, pa.Schema],
    parts_all: int,
) -> Sample:
    group = np.repeat(np.arange(len(places)), [len(rows) for rows in taken]).astype(np.int64)
    documents = pa.concat_tables([t[""] for t in tables])
    died = np.full(len(group), len(stages), dtype=np.int64)
    reasons = np.full(len(group), None, dtype=object)
    columns: dict[str, StageColumns] = {}
    for number, stage in enumerate(stages):
        own = [t[stage["stage"]] for t in tables if stage["stage"] in t]
        if not own:
            # Nothing of it is needed, but that it is there: a decision that dropped no row.
            if stage["stage"] in schemas:
                columns[stage["stage"]] = StageColumns()
            continue
        table = pa.concat_tables(own, promote_options="permissive")
        if DROP_REASON in table.column_names:
            said = _objects(table.column(DROP_REASON))
            now = np.array([reason is not None for reason in said]) & (died == len(stages))
            died[now], reasons[now] = number, said[now]
        columns[stage["stage"]] = _columns(table)
    names, numbers = np.unique(
        _objects(documents.column("source")).astype(str), return_inverse=True
    )
    return Sample(
        run_dir,
        places,
        group,
        np.concatenate(
            [np.zeros(0, np.int64), *(p.first + r for p, r in zip(places, taken, strict=True))]
        ),
        _objects(documents.column("doc_id")),
        numbers.astype(np.int64),
        names.tolist(),
        died,
        reasons,
        columns,
        schemas,
        len({place.part for place in places}),
        parts_all,
    )


def _columns(table: pa.Table) -> StageColumns:
    numbers, words = {}, {}
    for name in table.column_names:
        column = table.column(name)
        if _is_number(column.type):
            values = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
            numbers[name] = np.where(np.isfinite(values), values, np.nan)
        elif name != DROP_REASON:
            words[name] = _objects(column)
    return StageColumns(numbers, words)


def _objects(column: pa.ChunkedArray) -> npt.NDArray[np.object_]:
    found = np.empty(len(column), dtype=object)
    found[:] = column.to_pylist()
    return found
