"""Which documents the pages show: those at the deciles of each score, and those at a threshold.

Texts are what costs, and a row group of them is read for a single document, too. So documents that
may stand for each other are taken from row groups that are read anyway, and once `TEXT_GROUPS` are
to be read, from these only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.report.scores.catalogue import Column, is_score, scores_of
from longctx.report.scores.sample import Sample, StageColumns
from longctx.report.scores.statistics import F64, I64, Step, constant, ladder, nearest

TEXT_GROUPS = 64
_MAIN = 8
_BOUNDS, _BESIDE = 8, 3
Stage = dict[str, Any]
Mask = npt.NDArray[np.bool_]


class Bound(NamedTuple):
    """An inclusive limit of a column that a stage cuts by; `source` is "" for all sources."""

    column: str
    side: str
    value: float
    source: str
    values: F64
    kept: list[int]
    dropped: list[int]


@dataclass
class StagePlan:
    """A score stage: the rows that it saw, its main columns, and the documents that are shown.

    `unknown_tokens` says that places are known in tokens, and that the tokenizer is not.
    """

    number: int
    stage: str
    op: str
    columns: StageColumns
    alive: Mask
    main: list[Column]
    ladders: dict[str, list[Step]] = field(default_factory=dict)
    bounds: list[Bound] = field(default_factory=list)
    unknown_tokens: bool = False

    @property
    def rows(self) -> set[int]:
        """Rows whose text the page shows."""
        found = {step.row for steps in self.ladders.values() for step in steps}
        return found.union(*((*b.kept, *b.dropped) for b in self.bounds))

    def living(self, name: str) -> F64:
        """A column, null at rows that the stage never saw."""
        return np.where(self.alive, self.columns.numbers[name], np.nan)


def plans_of(sample: Sample, stages: Sequence[Stage]) -> list[StagePlan]:
    """A plan for each score stage whose sidecar is there."""
    plans = [
        _plan(sample, number, stage)
        for number, stage in enumerate(stages)
        if is_score(stage["op"]) and stage["stage"] in sample.stages
    ]
    ties = _ranks_of(sample.doc_ids)
    used: set[int] = set()
    for plan in plans:
        for column in plan.main:
            values = plan.living(column.name)
            # Documents that are all as good have no order to read them in.
            if not constant(values):
                up = column.better != "low"
                steps = ladder(values, ties, sample.group, used, ascending=up, most=TEXT_GROUPS)
                plan.ladders[column.name] = steps
        if plan.op == "decide":
            plan.bounds = list(_bounds(sample, plan, stages, ties, used))
    return plans


def _plan(sample: Sample, number: int, stage: Stage) -> StagePlan:
    columns = sample.stages[stage["stage"]]
    named = [c for c in scores_of(stage["op"]).main if c.name in columns.numbers]
    main = named or [Column(name, "") for name in list(columns.numbers)[:_MAIN]]
    return StagePlan(number, stage["stage"], stage["op"], columns, sample.alive(number), main)


def _ranks_of(ids: npt.NDArray[np.object_]) -> I64:
    """The rank of each id among all, by which equal scores are ordered."""
    found = np.empty(len(ids), dtype=np.int64)
    found[np.argsort(ids.astype(str), kind="stable")] = np.arange(len(ids))
    return found


def _bounds(
    sample: Sample, plan: StagePlan, stages: Sequence[Stage], ties: I64, used: set[int]
) -> Iterator[Bound]:
    """The limits of `rules` and `per_source`, with the documents next to each."""
    for source, column, side, value in limits(stages[plan.number]["settings"])[:_BOUNDS]:
        values = _values(sample, stages[: plan.number], column)
        if values is None:
            continue
        own = plan.alive.copy()
        if source in sample.source_names:
            own &= sample.sources == sample.source_names.index(source)
        elif source:
            continue
        above, below = nearest(np.where(own, values, np.nan), ties, value, side == "min", _BESIDE)
        kept, dropped = (above, below) if side == "min" else (below, above)
        shown = [[r for r in rows if _readable(sample, r, used)] for rows in (kept, dropped)]
        yield Bound(column, side, value, source, values, *shown)


def _readable(sample: Sample, row: int, used: set[int]) -> bool:
    group = int(sample.group[row])
    if group not in used and len(used) >= TEXT_GROUPS:
        return False
    used.add(group)
    return True


def limits(settings: dict[str, Any]) -> list[tuple[str, str, str, float]]:
    """(source or "", column, "min" or "max", value) of all bounds that a recipe gave."""
    found = []
    per_source = settings.get("per_source")
    sources = {"": settings.get("rules"), **(per_source if isinstance(per_source, dict) else {})}
    for source, rules in sources.items():
        for column, sides in (rules if isinstance(rules, dict) else {}).items():
            for side in ("min", "max"):
                value = sides.get(side) if isinstance(sides, dict) else None
                if isinstance(value, int | float) and not isinstance(value, bool):
                    found.append((source, column, side, float(value)))
    return found


def _values(sample: Sample, stages: Sequence[Stage], column: str) -> F64 | None:
    """A column as the newest of these stages wrote it."""
    for stage in reversed(stages):
        numbers = sample.stages.get(stage["stage"], StageColumns()).numbers
        if column in numbers:
            return numbers[column]
    return None
