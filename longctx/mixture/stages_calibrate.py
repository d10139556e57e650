"""Calibration of a mixture: the sources whose draws are too noisy get lambda from their documents.

Their (u, size, relative rate, id), 60 bytes a document, come to one place. Above `one_place_up_to`
documents events are first counted in bins per part, and only documents with an event in the bin
that holds the target are brought: of 10^9 documents some 10^6. The lambda is the same number.
"""

import json
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Part
from longctx.engine.op import Setting
from longctx.engine.steps import StepRef
from longctx.mixture.calibrate import (
    NOTHING,
    Around,
    Bins,
    add_bins,
    bins,
    events,
    no_bins,
    settled,
    straddling,
)
from longctx.mixture.chance import F64, I64
from longctx.mixture.planned import Plan
from longctx.mixture.stages_rows import PLAN, Rates, as_json, plan_in, read_rows

if TYPE_CHECKING:
    from longctx.mixture.stages import Mixture

_EVENTS = pa.schema(
    [
        ("line", pa.int32()),
        ("doc_id", pa.string()),
        ("u", pa.float64()),
        ("size", pa.int64()),
        ("rel", pa.float64()),
    ]
)
_BINS = pa.schema(
    [
        ("line", pa.int32()),
        ("bin", pa.int32()),
        ("weight", pa.int64()),
        ("events", pa.int64()),
        ("first", pa.float64()),
        ("last", pa.float64()),
    ]
)
_AROUND = pa.schema(
    [
        ("line", pa.int32()),
        ("base", pa.int64()),
        ("before", pa.float64()),
        ("after", pa.float64()),
        ("first", pa.float64()),
        ("last", pa.float64()),
    ]
)


def calibrated(
    op: "Mixture", context: BarrierContext, draft: StepRef, columns: list[str], noisy: int
) -> StepRef:
    """The step `plan`: the draft, with lambdas from the documents where draws are noisy."""
    if not noisy:
        return context.single("plan", partial(_plan, draft, None, None), [draft])
    around: list[StepRef] = []
    if noisy > op.one_place_up_to:
        counted = context.per_part(
            "bins", partial(_bins, op, columns, draft), columns, inputs=[draft]
        )
        rule = partial(_around, draft, counted)
        around = [context.single("around", rule, [draft, counted])]
    bounds = around[0] if around else None
    brought = context.per_part(
        "events", partial(_events, op, columns, draft, bounds), columns, inputs=[draft, *around]
    )
    inputs = [draft, brought, *around]
    return context.single("plan", partial(_plan, draft, brought, bounds), inputs)


def _noisy_rows(
    op: "Mixture", columns: list[str], plan: Plan, part: Part, setting: Setting
) -> pa.Table:
    """Rows of a part whose sources are calibrated, as _EVENTS."""
    rows = read_rows(op, part.table(columns), setting.seed, setting.stage)
    rates = Rates.of(plan)
    chosen = np.array([line.calibrated for line in plan.sources])[rates.line] & (rates.rel > 0)
    number = rows.numbers(rates.cells, plan.edges)
    kept = (number >= 0) & chosen[number]
    rows, number = rows.of(kept), number[kept]
    found = {
        "line": pa.array(rates.line[number], pa.int32()),
        "doc_id": rows.ids,
        "u": rows.draws(setting.seed),
        "size": rates.held(number, rows.sizes),
        "rel": rates.rel[number],
    }
    return pa.table(found, schema=_EVENTS)


def _bins(
    op: "Mixture", columns: list[str], draft: StepRef, part: Part, setting: Setting
) -> pa.Table:
    """Events of a part counted in bins, as _BINS; empty bins are left out."""
    plan = plan_in(draft)
    found = [_BINS.empty_table()]
    for line, own in _by_line(_noisy_rows(op, columns, plan, part, setting)):
        u, size, rel = _arrays(own)
        counted = bins(events(u, size, rel, plan.max_epochs), plan.sources[line].lambda_plan)
        at = np.flatnonzero(counted.events)
        values = {
            "line": pa.array(np.full(len(at), line), pa.int32()),
            "bin": pa.array(at, pa.int32()),
            **{name: one[at] for name, one in counted._asdict().items()},
        }
        found.append(pa.table(values, schema=_BINS))
    return pa.concat_tables(found)


def _by_line(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each line of the plan that has some."""
    lines = table.column("line").to_numpy()
    for line in np.unique(lines).tolist():
        yield line, table.filter(pa.array(lines == line))


def _arrays(table: pa.Table) -> tuple[F64, I64, F64]:
    u, size, rel = (table.column(n).to_numpy() for n in ("u", "size", "rel"))
    return u, size, rel


def _around(
    draft: StepRef, counted: StepRef, setting: Setting
) -> dict[str, "pa.Table | bytes | memoryview"]:
    """Of each calibrated source the bin that holds its target, as _AROUND."""
    plan = plan_in(draft)
    rows = []
    for line, own in _by_line(counted.read()):
        around, (first, last) = straddling(_sum_of(own), plan.sources[line].target)
        rows.append({"line": line, **around._asdict(), "first": first, "last": last})
    return {"around.parquet": pa.Table.from_pylist(rows, schema=_AROUND)}


def _sum_of(table: pa.Table) -> Bins:
    """Bins of all parts of one source, from their rows."""
    names = ("bin", "weight", "events", "first", "last")
    return add_bins(no_bins(), *(table.column(n).to_numpy() for n in names))


def _events(
    op: "Mixture",
    columns: list[str],
    draft: StepRef,
    bounds: StepRef | None,
    part: Part,
    setting: Setting,
) -> pa.Table:
    """Documents of the calibrated sources, as _EVENTS; with bounds those with an event inside."""
    plan = plan_in(draft)
    table = _noisy_rows(op, columns, plan, part, setting)
    if bounds is None:
        return table
    inside = _inside(bounds)
    found = [_EVENTS.empty_table()]
    for line, own in _by_line(table):
        u, size, rel = _arrays(own)
        one = events(u, size, rel, plan.max_epochs)
        first, last = inside[line][1]
        rows = np.unique(one.row[(one.place >= first) & (one.place <= last)])
        found.append(own.take(pa.array(rows)))
    return pa.concat_tables(found)


def _inside(bounds: StepRef) -> dict[int, tuple[Around, tuple[float, float]]]:
    return {
        row["line"]: (
            Around(row["base"], row["before"], row["after"]),
            (row["first"], row["last"]),
        )
        for row in bounds.read().to_pylist()
    }


def _plan(
    draft: StepRef, brought: StepRef | None, bounds: StepRef | None, setting: Setting
) -> dict[str, "pa.Table | bytes | memoryview"]:
    """The final plan, with the names of sources that are taken as often as they may be."""
    stored = json.loads(draft.bytes(PLAN))
    plan = Plan.from_dict(stored)
    inside = _inside(bounds) if bounds else {}
    lambdas, used_up = {}, []
    for line, own in _by_line(brought.read()) if brought else ():
        source = plan.sources[line]
        around, kept = inside.get(line, (NOTHING, None))
        ids = own.column("doc_id").combine_chunks()
        found = settled(
            *_arrays(own), ids, source.target, plan.max_epochs, around=around, inside=kept
        )
        lambdas[source.name] = found.lam
        if found.everything:
            used_up.append(source.name)
    plan = plan.with_lambdas(lambdas)
    return {PLAN: as_json({**stored, **plan.as_dict(), "used_up": used_up})}
