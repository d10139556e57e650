"""What every source of a plan can give: its cells, their relative rates, short and long.

A source of the corpus is one entry of a plan, or several where documents of some length belong to
windows of that length (ProLong's second stage, arXiv 2410.02660). Numbers are those of the cells of
a census; nothing is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture.census import Census
from longctx.mixture.chance import F64, I64, Bool
from longctx.mixture.presets import Slot
from longctx.mixture.rules import Length, NoRule, RateBy, SingleDocument
from longctx.mixture.upsample import asked_p, piece_of, shape, window_of
from longctx.mixture.weights import unknown_source


@dataclass(frozen=True)
class Entry:
    """A line of a plan: documents of a source of `lo` <= size < `hi`, and their length rule."""

    name: str
    source: str
    rule: Length
    lo: int = 0
    hi: int | None = None


@dataclass(frozen=True)
class Supply:
    """The cells of an entry, arrays over them: `at` is their number in the census, `low` where
    their buckets begin.

    `rho` are relative rates at p = 1, `soft` the cells that p multiplies; `size`, `sum_sq` and
    `max` are what documents hold under the rule (in whole windows with `single_document`), `own`
    all that they hold.
    """

    entry: Entry
    at: I64
    low: I64
    rho: F64
    soft: Bool
    size: I64
    sum_sq: F64
    max: I64
    own: I64

    @property
    def long(self) -> float:
        """Effective size of the cells that p leaves alone."""
        return float((self.rho * self.size)[~self.soft].sum())

    @property
    def short(self) -> float:
        """Effective size, at p = 1, of the cells that p multiplies."""
        return float((self.rho * self.size)[self.soft].sum())

    @property
    def full(self) -> float:
        """Effective size at p = 1."""
        return self.long + self.short

    @property
    def steepest(self) -> float:
        """The largest relative rate at p = 1; 0 where no document can be used."""
        return float(self.rho[self.size > 0].max(initial=0.0))

    @property
    def p(self) -> float:
        """The p that the rule asks for."""
        return asked_p(self.entry.rule, self.long, self.short)

    def rates(self, p: float) -> F64:
        """Relative rates of the cells at a p, float64 [n]."""
        return np.where(self.soft, self.rho * p, self.rho)

    def effective(self, p: float) -> float:
        """Effective size at a p."""
        return self.long + p * self.short

    def in_long(self, rates: F64, long_from: int) -> float:
        """What documents of at least `long_from` give at rates of the cells.

        Nothing where they are cut into pieces that are not longer.
        """
        piece = piece_of(self.entry.rule)
        if piece is not None and piece <= long_from:
            return 0.0
        return float((rates * self.size)[self.low >= long_from].sum())


def entries_of(
    census: Census,
    rule: Length,
    per_source: Mapping[str, Length],
    slots: Mapping[str, Sequence[str]] | None = None,
    preset: Mapping[str, Slot] | None = None,
) -> list[Entry]:
    """Entries of all sources in order. With `slots` and their `preset` those that fill one.

    Raises RecipeError for names that the census does not have.
    """
    known = census.sources
    for source in per_source:
        if source not in known:
            raise unknown_source(source, known, "per_source")
    if slots is None or preset is None:
        return [Entry(s, s, per_source.get(s, rule)) for s in known]
    found = []
    for slot, named in slots.items():
        for source in named:
            if source not in known:
                raise unknown_source(source, known, f"slots.{slot}")
            found += _windowed(source, preset[slot], per_source.get(source, rule))
    return sorted(found, key=lambda e: (e.source, e.lo))


def _windowed(source: str, slot: Slot, rule: Length) -> list[Entry]:
    """Entries of a source in a slot: one for each length of windows, or one for all."""
    if not slot.windows:
        return [Entry(source, source, rule)]
    lengths = sorted((w for w, _ in slot.windows), reverse=True)
    found, above = [], None
    for window in lengths:
        name = source if len(lengths) == 1 else f"{source} (windows of {window:,})"
        single = SingleDocument(kind="single_document", window=window)
        least = 0 if window == lengths[-1] else window
        found.append(Entry(name, source, single, least, above))
        above = window
    return found


def supplies(census: Census, entries: Sequence[Entry], rate_by: RateBy | None) -> list[Supply]:
    """What each entry can give. Raises RecipeError for a class without a rate."""
    low = census.low()
    by_source = census.by_source()
    factors = _factors(census, rate_by)
    found = []
    for entry in entries:
        at = by_source[entry.source]
        at = at[(low[at] >= entry.lo) & (low[at] < (entry.hi or np.inf))]
        measure = census.of(window_of(entry.rule))
        form = shape(entry.rule, low[at])
        found.append(
            Supply(
                entry,
                at,
                low[at],
                form.hard * factors[at],
                form.soft,
                measure.size[at],
                measure.sum_sq[at],
                measure.max[at],
                census.own.size[at],
            )
        )
    return found


def plain_supplies(census: Census, rule: Length) -> list[Supply]:
    """What each source can give under one rule for all."""
    return supplies(census, entries_of(census, rule, {}), None)


def uniform(census: Census) -> list[Supply]:
    """What each source has, all lengths alike."""
    return plain_supplies(census, NoRule(kind="none"))


def _factors(census: Census, rate_by: RateBy | None) -> F64:
    if rate_by is None:
        return np.ones(len(census.cells))
    try:
        return np.array([rate_by.factor(c.cls) for c in census.cells])
    except ValueError as error:
        raise RecipeError(
            str(error),
            where="rate_by",
            remedy="give the value a rate, or all others with `other`",
        ) from None
