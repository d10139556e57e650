"""How many copies of which document: from a census and weights to a rate for every cell.

Front ends give a share per source, a length rule relative rates inside a source, and one formula
makes both into rates: lambda = target / effective size, rate = lambda · rho. (The common form of
fixed weights, UniMax, Fu et al.'s up-sampling, arXiv 2402.10171, and ProLong, 2410.02660, is ours.)
One hash turns rates into copies, `chance.py`; where its noise would move the share of a source,
lambda is taken from the documents themselves, `calibrate.py`.

Sizes are counted with the recipe's tokenizer, held-out documents are in no cell. Cost: the number
of cells; no document is looked at.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture.calibrate import calibrate as calibrate
from longctx.mixture.caps import Answer, Question, answer
from longctx.mixture.census import Census
from longctx.mixture.chance import F64
from longctx.mixture.chance import copies as copies
from longctx.mixture.chance import u01 as u01
from longctx.mixture.front_ends import Asked, asked, budget_of, spread
from longctx.mixture.planned import CellPlan, Plan, SourcePlan, variance
from longctx.mixture.presets import PROLONG, filled
from longctx.mixture.realised import realised as realised
from longctx.mixture.rules import (
    LONG,
    Effective,
    KeepBelow,
    Length,
    Natural,
    Settings,
    TargetLongShare,
    Weights,
    words_of,
)
from longctx.mixture.strategies import compare_strategies as compare_strategies
from longctx.mixture.supply import Entry, Supply, entries_of, supplies
from longctx.mixture.upsample import NO_LONG, piece_of, window_of
from longctx.mixture.weights import WeightsFile

NOISY = 0.005


def build_plan(
    census: Census,
    settings: Settings,
    weights: Weights | None = None,
    length: Length | None = None,
    *,
    seed: int = 0,
    prolong: str | None = None,
    file: WeightsFile | None = None,
    raised: Mapping[str, Sequence[str]] | None = None,
) -> Plan:
    """The plan of a mixture over the documents of a census.

    `weights` are natural and `length` keeps documents below 4,096 at a tenth unless given;
    `prolong` names a preset of slots, shares and windows instead of both. `file` is what a
    front end of kind "file" reads, `raised` the sources of each slot that a strategy sets to .60.
    Raises RecipeError where the census cannot give what is asked.
    """
    weights = weights or Natural(kind="natural")
    length = length or KeepBelow(kind="keep_below")
    if not len(census.cells):
        raise RecipeError("no documents are left", remedy="look at the drop reasons before")
    given, wanted = _asked(census, settings, weights, length, prolong, file, raised or {})
    question = Question(
        supplies=given,
        weights=wanted.shares,
        budget=wanted.budget,
        max_epochs=settings.max_epochs,
        relax=not isinstance(weights, Effective),
        unit=settings.unit,
    )
    found = answer(question, settings.on_cap)
    front_end: dict[str, Any] = {"kind": prolong} if prolong else words_of(weights)
    if raised:
        front_end["raised"] = {slot: list(named) for slot, named in raised.items()}
    long_from = settings.long_from or _threshold(length)
    lines = [
        _line(i, supply, found, wanted.shares, census, settings, long_from)
        for i, supply in enumerate(given)
    ]
    used = [line for line in lines if line.weight > 0]
    return Plan(
        seed=seed,
        unit=settings.unit,
        by=settings.by,
        budget_asked=settings.budget,
        budget=found.budget,
        front_end=front_end,
        length={"kind": prolong} if prolong else words_of(length),
        per_source={s: words_of(rule) for s, rule in settings.per_source.items()},
        rate_by=words_of(settings.rate_by) if settings.rate_by else None,
        slots=dict(settings.slots),
        max_epochs=settings.max_epochs,
        on_cap=settings.on_cap,
        calibrate=settings.calibrate,
        long_from=long_from,
        edges=census.edges,
        sources=tuple(used),
        unused=_unused(census, used),
        warnings=(*wanted.notes, *found.notes, *_warnings(given, used, long_from)),
        holdout_fraction=settings.holdout_fraction,
    )


def _asked(
    census: Census,
    settings: Settings,
    weights: Weights,
    length: Length,
    prolong: str | None,
    file: WeightsFile | None,
    raised: Mapping[str, Sequence[str]],
) -> tuple[list[Supply], Asked]:
    """What the entries can give, and the share that each is to have."""
    if prolong is None:
        entries = entries_of(census, length, settings.per_source)
        given = supplies(census, entries, settings.rate_by)
        return given, asked(weights, given, settings, file, raised)
    preset = PROLONG[prolong]
    slots, shares, notes = filled(preset, settings.slots, census.sources, prolong)
    entries = entries_of(census, length, settings.per_source, slots, preset)
    given = supplies(census, entries, settings.rate_by)
    by_name: dict[str, float] = {}
    for slot, share in shares.items():
        own = [s for s in given if s.entry.source in slots[slot]]
        windows = preset[slot].windows or ((0, preset[slot].share),)
        for window, part in windows:
            entered = [s for s in own if not window or window_of(s.entry.rule) == window]
            names = [s.entry.name for s in entered]
            sizes = {s.entry.name: s.full for s in entered}
            one = share * part / preset[slot].share
            by_name |= spread({slot: names}, {slot: one}, sizes)
    shares_of = np.array([by_name[s.entry.name] for s in given])
    return given, Asked(shares_of, budget_of(settings), tuple(notes))


def _threshold(length: Length) -> int:
    return length.threshold if isinstance(length, KeepBelow | TargetLongShare) else LONG


def _line(
    i: int,
    supply: Supply,
    found: Answer,
    weights: F64,
    census: Census,
    settings: Settings,
    long_from: int,
) -> SourcePlan:
    entry, target = supply.entry, float(found.target[i])
    rates, lam = found.rate(i, supply), float(found.lam[i])
    size = int(supply.own.sum())
    line = SourcePlan(
        name=entry.name,
        source=entry.source,
        lo=entry.lo,
        hi=entry.hi,
        docs=int(census.docs[supply.at].sum()),
        size=size,
        long_size=int(supply.own[supply.low >= long_from].sum()),
        effective=float(found.effective[i]),
        weight_asked=float(weights[i]),
        weight=float(found.weights[i]),
        target=target,
        p_asked=float(found.p_asked[i]),
        p_used=float(found.p_used[i]),
        lambda_plan=lam,
        lam=lam,
        calibrated=False,
        rel_sd=0.0,
        epochs=target / size if size else 0.0,
        max_rate=float(rates[supply.size > 0].max(initial=0.0)),
        planned_long_share=supply.in_long(rates, long_from) / target if target else 0.0,
        window=window_of(entry.rule),
        piece=piece_of(entry.rule),
        cells=_cells(supply, rates, float(found.p_used[i]), census),
    )
    noise = float(np.sqrt(variance(line))) / target if target else 0.0
    calibrated = settings.calibrate == "always" or (settings.calibrate == "auto" and noise > NOISY)
    return SourcePlan(**{**vars(line), "rel_sd": noise, "calibrated": calibrated and target > 0})


def _cells(supply: Supply, rates: F64, p: float, census: Census) -> tuple[CellPlan, ...]:
    edges = (*census.edges, None)
    found = []
    for k, (at, rel) in enumerate(zip(supply.at.tolist(), supply.rates(p).tolist(), strict=True)):
        cell = census.cells[at]
        lo, hi = edges[cell.bucket], edges[cell.bucket + 1]
        assert lo is not None
        found.append(
            CellPlan(
                bucket=cell.bucket,
                lo=lo,
                hi=hi,
                cls=cell.cls,
                docs=int(census.docs[at]),
                size=int(supply.size[k]),
                sum_sq=float(supply.sum_sq[k]),
                max=int(supply.max[k]),
                rel=rel,
                rate=float(rates[k]),
            )
        )
    return tuple(found)


def _unused(census: Census, used: Sequence[SourcePlan]) -> dict[str, dict[str, int]]:
    """Documents and sizes of the sources that no line of the plan takes."""
    taken = {line.source for line in used}
    found: dict[str, dict[str, int]] = {}
    for i, cell in enumerate(census.cells):
        if cell.source not in taken:
            one = found.setdefault(cell.source, {"docs": 0, "size": 0})
            one["docs"] += int(census.docs[i])
            one["size"] += int(census.own.size[i])
    return found


def _warnings(given: Sequence[Supply], used: Sequence[SourcePlan], long_from: int) -> list[str]:
    """What a reader of the plan should know about single sources."""
    favours = {
        s.entry.name: isinstance(s.entry.rule, KeepBelow | TargetLongShare) and s.long <= 0
        for s in given
    }
    found = [f"'{line.name}': {NO_LONG}, p = 1" for line in used if favours[line.name]]
    for line in used:
        if line.p_used > line.p_asked * (1 + 1e-9):
            found.append(
                f"'{line.name}' has too few tokens from {long_from:,} on: p is {line.p_used:.3g} "
                f"instead of {line.p_asked:.3g}"
            )
    return found


__all__ = [
    "Entry",
    "build_plan",
    "calibrate",
    "compare_strategies",
    "copies",
    "realised",
    "u01",
]
