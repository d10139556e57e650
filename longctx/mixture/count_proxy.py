"""A word bigram model instead of a language model: losses of any mixture, exactly, in microseconds.

Counts of a mixture are the weighted sum of the counts of its sources, so nothing is trained and the
true optimum can be found. With shares r and a size D a source of N_s tokens counts
k_s = r_s · D / N_s times:

    p1(x)     = (sum_s k_s c1_s(x) + alpha) / (D + alpha V)
    p2(x | a) = (sum_s k_s c2_s(a, x) + beta p1(x)) / (sum_s k_s h_s(a) + beta)

The loss of a target is the mean of -ln p2 over its bigrams. It stands in for a language model in
demonstrations, tests and benchmarks, and is no evidence about one; D scales counts, which is
repetition and not new text, so no law of steps can be read off it. (Ours.)

Costs a sort of the bigrams once; kept are only the counts that a target asks for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longctx.errors import RecipeError
from longctx.ids import h64
from longctx.text.normalise import words

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

VOCABULARY = 32_768
ALPHA, BETA = 0.1, 10.0


class WordIds:
    """Numbers of lower-case words in 0..vocabulary-1, by hash; remembers those it met."""

    def __init__(self, vocabulary: int = VOCABULARY) -> None:
        self._vocabulary = vocabulary
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> I64:
        """Ids of a text, int64 [words]."""
        found = words(text.lower())
        for word in set(found).difference(self._known):
            self._known[word] = h64(word.encode("utf-8", "surrogatepass")) % self._vocabulary
        return np.fromiter(map(self._known.__getitem__, found), dtype=np.int64, count=len(found))


@dataclass(frozen=True)
class _Target:
    """Bigrams of a target: how often each, float64 [b], and what the sources count of them.

    `pairs` float64 [m, b] are counts of the bigram, `heads` of its first word as a first word,
    `seconds` of its second word anywhere.
    """

    weight: F64
    pairs: F64
    heads: F64
    seconds: F64


@dataclass(frozen=True)
class CountProxy:
    """Losses of mixtures of m sources on some targets; made by `count_proxy`.

    `tokens` float64 [m] is what each source holds.
    """

    tokens: F64
    vocabulary: int
    alpha: float
    beta: float
    targets: tuple[_Target, ...]

    def losses(self, shares: F64, size: float | None = None) -> F64:
        """Nats per bigram of each target, float64 [targets], for shares float64 [m].

        `size` is D, by default the tokens of all sources.
        """
        D = float(self.tokens.sum()) if size is None else size
        k = np.asarray(shares, dtype=np.float64) * D / self.tokens
        return np.array([self._loss(target, k, D) for target in self.targets])

    def _loss(self, target: _Target, k: F64, D: float) -> float:
        p1 = (k @ target.seconds + self.alpha) / (D + self.alpha * self.vocabulary)
        p2 = (k @ target.pairs + self.beta * p1) / (k @ target.heads + self.beta)
        return float(-(target.weight @ np.log(p2)) / target.weight.sum())

    def optimum(self, weights: F64 | None = None) -> F64:
        """Shares float64 [m] with the lowest weighted loss at the default size."""
        from scipy.optimize import minimize

        m = len(self.tokens)
        s = np.full(len(self.targets), 1 / len(self.targets)) if weights is None else weights
        found = minimize(
            lambda r: float(s @ self.losses(np.clip(r, 1e-12, 1))),
            np.full(m, 1 / m),
            method="SLSQP",
            bounds=[(0, 1)] * m,
            constraints={"type": "eq", "fun": lambda r: float(r.sum()) - 1},
            options={"ftol": 1e-12, "maxiter": 1000},
        )
        shares: F64 = np.clip(found.x, 0, 1)
        return shares / shares.sum()


def count_proxy(
    sources: Sequence[Iterable[I64]],
    targets: Sequence[Iterable[I64]],
    vocabulary: int = VOCABULARY,
    alpha: float = ALPHA,
    beta: float = BETA,
) -> CountProxy:
    """Count sources and targets: each an iterable of documents, int64 arrays of ids below V.

    Bigrams never cross documents. Raises RecipeError for a source or a target without bigrams.
    """
    counted = [_counted(documents, vocabulary) for documents in sources]
    wanted = [_counted(documents, vocabulary)[1:3] for documents in targets]
    for kind, held in (("source", [c[1] for c in counted]), ("target", [w[0] for w in wanted])):
        for number, pairs in enumerate(held):
            if not len(pairs):
                raise RecipeError(
                    f"{kind} {number} has no two words in a row",
                    remedy=f"leave the {kind} out, or give it longer documents",
                )
    tokens = np.array([c[0].sum() for c in counted], dtype=np.float64)
    found = tuple(_target(counted, pairs, counts, vocabulary) for pairs, counts in wanted)
    return CountProxy(tokens, vocabulary, alpha, beta, found)


_Counts = tuple[I64, I64, I64, I64]


def _counted(documents: Iterable[I64], vocabulary: int) -> _Counts:
    """Counts of words int64 [V], bigrams in ascending order and their counts, first words [V]."""
    single = np.zeros(vocabulary, dtype=np.int64)
    pairs = []
    for ids in documents:
        single += np.bincount(ids, minlength=vocabulary)
        pairs.append(ids[:-1] * vocabulary + ids[1:])
    bigrams, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *pairs]), return_counts=True)
    heads = np.zeros(vocabulary, dtype=np.int64)
    np.add.at(heads, bigrams // vocabulary, counts)
    return single, bigrams, counts, heads


def _looked_up(keys: I64, counts: I64, wanted: I64) -> I64:
    """Counts of the wanted keys, 0 where there is none; keys are in ascending order."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, counts[at], 0)


def _target(counted: Sequence[_Counts], pairs: I64, counts: I64, vocabulary: int) -> _Target:
    first, second = pairs // vocabulary, pairs % vocabulary
    return _Target(
        counts.astype(np.float64),
        np.array([_looked_up(c[1], c[2], pairs) for c in counted], dtype=np.float64),
        np.array([c[3][first] for c in counted], dtype=np.float64),
        np.array([c[0][second] for c in counted], dtype=np.float64),
    )
