"""Rates from weights: targets, the p of each source, and what to do where a source is too small.

    E = sum of rho · size over the cells of a source,  lambda = target / E,  rate = lambda · rho

A source asks for too much where some rate would be above `max_epochs` (4 is Olmix's, arXiv
2602.12237) even with all its lengths alike. Ours: the error says which budget would keep the
shares and which shares would keep the budget, `redistribute` and `shrink` take one of them, and
only after that p is relaxed. Weights that follow the effective sizes (`global`) have no relaxation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture.chance import F64
from longctx.mixture.supply import Supply
from longctx.mixture.upsample import relax_p
from longctx.mixture.weights import redistribute

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Question:
    """Weights float64 [entries] that sum to 1 and a budget, over what the entries can give."""

    supplies: Sequence[Supply]
    weights: F64
    budget: float
    max_epochs: int
    relax: bool
    unit: str

    @property
    def ceilings(self) -> F64:
        """The most that each entry can give, float64 [entries]."""
        return np.array(
            [
                self.max_epochs * (s.full if self.relax else s.effective(s.p)) / s.steepest
                if s.steepest
                else 0.0
                for s in self.supplies
            ]
        )

    @property
    def largest_budget(self) -> float:
        """The largest budget that keeps the shares."""
        used = self.weights > 0
        return float((self.ceilings[used] / self.weights[used]).min())


@dataclass(frozen=True)
class Answer:
    """What a question comes to, arrays over the entries; `budget` may be less than asked."""

    weights: F64
    budget: float
    target: F64
    p_asked: F64
    p_used: F64
    effective: F64
    lam: F64
    notes: tuple[str, ...] = ()

    def rate(self, i: int, supply: Supply) -> F64:
        """Copies of a document of each cell of an entry."""
        return np.asarray(self.lam[i] * supply.rates(float(self.p_used[i])))


def answer(question: Question, on_cap: str) -> Answer:
    """Rates that no cap forbids. Raises RecipeError where there are none, or `on_cap` is "fail"."""
    _are_there(question)
    too_small = question.weights * question.budget > question.ceilings * (1 + _ROUNDING)
    if not too_small.any():
        return unbounded(question)
    if on_cap == "shrink":
        less = replace(question, budget=question.largest_budget)
        note = (
            f"the budget was lowered from {question.budget:,.0f} to {less.budget:,.0f} "
            f"{question.unit}, which {_names(question, too_small)} can feed"
        )
        return replace(unbounded(less), notes=(note,))
    if on_cap == "redistribute":
        moved = replace(question, weights=_redistributed(question))
        note = (
            f"{_names(question, too_small)} cannot feed the asked shares: taken "
            f"{question.max_epochs} times, the rest went to the others"
        )
        return replace(unbounded(moved), notes=(note,))
    raise _too_small(question, too_small)


def unbounded(question: Question) -> Answer:
    """Rates with p relaxed as far as that helps, whatever the caps."""
    given = question.supplies
    target = question.budget * question.weights
    asked = np.array([s.p for s in given])
    p = asked.copy()
    if question.relax:
        for i, s in enumerate(given):
            if s.long > 0:
                room = target[i] * s.steepest
                p[i] = relax_p(asked[i], room, question.max_epochs, s.long, s.short)
    effective = np.array([s.effective(q) for s, q in zip(given, p.tolist(), strict=True)])
    lam = np.divide(target, effective, out=np.zeros(len(target)), where=effective > 0)
    return Answer(question.weights, question.budget, target, asked, p, effective, lam)


def _are_there(question: Question) -> None:
    for weight, supply in zip(question.weights.tolist(), question.supplies, strict=True):
        if weight > 0 and supply.full <= 0:
            left = "no documents" if not len(supply.at) else "none that the length rule leaves"
            raise RecipeError(
                f"'{supply.entry.name}' has a weight of {weight:.4g} and {left}",
                where="weights",
                remedy="give it no weight, or look at the drop reasons of earlier stages",
            )


def _redistributed(question: Question) -> F64:
    caps = question.ceilings / question.budget
    room = float(caps[question.weights > 0].sum())
    if room < 1 - _ROUNDING:
        missing = (1 - room) * question.budget
        raise RecipeError(
            f"all sources with a weight, taken {question.max_epochs} times, are {missing:,.0f} "
            f"{question.unit} short of the budget of {question.budget:,.0f}",
            where="budget",
            remedy=f"ask for at most {room * question.budget:,.0f} {question.unit}, or raise "
            "max_epochs",
        )
    return redistribute(question.weights, caps)


def _epochs(question: Question) -> F64:
    """How often each entry would be needed, at its highest rate and best p."""
    target = question.weights * question.budget
    top = question.ceilings / question.max_epochs
    return np.divide(target, top, out=np.zeros(len(target)), where=top > 0)


def _names(question: Question, chosen: "np.ndarray") -> str:
    names = [s.entry.name for s, one in zip(question.supplies, chosen, strict=True) if one]
    shown = ", ".join(f"'{n}'" for n in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _too_small(question: Question, too_small: "np.ndarray") -> RecipeError:
    needed = _epochs(question)
    order = np.argsort(-np.where(too_small, needed, 0), kind="stable")[: int(too_small.sum())]
    named = [
        f"'{question.supplies[i].entry.name}' {needed[i]:.3g} times" for i in order.tolist()[:5]
    ]
    more = f" and {len(order) - 5} more sources" if len(order) > 5 else ""
    ways = [f"a budget of at most {question.largest_budget:,.0f} {question.unit} keeps the shares"]
    try:
        moved = _redistributed(question)
    except RecipeError as error:
        ways.append(f"other shares would not do ({error.message})")
    else:
        distance = float(np.abs(moved - question.weights).sum())
        shown = ", ".join(
            f"{s.entry.name} {share:.1%}"
            for s, share in zip(question.supplies[:8], moved.tolist(), strict=False)
        )
        ways.append(
            f"`on_cap: redistribute` keeps the budget with {shown}"
            f"{', …' if len(question.supplies) > 8 else ''} (L1 {distance:.3f} from the asked ones)"
        )
    ways.append(f"or raise max_epochs to {int(np.ceil(needed.max() - _ROUNDING))}")
    return RecipeError(
        f"{question.budget:,.0f} {question.unit} would need {', '.join(named)}{more}, more than "
        f"max_epochs = {question.max_epochs} allows",
        where="budget",
        remedy="; ".join(ways),
    )
