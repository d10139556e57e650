"""A comparison on the terminal: a small table for each question, then the verdict.

Made for 80 columns. Best values carry an asterisk, so that they survive a log without colours.
"""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longctx.compare.result import Comparison, Line
from longctx.report.compare_columns import Column, best, groups
from longctx.report.compare_columns import Group as Columns
from longctx.report.compare_verdict import caveats, verdict
from longctx.report.format import decimal, one_line
from longctx.report.gain_table import gain_view
from longctx.report.grids import legend, listed

_LABEL = 200


def compare_view(comparison: Comparison) -> RenderableType:
    """Everything `longctx compare` prints, apart from where it wrote files."""
    parts: list[RenderableType] = []
    for group in groups(comparison):
        parts += [_table(comparison, group), Text(), legend(group.terms.items()), Text()]
    marked = "* best; several: no clear difference (± are two standard errors)"
    return Group(
        *parts,
        Text(marked, style="dim"),
        Text(),
        Text(" ".join(verdict(comparison))),
        Text(),
        listed(caveats(comparison)),
        *([Text(), gain_view(comparison.gain)] if comparison.gain else []),
    )


def _table(comparison: Comparison, group: Columns) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), expand=False, show_edge=False
    )
    table.add_column(group.heading, overflow="fold", min_width=12, header_style="bold")
    leaders = {column.name: best(comparison.lines, column) for column in group.columns}
    for column in group.columns:
        header = column.name.replace(" ", "\n")
        table.add_column(header, justify="right", no_wrap=True, vertical="top")
    for line in comparison.lines:
        cells = [
            _cell(line, column, line in leaders[column.name], bool(leaders[column.name]))
            for column in group.columns
        ]
        table.add_row(Text(one_line(line.name, _LABEL)), *cells)
        if any(column.floor for column in group.columns):
            floors = (
                f"{_floor(line, column)}{' ' if leaders[column.name] else ''}"
                for column in group.columns
            )
            table.add_row(*(Text(cell, style="dim") for cell in ("  in random places", *floors)))
    return table


def _cell(line: Line, column: Column, is_best: bool, marks: bool) -> Text:
    """The figure, and below it what two standard errors are; a mark keeps columns aligned."""
    mark = "*" if is_best else " " if marks else ""
    cell = Text(f"{column.shown(line)}{mark}", style="bold" if is_best else "")
    margin = column.margin(line)
    if margin:
        cell.append(f"\n±{margin}{' ' if marks else ''}", style="dim not bold")
    return cell


def _floor(line: Line, column: Column) -> str:
    return "" if column.floor is None else decimal(column.floor(line))
