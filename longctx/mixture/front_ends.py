"""From the weights of a recipe to a share for every entry of a plan.

The arithmetic is in `weights.py`; here names meet sources. A slot that several sources fill is
shared by what each of them has under the length rule, so their rates are the same.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture import weights as arithmetic
from longctx.mixture.chance import F64
from longctx.mixture.presets import PILE, SHARES, Slot, filled, pile_copies_of
from longctx.mixture.rules import (
    Effective,
    Fixed,
    FromFile,
    Natural,
    PileCopies,
    Settings,
    Temperature,
    UniMax,
    Weights,
)
from longctx.mixture.supply import Supply
from longctx.mixture.upsample import raised_values
from longctx.mixture.weights import WeightsFile


class Asked(NamedTuple):
    """Shares float64 [entries] that sum to 1, the budget, and notes."""

    shares: F64
    budget: float
    notes: tuple[str, ...]


def asked(
    front: Weights,
    supplies: Sequence[Supply],
    settings: Settings,
    file: WeightsFile | None = None,
    raised: Mapping[str, Sequence[str]] | None = None,
) -> Asked:
    """The shares that a front end asks for. Raises RecipeError for what no source can be.

    `raised` are the sources of each slot that a strategy sets to .60, after everything else.
    """
    sources = [s.entry.source for s in supplies]
    own = np.array([float(s.own.sum()) for s in supplies])
    notes: tuple[str, ...] = ()
    budget = settings.budget
    if isinstance(front, Natural):
        shares = arithmetic.natural(own)
    elif isinstance(front, Effective):
        shares = arithmetic.natural(np.array([s.effective(s.p) for s in supplies]))
    elif isinstance(front, Temperature):
        shares = arithmetic.temperature(own, front.tau)
    elif isinstance(front, UniMax):
        found = _unimax(front, supplies, settings)
        shares, budget, notes = found
    elif isinstance(front, PileCopies):
        copies = _copies(front, sources, settings)
        shares = arithmetic.pile_copies(own, copies)
        budget = settings.budget or float((own * copies).sum())
    else:
        values, told = _values(front, sources, settings, file, supplies)
        name = front.path if isinstance(front, FromFile) else "weights"
        shares, notes = arithmetic.fixed(values, sources, name)
        notes = (*told, *notes)
    if front.boost:
        shares = arithmetic.boosted(shares, front.boost, sources)
    if raised:
        sizes = dict(zip(sources, own.tolist(), strict=True))
        shares = arithmetic.boosted(shares, raised_values(raised, sizes), sources, "slots")
    return Asked(shares, budget if budget is not None else budget_of(settings), notes)


def budget_of(settings: Settings) -> float:
    """The budget of a recipe. Raises RecipeError where it has none."""
    if settings.budget is None:
        raise RecipeError(
            f"there is no budget, expected a number of {settings.unit}",
            where="budget",
            remedy=f"say how many {settings.unit} the mixture is to have",
        )
    return settings.budget


def _unimax(front: UniMax, supplies: Sequence[Supply], settings: Settings) -> Asked:
    """UniMax over effective sizes; a budget that they cannot feed follows `on_cap`."""
    sizes = np.array([s.effective(s.p) for s in supplies])
    budget = budget_of(settings)
    found = arithmetic.unimax(sizes, budget, front.epochs)
    if found.shortfall > 0:
        feeds = budget - found.shortfall
        if settings.on_cap != "shrink":
            raise RecipeError(
                f"{front.epochs} epochs of every source are {found.shortfall:,.0f} "
                f"{settings.unit} short of the budget of {budget:,.0f}",
                where="budget",
                remedy=f"ask for at most {feeds:,.0f} {settings.unit}, raise `epochs` of unimax, "
                "or set `on_cap: shrink`",
            )
        note = f"the budget was lowered from {budget:,.0f} to {feeds:,.0f} {settings.unit}"
        return Asked(arithmetic.natural(found.amounts), feeds, (note,))
    return Asked(arithmetic.natural(found.amounts), budget, ())


def _copies(front: PileCopies, sources: Sequence[str], settings: Settings) -> F64:
    if front.copies is not None:
        for source in front.copies:
            if source not in sources:
                raise arithmetic.unknown_source(source, sources, "weights.copies")
        return np.array([front.copies.get(s, 0.0) for s in sources])
    known = pile_copies_of()
    by_slot, _, _ = filled({n: Slot(1.0) for n in known}, settings.slots, sources, PILE)
    of = {source: known[slot] for slot, named in by_slot.items() for source in named}
    for source in of:
        if source not in sources:
            raise arithmetic.unknown_source(source, sources, "slots")
    return np.array([of.get(s, 0.0) for s in sources])


def _values(
    front: Fixed | FromFile,
    sources: Sequence[str],
    settings: Settings,
    file: WeightsFile | None,
    supplies: Sequence[Supply],
) -> tuple[Mapping[str, float], Sequence[str]]:
    """Values by source of a table, a file or a preset, and notes."""
    if isinstance(front, FromFile):
        assert file is not None, "the caller reads the file"
        for field, expected, found in (
            ("unit", settings.unit, file.unit),
            ("by", settings.by, file.by),
        ):
            if expected != found:
                raise RecipeError(
                    f"the weights are of `{field}` '{found}', expected '{expected}'",
                    where=front.path,
                    remedy=f"set `{field}: {found}` in the recipe, or give other weights",
                )
        return file.weights, ()
    if front.shares is not None:
        return front.shares, ()
    assert front.preset is not None
    slots, shares, notes = filled(SHARES[front.preset], settings.slots, sources, front.preset)
    held = dict(zip(sources, supplies, strict=True))
    sizes = {s: one.effective(one.p) for s, one in held.items()}
    return spread(slots, shares, sizes), notes


def spread(
    slots: Mapping[str, Sequence[str]], shares: Mapping[str, float], sizes: Mapping[str, float]
) -> dict[str, float]:
    """The share of every slot dealt to its sources in proportion to size.

    Raises RecipeError for a source without a size.
    """
    found = {}
    for slot, named in slots.items():
        for source in named:
            if source not in sizes:
                raise arithmetic.unknown_source(source, list(sizes), f"slots.{slot}")
        total = sum(sizes[s] for s in named)
        for source in named:
            part = sizes[source] / total if total > 0 else 1 / len(named)
            found[source] = shares[slot] * part
    return found
