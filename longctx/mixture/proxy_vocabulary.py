"""A vocabulary that a model of a million parameters can afford, for the recipe's tokenizer.

With the 150,000 ids of a tokenizer the embedding alone of a small model would be many times the
model. So each id becomes a class: the most frequent ids have one of their own, every other id goes
by hash to one of a few buckets (an eighth of the vocabulary), and the end of a document is class 0.
The model predicts classes; the id inside its bucket is predicted by fixed frequencies:

    -ln p(id | before) = -ln p_model(class | classes before) - ln p(id | class)

(the class model of Brown et al., 1992). The second term is the surcharge: it does not depend on the
mixture, so it moves no difference between two mixtures, and with it losses are nats per token of
the recipe's tokenizer, of proxies with any vocabulary.

Frequencies are the mean over sources of each source's own, over the documents of the pool of every
source: a large source does not take the vocabulary of a small one, and all mixtures of a table
share one map. Lost: inside a bucket the model learns nothing; `coverage` says how many tokens of
each source that concerns. (Ours; RegMix, arXiv 2407.01492, trains on all 50,432 ids.)

Costs one count of all tokens and one look-up a token.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longctx.errors import RecipeError
from longctx.ids import mix64

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

END = 0
_BUCKETS = 8
_LEAST = 64


@dataclass(frozen=True)
class Vocabulary:
    """Class of each id, int32 [ids], and its surcharge in nats, float64 [ids].

    `size` is the number of classes, `kept` the number of ids with a class of their own.
    """

    classes: I32
    surcharge: F64
    size: int
    kept: int

    @property
    def fingerprint(self) -> str:
        """Tells maps apart."""
        digest = hashlib.sha256(self.classes.tobytes() + self.surcharge.tobytes())
        return digest.hexdigest()[:32]

    @property
    def dtype(self) -> type[np.uint16] | type[np.int32]:
        """The smallest type that holds a class."""
        return np.uint16 if self.size <= 1 << 16 else np.int32


def build_vocabulary(counts: Mapping[str, tuple[I64, I64]], ids: int, size: int) -> Vocabulary:
    """The map for a tokenizer with ids below `ids`, into at most `size` classes.

    `counts` has for every source its ids and how often each occurs. Raises RecipeError for a
    vocabulary too small to be one, and where nothing was counted.
    """
    if size < _LEAST:
        raise RecipeError(
            f"a vocabulary of {size:,} classes is too small, expected {_LEAST} or more",
            where="--vocabulary",
            remedy="give more, such as 4096",
        )
    frequency = np.zeros(ids)
    total = 0
    for own, often in counts.values():
        if often.sum():
            frequency[own] += often / often.sum() / len(counts)
            total += int(often.sum())
    if not total:
        raise RecipeError(
            "the documents to train on hold no tokens", remedy="give other data, or a larger pool"
        )
    if ids <= size - 1:
        return Vocabulary(np.arange(1, ids + 1, dtype=np.int32), np.zeros(ids), ids + 1, ids)
    buckets = size // _BUCKETS
    kept = size - 1 - buckets
    order = np.argsort(-frequency, kind="stable")
    rest = np.sort(order[kept:])
    classes = np.empty(ids, dtype=np.int32)
    classes[order[:kept]] = np.arange(1, kept + 1)
    bucket = (mix64(rest.astype(np.uint64)) % np.uint64(buckets)).astype(np.int64)
    classes[rest] = 1 + kept + bucket
    seen = frequency[rest] * total + 1
    surcharge = np.zeros(ids)
    surcharge[rest] = -np.log(seen / np.bincount(bucket, seen, buckets)[bucket])
    return Vocabulary(classes, surcharge, size, kept)


def coverage(vocabulary: Vocabulary, counts: tuple[I64, I64]) -> float:
    """Share of the tokens of a source whose id has a class of its own."""
    own, often = counts
    alone = vocabulary.classes[own] <= vocabulary.kept
    return float(often[alone].sum() / max(1, often.sum()))
