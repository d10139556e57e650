"""The yardstick: how much far context helps a language model to predict what windows hold.

Of sampled windows (or documents) of each run, excerpts of `long` tokens are read twice: with all
that stands before a token, and with the `short` to 2 * `short` - 1 tokens before it. What far
context adds to a token is told by three scores of the literature: LongFilter's term (ICLR 2026,
"Beyond Length"), the difference of log-likelihoods, and whether the token is a key token of LongPPL
(2410.23771). Their means are over far tokens, those that have any context beyond the short one:
LongFilter's own mean, over all scored tokens, is that times the share of far tokens.

Ours: the sample, the intervals, and the split by where the far context lies. In the document of the
token, the gain is the document's own and a filter's merit; in other documents, it is what the
packing has put there, an order's merit. Positions decide, so nothing is attributed by guessing;
where the far context lies in both, neither is claimed. Most tokens of long documents have all of it
in their own; where an order is asked about, excerpts can be taken at the beginnings of documents.

What it does not say: the scores are those of one model, and a small one knows little use of far
context. No training is done, so it is a yardstick for choosing, not a result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from longctx.compare.bootstrap import F64, RESAMPLES, Interval, Resampled, ratio, weights
from longctx.compare.excerpt import (
    BOTH,
    I32,
    I64,
    NEAR,
    OTHER,
    SAME,
    Excerpt,
    cut,
    cut_at_border,
    origins,
)
from longctx.ids import U64
from longctx.score.likelihood import Columns, Contrast, columns, key_tokens, longfilter
from longctx.score.plan import Scorer, Stretch, nll_plan

F32 = npt.NDArray[np.float32]

MEASURES = ("longfilter", "dnll", "key_share")
GROUPS: dict[str, tuple[int, ...]] = {
    "all": (SAME, OTHER, BOTH),
    "same": (SAME,),
    "other": (OTHER,),
    "both": (BOTH,),
}


@dataclass(frozen=True)
class Lengths:
    """How an excerpt is read: all its `long` tokens at once, and with at least `short` before each.

    The short plan slides by `short` tokens, so a far token has `short` to 2 * `short` - 1 tokens of
    context in it; the first 2 * `short` tokens of an excerpt have the same context in both. At
    `borders` only its last two stretches are read, those that begin where a document does.
    """

    long: int
    short: int
    borders: bool = False

    @property
    def far(self) -> int:
        """Tokens of an excerpt that have far context and are read without it."""
        return sum(one.hi - one.lo for one in self._short_plan())

    @property
    def read(self) -> int:
        """Tokens that the model reads for one excerpt."""
        return self.long + sum(one.end - one.start for one in self._short_plan())

    def starts(self) -> I64:
        """Where the short context of each position begins, int64 [long]; 0 where it is the long."""
        found = np.zeros(self.long, dtype=np.int64)
        for one in self._short_plan():
            found[one.lo : one.hi] = one.start
        return found

    def losses(self, scorer: Scorer, ids: I32) -> F32:
        """Losses of an excerpt with long and short context, float32 [2, long - 1]."""
        plan = [Stretch(0, self.long, 1, self.long), *self._short_plan()]
        long, *short = scorer.scores([one.of(ids) for one in plan])
        found = np.stack([long.nll, long.nll])
        for one, scores in zip(plan[1:], short, strict=True):
            found[1, one.lo - 1 : one.hi - 1] = scores.nll
        return found

    def excerpt(self, whole: Excerpt, key: int) -> Excerpt | None:
        """What is read of a window, None where it is too short or nothing of it counts.

        Where it lies follows from `key` (uint64): anywhere, or at the beginning of a document.
        """
        if len(whole) < self.long:
            return None
        if self.borders:
            found = cut_at_border(whole, self.long, self.far, key)
        else:
            found = cut(whole, self.long, key)
        is_far = self.starts() > 0
        return found if found is not None and (found.counted & is_far).any() else None

    def _short_plan(self) -> list[Stretch]:
        """The short contexts of far tokens; what comes before them is read with the long one."""
        plan = nll_plan(self.long, self.short, self.short)[1:]
        return plan[-2:] if self.borders else plan


@dataclass(frozen=True)
class Scored:
    """An excerpt as a model scored it.

    `key` (uint64) names the unit, `row` is its place in its run. By the place of far context (NEAR,
    SAME, OTHER, BOTH) `tokens` float64 [4] counts tokens and `totals` float64 [4, 3] sums
    `MEASURES` over them. `documents` uint64 [k] have `document_tokens` int64 [k] far tokens each;
    `unknown` far tokens were not counted. `columns` are the scores over all counted tokens.
    """

    key: int
    row: int
    tokens: F64
    totals: F64
    documents: U64
    document_tokens: I64
    unknown: int
    columns: Columns

    def as_dict(self) -> dict[str, Any]:
        """The excerpt as JSON holds it."""
        return {"key": f"{self.key:016x}", "row": self.row, **self.columns}


def score(excerpt: Excerpt, lengths: Lengths, losses: F32, key: int, row: int) -> Scored:
    """Sums of an excerpt of `lengths.long` tokens from its losses, float32 [2, long - 1]."""
    # Position 0 has no context at all and is not scored.
    origin, document = origins(excerpt, lengths.starts())[1:], excerpt.document[1:]
    counted = excerpt.counted[1:]
    long, short = losses
    places = [counted & (origin == place) for place in (NEAR, *GROUPS["all"])]
    far = counted & (origin != NEAR)
    of_document = np.bincount(document[far], minlength=len(excerpt.documents))
    return Scored(
        key,
        row,
        np.array([place.sum() for place in places], dtype=np.float64),
        np.array([_totals(long[place], short[place]) for place in places]),
        excerpt.documents[of_document > 0],
        of_document[of_document > 0].astype(np.int64),
        int(((origin != NEAR) & (document >= 0) & ~counted).sum()),
        columns(Contrast(long[counted], short[counted], int(far.sum()))),
    )


def _totals(long: F32, short: F32) -> list[float]:
    """Sums of `MEASURES` over some tokens."""
    gain = short.astype(np.float64) - long
    terms = len(long) * (longfilter(long, short) or 0.0)
    return [terms, float(gain.sum()), float(key_tokens(long, short).sum())]


@dataclass(frozen=True)
class Group:
    """Far tokens whose far context lies in one place: how many, in how many units, their means.

    `share` is that of all far tokens. `longfilter` and `dnll` are in nats a token (LongFilter's is
    weighted by the probability of the token), `key_share` in 0..1.
    """

    tokens: int
    share: float
    units: int
    longfilter: Interval
    dnll: Interval
    key_share: Interval


@dataclass(frozen=True)
class Difference:
    """A run's means minus those of the first run."""

    longfilter: Interval
    dnll: Interval
    key_share: Interval


@dataclass(frozen=True)
class GainLine:
    """One run: its means by where far context lies, and what it has more than the first run.

    `units` were scored of `looked` that were looked at in the order of the sample (the others were
    shorter than an excerpt or nothing that the model knows), of `held` in the run. `unknown` is the
    share of far tokens in languages that the model does not know. `shared` is the share of far
    tokens in documents that the first run has too, `shared_first` that of the first run's in
    documents of this one; None for the first run, and where documents have no ids.
    """

    name: str
    held: int
    looked: int
    units: int
    unknown: float
    groups: dict[str, Group]
    difference: dict[str, Difference] | None
    shared: float | None
    shared_first: float | None
    scored: list[dict[str, Any]]


@dataclass(frozen=True)
class RunScores:
    """What was scored of one run; `documents` uint64 [d] are the keys of all that it holds."""

    name: str
    held: int
    looked: int
    scored: list[Scored]
    documents: U64 | None


def gain_lines(runs: Sequence[RunScores], seed: int, resamples: int = RESAMPLES) -> list[GainLine]:
    """One line for each run. Neither its order nor that of its units changes a figure of it."""
    ratios = [_ratios(run, seed, resamples) for run in runs]
    return [_line(run, own, runs[0], ratios[0]) for run, own in zip(runs, ratios, strict=True)]


Ratios = dict[str, dict[str, Resampled]]


def _ratios(run: RunScores, seed: int, resamples: int) -> Ratios:
    """group -> measure -> mean over the run's tokens of that group."""
    units = sorted(run.scored, key=lambda one: one.key)
    tokens = np.array([one.tokens for one in units]).reshape(-1, 4)
    totals = np.array([one.totals for one in units]).reshape(-1, 4, len(MEASURES))
    drawn = weights(np.array([one.key for one in units], dtype=np.uint64), seed, resamples)
    return {
        group: {
            measure: ratio(totals[:, places, i].sum(axis=1), tokens[:, places].sum(axis=1), drawn)
            for i, measure in enumerate(MEASURES)
        }
        for group, places in GROUPS.items()
    }


def _line(run: RunScores, own: Ratios, first: RunScores, base: Ratios) -> GainLine:
    tokens = np.sum([one.tokens for one in run.scored], axis=0)
    far = float(tokens[list(GROUPS["all"])].sum())
    unknown = sum(one.unknown for one in run.scored)
    is_first = run is first
    return GainLine(
        name=run.name,
        held=run.held,
        looked=run.looked,
        units=len(run.scored),
        unknown=unknown / max(1.0, unknown + far),
        groups={name: _group(own[name], tokens[list(GROUPS[name])].sum(), far) for name in GROUPS},
        difference=None
        if is_first
        else {
            name: Difference(*(own[name][m].less(base[name][m]) for m in MEASURES))
            for name in GROUPS
        },
        shared=None if is_first else shared(run, first),
        shared_first=None if is_first else shared(first, run),
        scored=[one.as_dict() for one in run.scored],
    )


def _group(found: dict[str, Resampled], tokens: float, far: float) -> Group:
    return Group(
        int(tokens),
        float(tokens) / max(1.0, far),
        found[MEASURES[0]].units,
        *(found[measure].interval() for measure in MEASURES),
    )


def shared(run: RunScores, other: RunScores) -> float | None:
    """Share of a run's far tokens in documents that another run holds too."""
    if run.documents is None or other.documents is None:
        return None
    here = total = 0
    for one in run.scored:
        total += int(one.document_tokens.sum())
        here += int(one.document_tokens[np.isin(one.documents, other.documents)].sum())
    return here / total if total else None
