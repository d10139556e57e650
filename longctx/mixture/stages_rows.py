"""What a mixture reads of the rows of a part: source, size, class, key of the hold-out; and cells.

A few small columns, so whole parts at once. Every step that looks at rows reads them here, so a
row lies in the same cell for the census, for calibration and for its copies.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.corpus import Corpus
from longctx.engine.steps import StepRef
from longctx.errors import RunError
from longctx.mixture.census import Cell, buckets
from longctx.mixture.chance import COPIES, F64, I64, Bool, held_out, uniforms
from longctx.mixture.planned import Plan

if TYPE_CHECKING:
    from longctx.mixture.rules import Settings

SIZES = {"tokens": "n_tokens", "bytes": "h_n_bytes", "docs": None}
GROUP = "dup_cluster_id"
PLAN = "plan.json"
_UNKNOWN = "unknown"


def plan_in(step: StepRef) -> Plan:
    """The plan of the step `draft` or `plan`."""
    return Plan.from_dict(json.loads(step.bytes(PLAN)))


def as_json(value: Any) -> bytes:
    """Plain values as a file that people read, too."""
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Rows:
    """Rows of a part: ids, sources and classes string [n], sizes int64 [n], held-out bool [n]."""

    ids: pa.Array
    sources: pa.Array
    classes: pa.Array | None
    sizes: I64
    held: Bool

    def of(self, kept: Bool) -> "Rows":
        """Some of the rows."""
        mask = pa.array(kept)
        classes = None if self.classes is None else self.classes.filter(mask)
        return Rows(
            self.ids.filter(mask),
            self.sources.filter(mask),
            classes,
            self.sizes[kept],
            self.held[kept],
        )

    def draws(self, seed: int) -> F64:
        """The numbers that decide copies, float64 [n]."""
        return uniforms(seed, self.ids.to_pylist(), COPIES)

    def numbers(self, cells: Sequence[Cell], edges: Sequence[int]) -> I64:
        """The number of each row's cell among `cells`, int64 [n]; -1 without one or held out."""
        known = {cell: i for i, cell in enumerate(cells)}
        sources = self.sources.dictionary_encode()
        names = sources.dictionary.to_pylist()
        classes = pa.nulls(len(self.ids), pa.string()) if self.classes is None else self.classes
        coded = classes.dictionary_encode()
        values = [*coded.dictionary.to_pylist(), None]
        of_class = coded.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
        key = sources.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        key = (key * len(edges) + buckets(self.sizes, edges)) * len(values) + of_class
        kinds, place = np.unique(key, return_inverse=True)
        found = np.full(len(kinds), -1, dtype=np.int64)
        for i, kind in enumerate(kinds.tolist()):
            rest, cls = divmod(kind, len(values))
            source, bucket = divmod(rest, len(edges))
            found[i] = known.get(Cell(names[source], bucket, values[cls]), -1)
        return np.where(self.held, -1, found[place])


def columns_of(settings: "Settings", corpus: Corpus) -> list[str]:
    """The columns that `read_rows` needs."""
    size = SIZES[settings.unit]
    wanted = ["doc_id", settings.by, *([size] if size else [])]
    if settings.rate_by:
        wanted.append(settings.rate_by.column)
    if settings.holdout_fraction and corpus.has(GROUP):
        wanted.append(GROUP)
    return list(dict.fromkeys(wanted))


def read_rows(settings: "Settings", table: pa.Table, seed: int, where: str) -> Rows:
    """Rows of a table with the columns of `columns_of`. Raises RunError for a negative size."""
    ids = _text(table, "doc_id")
    size = SIZES[settings.unit]
    sizes = np.ones(table.num_rows, dtype=np.int64)
    if size:
        sizes = table.column(size).cast(pa.int64()).fill_null(0).to_numpy().astype(np.int64)
    if (sizes < 0).any():
        raise RunError(
            f"the column `{size}` says {int(sizes.min())}, expected a size from 0",
            where=where,
            remedy="see which stage wrote it, or mix by documents with `unit: docs`",
        )
    keys = ids
    if GROUP in table.column_names:
        keys = pc.coalesce(_text(table, GROUP), ids)
    held = held_out(seed, keys.to_pylist(), settings.holdout_fraction)
    classes = _text(table, settings.rate_by.column) if settings.rate_by else None
    return Rows(ids, _text(table, settings.by).fill_null(_UNKNOWN), classes, sizes, held)


def _text(table: pa.Table, column: str) -> pa.Array:
    found = table.column(column).cast(pa.string()).combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


@dataclass(frozen=True)
class Rates:
    """The cells of a plan as arrays over them: relative rate, rate, window (0: none), line."""

    cells: tuple[Cell, ...]
    rel: F64
    rate: F64
    window: I64
    piece: I64
    line: I64

    @classmethod
    def of(cls, plan: Plan) -> "Rates":
        """Those of a plan."""
        lines = {line.name: i for i, line in enumerate(plan.sources)}
        pairs = list(plan.cells().values())
        return cls(
            tuple(plan.cells()),
            np.array([cell.rel for _, cell in pairs]),
            np.array([cell.rate for _, cell in pairs]),
            np.array([line.window or 0 for line, _ in pairs], dtype=np.int64),
            np.array([line.piece or 0 for line, _ in pairs], dtype=np.int64),
            np.array([lines[line.name] for line, _ in pairs], dtype=np.int64),
        )

    def held(self, number: I64, sizes: I64) -> I64:
        """What rows hold under the rule of their cell, int64 [n]; all of it without a cell."""
        window = np.where(number >= 0, self.window[number], 0)
        return np.where(window > 0, sizes // np.maximum(window, 1) * window, sizes)
