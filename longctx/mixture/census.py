"""Documents and sizes per cell (source, length bucket, class): all that a mixture is planned from.

Parts are counted alone (`count_cells`) and their counts added (`add_cells`). Sums of squares, from
which the noise of a plan follows, are kept as two integers, so that neither the number of parts nor
their order changes a bit of them. Buckets begin at fixed edges and at every threshold that the
recipe uses: a threshold never cuts a bucket.

For windows of one document each (ProLong, arXiv 2410.02660) a cell also says what its documents
hold in whole windows of a length L, floor(size / L) · L. (Cells are ours.)

Costs a sort of the rows of a part; what is added is sources · buckets · classes rows a part.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from longctx.mixture.chance import F64, I64

EDGES = (0, 4096, 8192, 16384, 32768, 65536, 131072, 524288)
_KEYS = ["source", "bucket", "class"]
_LOW = 32


class Cell(NamedTuple):
    """A source, the number of a length bucket, and a class (None without one)."""

    source: str
    bucket: int
    cls: str | None


class Measure(NamedTuple):
    """Sizes of the documents of each cell: sum, sum of squares, largest."""

    size: I64
    sum_sq: F64
    max: I64


@dataclass(frozen=True)
class Census:
    """All cells that hold documents, in the order of source, bucket and class.

    `edges` are where buckets begin, `docs` int64 [n], `own` what the documents hold, `alone[L]`
    what they hold in whole windows of L.
    """

    edges: tuple[int, ...]
    cells: tuple[Cell, ...]
    docs: I64
    own: Measure
    alone: dict[int, Measure] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        """Names in ascending order."""
        return sorted({c.source for c in self.cells})

    def by_source(self) -> dict[str, I64]:
        """The numbers of the cells of each source, ascending."""
        found: dict[str, list[int]] = {}
        for i, cell in enumerate(self.cells):
            found.setdefault(cell.source, []).append(i)
        return {source: np.array(at, dtype=np.int64) for source, at in found.items()}

    def of(self, window: int | None) -> Measure:
        """What documents hold, all of it or in whole windows."""
        return self.own if window is None else self.alone[window]

    def low(self) -> I64:
        """Where the bucket of each cell begins, int64 [n]."""
        return np.array(self.edges, dtype=np.int64)[[c.bucket for c in self.cells]]


def edges_with(thresholds: Iterable[int]) -> tuple[int, ...]:
    """The usual edges of buckets and those that a recipe needs, ascending."""
    return tuple(sorted({*EDGES, *thresholds}))


def buckets(sizes: I64, edges: Sequence[int]) -> I64:
    """The bucket of each size >= 0: the last edge that is not above it."""
    return np.searchsorted(np.asarray(edges, dtype=np.int64), sizes, side="right") - 1


def whole_windows(sizes: I64, window: int | None) -> I64:
    """What documents hold in whole windows, floor(size / window) · window; all without a window."""
    return sizes if window is None else sizes // window * window


def count_cells(
    sources: pa.Array,
    sizes: I64,
    classes: pa.Array | None,
    edges: Sequence[int],
    alone: Sequence[int] = (),
) -> pa.Table:
    """The cells of some documents as a table that `add_cells` takes.

    `sources` and `classes` string [n] (a class may be null), `sizes` int64 [n] >= 0; `alone` are
    the lengths of windows that documents fill alone.
    """
    columns: dict[str, object] = {
        "source": sources,
        "bucket": pa.array(buckets(sizes, edges), pa.int32()),
        "class": pa.nulls(len(sizes), pa.string()) if classes is None else classes,
        "docs": np.ones(len(sizes), dtype=np.int64),
    }
    for window in (None, *alone):
        held = whole_windows(sizes, window)
        square = held.astype(np.uint64) ** np.uint64(2)
        tail = _tail(window)
        columns |= {
            f"size{tail}": held,
            f"high{tail}": (square >> np.uint64(_LOW)).astype(np.int64),
            f"low{tail}": (square & np.uint64(2**_LOW - 1)).astype(np.int64),
            f"max{tail}": held,
        }
    return _grouped(pa.table(columns))


def add_cells(tables: Iterable[pa.Table], edges: Sequence[int]) -> Census:
    """The census of several tables of cells, made with the same edges and windows."""
    whole = _grouped(pa.concat_tables(tables))
    windows = [int(n.removeprefix("size@")) for n in whole.column_names if n.startswith("size@")]
    rows = zip(*(whole.column(n).to_pylist() for n in _KEYS), strict=True)
    cells = [Cell(*row) for row in rows]
    order = sorted(range(len(cells)), key=lambda i: (*cells[i][:2], cells[i].cls or ""))
    whole = whole.take(pa.array(order, pa.int64()))
    return Census(
        tuple(edges),
        tuple(cells[i] for i in order),
        whole.column("docs").to_numpy(),
        _measure(whole, None),
        {w: _measure(whole, w) for w in windows},
    )


def _tail(window: int | None) -> str:
    return "" if window is None else f"@{window}"


def _grouped(table: pa.Table) -> pa.Table:
    """Rows of the same cell added up, or their largest."""
    names = [n for n in table.column_names if n not in _KEYS]
    kinds = [(n, "max" if n.startswith("max") else "sum") for n in names]
    found = table.group_by(_KEYS, use_threads=False).aggregate(kinds)
    return pa.table(
        {
            **{n: found.column(n) for n in _KEYS},
            **{n: found.column(f"{n}_{kind}") for n, kind in kinds},
        }
    )


def _measure(table: pa.Table, window: int | None) -> Measure:
    size, high, low, largest = (
        table.column(f"{n}{_tail(window)}") for n in ("size", "high", "low", "max")
    )
    squares = [
        float((h << _LOW) + rest) for h, rest in zip(high.to_pylist(), low.to_pylist(), strict=True)
    ]
    return Measure(size.to_numpy(), np.array(squares, dtype=np.float64), largest.to_numpy())
