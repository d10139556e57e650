"""Lines, cells and borders as tables: the form in which steps of a cut hand them on."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from longctx.filter.borders import Border, Known
from longctx.filter.cells import Cell
from longctx.filter.cut import QUANTILES
from longctx.filter.narrow import PERCENTS, Line

LINE = ("name", "group")
_CELL = pa.schema(
    [
        ("lo", pa.uint64()),
        ("hi", pa.uint64()),
        ("docs", pa.int64()),
        ("tokens", pa.int64()),
        ("docs_before", pa.int64()),
        ("tokens_before", pa.int64()),
        ("first", pa.string()),
        ("last", pa.string()),
    ]
)
_LINES = pa.schema(
    [
        *((n, pa.string()) for n in LINE),
        ("line_docs", pa.int64()),
        ("line_tokens", pa.int64()),
        ("least", pa.int32()),
        ("most", pa.int32()),
        ("what", pa.string()),
        *_CELL,
    ]
)
_QUANTILES = tuple(f"q{q}" for q in QUANTILES)
_BORDERS = pa.schema(
    [
        *((n, pa.string()) for n in LINE),
        ("docs", pa.int64()),
        ("tokens", pa.int64()),
        ("low", pa.float64()),
        ("ties", pa.string()),
        ("last_id", pa.string()),
        ("high", pa.float64()),
        ("excludes", pa.bool_()),
        ("percent", pa.int32()),
        *((n, pa.float64()) for n in _QUANTILES),
    ]
)


class Lines(NamedTuple):
    """The lines of one score by group, and the percents that shares may still come to."""

    by_group: dict[str, Line]
    percents: tuple[int, int] = PERCENTS


def lines_table(lines: Mapping[str, Lines]) -> pa.Table:
    """Lines of all scores, a row for each line and for each of its cells and runs."""
    rows: list[dict[str, Any]] = []
    for name, (by_group, (least, most)) in lines.items():
        for group, line in by_group.items():
            head = {"name": name, "group": group, "least": least, "most": most}
            head |= {"line_docs": line.docs, "line_tokens": line.tokens}
            rows.append({**head, "what": "line"})
            for what, cells in (("cell", line.cells), ("run", line.runs)):
                rows += [{**head, "what": what, **cell._asdict()} for cell in cells]
    return pa.Table.from_pylist(rows, schema=_LINES)


def lines_of(table: pa.Table) -> dict[str, Lines]:
    """Inverse of `lines_table`."""
    found: dict[str, Lines] = {}
    for row in table.to_pylist():
        lines = found.setdefault(row["name"], Lines({}, (row["least"], row["most"])))
        if row["what"] == "line":
            lines.by_group[row["group"]] = Line(row["line_docs"], row["line_tokens"])
            continue
        line = lines.by_group[row["group"]]
        cell = Cell(**{n: row[n] for n in _CELL.names})
        (line.cells if row["what"] == "cell" else line.runs).append(cell)
    return found


class Found(NamedTuple):
    """What was found of a line: rows, tokens, border, quantiles, and the percent that is kept."""

    docs: int
    tokens: int
    border: Border
    quantiles: dict[str, float]
    percent: int | None = None


def found_of(known: Known, border: Border, percent: int | None) -> Found:
    """What was found of a line, from its border and its sorted rows."""
    quantiles = {n: known.quantile(q / 100) for n, q in zip(_QUANTILES, QUANTILES, strict=True)}
    return Found(known.line.docs, known.line.tokens, border, quantiles, percent)


def borders_table(found: Mapping[str, Mapping[str, Found]]) -> pa.Table:
    """Borders of all lines, by score and group."""
    rows = [
        {
            "name": name,
            "group": group,
            "docs": line.docs,
            "tokens": line.tokens,
            "percent": line.percent,
            **line.border._asdict(),
            **line.quantiles,
        }
        for name, lines in found.items()
        for group, line in lines.items()
    ]
    return pa.Table.from_pylist(rows, schema=_BORDERS)


def borders_of(table: pa.Table) -> dict[str, dict[str, Found]]:
    """Inverse of `borders_table`."""
    found: dict[str, dict[str, Found]] = defaultdict(dict)
    for row in table.to_pylist():
        border = Border(**{n: row[n] for n in Border._fields})
        quantiles = {n: row[n] for n in _QUANTILES}
        line = Found(row["docs"], row["tokens"], border, quantiles, row["percent"])
        found[row["name"]][row["group"]] = line
    return dict(found)


def by_line(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Rows by score and group, in their order."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["name"]][row["group"]].append(row)
    return found
