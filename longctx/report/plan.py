"""A plan on the terminal: inputs, stages with rough costs, and what a resume would skip."""

from collections.abc import Iterator, Mapping
from typing import Any

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
    parts: list[RenderableType] = [head, _inputs(plan)]
    if plan.ignored:
        listed = ", ".join(f"{reason} {n:,}" for reason, n in plan.ignored.items())
        parts.append(Text(f"files passed over: {listed}\n", style="yellow"))
    parts.append(_stages(plan))
    if any(s.calls for s in plan.stages):
        parts += [_calls(plan), Text(_assumed(plan))]
    if any(s.settings for s in plan.stages):
        parts += [_settings(plan), Text()]
    return Group(*parts, Text(_sums(plan, cores)), Text(), _places(plan))


def machine(when: Mapping[str, Any]) -> str:
    """When and on what the coefficients were measured."""
    return f"{when['machine']['cpu']} (`make calibrate`, {when['date']})"


def _sums(plan: Plan, cores: int) -> str:
    about = "" if all(i.exact for i in plan.inputs) else "About "
    read = (
        f"{about}{plural(plan.rows, 'row')}, {size(plan.text_bytes)} of text in about "
        f"{plural(plan.parts, 'part')}. "
    )
    left = [s for s in plan.stages if s.state != "done"]
    if not left:
        return f"{read}Nothing is left to do: a run would skip every stage."
    busy, moved = sum(s.cpu_seconds or 0 for s in left), sum(s.exchange_bytes or 0 for s in left)
    peak = max(s.worker_bytes or 0 for s in left)
    unknown = [s.stage for s in left if s.cpu_seconds is None]
    without = f" Without {', '.join(unknown)}: not calibrated." if unknown else ""
    gpu = " GPU not calibrated: CPU rate shown." if any("GPU" in s.workers for s in left) else ""
    return (
        f"{read}Left to do: about {duration(busy / cores)} on {plural(cores, 'core')}, "
        f"{size(moved)} exchanged, up to {size(peak)} of memory per worker.{without}{gpu}\n"
        "Estimates assume that no row is dropped, and cores like those of "
        f"{machine(plan.measured)}."
    )


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
            f"~{size(i.text_bytes)}",
        )
    return table


def _stages(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage", overflow="fold", min_width=16)
    table.add_column("workers", overflow="fold")
    table.add_column("core time", justify="right", no_wrap=True)
    table.add_column("exchanged", justify="right", no_wrap=True)
    table.add_column("state", overflow="fold")
    for stage in plan.stages:
        table.add_row(
            stage.stage,
            stage.workers,
            "not calibrated" if stage.cpu_seconds is None else duration(stage.cpu_seconds),
            size(stage.exchange_bytes) if stage.exchange_bytes else "-",
            Text(stage.state, style="green" if stage.state == "done" else ""),
        )
    return table


def _calls(plan: Plan) -> Table:
    """What is asked of language models, before the first call."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("calls of a model", overflow="fold", min_width=16)
    for name in ("calls", "tokens read", "written, at most", "USD"):
        table.add_column(name, justify="right", no_wrap=True)
    for call in (call for stage in plan.stages for call in stage.calls):
        table.add_row(
            call.stage,
            count(call.calls),
            f"~{count(call.prompt_tokens)}",
            count(call.completion_tokens),
            "unknown" if call.usd is None else f"{call.usd:,.2f}",
        )
    return table


def _assumed(plan: Plan) -> str:
    found = {c.assumed: None for s in plan.stages for c in s.calls}
    return "".join(f"Assumed: {assumed}.\n" for assumed in found)


def _settings(plan: Plan) -> Table:
    """What the recipe sets to something else than its default."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for stage in plan.stages:
        if stage.settings:
            listed = ", ".join(f"{name} {value}" for name, value in _flat(stage.settings))
            grid.add_row(stage.stage, Text(listed))
    return grid


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings by dotted path, as an override would name them; bounds that are not set stay out."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", _setting(value)


def _setting(value: Any) -> str:
    """A value as a recipe could have it; large amounts with commas."""
    if isinstance(value, float):
        return count(int(value)) if value >= 10_000 and value.is_integer() else f"{value:g}"
    return str(value)


def _places(plan: Plan) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    grid.add_row("run", Text(plan.run_dir))
    grid.add_row("output", Text(plan.output))
    return grid
