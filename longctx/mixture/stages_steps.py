"""The steps of a mixture: census, draft, calibration of the sources that need it, plan, copies.

The census is counted per part and added where the draft is made, in one place; what it adds is a
row for each cell of each part. Calibration is in `stages_calibrate.py`. The copies are a pass over
a few small columns that counts all cells again.
"""

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from longctx.engine import summary
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import DROP_REASON, Setting
from longctx.engine.steps import Stats, StepRef
from longctx.mixture.account import account
from longctx.mixture.census import Cell, Census, add_cells, buckets, count_cells
from longctx.mixture.chance import I64, copies
from longctx.mixture.plan import build_plan
from longctx.mixture.planned import Plan
from longctx.mixture.realised import (
    Taken,
    assert_calibrated,
    assert_census,
    realised,
    take,
)
from longctx.mixture.stages_calibrate import calibrated
from longctx.mixture.stages_rows import PLAN, Rates, Rows, as_json, columns_of, plan_in, read_rows
from longctx.mixture.strategies import compare_strategies, natural_mix
from longctx.mixture.upsample import RAISED

if TYPE_CHECKING:
    from longctx.mixture.stages import Mixture
    from longctx.mixture.weights import WeightsFile

HELD_OUT, NOT_TAKEN = "holdout", "mixture"
_NOTHING_BROUGHT = pa.schema([(ROW, pa.int32())])


def mix(op: "Mixture", context: BarrierContext, file: "WeightsFile | None") -> None:
    """All steps of a mixture; the last one is its sidecar."""
    columns = columns_of(op, context.corpus)
    edges, windows = op.edges(), op.windows()
    census = context.per_part(
        "census",
        partial(_census, op, columns, edges, windows),
        columns,
        ignore=op.uncounted(),
        depends=[edges, windows],
    )
    draft = context.single("draft", partial(_draft, op, file, census, edges), [census])
    noisy = context.step_stats["draft"].get("to_calibrate", 0)
    plan = calibrated(op, context, draft, columns, noisy)
    context.sidecar(
        "",
        [],
        partial(_copies, op, columns, plan),
        _NOTHING_BROUGHT,
        op.writes_columns(),
        columns=columns,
        inputs=[plan],
        removes=True,
    )
    if not context.dry:
        assert context.final is not None
        counted = summary.merge(c.stats for c in context.final.commits)
        told = _told(plan, counted.get("stats") or {}, file, context.setting.stage)
        context.outcome = {**counted, "mixture": told}


def _census(
    op: "Mixture",
    columns: list[str],
    edges: tuple[int, ...],
    windows: tuple[int, ...],
    part: Part,
    setting: Setting,
) -> pa.Table:
    """The cells of a part, without what is held out."""
    rows = read_rows(op, part.table(columns), setting.seed, setting.stage)
    rows = rows.of(~rows.held)
    return count_cells(rows.sources, rows.sizes, rows.classes, edges, windows)


def _draft(
    op: "Mixture",
    file: "WeightsFile | None",
    counted: StepRef,
    edges: tuple[int, ...],
    setting: Setting,
) -> dict[str, "pa.Table | bytes | memoryview"]:
    """The plan as sizes alone give it, beside what the corpus is without it."""
    census = add_cells([counted.read()], edges)
    plan = build_plan(
        census,
        op,
        op.front_end(),
        op.rule(),
        seed=setting.seed,
        prolong=op.prolong(),
        file=file,
        raised=op.raised(),
    )
    beside = {
        "baselines": natural_mix(census, plan.long_from),
        "strategies": _strategies(op, census, plan),
    }
    noisy = sum(line.docs for line in plan.to_calibrate())
    cells = [{"source": line.source, **vars(c)} for line in plan.sources for c in line.cells]
    table = pa.Table.from_pylist([{k: v for k, v in c.items() if v is not None} for c in cells])
    return {
        PLAN: as_json({**plan.as_dict(), **beside}),
        "cells.parquet": Stats.attach(table, {"to_calibrate": noisy}),
    }


def _strategies(op: "Mixture", census: Census, plan: Plan) -> list[dict[str, Any]]:
    if plan.unit != "tokens":
        return []  # their thresholds are tokens
    slots = {slot: op.slots[slot] for slot in RAISED if slot in op.slots}
    return compare_strategies(
        census, plan.budget, slots=slots, max_epochs=plan.max_epochs, unit=plan.unit
    )


def _copies(
    op: "Mixture",
    columns: list[str],
    step: StepRef,
    base: pa.Table,
    brought: pa.Table,
    setting: Setting,
) -> pa.Table:
    """The columns of a part, and its cells counted again."""
    plan = plan_in(step)
    rates = Rates.of(plan)
    rows = read_rows(op, base.select(columns), setting.seed, setting.stage)
    number = rows.numbers(rates.cells, plan.edges)
    inside = number >= 0
    rate = np.where(inside, rates.rate[number], 0.0)
    u = rows.draws(setting.seed)
    many = copies(rate, u, plan.max_epochs)
    reasons = np.full(len(many), None, dtype=object)
    reasons[many == 0] = NOT_TAKEN
    reasons[rows.held] = HELD_OUT
    made = {
        "mix_bucket": pa.array(buckets(rows.sizes, plan.edges), pa.int8()),
        "mix_rate": pa.array(rate),
        "mix_u": pa.array(u),
        "mix_copies": pa.array(many),
    }
    for name, values in (("mix_max_piece", rates.piece), ("mix_window", rates.window)):
        if name in op.writes_columns():
            asked = np.where(inside & (many > 0), values[number], 0)
            made[name] = pa.array(asked, pa.int32(), mask=asked == 0)
    made[DROP_REASON] = pa.array(reasons.tolist(), pa.string())
    taken = take(number, len(rates.cells), rates.held(number, rows.sizes), many)
    return Stats.attach(pa.table(made), _stats(rows, rates, taken))


def _stats(rows: Rows, rates: Rates, taken: I64) -> dict[str, Any]:
    """Counters of a part: what was taken by source and cell, and what is held out."""
    cells: dict[str, dict[str, list[int]]] = {}
    for cell, counted in zip(rates.cells, taken.tolist(), strict=True):
        if counted[0]:
            key = str(cell.bucket) if cell.cls is None else f"{cell.bucket} {cell.cls}"
            cells.setdefault(cell.source, {})[key] = counted
    held = {"docs": int(rows.held.sum()), "size": int(rows.sizes[rows.held].sum())}
    return {"cells": cells, "held_out": held}


def _told(
    plan_step: StepRef,
    counted: dict[str, Any],
    file: "WeightsFile | None",
    where: str,
) -> dict[str, Any]:
    """What the run's record says, after what was counted was compared with the plan."""
    stored = json.loads(plan_step.bytes(PLAN))
    plan = Plan.from_dict(stored)
    rows = {}
    for source, cells in (counted.get("cells") or {}).items():
        for key, values in cells.items():
            bucket, _, cls = key.partition(" ")
            rows[Cell(source, int(bucket), cls if " " in key else None)] = Taken(*values)
    assert_census(plan, rows, where)
    found = realised(plan, rows)
    assert_calibrated(plan, found, set(stored["used_up"]), where)
    found["held_out"] = counted.get("held_out") or {"docs": 0, "size": 0}
    evidence = file.evidence if file else None
    return account(plan, found, stored["baselines"], stored["strategies"], evidence)
