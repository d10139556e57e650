"""`plan --docs --nodes` on the terminal: each stage at that size, steps in one place, sums."""

from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longctx.cost.model import Alone
from longctx.engine.scaling import ScalePlan, StageScale
from longctx.report.format import compact, duration, plural, size
from longctx.report.plan import machine

NOT_CALIBRATED = "not calibrated"
# Steps that hold less than this in one place are not worth a line.
_SMALL = 1e9


def scale_view(plan: ScalePlan) -> RenderableType:
    """Everything that `longctx plan` prints for a size and a cluster that are not here."""
    cluster = plan.cluster
    head = Text.assemble(
        (plan.name, "bold"),
        f"  {compact(plan.docs)} documents, {size(plan.text_bytes)} of text in "
        f"{plural(plan.parts, 'part')}\n"
        f"{plural(cluster.nodes, 'node')} with {plural(cluster.cores, 'core')} and "
        f"{size(cluster.memory)} each{_gpus(plan)}",
    )
    parts: list[RenderableType] = [head, _stages(plan)]
    alone = _alone(plan)
    if alone is not None:
        parts += [Text("In one place, on one node:"), alone]
    parts += [Text(_sums(plan)), *_refusals(plan), *_notes(plan)]
    return Group(*parts)


def scale_json(plan: ScalePlan) -> dict[str, Any]:
    """The same as plain values; `estimate` is null for a stage that was not measured."""
    return {**asdict(plan), "fits": not _misfits(plan), "not_calibrated": plan.unknown}


def _time(seconds: float) -> str:
    """Hours, days, or years where nobody would wait for the end."""
    years = seconds / (365 * 86_400)
    return f"{compact(years)} years" if years >= 2 else duration(seconds)


def _gpus(plan: ScalePlan) -> str:
    return f", {plural(round(plan.cluster.gpus), 'GPU')} in all" if plan.cluster.gpus else ""


def _stages(plan: ScalePlan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("stage", overflow="fold", min_width=16)
    for name in ("core time", "time", "exchanged", "stored", "node peak"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage in plan.stages:
        found = stage.estimate
        if found is None:
            table.add_row(stage.stage, Text(NOT_CALIBRATED, style="yellow"), *["-"] * 4)
            continue
        table.add_row(
            f"{stage.stage} *" if stage.gpu else stage.stage,
            _time(found.cpu_seconds),
            _time(found.seconds),
            size(found.exchange_bytes) if found.exchange_bytes else "-",
            size(found.stored_bytes),
            Text(
                size(found.node_bytes),
                style="red" if found.node_bytes > plan.cluster.memory else "",
            ),
        )
    return table


def _large(plan: ScalePlan) -> list[tuple[StageScale, Alone]]:
    """Steps in one place that hold much, or take a share of the whole time that one would see."""
    total = sum(e.seconds for e in plan.known)
    return [
        (stage, step)
        for stage in plan.stages
        if stage.estimate is not None
        for step in stage.estimate.alone
        if step.held_bytes > _SMALL or step.seconds > 0.01 * total
    ]


def _alone(plan: ScalePlan) -> Table | None:
    steps = _large(plan)
    if not steps:
        return None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("step", overflow="fold")
    for name in ("B/document", "held", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for stage, step in steps:
        table.add_row(
            f"{stage.stage}/{step.step}",
            f"{step.bytes_per_document:.0f}",
            size(step.held_bytes),
            _time(step.seconds),
            Text("" if step.fits else "does not fit", style="red"),
        )
    return table


def _sums(plan: ScalePlan) -> str:
    known = plan.known
    moved, stored = (
        sum(getattr(e, name) for e in known) for name in ("exchange_bytes", "stored_bytes")
    )
    return (
        f"All stages: {_time(sum(e.seconds for e in known))}, "
        f"{size(moved)} exchanged, {size(stored)} stored, up to "
        f"{size(max((e.node_bytes for e in known), default=0))} on one node; the driver keeps "
        f"{size(plan.driver_bytes)}."
    )


def _misfits(plan: ScalePlan) -> list[tuple[str, str]]:
    """Stage or step that a node cannot hold, and what to set."""
    found = []
    for stage in plan.stages:
        if stage.estimate is None:
            continue
        steps = [a for a in stage.estimate.alone if not a.fits]
        found += [(f"{stage.stage}/{a.step} ({size(a.held_bytes)})", a.remedy) for a in steps]
        if not steps and stage.estimate.node_bytes > plan.cluster.memory:
            more = "lower engine.part_mb and engine.exchange_mb, or run fewer workers a node"
            found.append((f"{stage.stage} ({size(stage.estimate.node_bytes)})", more))
    return found


def _refusals(plan: ScalePlan) -> list[Text]:
    memory = size(plan.cluster.memory)
    return [
        Text(f"{name} does not fit a node of {memory}: {remedy}.", style="red")
        for name, remedy in _misfits(plan)
    ]


def _notes(plan: ScalePlan) -> list[Text]:
    notes = []
    if plan.unknown:
        notes.append(
            f"{NOT_CALIBRATED.capitalize()}, and in no sum: {', '.join(plan.unknown)}. "
            "`make calibrate` measures the ops that it knows."
        )
    if any(s.gpu for s in plan.stages):
        notes.append("* GPU not calibrated: CPU rate shown.")
    elif plan.cluster.gpus:
        notes.append("No stage of the recipe uses a GPU (`num_gpus` of a model stage).")
    notes.append(
        "Upper bounds: no row is assumed to be dropped. Cores like those of "
        f"{machine(plan.measured)}."
    )
    return [Text(n) for n in notes]
