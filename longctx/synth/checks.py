"""Checks that all systems of questions and answers share: answers, evidence, places, shares.

Whether an answer stands in a text is decided by `longctx.text.answers`, whose names are to be had
here, too. The rest is ours: key facts that a merged text must keep, n-grams shared with held-out
texts, chi-squared and Kolmogorov-Smirnov tests with bounds that a sound run meets for ever (a p of
1e-6, deviations of five standard errors), and the largest-remainder split.

Every function is linear in its input. Lost: paraphrases (all comparisons are lexical), facts
without a capital or a digit in languages that have capitals.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from longctx.ids import h64
from longctx.text.answers import STOP_WORDS, UNSPACED
from longctx.text.answers import contains_answer as contains_answer
from longctx.text.answers import content_words as content_words
from longctx.text.answers import norm_answer as norm_answer
from longctx.text.answers import support as support

U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]

# What is written without a blank behind it.
HAN_OR_KANA = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
)

_WARN_P, _FAIL_P = 0.01, 1e-6
_LEAST_PER_BIN = 50
_KS_WARN, _KS_FAIL = 1.628, 2.693  # critical values of sqrt(N) * D at 1 % and at 1e-6
_STANDARD_ERRORS = 5.0

_ANSWER_TOKEN = re.compile(f"[{UNSPACED}]|[^ {UNSPACED}]+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_THOUSANDS = re.compile(r",(?=\d{3}(?!\d))")
_WORD = re.compile(rf"[^\W_{UNSPACED}]+")
_NOT_FACTS = STOP_WORDS | {"a", "an", "the"}


class Fit(TypedDict):
    """A chi-squared test. `ok` is None where there are fewer than 50 rows for each bin."""

    stat: float
    df: int
    p: float
    max_dev: float
    tol: float
    ok: bool | None
    warn: bool


class Spread(TypedDict):
    """A Kolmogorov-Smirnov test: the largest distance `D`, and what follows from it."""

    D: float
    n: int
    ok: bool
    warn: bool


class Neighbours(NamedTuple):
    """Neighbouring pairs of golds over many rows: found, expected, its standard error."""

    found: int
    expected: float
    error: float
    ok: bool


def allocate(total: int, weights: Sequence[float]) -> list[int]:
    """`total` in whole shares by weight: floors, then one more each to the largest remainders.

    Ties go to the earlier entry. Weights are read as the decimals they are written as. Raises
    ValueError for a negative total or weight, and where all weights are 0 and the total is not.
    """
    exact = [Fraction(repr(float(w))) for w in weights]
    if total < 0 or any(w < 0 for w in exact):
        raise ValueError(f"cannot split {total} by {list(weights)}: nothing may be negative")
    if not any(exact):
        if total:
            raise ValueError(f"cannot split {total} by {list(weights)}: no weight is above 0")
        return [0] * len(exact)
    shares = [total * w / sum(exact) for w in exact]
    counts = [math.floor(share) for share in shares]
    by_rest = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], i))
    for i in by_rest[: total - sum(counts)]:
        counts[i] += 1
    return counts


def chi2_uniform(counts: Sequence[int]) -> Fit:
    """Whether counts of equal bins fit a uniform distribution. See `chi2_shares`."""
    return chi2_shares(counts, [1.0] * len(counts))


def chi2_shares(counts: Sequence[int], weights: Sequence[float]) -> Fit:
    """Whether counts fit weights: chi-squared with a p-value, and the largest deviation.

    `max_dev` is the largest |observed / expected - 1|, `tol` five standard errors of the bin that
    has it. Not ok: p below 1e-6 or a deviation above its bound; warned of: p below 0.01. A bin of
    weight 0 must be empty. Raises ValueError for fewer than two bins with a weight.
    """
    from scipy.stats import chi2

    observed, share = np.asarray(counts, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    stray = bool(observed[share == 0].any())
    observed, share = observed[share > 0], share[share > 0]
    if len(share) < 2:
        raise ValueError(f"{len(share)} bin(s) with a weight above 0; a test takes two and more")
    total, df = float(observed.sum()), len(share) - 1
    if total == 0:
        return Fit(stat=0.0, df=df, p=1.0, max_dev=0.0, tol=math.inf, ok=None, warn=False)
    expected = total * share / share.sum()
    stat = float(((observed - expected) ** 2 / expected).sum())
    p = float(chi2.sf(stat, df))
    deviation, bound = np.abs(observed / expected - 1), _STANDARD_ERRORS / np.sqrt(expected)
    worst = int(np.argmax(deviation / bound))
    ok: bool | None = p >= _FAIL_P and not stray and bool(deviation[worst] <= bound[worst])
    if not stray and total < _LEAST_PER_BIN * len(share):
        ok = None
    return Fit(
        stat=stat,
        df=df,
        p=p,
        max_dev=float(deviation[worst]),
        tol=float(bound[worst]),
        ok=ok,
        warn=p < _WARN_P,
    )


def depth_counts(
    places: Iterable[tuple[int, int]], u: Sequence[float], bins: int = 10
) -> list[int]:
    """Counts of depths (i + u) / n in equal bins, for pairs of a 0-based place i and a number n.

    `u` is one draw from [0, 1) for each pair, from the row's generator: the middle of a slot, where
    n is small, would put too many into some bins.
    """
    counts = [0] * bins
    for (i, n), jitter in zip(places, u, strict=True):
        counts[min(int((i + jitter) / n * bins), bins - 1)] += 1
    return counts


def ks_uniform(values: Sequence[float], lo: float, hi: float) -> Spread:
    """Largest distance of the values' distribution from the uniform one on [lo, hi].

    Warned of above 1.628 / sqrt(N), not ok above 2.693 / sqrt(N). Raises ValueError without values.
    """
    n = len(values)
    if n == 0 or not hi > lo:
        raise ValueError(f"{n} values on [{lo}, {hi}]: a test takes one value and an interval")
    f = np.clip((np.sort(np.asarray(values, dtype=np.float64)) - lo) / (hi - lo), 0.0, 1.0)
    rank = np.arange(n)
    distance = float(max(((rank + 1) / n - f).max(), (f - rank / n).max()))
    scaled = distance * math.sqrt(n)
    return Spread(D=distance, n=n, ok=scaled <= _KS_FAIL, warn=scaled > _KS_WARN)


def expected_gap(n: int, k: int) -> float:
    """Mean distance of neighbouring places when k of n slots are drawn uniformly."""
    return (n + 1) / (k + 1)


def expected_adjacent(n: int, k: int) -> float:
    """Expected number of neighbouring slots that are both drawn, k of n uniformly."""
    return k * (k - 1) / n


def none_adjacent(n: int, k: int) -> float:
    """Probability that no two of k slots, drawn uniformly from n, are neighbours."""
    return math.comb(n - k + 1, k) / math.comb(n, k)


def adjacent_golds(rows: Iterable[tuple[int, Sequence[int]]]) -> Neighbours:
    """Neighbouring golds of many rows against what uniform places give, within 5 standard errors.

    `rows` holds numbers of slots n and the distinct places of the golds. The number of runs of
    places is hypergeometric (k drawn from n, of which n - k + 1 count), which gives the variance.
    """
    found, expected, variance = 0, 0.0, 0.0
    for n, places in rows:
        k = len(places)
        taken = set(places)
        found += sum(place + 1 in taken for place in taken)
        expected += expected_adjacent(n, k)
        share = (n - k + 1) / n
        variance += k * share * (1 - share) * (n - k) / (n - 1) if n > 1 else 0.0
    error = math.sqrt(variance)
    ok = abs(found - expected) <= _STANDARD_ERRORS * error + 1e-9
    return Neighbours(found, expected, error, ok)


def answer_tokens(text: str) -> list[str]:
    """Words of `norm_answer` with articles; every character of Han, kana and Hangul for itself."""
    return _ANSWER_TOKEN.findall(norm_answer(text, keep_articles=True))


def ngram_index(texts: Iterable[str], n: int = 10) -> U64:
    """The distinct n-grams of texts as ascending numbers, uint64[m], for `ngram_hit`.

    A text of fewer than n tokens has none.
    """
    made = [_ngrams(answer_tokens(text), n) for text in texts]
    return np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *made]))


def ngram_hit(text: str, eval_index: U64, n: int = 10) -> bool:
    """Whether a text shares a run of n tokens with the texts of an index of the same n."""
    return shared_run(text, eval_index, n) is not None


def shared_run(text: str, eval_index: U64, n: int = 10) -> str | None:
    """The first n tokens in a row that a text shares with those of an index, joined by blanks."""
    if len(eval_index) == 0:
        return None
    tokens = answer_tokens(text)
    grams = _ngrams(tokens, n)
    at = np.minimum(np.searchsorted(eval_index, grams), len(eval_index) - 1)
    found = np.flatnonzero(eval_index[at] == grams)
    return " ".join(tokens[found[0] : found[0] + n]) if found.size else None


def _ngrams(tokens: Sequence[str], n: int) -> U64:
    from longctx.dedup.shingles import shingle_values

    if len(tokens) < n:
        return np.empty(0, dtype=np.uint64)
    known = {token: h64(token.encode("utf-8", "replace")) for token in set(tokens)}
    hashes = np.fromiter((known[token] for token in tokens), np.uint64, len(tokens))
    return shingle_values(hashes, n)


def key_facts(s: str) -> set[str]:
    """Numbers, and words that begin with a capital (in lower case) but for stop words, articles.

    Commas between thousands disappear; a word is a run of letters and digits.
    """
    text = unicodedata.normalize("NFKC", s)
    words = (word.lower() for word in _WORD.findall(text) if word[0].isupper())
    return _numbers(text) | {word for word in words if word not in _NOT_FACTS}


def _numbers(text: str) -> set[str]:
    return {_THOUSANDS.sub("", number) for number in _NUMBER.findall(text)}


def facts_kept(answers: Iterable[str], text: str) -> bool:
    """Whether a text that was made from answers still has the key facts of all of them.

    A fact may stand in the text without its capital. Answers in a script without capitals keep
    their numbers and half of their content words.
    """
    plain = unicodedata.normalize("NFKC", text)
    known = key_facts(text) | {word.lower() for word in _WORD.findall(plain)}
    return all(key_facts(a) <= known and _words_kept(a, text) for a in answers)


def _words_kept(answer: str, text: str) -> bool:
    has_capitals = all(unicodedata.category(char) != "Lo" for char in answer)
    return has_capitals or support(answer, text) >= 0.5


def is_extractive(answers: Iterable[str], golds: Sequence[str], others: Iterable[str]) -> bool:
    """Whether an answer stands in a gold, and none in any other text."""
    listed = list(answers)
    return any(has_answer(listed, gold) for gold in golds) and leave_gold_out(listed, others)


def is_supported(
    answer: str,
    golds: Sequence[str],
    others: Iterable[str],
    least: float = 0.6,
    margin: float = 0.2,
) -> bool:
    """Whether the joined golds hold `least` of the answer's words, and no other nearly as many.

    The best single other text must have less than that by `margin`.
    """
    own = support(answer, "\n".join(golds))
    best = max((support(answer, other) for other in others), default=0.0)
    return own >= least and own - best >= margin - 1e-9


def has_answer(answers: Iterable[str], text: str) -> bool:
    """Whether any of the answers stands in a text."""
    return any(contains_answer(answer, text) for answer in answers)


def leave_gold_out(answers: Iterable[str], others: Iterable[str]) -> bool:
    """Whether, with the golds removed, no remaining text contains an answer."""
    listed = list(answers)
    return not any(has_answer(listed, other) for other in others)
