"""The rules of `keep` on the engine: borders found in the whole set, verdicts given per part.

More documents than `one_place_up_to` are first counted in cells of the order of their scores
(`counts-N` per part, added in `cells-N`; see `cells.py`), until the rows that a border may lie
among fit one process: 10^9 documents take two rounds or three. Then the rows of those cells (or
all, where they are few) are sorted in one place, the step `borders`; what it says of each score and
source, a score and an id, is all that a part needs to judge its rows. `near` counts per part what
every border keeps and brings the rows closest to it, and `cut` sums that up: `cut_meta.json` and
`closest.parquet`.

What one process holds: 250 bytes for each of at most `one_place_up_to` rows of one score; 75 for
each count of a part (about 2,500 for a score and group) where they are added, 6 GB for 30,000
parts; a part elsewhere. The result does not depend on where the rounds end.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Part
from longctx.engine.op import DROP_REASON, Setting
from longctx.engine.rows import PART
from longctx.engine.steps import Stats, StepRef
from longctx.filter.borders import border, share_percent, sorted_rows
from longctx.filter.cells import COUNTS, Cell, added, counted, divided, locate, order_keys
from longctx.filter.line_tables import (
    LINE,
    Found,
    Lines,
    borders_of,
    borders_table,
    by_line,
    found_of,
    lines_of,
    lines_table,
)
from longctx.filter.narrow import Line, Mode, begun, refined
from longctx.filter.stages_cut_meta import describe, near, verdicts
from longctx.filter.stages_decide import NOTHING_BROUGHT
from longctx.filter.stages_scores import PartScores, Scores, bring_scores

if TYPE_CHECKING:
    from longctx.filter.stages_decide import Decide

_HELD = pa.schema(
    [
        *((n, pa.string()) for n in LINE),
        ("doc_id", pa.string()),
        ("score", pa.float64()),
        ("tokens", pa.int64()),
    ]
)
_COUNTED = pa.schema([*((n, pa.string()) for n in LINE), *COUNTS])


def cut(op: "Decide", context: BarrierContext) -> None:
    """Steps of a decide with rules that compare rows; the last one is its sidecar."""
    scores = bring_scores(op, context)
    borders = _borders(scores, context) if scores.compared else None
    read = [*scores.steps, *([borders] if borders else [])]
    beside = context.per_part("near", partial(near, scores, borders), [], inputs=read)
    rule = partial(describe, op, borders, beside)
    context.single("cut", rule, [beside, *([borders] if borders else [])])
    context.sidecar(
        "",
        [],
        partial(_verdicts, scores, borders),
        NOTHING_BROUGHT,
        op.writes_columns(),
        inputs=read,
        removes=True,
    )


def _borders(scores: Scores, context: BarrierContext) -> StepRef:
    """The step `borders`, after as many rounds of counting as the documents need."""
    cells: StepRef | None = None
    rows, most, number = context.rows, context.rows, 0
    while rows > scores.op.one_place_up_to and most > 1:
        number += 1
        before = [cells] if cells else []
        rule = partial(_count, scores, cells)
        counts = context.per_part(f"counts-{number}", rule, [], inputs=[*scores.steps, *before])
        narrow = partial(_narrow, scores.op, counts, cells)
        cells = context.single(f"cells-{number}", narrow, [counts, *before])
        told = context.step_stats[f"cells-{number}"]
        rows, most = told.get("rows", 0), told.get("most", 0)
    if cells is None:
        find = partial(_find, scores, len(context.corpus))
        return context.single("borders", find, scores.steps)
    held = context.per_part(
        "rows", partial(_rows, scores, cells), [], inputs=[*scores.steps, cells]
    )
    find = partial(_find_in_cells, scores.op, cells, held)
    return context.single("borders", find, [cells, held])


def _modes(op: "Decide", name: str, groups: Any) -> dict[str, Mode]:
    return {group: op.keep[name].of(group).mode() for group in groups}


def _lines(scores: Scores, part: PartScores, cells: dict[str, Lines] | None) -> Any:
    """Scored rows of a part by score and group, each with the cells that they are counted in."""
    for name in scores.compared:
        for group, alive in part.groups(scores.together(name)):
            own = alive[~np.isnan(part.scores[name][alive])]
            line = Line(0, 0, [Cell()])
            if cells is not None:
                line = cells[name].by_group[group] if name in cells else Line(0, 0)
            if len(own) and line.cells:
                yield name, group, own, line


def _count(scores: Scores, cells: StepRef | None, part: Part, setting: Setting) -> pa.Table:
    """Rows of a part in the subdivisions of the cells, as _COUNTED."""
    own = scores.of(part.index)
    known = lines_of(cells.read()) if cells else None
    found = [_COUNTED.empty_table()]
    for name, group, rows, line in _lines(scores, own, known):
        keys = order_keys(own.scores[name][rows])
        table = counted(keys, own.tokens[rows], own.ids.take(pa.array(rows)), line.cells)
        found.append(_named(name, group, table))
    return pa.concat_tables(found)


def _named(name: str, group: str, table: pa.Table) -> pa.Table:
    """A table of one line with its score and group before its columns."""
    values = {"name": pa.repeat(name, len(table)), "group": pa.repeat(group, len(table))}
    return pa.table({**values, **{n: table.column(n) for n in table.column_names}})


def _narrow(
    op: "Decide", counts: StepRef, cells: StepRef | None, setting: Setting
) -> dict[str, Any]:
    """The cells that must be looked into, from the counts of all parts."""
    before = lines_of(cells.read()) if cells else {}
    told = by_line(added(counts.read(), list(LINE)).to_pylist())
    found = {}
    # A score of which all is known has no counts any more.
    for name in [n for n in op.keep if n in before or n in told]:
        old = before.get(name, Lines({}))
        lines = dict(old.by_group)
        for group, rows in told.get(name, {}).items():
            if group in lines:
                line = lines[group]
                inner = divided(line.cells, rows)
                lines[group] = Line(line.docs, line.tokens, inner, line.runs)
            else:
                lines[group] = begun(divided([Cell()], rows))
        found[name] = Lines(*refined(lines, _modes(op, name, lines), old.percents))
    sizes = [c.docs for x in found.values() for line in x.by_group.values() for c in line.cells]
    stats = {"rows": sum(sizes), "most": max(sizes, default=0), "cells": len(sizes)}
    return {"cells.parquet": Stats.attach(lines_table(found), stats)}


def _rows(scores: Scores, cells: StepRef, part: Part, setting: Setting) -> pa.Table:
    """The rows of a part that lie in the cells, as _HELD."""
    own = scores.of(part.index)
    found = [_HELD.empty_table()]
    for name, group, rows, line in _lines(scores, own, lines_of(cells.read())):
        values = own.scores[name][rows]
        inside = locate(order_keys(values), own.ids.take(pa.array(rows)), line.cells) >= 0
        found.append(_named(name, group, _held(own, name, rows[inside])))
    return pa.concat_tables(found)


def _held(part: PartScores, name: str, rows: Any) -> pa.Table:
    columns = {
        "doc_id": part.ids.take(pa.array(rows)),
        "score": part.scores[name][rows],
        "tokens": part.tokens[rows],
    }
    return pa.table(columns)


def _find_in_cells(op: "Decide", cells: StepRef, held: StepRef, setting: Setting) -> dict[str, Any]:
    """Borders from the rows of the cells."""
    table, found = held.read(), {}
    for name, lines in lines_of(cells.read()).items():
        own = table.filter(pc.equal(table.column("name"), name))
        found[name] = _found(op, name, own, lines)
    return {"borders.parquet": borders_table(found)}


def _find(scores: Scores, parts: int, setting: Setting) -> dict[str, Any]:
    """Borders from all scored rows, one score after the other."""
    found = {}
    for name in scores.compared:
        tables = [_HELD.empty_table().drop_columns(["name"])]
        for index in range(parts):
            part = scores.of(index)
            for group, alive in part.groups(scores.together(name)):
                rows = alive[~np.isnan(part.scores[name][alive])]
                tables.append(_named(name, group, _held(part, name, rows)).drop_columns(["name"]))
        whole = pa.concat_tables(tables)
        counts = whole.group_by("group").aggregate([("tokens", "count"), ("tokens", "sum")])
        lines = {}
        for row in counts.sort_by("group").to_pylist():
            cell = Cell(docs=row["tokens_count"], tokens=row["tokens_sum"])
            lines[row["group"]] = begun([cell])
        found[name] = _found(scores.op, name, whole, Lines(lines))
    return {"borders.parquet": borders_table(found)}


def _found(op: "Decide", name: str, rows: pa.Table, lines: Lines) -> dict[str, Found]:
    """What is found of the lines of one score from the rows of their cells."""
    groups = rows.column("group").combine_chunks().dictionary_encode()
    codes = groups.indices.to_numpy(zero_copy_only=False)
    number = {group: code for code, group in enumerate(groups.dictionary.to_pylist())}
    known = {}
    for group, line in lines.by_group.items():
        own = rows.filter(pa.array(codes == number.get(group, -1)))
        columns = (own.column(n).combine_chunks() for n in ("score", "tokens", "doc_id"))
        score, tokens, ids = columns
        known[group] = sorted_rows(line, score.to_numpy(), tokens.to_numpy(), ids)
    modes = _modes(op, name, known)
    shares = {g: k for g, k in known.items() if modes[g].kind == "shares"}
    percent = None
    if shares:
        budget = modes[next(iter(shares))].at[0] or 0
        percent = share_percent(shares, int(budget), lines.percents)
    return {g: found_of(k, border(modes[g], k, percent), percent) for g, k in known.items()}


def _verdicts(
    scores: Scores,
    borders: StepRef | None,
    base: pa.Table,
    brought: pa.Table,
    setting: Setting,
) -> pa.Table:
    """Why each living row of a part goes, and the scores that it was judged by."""
    op = scores.op
    made: dict[str, Any] = {n: [] for n in op.writes_columns()}
    if len(base):
        part = scores.of(base.column(PART)[0].as_py())
        reasons = verdicts(op, part, borders_of(borders.read()) if borders else {})
        made = {f"cut_{n}": pa.array(x, from_pandas=True) for n, x in part.scores.items()}
        if part.classes is not None:
            made |= {n: part.classes.column(n) for n in part.classes.column_names}
        made[DROP_REASON] = reasons.tolist()
    types = {DROP_REASON: pa.string(), "lw_class": pa.string()}
    schema = pa.schema([(n, types.get(n, pa.float64())) for n in op.writes_columns()])
    return pa.table({n: made[n] for n in schema.names}, schema=schema)
