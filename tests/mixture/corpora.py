"""Documents of a mixture as arrays: made, drawn, or those of the development corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longctx.mixture.calibrate import calibrate
from longctx.mixture.census import Cell, Census, add_cells, buckets, count_cells, edges_with
from longctx.mixture.chance import F64, I32, I64, copies, uniforms
from longctx.mixture.planned import Plan
from longctx.mixture.realised import Rows, Taken, take
from tests.conftest import SHARED

DEV = SHARED / "corpus" / "dev"


@dataclass(frozen=True)
class Documents:
    """Ids, sources and sizes of documents."""

    ids: Sequence[str]
    sources: Sequence[str]
    sizes: I64
    edges: tuple[int, ...] = edges_with(())

    @classmethod
    def of(cls, sizes: Mapping[str, Sequence[int]]) -> "Documents":
        """Documents of each source with these sizes."""
        pairs = [(source, size) for source, own in sizes.items() for size in own]
        ids = [f"doc-{i}" for i in range(len(pairs))]
        return cls(ids, [s for s, _ in pairs], np.array([n for _, n in pairs], dtype=np.int64))

    @classmethod
    def drawn(cls, seed: int, sources: int = 3, docs: int = 60) -> "Documents":
        """Documents of all lengths in some sources `s0`, `s1`, …"""
        rng = np.random.default_rng(seed)
        sizes = np.exp(rng.normal(8, 1.5, (sources, docs))).astype(np.int64) + 1
        return cls.of({f"s{i}": own.tolist() for i, own in enumerate(sizes)})

    def taken(self, at: Sequence[int]) -> "Documents":
        """Some of them, in this order."""
        names = [self.ids[i] for i in at], [self.sources[i] for i in at]
        return Documents(*names, self.sizes[list(at)], self.edges)

    def table(self) -> pa.Table:
        """Their cells."""
        return count_cells(pa.array(self.sources, pa.string()), self.sizes, None, self.edges)

    def census(self, parts: int = 1) -> Census:
        """Their census, added from so many parts."""
        shards = [self.taken(range(i, len(self.ids), parts)) for i in range(parts)]
        return add_cells([s.table() for s in shards if s.ids], self.edges)

    def u(self, seed: int) -> F64:
        """What decides their copies."""
        return uniforms(seed, list(self.ids), "mixture")

    def cells(self) -> list[Cell]:
        """The cell of each."""
        where = buckets(self.sizes, self.edges).tolist()
        return [Cell(s, b, None) for s, b in zip(self.sources, where, strict=True)]

    def calibrated(self, plan: Plan) -> Plan:
        """The plan with lambdas from the documents."""
        found, sources, u = {}, np.array(self.sources), self.u(plan.seed)
        cells = plan.cells()
        of = self.cells()
        for line in plan.to_calibrate():
            own = np.flatnonzero(sources == line.source)
            rel = np.array([cells[of[i]][1].rel for i in own])
            ids = [self.ids[i] for i in own.tolist()]
            found[line.name] = calibrate(
                u[own], self.sizes[own], rel, ids, line.target, plan.max_epochs
            )
        return plan.with_lambdas(found)

    def copies(self, plan: Plan) -> I32:
        """Copies of each."""
        known = plan.cells()
        rates = np.array([known[c][1].rate if c in known else 0.0 for c in self.cells()])
        return copies(rates, self.u(plan.seed), plan.max_epochs)

    def rows(self, plan: Plan) -> Rows:
        """What a pass over them counts."""
        keys = list(plan.cells())
        known = {cell: i for i, cell in enumerate(keys)}
        number = np.array([known.get(c, -1) for c in self.cells()])
        found = take(number, len(keys), self.sizes, self.copies(plan))
        return {k: Taken(*r) for k, r in zip(keys, found.tolist(), strict=True)}


@lru_cache(maxsize=1)
def _dev() -> Documents:
    names = ["id", "source", "n_tokens"]
    table = pa.concat_tables(
        [pq.read_table(f, columns=names) for f in sorted(DEV.glob("*.parquet"))]
    )
    columns = [table.column(n) for n in names]
    return Documents(columns[0].to_pylist(), columns[1].to_pylist(), columns[2].to_numpy())


def dev_corpus() -> Documents:
    """The development corpus with its own counts; the test is skipped, visibly, without it."""
    if not Path(DEV).is_dir():
        pytest.skip(f"the development corpus is not there: {DEV}")
    return _dev()
