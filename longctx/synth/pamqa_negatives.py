"""Negatives of PAM QA (arXiv 2311.09198): passages beside the golds that answer nothing.

They come from a fused ranking (reciprocal ranks, Cormack et al. 2009) of an embedder and BM25, and
from the corpus by chance. What could answer is taken out: documents of a gold's id or title,
near-duplicates of a gold, and whatever holds an accepted answer.

What we changed: near-duplicates are found by the exact Jaccard similarity of 5-shingles, which
MinHash only estimates. Cost: one pass over the text of each candidate. Lost: negatives that
paraphrase the answer are not noticed without a judge.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.synth.checks import has_answer, norm_answer
from longctx.synth.pamqa import sanitise

U64 = npt.NDArray[np.uint64]

_RANK_OFFSET = 60
_SHINGLE = 5
_TRIES = 50  # random documents looked at for one that is wanted


class Doc(NamedTuple):
    """A document of the corpus; `cluster_id` names its near-duplicates, where that is known."""

    doc_id: str
    title: str
    text: str
    cluster_id: str | None = None


class Question(NamedTuple):
    """A question with accepted answers and the documents that answer it.

    `beside` are ids of documents that are to be neither golds nor negatives.
    """

    id: str
    question: str
    answers: Sequence[str]
    golds: Sequence[Doc]
    lang: str = "en"
    source: str = ""
    beside: Sequence[str] = ()


def fuse(rankings: Iterable[Sequence[str]]) -> list[str]:
    """Ids by the sum of 1 / (60 + rank) over rankings, best first; equal ones by their id."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, doc_id in enumerate(ranking, start=1):
            scores[doc_id] = scores.get(doc_id, 0.0) + 1 / (_RANK_OFFSET + rank)
    return sorted(scores, key=lambda doc_id: (-scores[doc_id], doc_id))


@dataclass
class Negatives:
    """Tells what can be no negative of a question, and counts why.

    `near_duplicate` is the least similarity, None where clusters of near-duplicates say it all.
    `judged` has a further say where answers are no extracts: whether a document answers.
    """

    question: Question
    near_duplicate: float | None = 0.8
    judged: Callable[[Doc], bool] | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        golds = self.question.golds
        self._ids = {*(gold.doc_id for gold in golds), *self.question.beside}
        self._titles = {norm_answer(gold.title) for gold in golds} - {""}
        self._clusters = {gold.cluster_id for gold in golds} - {None}
        self._shingles = [] if self.near_duplicate is None else [_shingles(g.text) for g in golds]

    def accepts(self, doc: Doc) -> bool:
        """Whether a document can be a negative; the first reason against it is counted."""
        reason = self._reason(doc)
        if reason:
            self.counts[reason] += 1
        return reason is None

    def _reason(self, doc: Doc) -> str | None:
        if doc.doc_id in self._ids:
            return "gold_id"
        if norm_answer(doc.title) in self._titles:
            return "gold_title"
        if doc.cluster_id in self._clusters or self._resembles(doc):
            return "near_duplicate"
        if has_answer(self.question.answers, f"{doc.title}\n{doc.text}"):
            return "holds_answer"
        if self.judged and self.judged(doc):
            return "answers"
        return None if sanitise(doc.text) else "empty"

    def _resembles(self, doc: Doc) -> bool:
        if self.near_duplicate is None:
            return False
        own = _shingles(doc.text)
        return any(_jaccard(own, gold) >= self.near_duplicate for gold in self._shingles)


def _shingles(text: str) -> U64:
    from longctx.dedup.shingles import text_shingles

    return text_shingles(text, _SHINGLE)


def _jaccard(a: U64, b: U64) -> float:
    both = np.intersect1d(a, b, assume_unique=True).size
    return both / (a.size + b.size - both) if both else 0.0


def mine(candidates: Iterable[Doc], negatives: Negatives, most: int) -> list[Doc]:
    """The first `most` candidates, in fused order, that can be negatives."""
    found: list[Doc] = []
    for doc in candidates:
        if len(found) == most:
            break
        if negatives.accepts(doc):
            found.append(doc)
    return found


def draw_random(
    rng: np.random.Generator,
    size: int,
    doc_at: Callable[[int], Doc],
    negatives: Negatives,
    taken: Iterable[str],
    n: int,
) -> list[Doc]:
    """`n` documents of a corpus of `size`, uniformly among those that can be negatives.

    Never one of `taken` (ids), none twice; fewer where 50 looks for each do not find them.
    """
    found: list[Doc] = []
    seen = set(taken)
    for place in rng.integers(size, size=_TRIES * n).tolist() if size else []:
        if len(found) == n:
            break
        doc = doc_at(place)
        if doc.doc_id not in seen:
            seen.add(doc.doc_id)
            if negatives.accepts(doc):
                found.append(doc)
    return found
