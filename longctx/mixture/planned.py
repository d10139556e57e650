"""A finished plan: the copy rate of every cell, and all that led to it; as objects and as JSON.

JSON numbers are written as Python writes floats, the shortest digits that read back to the same
number (17 at most), so a plan that was read gives the same copies bit for bit.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from longctx.mixture.census import Cell

SCHEMA_VERSION = 1
# What JSON calls the fields whose names Python keeps for itself.
_NAMES = {"lam": "lambda", "cls": "class"}
_FIELDS = {told: name for name, told in _NAMES.items()}


@dataclass(frozen=True)
class CellPlan:
    """A cell `lo` <= size < `hi` (None: no end): what it holds, its relative rate and its rate.

    `size`, `sum_sq` and `max` are what its documents hold under the length rule.
    """

    bucket: int
    lo: int
    hi: int | None
    cls: str | None
    docs: int
    size: int
    sum_sq: float
    max: int
    rel: float
    rate: float


@dataclass(frozen=True)
class SourcePlan:
    """A source of a plan, or the documents of a source that fill windows of one length.

    `size` and `long_size` are all that its documents hold, `effective` what counts at its rates,
    `rel_sd` the noise of draws by hash, relative to the target.
    """

    name: str
    source: str
    lo: int
    hi: int | None
    docs: int
    size: int
    long_size: int
    effective: float
    weight_asked: float
    weight: float
    target: float
    p_asked: float
    p_used: float
    lambda_plan: float
    lam: float
    calibrated: bool
    rel_sd: float
    epochs: float
    max_rate: float
    planned_long_share: float
    window: int | None = None
    piece: int | None = None
    cells: tuple[CellPlan, ...] = ()

    @property
    def variance(self) -> float:
        """Variance of the size that draws by hash realise."""
        return variance(self)


@dataclass(frozen=True)
class Plan:
    """Rates of all cells. `unused` are sources without weight: name -> documents and size."""

    seed: int
    unit: str
    by: str
    budget_asked: float | None
    budget: float
    front_end: dict[str, Any]
    length: dict[str, Any]
    per_source: dict[str, Any]
    rate_by: dict[str, Any] | None
    slots: dict[str, Any]
    max_epochs: int
    on_cap: str
    calibrate: str
    long_from: int
    edges: tuple[int, ...]
    sources: tuple[SourcePlan, ...]
    unused: dict[str, dict[str, int]]
    warnings: tuple[str, ...]
    holdout_fraction: float = 0.0

    @property
    def long_share(self) -> float:
        """Planned share of long documents over all sources."""
        planned = sum(s.weight * s.planned_long_share for s in self.sources)
        return planned / sum(s.weight for s in self.sources)

    def shares(self) -> dict[str, float]:
        """Planned share of each source of the corpus."""
        found: dict[str, float] = {}
        for one in self.sources:
            found[one.source] = found.get(one.source, 0.0) + one.weight
        return found

    def cells(self) -> dict[Cell, tuple[SourcePlan, CellPlan]]:
        """The line of the plan and the rate of every cell that has one."""
        return {Cell(s.source, c.bucket, c.cls): (s, c) for s in self.sources for c in s.cells}

    def to_calibrate(self) -> list[SourcePlan]:
        """Sources whose lambda follows from their documents, not from their sizes alone."""
        return [s for s in self.sources if s.calibrated]

    def with_lambdas(self, found: Mapping[str, float]) -> "Plan":
        """The plan with other rates in some sources, by name; relative rates stay."""
        return replace(self, sources=tuple(_rated(s, found) for s in self.sources))

    def as_dict(self, most_cells: float = math.inf) -> dict[str, Any]:
        """Plain values; without the cells of sources where there are more than `most_cells`."""
        found = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        told = sum(len(s.cells) for s in self.sources) <= most_cells
        found["sources"] = [_renamed(s, _NAMES) for s in found["sources"]]
        for one in found["sources"]:
            cells = one.pop("cells")
            if told:
                one["cells"] = [_renamed(c, _NAMES) for c in cells]
        return found

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Plan":
        """The plan that `as_dict` wrote whole. ValueError for another schema version."""
        if value["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"plan of schema version {value['schema_version']}")
        named = {f.name: value[f.name] for f in fields(cls)}
        sources = []
        for told in value["sources"]:
            cells = tuple(CellPlan(**_renamed(c, _FIELDS)) for c in told["cells"])
            sources.append(SourcePlan(**{**_renamed(told, _FIELDS), "cells": cells}))
        tuples = {"edges": tuple(value["edges"]), "warnings": tuple(value["warnings"])}
        return cls(**{**named, **tuples, "sources": tuple(sources)})


def _renamed(value: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): one for key, one in value.items()}


def variance(source: SourcePlan) -> float:
    """Variance of what draws by hash realise of a source: sum_sq · f(1 - f), f the rate's rest."""
    found = 0.0
    for cell in source.cells:
        rest = cell.rate - math.floor(cell.rate)
        found += cell.sum_sq * rest * (1 - rest)
    return found


def _rated(source: SourcePlan, found: Mapping[str, float]) -> SourcePlan:
    if source.name not in found:
        return source
    lam = found[source.name]
    cells = tuple(replace(c, rate=lam * c.rel) for c in source.cells)
    top = max((c.rate for c in cells if c.size), default=0.0)
    return replace(source, lam=lam, cells=cells, max_rate=top)
