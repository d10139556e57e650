"""Queries that a document could answer: what Quest groups documents by.

Quest (arXiv 2405.19846) predicts them with a doc2query model (arXiv 1904.08375). A generator here
is any function from documents to lists of queries (`QueryGenerator`); `extractive` needs no model:
the title (or the first sentence), and of each segment the three sentences that are most like the
rest of it by TF-IDF (ours: a stand-in that keeps the document's own words where a model would ask a
question about them).

A document is read in at most eight segments of 512 tokens, evenly spaced, counted as four
characters a token (ours), so a long one costs no more than 16,384 characters. Sentences that a
segment's border cuts are left out where whole ones remain. `extractive` takes about 1.4 ms a
document: 12 MB/s per core where a third of the text is read, 4 MB/s where all of it is.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from longctx.order.rake import content_words
from longctx.text.chunks import evenly_spaced, snapped_span
from longctx.text.sentences import sentence_spans

SEGMENT_TOKENS = 512
MAX_SEGMENTS = 8
CENTRAL = 3
_SEGMENT_CHARS = 4 * SEGMENT_TOKENS
# From the C library, so that no vector width of a CPU can change a bit.
_LOG = np.array([0.0, *(math.log(i) for i in range(1, 2 * _SEGMENT_CHARS + 1))])

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class Document(NamedTuple):
    """What a generator may know: text, a title if there is one, stop-words of the language."""

    text: str
    title: str | None
    stop_words: frozenset[str]


class QueryGenerator(Protocol):
    """Predicts queries: a list for each document, in the order of the documents."""

    def __call__(self, documents: Sequence[Document]) -> list[list[str]]: ...


def segments(text: str) -> list[str]:
    """At most eight stretches of at most 2,048 characters, evenly spaced, cut between words."""
    starts = evenly_spaced(len(text), _SEGMENT_CHARS, MAX_SEGMENTS).tolist()
    spans = [snapped_span(text, a, min(a + _SEGMENT_CHARS, len(text))) for a in starts]
    return [text[a:b] for a, b in spans]


def extractive(documents: Sequence[Document]) -> list[list[str]]:
    """The title or first sentence, and the most central sentences of every segment."""
    return [_extract(document) for document in documents]


def _extract(document: Document) -> list[str]:
    sentences: list[str] = []
    segment_of: list[int] = []
    cut = segments(document.text)
    for number, segment in enumerate(cut):
        found = [segment[a:b] for a, b in sentence_spans(segment)]
        # The ends of a text are not cuts.
        first = 1 if number and len(found) > 2 else 0
        last = len(found) - (1 if number < len(cut) - 1 and len(found) > 2 else 0)
        sentences += found[first:last]
        segment_of += [number] * (last - first)
    spoken = [content_words(sentence, document.stop_words) for sentence in sentences]
    chosen = central(spoken, np.array(segment_of, dtype=np.int64))
    opening = [document.title] if document.title else []
    if not opening:
        opening = [s for s, said in zip(sentences, spoken, strict=True) if said][:1]
    return [*opening, *(sentences[i] for i in chosen)]


def central(sentences: Sequence[Sequence[str]], segment: I64, count: int = CENTRAL) -> list[int]:
    """Numbers of the `count` most central sentences of each segment, ascending.

    `sentences` are lists of words, `segment` int64[n] (ascending) the segment of each. Sentences
    without words are never chosen, equal ones once; ties go to the earlier.
    """
    score = centrality(sentences, segment)
    chosen: list[int] = []
    best = np.lexsort((np.arange(len(score)), -score, segment))
    for members in np.split(best, np.flatnonzero(np.diff(segment)) + 1):
        seen: set[tuple[str, ...]] = set()
        for number in members.tolist():
            said = tuple(sentences[number])
            if said and said not in seen and len(seen) < count:
                seen.add(said)
                chosen.append(number)
    return sorted(chosen)


def centrality(sentences: Sequence[Sequence[str]], segment: I64) -> F64:
    """Summed TF-IDF cosine of each sentence with the others of its segment, float64[n].

    The weight of a word is tf · ln(1 + n / df), with n the sentences of the segment and df those
    that have the word; 0 for a sentence without words.
    """
    n = len(sentences)
    ids: dict[str, int] = {}
    word = [ids.setdefault(w, len(ids)) for sentence in sentences for w in sentence]
    if not word:
        return np.zeros(n)
    sizes = np.fromiter((len(s) for s in sentences), dtype=np.int64, count=n)
    v = len(ids)
    pair, tf = np.unique(np.repeat(np.arange(n), sizes) * v + np.array(word), return_counts=True)
    row, column = np.divmod(pair, v)
    _, term, df = np.unique(segment[row] * v + column, return_inverse=True, return_counts=True)
    among = np.bincount(segment)[segment[row]]
    weight = tf * (_LOG[among + df[term]] - _LOG[df[term]])
    norm = np.sqrt(np.bincount(row, weight * weight, n))
    weight /= norm[row]
    total = np.bincount(term, weight)
    return np.bincount(row, weight * total[term], n).astype(np.float64) - (sizes > 0)
