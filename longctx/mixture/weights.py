"""Shares of tokens by source, from sizes or from a table.

Sources: the Pile's weights are raw size times copies (arXiv 2101.00027); tau divides exponents as
in multilingual models (mBERT 1.43, mT5 3.33; RegMix writes its 0.5 for tau 2); UniMax is algorithm
1 of 2304.09151; raising some sources is Fu et al.'s (2402.10171, "code up"). Ours: shortfalls are
told (UniMax's algorithm returns without a word), and `redistribute`, which the Olmix solver
(2602.12237) has as a constraint.

All functions take and give float64 arrays over sources; a few microseconds a source.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture.chance import F64
from longctx.registry import did_you_mean

CLOSE = 1e-6
_ROUNDING = 1e-12


class Fixed(NamedTuple):
    """Shares that sum to 1, and what there is to say about how they came to."""

    shares: F64
    notes: tuple[str, ...]


class UniMax(NamedTuple):
    """Amounts of each source, and what is missing of the budget."""

    amounts: F64
    shortfall: float


class WeightsFile(NamedTuple):
    """What `longctx mix optimise` wrote: shares, their unit, and the evidence for them."""

    weights: dict[str, float]
    by: str
    unit: str
    evidence: dict[str, Any]


def natural(sizes: F64) -> F64:
    """Shares in proportion to sizes."""
    return np.asarray(sizes, dtype=np.float64) / np.sum(sizes)


def fixed(values: Mapping[str, float], sources: Sequence[str], name: str = "weights") -> Fixed:
    """Given values in the order of `sources`, normalised; sources without one get 0.

    Raises RecipeError for values that are negative or no numbers, and names that no source has.
    """
    for source, value in values.items():
        if not (np.isfinite(value) and value >= 0):
            raise RecipeError(
                f"the weight of '{source}' is {value}, expected a number from 0",
                where=name,
                remedy="give every source a share",
            )
        if source not in sources:
            raise unknown_source(source, sources, name)
    total = float(sum(values.values()))
    if total <= 0:
        raise RecipeError("all weights are 0", where=name, remedy="give some source a share")
    notes = []
    if abs(total - 1) > CLOSE:
        notes.append(f"the weights sum to {total:.6g} and were divided by that")
    if absent := [s for s in sources if s not in values]:
        notes.append(f"no weight is given for {_listed(absent)}: not used")
    return Fixed(np.array([values.get(s, 0.0) for s in sources]) / total, tuple(notes))


def unknown_source(source: str, sources: Sequence[str], name: str) -> RecipeError:
    """The error about a source that the census does not have."""
    return RecipeError(
        f"no document has the source '{source}'{did_you_mean(source, sources)}",
        where=name,
        remedy=f"sources that are left at this stage: {_listed(list(sources), 20)}",
    )


def pile_copies(sizes: F64, copies: F64) -> F64:
    """Shares in proportion to size times copies."""
    return natural(np.asarray(sizes, dtype=np.float64) * copies)


def temperature(sizes: F64, tau: float) -> F64:
    """Shares in proportion to natural shares to the power 1 / tau; sources without size get 0."""
    share = natural(sizes)
    with np.errstate(divide="ignore"):
        raised = np.where(share > 0, np.exp(np.log(share) / tau), 0.0)
    return np.asarray(raised / raised.sum())


def unimax(sizes: F64, budget: float, epochs: float) -> UniMax:
    """The most even amounts that sum to the budget with at most `epochs` of each source."""
    sizes = np.asarray(sizes, dtype=np.float64)
    amounts, remaining = np.zeros(len(sizes)), float(budget)
    order = np.argsort(sizes, kind="stable")
    for done, i in enumerate(order.tolist()):
        amounts[i] = min(remaining / (len(order) - done), epochs * sizes[i])
        remaining -= amounts[i]
    short = float(budget) - float(epochs * sizes.sum())
    return UniMax(amounts, max(0.0, short))


def boosted(
    shares: F64, values: Mapping[str, float], sources: Sequence[str], name: str = "weights.boost"
) -> F64:
    """Shares with those of some sources replaced by plain values, then normalised.

    Raises RecipeError for names that no source has.
    """
    found = np.array(shares, dtype=np.float64)
    for source, value in values.items():
        if source not in sources:
            raise unknown_source(source, sources, name)
        found[list(sources).index(source)] = value
    return natural(found)


def redistribute(weights: F64, caps: F64) -> F64:
    """Shares with none above its cap: what is cut off goes to the others in proportion.

    Raises RecipeError where caps of the used sources sum to less than 1.
    """
    weights, caps = np.asarray(weights, dtype=np.float64), np.asarray(caps, dtype=np.float64)
    used = weights > 0
    if caps[used].sum() < 1 - _ROUNDING:
        raise RecipeError(
            f"the sources with a weight hold {caps[used].sum():.4g} of the budget at most",
            remedy="lower the budget, raise max_epochs, or give other sources a weight",
        )
    found, held = weights / weights.sum(), np.zeros(len(weights), dtype=np.bool_)
    while (over := used & ~held & (found > caps)).any():
        held |= over
        free = used & ~held
        found = np.where(held, caps, 0.0)
        if free.any():
            rest = max(0.0, 1 - float(found.sum()))
            found[free] = rest * (weights[free] / weights[free].sum())
    return found


def read_weights(data: bytes, name: str) -> WeightsFile:
    """The content of a file of weights. Raises RecipeError for a file that is none."""

    def no_weights(why: str) -> RecipeError:
        return RecipeError(
            f"this is no file of weights: {why}",
            where=name,
            remedy="give a file that `longctx mix optimise` wrote",
        )

    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise no_weights(f"not JSON ({error or 'nested too deeply'})") from None
    if not isinstance(value, dict) or value.get("kind") != "weights":
        raise no_weights("expected an object with kind 'weights'")
    if value.get("schema_version") != 1:
        raise no_weights(f"expected schema_version 1, found {value.get('schema_version')!r}")
    weights, evidence = value.get("weights"), value.get("evidence", {})
    if not isinstance(weights, dict) or not weights:
        raise no_weights("expected shares by source under 'weights'")
    for source, share in weights.items():
        if isinstance(share, bool) or not isinstance(share, int | float):
            raise no_weights(f"the weight of '{source}' is {share!r}, expected a number")
    if not isinstance(evidence, dict):
        raise no_weights("expected an object under 'evidence'")
    by, unit = value.get("by", "source"), value.get("unit", "tokens")
    return WeightsFile({s: float(v) for s, v in weights.items()}, str(by), str(unit), evidence)


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(f"'{n}'" for n in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
