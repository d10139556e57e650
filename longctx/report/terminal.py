"""What a run prints last: what happened to the rows, and where the results lie.

Made for 80 columns and for logs: no column is wider than its numbers need, dropped rows stand
below their stage with their reason, and the words are plain ASCII apart from names in the data.
"""

import re
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longctx.credentials import masked
from longctx.report.data import ReportData, StageRow
from longctx.report.findings import Finding, findings
from longctx.report.format import compact, count, duration, one_line
from longctx.report.summary import outcome

REPORT = "report.html"

_EXACT_BELOW = 10_000_000  # a table with longer numbers shortens them all, or it would not fit
_SPACED_UNIT = re.compile(r"(?<=\d) (?=[dhms])")
_FINDINGS = 5


def closing_table(data: ReportData) -> Group:
    """The table of the stages, the outcome in a sentence, findings, and the paths.

    Text from the data is never read as rich markup. The report is taken to lie in the run folder.
    """
    parts: list[RenderableType] = [_stage_table(data.stages), Text()] if data.stages else []
    parts += [Text(f"{outcome(data)} It took {duration(data.seconds)}."), Text()]
    found = findings(data)
    if found:
        parts += [_finding_list(found), Text()]
    parts.append(_places(data))
    return Group(*parts)


def _stage_table(stages: Sequence[StageRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_footer=True)
    largest = max(max(stage.rows_in, stage.rows_out) for stage in stages)
    number = count if largest < _EXACT_BELOW else compact
    footer = _footer(stages, number)
    table.add_column("stage", Text(footer[0]), overflow="fold", min_width=12)
    names = ("in", "dropped", "quar.", "out", "tokens", "time")
    for name, total in zip(names, footer[1:], strict=True):
        table.add_column(name, Text(total), justify="right", no_wrap=True)
    for stage in stages:
        _add(table, stage, number)
    return table


def _add(table: Table, stage: StageRow, number: Callable[[int], str]) -> None:
    dropped = sum(stage.dropped.values())
    cells = (
        one_line(stage.stage, 60),
        number(stage.rows_in),
        number(dropped),
        number(stage.quarantined),
        number(stage.rows_out),
        compact(stage.tokens_out),
        _time(stage.seconds),
    )
    table.add_row(*(Text(cell) for cell in cells))
    for reason, rows in sorted(stage.dropped.items(), key=lambda item: -item[1]):
        below = (f"  {one_line(reason, 40)}", "", number(rows))
        table.add_row(*(Text(cell, style="dim") for cell in below))


def _footer(stages: Sequence[StageRow], number: Callable[[int], str]) -> list[str]:
    return [
        "all",
        number(stages[0].rows_in),
        number(sum(sum(stage.dropped.values()) for stage in stages)),
        number(sum(stage.quarantined for stage in stages)),
        number(stages[-1].rows_out),
        compact(stages[-1].tokens_out),
        _time(sum(stage.seconds for stage in stages)),
    ]


def _time(seconds: float) -> str:
    """As in the report, without its spaces: "3m 20s"."""
    return _SPACED_UNIT.sub("", duration(seconds)).replace("min", "m")


def _finding_list(found: Sequence[Finding]) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    for one in found[:_FINDINGS]:
        mark = Text("!", style="bold red") if one.grave else Text("-", style="yellow")
        grid.add_row(mark, Text(one_line(one.sentence, 400)))
    if len(found) > _FINDINGS:
        grid.add_row("", Text(f"{len(found) - _FINDINGS} more in the report."))
    return grid


def _places(data: ReportData) -> Table:
    """Paths fold inside their column rather than being cut."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    report = f"{data.run_dir.rstrip('/')}/{REPORT}"
    places = [("output", data.output)] if data.writes_output else []
    places += [("run", data.run_dir), ("report", report)]
    for label, place in places:
        grid.add_row(label, Text(one_line(masked(place), 1000)))
    return grid
