"""The yardstick on the terminal, 80 columns wide: gains, where they come from, and the verdict."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longctx.compare.bootstrap import Interval
from longctx.compare.gain import GainLine
from longctx.compare.result import Gain
from longctx.report.format import one_line, percent
from longctx.report.gain_words import (
    MEASURES,
    PLACES,
    bounds,
    gain_caveats,
    gain_verdict,
    label,
    places,
    shown,
)
from longctx.report.grids import legend, listed

_LABEL = 200


def gain_view(gain: Gain) -> RenderableType:
    """Everything that the terminal shows of a gain."""
    parts: list[RenderableType] = [_table(gain), Text(), legend(list(MEASURES.values())), Text()]
    if len(places(gain)) > 1:
        terms = [PLACES[name] for name in places(gain)]
        parts += [_split(gain), Text(), legend(terms), Text()]
    if len(gain.lines) > 1:
        clear = f"* differs from {label(gain.lines[0])}: the interval of the difference excludes 0"
        parts += [Text(clear, style="dim"), Text()]
    parts += [Text(" ".join(gain_verdict(gain))), Text(), listed(gain_caveats(gain))]
    return Group(*parts)


def _empty(heading: str, columns: list[str]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), expand=False, show_edge=False
    )
    table.add_column(heading, overflow="fold", min_width=19, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True, vertical="top")
    return table


def _table(gain: Gain) -> Table:
    table = _empty("Gain of far context", [name for name, _ in MEASURES.values()])
    for line in gain.lines:
        table.add_row(
            Text(one_line(line.name, _LABEL)),
            *(_cell(line, "all", measure) for measure in MEASURES),
        )
        if line.difference:
            differences = line.difference["all"]
            table.add_row(
                Text(f"  minus {label(gain.lines[0])}", style="dim"),
                *(_signed(measure, getattr(differences, measure)) for measure in MEASURES),
            )
    return table


def _cell(line: GainLine, group: str, measure: str) -> Text:
    found = getattr(line.groups[group], measure)
    clear = line.difference and getattr(line.difference[group], measure).side
    cell = Text(f"{shown(measure, found.value)}{'*' if clear else ' '}")
    if said := bounds(measure, found):
        cell.append(f"\n{said} ", style="dim")
    return cell


def _signed(measure: str, found: Interval) -> Text:
    said = bounds(measure, found, signed=True)
    return Text(f"{shown(measure, found.value, signed=True)} \n{said} ", style="dim")


def _split(gain: Gain) -> Table:
    names = ["far tokens", *(MEASURES[m][0] for m in ("longfilter", "dnll"))]
    table = _empty("Where far context lies", names)
    for line in gain.lines:
        table.add_row(Text(one_line(line.name, _LABEL)))
        for group in places(gain):
            table.add_row(
                Text(f"  {PLACES[group][0]}"),
                Text(percent(line.groups[group].share)),
                *(_cell(line, group, measure) for measure in ("longfilter", "dnll")),
            )
    return table
