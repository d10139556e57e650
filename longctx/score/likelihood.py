"""How much far context improves the prediction of the next token: LongFilter and its relatives.

A model reads a document twice, with a long and with a short context (`plan`), which gives the
negative log-likelihoods ℓ and s of every token but the first. From these two arrays:

- LongFilter ("Beyond Length", ICLR 2026): mean of exp(-ℓ)·(s - ℓ), the true token's term of
  KL(p_long || p_short). Sure predictions count, lucky ones do not.
- the plain differences of likelihood and perplexity;
- LongPPL (arXiv 2410.23771): tokens with s - ℓ > 2 and ℓ < 2 are key tokens. The paper marks them
  with a separate evaluator; here scorer and evaluator are one model, and the share of key tokens is
  the score (ours). LongCE, of the same paper, weighs a token's loss by min(exp(s - ℓ), 5).
- split gain (InternLM2, arXiv 2403.17297): how much the first half of a text helps with the second.

What we changed: no position is scored with less than the short plan's guaranteed context (blocks
begin with almost none in the published code), except where the document itself has no more; there
both contexts are the same and are read once. Without a key token LongPPL is null, not 0.

`zip_gain` (ours, not validated) needs no model: how much smaller LZMA packs the text when it may
look back 64 MiB instead of 32 KiB. It sees verbatim repetition only. `entropy_peaks` are the
uncertain positions of EntropyLong.

Cost of the two readings: n + n·(S + s)/s tokens of forward pass (6 n at the defaults), another n/2
for the split gain; memory 8 bytes a token. Repetition scores highest: remove it first.
"""

import lzma
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.score.causal_lm import F32, I32, Segment, TokenScores
from longctx.score.plan import Scorer, Stretch, Windows, joined, nll_plan, read

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Columns = dict[str, float | int | None]

KEY_GAIN, KEY_NLL, LONGCE_MAX = 2.0, 2.0, 5.0
LARGEST = 709.0  # nats; the exponential of more is infinite in float64
_FAR, _NEAR = 64 << 20, 32 << 10
_LEAST_DICTIONARY = 4096


class Contrast(NamedTuple):
    """NLL of positions 1..n-1 under the long and the short plan, float32 [max(0, n - 1)] each.

    In `n_far` of them the contexts differ. `alone` are those of the second half read without the
    first, float32, where they were asked for.
    """

    long: F32
    short: F32
    n_far: int
    alone: F32 | None = None


def contrasts(
    scorer: Scorer, documents: Sequence[I32], windows: Windows, *, split: bool = False
) -> list[Contrast]:
    """Both readings of each document's ids int32 [n], in one call of the scorer.

    With `split` also the second half of each by itself, under the long plan.
    """
    plans = [_Plan.of(len(ids), windows, split) for ids in documents]
    asked = [plan.segments(ids) for plan, ids in zip(plans, documents, strict=True)]
    return [plan.contrast(scores) for plan, scores in zip(plans, read(scorer, asked), strict=True)]


class _Plan(NamedTuple):
    """The stretches of one document of n tokens; `short` without those that equal the long ones."""

    n: int
    near: int
    long: list[Stretch]
    short: list[Stretch]
    alone: list[Stretch] | None

    @staticmethod
    def of(n: int, windows: Windows, split: bool) -> "_Plan":
        long = nll_plan(n, windows.long, windows.long)
        short = nll_plan(n, windows.short, windows.stride)[1:]
        alone = nll_plan(n - n // 2, windows.long, windows.long) if split else None
        return _Plan(n, windows.short + windows.stride, long, short, alone)

    def segments(self, ids: I32) -> list[Segment]:
        half = ids[self.n // 2 :]
        both = [stretch.of(ids) for stretch in (*self.long, *self.short)]
        return both + [stretch.of(half) for stretch in self.alone or ()]

    def contrast(self, found: Sequence[TokenScores]) -> Contrast:
        first, last = len(self.long), len(self.long) + len(self.short)
        long = joined(self.long, found[:first], self.n)
        short = long.copy()
        short[self.near - 1 :] = joined(self.short, found[first:last], self.n)[self.near - 1 :]
        alone = None
        if self.alone is not None:
            alone = joined(self.alone, found[last:], self.n - self.n // 2)
        return Contrast(long, short, max(0, self.n - self.near), alone)


def columns(found: Contrast) -> Columns:
    """All scores of a document by column; null (None) where there is nothing to compute from.

    Where the model gave no numbers some values are not finite (`numbers`).
    """
    with np.errstate(invalid="ignore"):
        return _columns(found.long.astype(np.float64), found.short.astype(np.float64), found.n_far)


def _columns(long: F64, short: F64, n_far: int) -> Columns:
    keys = key_tokens(long, short)
    before, after = perplexity(short), perplexity(long)
    delta = None if before is None or after is None else before - after
    return {
        "lf_score": longfilter(long, short),
        "dnll_mean": _mean(short - long),
        "ppl_long": after,
        "ppl_short": before,
        "ppl_delta": delta,
        "ppl_ratio": None if delta is None or not before else delta / before,
        "lp_key_share": _mean(keys),
        "lp_longppl": perplexity(long[keys]),
        "lp_n_key": int(keys.sum()),
        "n_scored": len(long),
        "n_far": n_far,
    }


def perplexity(nll: npt.ArrayLike) -> float | None:
    """exp(mean NLL); None for no tokens, and above e^709, which float64 cannot hold.

    NaN where a likelihood is not a number.
    """
    mean = _mean(np.asarray(nll, np.float64))
    if mean is None or LARGEST <= mean < math.inf:
        return None
    return math.exp(mean) if math.isfinite(mean) else math.nan


def numbers(columns: Columns) -> bool:
    """Whether every value is null or finite: a likelihood that is no number makes a mean none."""
    return all(value is None or math.isfinite(value) for value in columns.values())


def longfilter(long: npt.ArrayLike, short: npt.ArrayLike) -> float | None:
    """LongFilter's score of NLL under a long and a short context; None for no tokens."""
    ell, s = np.asarray(long, np.float64), np.asarray(short, np.float64)
    return _mean(np.exp(-ell) * (s - ell))


def key_tokens(long: npt.ArrayLike, short: npt.ArrayLike) -> Mask:
    """LongPPL's key tokens: far context helps by more than 2 nats, to less than 2."""
    ell, s = np.asarray(long, np.float64), np.asarray(short, np.float64)
    return np.asarray((s - ell > KEY_GAIN) & (ell < KEY_NLL))


def longce_weights(long: npt.ArrayLike, short: npt.ArrayLike) -> F32:
    """LongCE's weight of each token's loss, float32: min(exp(s - ℓ), 5)."""
    gain = np.asarray(short, np.float64) - np.asarray(long, np.float64)
    # Bounded before it is raised, so that nothing overflows.
    return np.exp(np.minimum(gain, np.log(LONGCE_MAX))).astype(np.float32)


def split_gain(found: Contrast) -> float | None:
    """Mean NLL of the second half alone less that with the first half before it.

    None without `alone`, or for a half of one token. The first token of the half is left out, since
    nothing is before it when it stands alone.
    """
    if found.alone is None or not len(found.alone):
        return None
    return _mean(found.alone.astype(np.float64) - found.long[-len(found.alone) :])


def zip_gain(text: str) -> float | None:
    """1 - C(64 MiB) / C(32 KiB), C the size of the UTF-8 text in LZMA2 with that dictionary.

    None for an empty text. The encoder takes about 11 bytes of memory for each of the dictionary,
    which is never larger than the text.
    """
    data = text.encode("utf-8", "surrogatepass")
    if not data:
        return None
    if len(data) <= _NEAR:
        return 0.0
    return 1 - _packed(data, _FAR) / _packed(data, _NEAR)


class Peaks(NamedTuple):
    """Positions int64 [k] of uncertain tokens, and the threshold that they exceed."""

    positions: npt.NDArray[np.int64]
    threshold: float


def entropy_peaks(entropies: npt.ArrayLike, deviations: float = 2.0) -> Peaks:
    """Positions whose entropy is more than so many population sds above the mean (EntropyLong)."""
    h = np.asarray(entropies, np.float64)
    if not len(h):
        return Peaks(np.zeros(0, np.int64), float("nan"))
    threshold = float(h.mean() + deviations * h.std())
    return Peaks(np.flatnonzero(h > threshold), threshold)


def peak_gains(before: npt.ArrayLike, after: npt.ArrayLike) -> F64:
    """Share of each entropy that more context takes away, (H - H') / H; NaN where H is 0.

    EntropyLong keeps a context for a position with more than 0.4.
    """
    h, less = np.asarray(before, np.float64), np.asarray(after, np.float64)
    return np.divide(h - less, h, out=np.full(len(h), np.nan), where=h > 0)


def _packed(data: bytes, dictionary: int) -> int:
    # A larger dictionary than the text finds nothing more, and takes memory.
    size = max(_LEAST_DICTIONARY, min(dictionary, len(data)))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": size}]
    return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))


def _mean(values: F64 | Mask) -> float | None:
    return float(np.mean(values, dtype=np.float64)) if len(values) else None
