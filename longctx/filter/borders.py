"""Borders of a cut: from what a recipe asks for to the last row that is kept (modes as in `cut`).

A border is a score and, where rows with that score are kept in part, the id of the last of them:
from these each row's verdict follows alone. It is found from the rows of few cells (`narrow.py`),
sorted in one place, or from all rows where these are few: one cell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from longctx.filter.cells import I64, locate, order_keys, scores_of
from longctx.filter.cut import F64, Mask
from longctx.filter.narrow import (
    PERCENTS,
    Line,
    Mode,
    around,
    budget_of,
    near_rank,
    top_count,
)
from longctx.ids import U64


class Border(NamedTuple):
    """Keep rows above `low` and below `high` (None: open).

    Rows at `low` are kept with `ties` "all", not with "none", and with "to" up to `last_id`; rows
    at `high` unless it `excludes`.
    """

    low: float | None = None
    ties: Literal["all", "none", "to"] = "all"
    last_id: str | None = None
    high: float | None = None
    excludes: bool = False

    def keeps(self, scores: F64, ids: pa.Array) -> Mask:
        """Which rows are kept, bool[n]; none without a score."""
        return self.reaches(scores, ids) & self.spares(scores)

    def reaches(self, scores: F64, ids: pa.Array) -> Mask:
        """Which rows are not too low: the first rows of the order, bool[n]."""
        if self.low is None:
            return ~np.isnan(scores)
        found = scores > self.low
        at = np.flatnonzero(scores == self.low)
        if self.ties == "to":
            names = ids.take(pa.array(at)).to_pylist()
            at = at[np.array([n <= self.last_id for n in names], bool)]
        if self.ties != "none":
            found[at] = True
        return np.asarray(found)

    def spares(self, scores: F64) -> Mask:
        """Which rows are not too high: all but the first of the order, bool[n]."""
        if self.high is None:
            return ~np.isnan(scores)
        return np.asarray(scores < self.high if self.excludes else scores <= self.high)


NOTHING = Border(low=inf, ties="none")


@dataclass(frozen=True)
class Known:
    """A line and the rows of its cells, sorted: keys, ids, tokens, places, and tokens before each.

    Made by `sorted_rows`.
    """

    line: Line
    keys: U64
    ids: pa.Array
    tokens: I64
    places: I64
    before: I64

    def value(self, place: int) -> float:
        """The score at a place."""
        return self.run(place)[0]

    def run(self, place: int) -> tuple[float, int, int]:
        """The score at a place, and the first and the last place with the same score."""
        for cell in self.line.runs:
            if cell.holds(place):
                return float(scores_of(cell.lo)), cell.docs_before, cell.end - 1
        key = self.keys[self._at(place)]
        first, after = (int(np.searchsorted(self.keys, key, side=s)) for s in ("left", "right"))
        return float(scores_of(key)), int(self.places[first]), int(self.places[after - 1])

    def row(self, place: int) -> tuple[float, str]:
        """Score and id of the row at a place."""
        at = self._at(place)
        return float(scores_of(self.keys[at])), self.ids[at].as_py()

    def _at(self, place: int) -> int:
        at = int(np.searchsorted(self.places, place))
        if at == len(self.places) or self.places[at] != place:
            raise LookupError(f"the row at place {place} is not at hand")
        return at

    def held(self, k: int) -> int:
        """Tokens of the first k rows."""
        if k in (0, self.line.docs):
            return self.line.tokens if k else 0
        at = self._at(k - 1)
        return int(self.before[at] + self.tokens[at])

    def fitting(self, budget: int) -> int:
        """How many of the first rows hold at most so many tokens."""
        if self.line.tokens <= budget:
            return self.line.docs
        return int(self.places[np.flatnonzero(self.through > budget)[0]])

    @cached_property
    def through(self) -> I64:
        """Tokens up to and with each row."""
        return self.before + self.tokens

    def quantile(self, q: float) -> float:
        """The quantile for q in [0, 1], linear between two scores as numpy's."""
        low, high = (self.value(p) for p in around(q, self.line.docs))
        t = q * (self.line.docs - 1) % 1
        return low + (high - low) * t if t < 0.5 else high - (high - low) * (1 - t)

    def percent_rank(self, place: int) -> float:
        """(average rank - 1) / (n - 1) of the score at a place; 0.5 for a single row."""
        _, first, last = self.run(place)
        n = self.line.docs
        return (n - 1 - (first + last) / 2) / (n - 1) if n > 1 else 0.5


def sorted_rows(line: Line, scores: F64, tokens: I64, ids: pa.Array) -> Known:
    """What is known of a line from the rows of its cells, in any order."""
    table = pa.table({"key": order_keys(scores), "id": ids, "tokens": tokens})
    table = table.sort_by([("key", "ascending"), ("id", "ascending")]).combine_chunks()
    keys, tokens = table["key"].to_numpy(), table["tokens"].to_numpy()
    names = table["id"].combine_chunks()
    cell = locate(keys, names, line.cells)
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    first = np.repeat(starts, np.diff(np.append(starts, len(cell))))
    inside = np.cumsum(tokens) - tokens
    docs, held = (
        np.array([getattr(c, n) for c in line.cells], np.int64)[cell]
        for n in ("docs_before", "tokens_before")
    )
    places = docs + np.arange(len(cell)) - first
    return Known(line, keys, names, tokens, places, held + inside - inside[first])


def border(mode: Mode, known: Known, percent: int | None = None) -> Border:
    """The border of a line; `percent` is what the shares of all lines came to."""
    n = known.line.docs
    if mode.kind == "top":
        return _after(known, top_count(mode, n))
    if mode.kind == "top_tokens":
        return _after(known, known.fitting(budget_of(mode)))
    if mode.kind == "shares":
        assert percent is not None, "shares are found over all lines"
        return _after(known, n * percent // 100)
    if mode.kind == "quantiles":
        low, high = (None if q is None else known.quantile(q) for q in mode.at)
        return Border(low=low, high=high)
    if mode.kind == "band":
        return _band(known, mode.at[0] or 0.0, mode.at[1] or 0.0)
    if mode.kind == "threshold":
        return _threshold(mode)
    return Border()


def _threshold(mode: Mode) -> Border:
    (at,) = mode.at
    if mode.compare in ("ge", "gt"):
        return Border(low=at, ties="all" if mode.compare == "ge" else "none")
    return Border(high=at, excludes=mode.compare == "lt")


def _after(known: Known, k: int) -> Border:
    """The border after the first k rows."""
    if k <= 0:
        return NOTHING
    if k >= known.line.docs:
        return Border(low=known.value(known.line.docs - 1))
    score, last_id = known.row(k - 1)
    return Border(low=score, ties="to", last_id=last_id)


def _band(known: Known, low: float, high: float) -> Border:
    n = known.line.docs
    near = near_rank(low, n)
    inside = [p for p in near if known.percent_rank(p) >= low]
    below = Border(low=known.value(inside[-1])) if inside else None
    below = below or Border(low=known.value(near[0]), ties="none")
    near = near_rank(high, n)
    inside = [p for p in near if known.percent_rank(p) <= high]
    return below._replace(high=known.value(inside[0] if inside else near[-1]), excludes=not inside)


def share_percent(
    lines: Mapping[str, Known], budget: int, percents: tuple[int, int] = PERCENTS
) -> int:
    """LADM's rule: the smallest percent whose first rows exceed the budget, else 100."""
    low, high = percents
    for percent in range(low, high):
        held = sum(k.held(k.line.docs * percent // 100) for k in lines.values())
        if held > budget:
            return percent
    return high
