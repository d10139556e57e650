"""A plan on the terminal: inputs, stages with rough costs, and what a resume would skip."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longctx.engine.planning import Plan
from longctx.report.format import count, duration, plural, size


def plan_view(plan: Plan, cores: int) -> RenderableType:
    """Everything `longctx plan` prints, for a run on `cores` cores."""
    body = plan.recipe.body
    head = Text.assemble(
        (body.name, "bold"), f"  seed {body.seed}, fingerprint {plan.recipe.fingerprint}\n"
    )
    busy = sum(s.cpu_seconds for s in plan.stages if s.state != "done")
    moved = sum(s.exchange_bytes for s in plan.stages if s.state != "done")
    peak = int(3 * (body.engine.part_mb + body.engine.exchange_mb) * 1e6)
    sums = Text(
        f"{plural(plan.rows, 'row')}, {size(plan.text_bytes)} of text in about "
        f"{plural(plan.parts, 'part')}. Left to do: about {duration(busy / cores)} on "
        f"{plural(cores, 'core')}, {size(moved)} exchanged, up to {size(peak)} of memory per "
        "worker.\nEstimates assume that no row is dropped, and cores like those of "
        "docs/benchmarks.md."
    )
    parts: list[RenderableType] = [head, _inputs(plan), _stages(plan), sums, Text(), _places(plan)]
    if plan.ignored:
        listed = ", ".join(f"{reason}: {n}" for reason, n in plan.ignored.items())
        parts.insert(2, Text(f"files passed over: {listed}\n", style="yellow"))
    return Group(*parts)


def _inputs(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("source", overflow="fold")
    for name in ("files", "stored", "rows", "text"):
        table.add_column(name, justify="right", no_wrap=True)
    for i in plan.inputs:
        about = "" if i.exact else "~"
        table.add_row(
            Text(i.source),
            count(i.files),
            size(i.stored_bytes),
            f"{about}{count(i.rows)}",
            f"{about}{size(i.text_bytes)}",
        )
    return table


def _stages(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("resources", overflow="fold")
    table.add_column("core time", justify="right", no_wrap=True)
    table.add_column("exchanged", justify="right", no_wrap=True)
    table.add_column("state", overflow="fold")
    for stage in plan.stages:
        table.add_row(
            stage.stage,
            stage.resources,
            duration(stage.cpu_seconds),
            size(stage.exchange_bytes) if stage.exchange_bytes else "-",
            Text(stage.state, style="green" if stage.state == "done" else ""),
        )
        if stage.settings:
            listed = ", ".join(f"{k} {v}" for k, v in stage.settings.items())
            table.add_row("", Text(f"{listed}", style="dim"), "", "", "")
    return table


def _places(plan: Plan) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    grid.add_row("run", Text(plan.run_dir))
    grid.add_row("output", Text(plan.output))
    return grid
