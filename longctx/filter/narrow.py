"""Which places of an order a cut must know, and which cells these lie in, round by round (ours).

A line is all scored rows of one score in one group. `wanted` turns what a recipe asks for into
places (0 is the highest score), `narrowed` keeps the cells in which one of them lies, and a cell of
one score is not looked into where only scores must be known. A budget over several lines (`shares`)
is narrowed to the percents that it may still come to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Literal, NamedTuple

import numpy as np

from longctx.filter.cells import Cell
from longctx.filter.cut import QUANTILES

Kind = Literal["all", "top", "top_tokens", "quantiles", "band", "threshold", "shares"]
PERCENTS = (1, 100)  # of which a budget of shares is one


class Mode(NamedTuple):
    """What to keep of a line: `at` are one or two numbers, None where one is open.

    top: a fraction · top_tokens: a budget of the line · quantiles: least and largest share of the
    rows below · band: percent ranks · threshold: a score, by `compare` · shares: a budget of all
    lines of the score together · all: no cut, only figures.
    """

    kind: Kind
    at: tuple[float | None, ...] = ()
    compare: Literal["ge", "gt", "le", "lt"] = "ge"


@dataclass(frozen=True)
class Line:
    """All scored rows of one score in one group.

    `docs` and `tokens` in all; `cells` hold the places that must be known and are not; `runs` are
    ranges of one score among those that are.
    """

    docs: int
    tokens: int
    cells: list[Cell] = field(default_factory=list)
    runs: list[Cell] = field(default_factory=list)


class Wanted(NamedTuple):
    """Places whose row must be known, places whose score must, and a budget of tokens."""

    rows: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    budget: int | None = None


def wanted(mode: Mode, line: Line, percents: tuple[int, int] = PERCENTS) -> Wanted:
    """What a mode must know of a line; `percents` are those that shares may still come to."""
    n = line.docs
    values = {p for q in QUANTILES for p in around(q / 100, n)}
    rows: set[int] = set()
    budget = None
    if mode.kind == "top":
        rows = {top_count(mode, n) - 1}
    elif mode.kind == "top_tokens" and line.tokens > (budget := budget_of(mode)):
        return Wanted((), tuple(sorted(values)), budget)
    elif mode.kind == "quantiles":
        values |= {p for q in mode.at if q is not None for p in around(q, n)}
    elif mode.kind == "band":
        values |= {p for rank in mode.at if rank is not None for p in near_rank(rank, n)}
    elif mode.kind == "shares":
        rows = {n * p // 100 - 1 for p in range(percents[0], percents[1] + 1)}
    return Wanted(tuple(sorted(p for p in rows if 0 <= p < n - 1)), tuple(sorted(values)))


def top_count(mode: Mode, n: int) -> int:
    return ceil((mode.at[0] or 0) * n - 1e-9)


def budget_of(mode: Mode) -> int:
    return int(mode.at[0] or 0)


def around(q: float, n: int) -> tuple[int, int]:
    """Places of the two rows between which a quantile lies, the smaller score first."""
    below = floor(q * (n - 1))
    return n - 1 - below, n - 1 - min(below + 1, n - 1)


def near_rank(rank: float, n: int) -> list[int]:
    """Places at which scores of about this percent rank stand; one more on each side."""
    at = floor((1 - rank) * (n - 1))
    return [p for p in range(at - 1, at + 3) if 0 <= p < n]


def narrowed(line: Line, need: Wanted) -> Line:
    """The line with those of its cells that must be looked into."""
    cells, runs = [], list(line.runs)
    crossing = _crossing(line, need.budget)
    rows = need.rows
    if crossing is not None:
        # The last row that fits may be the last one of the cell before.
        rows = (crossing.docs_before - 1,)
    for cell in line.cells:
        has_value = _any_in(cell, need.values)
        if cell.is_tied and has_value and cell.first is None:
            runs.append(cell)
        if _any_in(cell, rows) or cell is crossing or (has_value and not cell.is_tied):
            cells.append(cell)
    return Line(line.docs, line.tokens, cells, runs)


def begun(cells: list[Cell]) -> Line:
    """A line from the cells that divide all of it."""
    return Line(sum(c.docs for c in cells), sum(c.tokens for c in cells), cells)


def refined(
    lines: Mapping[str, Line], modes: Mapping[str, Mode], percents: tuple[int, int] = PERCENTS
) -> tuple[dict[str, Line], tuple[int, int]]:
    """The lines of one score, by group, narrowed to what modes must know, and the percents left."""
    shares = [n for n, mode in modes.items() if mode.kind == "shares" and n in lines]
    if shares:
        budget = budget_of(modes[shares[0]])
        percents = left_percents([lines[n] for n in shares], budget, percents)
    return {n: narrowed(x, wanted(modes[n], x, percents)) for n, x in lines.items()}, percents


def _any_in(cell: Cell, places: Sequence[int]) -> bool:
    at = int(np.searchsorted(places, cell.docs_before))
    return at < len(places) and cell.holds(places[at])


def _crossing(line: Line, budget: int | None) -> Cell | None:
    """The cell of the first row that the budget has no room for."""
    if budget is None:
        return None
    return next((c for c in line.cells if c.tokens_before + c.tokens > budget), None)


def left_percents(
    lines: Sequence[Line], budget: int, percents: tuple[int, int] = PERCENTS
) -> tuple[int, int]:
    """Which percents may be the smallest that hold more than the budget, by the cells so far."""
    low, high = percents
    bounds = {p: _held_between(lines, p) for p in range(low, high + 1)}
    low = next((p for p in range(low, high) if bounds[p][1] > budget), high)
    high = next((p for p in range(low, high) if bounds[p][0] > budget), high)
    return low, high


def _held_between(lines: Sequence[Line], percent: int) -> tuple[int, int]:
    """Least and most tokens in the first `percent` of every line."""
    least = most = 0
    for line in lines:
        k = line.docs * percent // 100
        if k == line.docs:
            held = line.tokens, line.tokens
        elif k == 0:
            held = 0, 0
        else:
            cell = next(c for c in line.cells if c.holds(k - 1))
            through = cell.tokens_before + cell.tokens
            held = (through if k == cell.end else cell.tokens_before), through
        least, most = least + held[0], most + held[1]
    return least, most
