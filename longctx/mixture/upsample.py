"""Relative rates by length inside a source, and the strategies made of them.

Fu et al. (arXiv 2402.10171) keep documents below 4,096 tokens with probability p and fill the
budget of every source: more tokens of long documents while shares stay. Their code streams a
shuffled corpus, estimates tokens from characters, draws in stream order and reads on for ever where
a source runs dry; ours has the same expectation without order and luck, and measured lengths.
ProLong (2410.02660) gives every long document windows of its own (`single_document`).

Ours: a source without long documents has nothing to favour and uses p = 1, and `relax_p`: with
shares held, a small p can demand absurd repetition of a few long documents, so p grows until the
source can feed its target with `max_epochs`.

Closed forms, s the natural share of long documents; nothing is read.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from longctx.mixture.census import whole_windows
from longctx.mixture.chance import F64, I64, Bool
from longctx.mixture.rules import LONG, Cut, KeepBelow, Length, MinLength, NoRule, SingleDocument

NO_LONG = "no long documents"


class Strategy(NamedTuple):
    """A preset of Fu et al.: the slots that are raised to .60, and whether weights follow p."""

    length: Length
    boost: tuple[str, ...] = ()
    weights_follow: bool = False


RAISED = ("code", "book", "arxiv")
_KEEP = KeepBelow(kind="keep_below")
BOOST = 0.60
STRATEGIES: dict[str, Strategy] = {
    "original": Strategy(NoRule(kind="none")),
    "cut4k": Strategy(Cut(kind="cut", piece=LONG)),
    "per_source": Strategy(_KEEP),
    "global": Strategy(_KEEP, weights_follow=True),
    "code_up": Strategy(_KEEP, ("code",)),
    "book_up": Strategy(_KEEP, ("book",)),
    "arxiv_up": Strategy(_KEEP, ("arxiv",)),
    "code_arxiv_book_up": Strategy(_KEEP, ("code", "arxiv", "book")),
}


class Shape(NamedTuple):
    """A length rule over cells: `hard` 0 or 1 [n], `soft` which cells are multiplied by p."""

    hard: F64
    soft: Bool


def shape(rule: Length, low: I64) -> Shape:
    """The shape of a rule over cells whose buckets begin at `low` int64 [n]."""
    nowhere = np.zeros(len(low), dtype=np.bool_)
    if isinstance(rule, MinLength | SingleDocument):
        least = rule.length if isinstance(rule, MinLength) else rule.window
        return Shape((low >= least).astype(np.float64), nowhere)
    if isinstance(rule, NoRule | Cut):
        return Shape(np.ones(len(low)), nowhere)
    return Shape(np.ones(len(low)), low < rule.threshold)


def asked_p(rule: Length, long: float, short: float) -> float:
    """The p of a rule for a source with so much in long and in short documents."""
    if long <= 0 or isinstance(rule, NoRule | Cut | MinLength | SingleDocument):
        return 1.0
    if isinstance(rule, KeepBelow):
        return rule.p
    return keep_for_target(long / (long + short), rule.share)


def thresholds(rule: Length) -> tuple[int, ...]:
    """Sizes at which a rule changes."""
    if isinstance(rule, MinLength):
        return (rule.length,)
    if isinstance(rule, SingleDocument):
        return (rule.window,)
    return () if isinstance(rule, NoRule | Cut) else (rule.threshold,)


def window_of(rule: Length) -> int | None:
    """The length of windows that documents fill alone, if the rule has one."""
    return rule.window if isinstance(rule, SingleDocument) else None


def piece_of(rule: Length) -> int | None:
    """The largest piece that documents are cut into, if the rule has one."""
    return rule.piece if isinstance(rule, Cut) else None


def long_share(s: float, p: float) -> float:
    """Share of long documents after the others are kept at p."""
    return s / (s + p * (1 - s)) if s > 0 else 0.0


def keep_for_target(s: float, tau: float) -> float:
    """The p that gives long documents the share tau; 1 where they have it, or there are none."""
    return s * (1 - tau) / (tau * (1 - s)) if 0 < s < tau else 1.0


def usable(sizes: I64, window: int) -> int:
    """What documents hold in whole windows of their own, together."""
    return int(whole_windows(np.asarray(sizes, dtype=np.int64), window).sum())


def relax_p(p: float, target: float, max_epochs: float, long: float, short: float) -> float:
    """The smallest p' >= p at which no long document is needed more than `max_epochs` times.

    `long` and `short` are the sizes of the source; at most 1, which may not be enough.
    """
    if short <= 0:
        return p
    return min(1.0, max(p, (target / max_epochs - long) / short))


def boosts(strategy: Strategy, slots: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Sources of each slot that a strategy raises; empty where the recipe names none."""
    return {slot: list(slots.get(slot, [])) for slot in strategy.boost}


def raised_values(
    raised: Mapping[str, Sequence[str]], own: Mapping[str, float]
) -> dict[str, float]:
    """The value of every source that a strategy raises: .60 for each slot, dealt by own share."""
    found = {}
    for named in raised.values():
        total = sum(own.get(s, 0.0) for s in named)
        for source in named:
            part = own.get(source, 0.0) / total if total > 0 else 1 / len(named)
            found[source] = BOOST * part
    return found
