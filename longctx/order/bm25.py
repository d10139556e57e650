"""BM25 (Robertson and Zaragoza 2009) between the documents of a corpus, in shards.

The text-based retriever of SPLICE (arXiv 2312.17296): a document is indexed whole and asks with its
first words. Weight of a word in a document: idf * f * (k1 + 1) / (f + k1 * (1 - b + b * l / mean)),
f its frequency there, l the document's length in words, idf = ln(1 + (n - df + .5) / (df + .5)).
A word that the query holds twice counts twice.

Words are runs of letters, digits, marks and underscores of the text in NFC and lower case; scripts
that are written without spaces (Chinese, Japanese, Thai, ...) give the pairs of neighbouring
characters of each run. A word is a 64-bit hash of its characters: among a million words the chance
that two are taken for one is 3e-8.

Frequencies (`Vocabulary`) are those of the whole corpus and a score is summed over the words of the
query in ascending order of their hash, so an index of some of the documents (`Index`) gives its
documents the scores that they have in an index of all. Ties go to the smaller number.

What we changed: a word of one document is in no index where documents ask, for it retrieves
nothing; a word of more than `max_df` of the documents is left out as well, for it is in most lists
and tells least. Of 5,258 English documents 0.5 leaves out 34 words: search takes 2/3 of the time,
and the best document is another for 3 % (0.1: 536 words, 1/4 of the time, 26 %).

Cost: words 45 MB/s; then each of n documents looks through the postings of its words, 70 M pairs of
documents a second: 12 CPU-seconds for the development corpus (20,659 documents, 170 MB), 4 hours
for a million. 8 bytes for each distinct word of each document of an index, 12 for each of the
vocabulary.
"""

from collections.abc import Iterable
from functools import lru_cache
from sys import maxunicode
from typing import NamedTuple
from unicodedata import category, normalize

import numba
import numpy as np
import numpy.typing as npt

from longctx.cluster.similarity import F32, I32, I64, frozen
from longctx.ids import U64
from longctx.text.normalise import UNSPACED_RANGES
from longctx.text.slices import slices

U8 = npt.NDArray[np.uint8]

FEW = 100
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_OTHER, _SPACED, _UNSPACED = range(3)


class Words(NamedTuple):
    """The words of one document: distinct hashes uint64[m], ascending; how often each occurs,
    int32[m]; and how often in the query, int32[m], which is the document's beginning."""

    words: U64
    counts: I32
    asked: I32


class Vocabulary(NamedTuple):
    """The words that all indexes know: `words` uint64[v], ascending, and their `idf` float32[v]."""

    words: U64
    idf: F32


class Index(NamedTuple):
    """Postings of some documents: those of word w are `document` int32 and `weight` float32 from
    `starts[w]` to `starts[w + 1]`; documents are 0.. inside the index."""

    starts: I64
    document: I32
    weight: F32


@lru_cache(maxsize=1)
def _kinds() -> U8:
    """Kind of every code point, uint8[0x110000]; 0.4 s, once per process."""
    kinds = np.zeros(maxunicode + 1, dtype=np.uint8)
    for code in range(maxunicode + 1):
        if category(chr(code))[0] in "LNM":
            kinds[code] = _SPACED
    kinds[ord("_")] = _SPACED
    for low, high in UNSPACED_RANGES:
        kinds[low : high + 1][kinds[low : high + 1] == _SPACED] = _UNSPACED
    return frozen(kinds)


@numba.njit(cache=True, nogil=True, inline="always")
def _mix(value, code):  # type: ignore[no-untyped-def]
    value = (value ^ np.uint64(code)) * _PRIME
    return value ^ (value >> np.uint64(32))


@numba.njit(cache=True, nogil=True)
def _cut(codes, kinds, words):  # type: ignore[no-untyped-def]
    """Hash the words of `codes` into `words` in the order of the text; returns how many."""
    filled = 0
    run = 0  # characters of the open word
    before = _OTHER
    value = np.uint64(0)
    for i in range(codes.shape[0]):
        kind = kinds[codes[i]]
        # A spaced word, or a single unspaced character, ends where the kind of character changes.
        if kind != before and run > 0 and (before == _SPACED or run == 1):
            words[filled] = value
            filled += 1
        if kind != before:
            run, value = 0, np.uint64(0)
        if kind == _SPACED:
            value = _mix(value, codes[i])
        elif kind == _UNSPACED:
            value = _mix(np.uint64(0), codes[i])
            if run > 0:
                words[filled] = _mix(_mix(np.uint64(0), codes[i - 1]), codes[i])
                filled += 1
        run += kind != _OTHER
        before = kind
    if run > 0 and (before == _SPACED or run == 1):
        words[filled] = value
        filled += 1
    return filled


def word_hashes(text: str) -> U64:
    """Hashes of the words of a text in their order, repeats kept; uint64[words]."""
    normal = normalize("NFC", text.lower())
    codes = np.frombuffer(normal.encode("utf-32-le"), dtype=np.uint32)
    words = np.empty(len(codes), dtype=np.uint64)
    return words[: _cut(codes, _kinds(), words)]


def count_words(text: str, query_words: int) -> Words:
    """The words of a document, of which the first `query_words` (repeats counted) are its query.

    A long text is counted in pieces, so memory grows with its distinct words.
    """
    words, counts, asked = [], [], []
    left = query_words
    for piece in slices(text):
        hashes = word_hashes(piece)
        found, times = np.unique(hashes, return_counts=True)
        query, query_times = np.unique(hashes[:left], return_counts=True)
        wanted = np.zeros(len(found), dtype=np.int64)
        wanted[np.searchsorted(found, query)] = query_times
        left = max(0, left - len(hashes))
        words.append(found)
        counts.append(times)
        asked.append(wanted)
    merged, (total, wanted) = _summed(words, counts, asked)
    return Words(merged, total.astype(np.int32), wanted.astype(np.int32))


def _summed(words: list[U64], *numbers: list[I64]) -> tuple[U64, list[I64]]:
    """Distinct words of several ascending lists, and the sums of what is counted of each."""
    merged, at = np.unique(np.concatenate(words), return_inverse=True)
    sums = []
    for column in numbers:
        total = np.zeros(len(merged), dtype=np.int64)
        np.add.at(total, at, np.concatenate(column))
        sums.append(total)
    return merged, sums


def document_frequencies(lists: Iterable[U64]) -> tuple[U64, I64]:
    """Distinct words uint64, ascending, and in how many documents each occurs, int64.

    `lists` holds the distinct words of documents, many documents after one another in each array.
    """
    words, counts = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
    for found in lists:
        more, times = np.unique(found, return_counts=True)
        words.append(more)
        counts.append(times)
        # Merging only when it doubles what is merged costs each word a few sorts, not one a list.
        if sum(map(len, words[1:])) >= len(words[0]):
            merged, (total,) = _summed(words, counts)
            words, counts = [merged], [total]
    merged, (total,) = _summed(words, counts)
    return merged, total


def vocabulary(words: U64, df: I64, documents: int, max_df: float, least_df: int = 2) -> Vocabulary:
    """The words that can be asked: in `least_df` documents or more, at most `max_df` of them all.

    `words` and `df` as `document_frequencies` returns them; `documents` is the size of the corpus.
    Where that is small the bound is FEW documents, not the share. Two documents are enough where
    documents ask, each of which has its own words; where questions ask, one is.
    """
    kept = (df >= least_df) & (df <= max(FEW, max_df * documents))
    df = df[kept]
    idf = np.log1p((documents - df + 0.5) / (df + 0.5)).astype(np.float32)
    return Vocabulary(words[kept], idf)


def word_numbers(words: U64, vocabulary: Vocabulary) -> I32:
    """The place of each word in the vocabulary, int32[m]; -1 where it is not in it."""
    known = vocabulary.words
    if len(known) == 0:
        return np.full(len(words), -1, dtype=np.int32)
    at = np.minimum(np.searchsorted(known, words), len(known) - 1)
    return np.where(known[at] == words, at, -1).astype(np.int32)


@numba.njit(cache=True, nogil=True)
def _sort_by_word(word, document, weight, following, documents, weights):  # type: ignore[no-untyped-def]
    """Put each posting at the next free place of its word; inside a word documents keep order."""
    for i in range(word.shape[0]):
        at = following[word[i]]
        following[word[i]] = at + 1
        documents[at], weights[at] = document[i], weight[i]


def build_index(
    bounds: I64,
    words: U64,
    counts: I32,
    lengths: I64,
    mean_length: float,
    vocabulary: Vocabulary,
    k1: float = 1.5,
    b: float = 0.75,
) -> Index:
    """Index of documents 0..m-1: words[bounds[i]:bounds[i + 1]] with `counts` are those of i.

    `lengths` int64[m] in words, and `mean_length` that of the corpus. A document's number here must
    grow with its number in the corpus: it decides ties.
    """
    word = word_numbers(words, vocabulary)
    document = np.repeat(np.arange(len(lengths), dtype=np.int32), np.diff(bounds))
    kept = word >= 0
    word, document = word[kept], document[kept]
    times = counts[kept].astype(np.float64)
    damping = k1 * (1 - b + b * lengths / max(mean_length, 1e-9))
    saturated = times * (k1 + 1) / (times + damping[document])
    weight = (vocabulary.idf[word].astype(np.float64) * saturated).astype(np.float32)
    starts = np.zeros(len(vocabulary.words) + 1, dtype=np.int64)
    starts[1:] = np.cumsum(np.bincount(word, minlength=len(vocabulary.words)))
    sorted_documents, sorted_weights = np.empty_like(document), np.empty_like(weight)
    _sort_by_word(
        frozen(word),
        frozen(document),
        frozen(weight),
        starts[:-1].copy(),
        sorted_documents,
        sorted_weights,
    )
    return Index(starts, sorted_documents, sorted_weights)


@numba.njit(cache=True, nogil=True)
def _search(  # type: ignore[no-untyped-def]
    starts, document, weight, bounds, word, asked, own, total, numbers, scores
):
    k = numbers.shape[1]
    for q in range(bounds.shape[0] - 1):
        total[:] = 0.0
        for e in range(bounds[q], bounds[q + 1]):
            times = np.float64(asked[e])
            for p in range(starts[word[e]], starts[word[e] + 1]):
                total[document[p]] += times * np.float64(weight[p])
        best, found = scores[q], numbers[q]
        best[:] = 0.0
        for i in range(total.shape[0]):
            score = np.float32(total[i])
            if score > best[k - 1] and i != own[q]:
                at = k - 1
                while at > 0 and best[at - 1] < score:
                    best[at], found[at] = best[at - 1], found[at - 1]
                    at -= 1
                best[at], found[at] = score, i


def search(
    index: Index,
    documents: int,
    bounds: I64,
    words: U64,
    asked: I32,
    own: I64,
    vocabulary: Vocabulary,
    k: int,
) -> tuple[I32, F32]:
    """The k documents of an index of `documents` with the highest scores for each query.

    Query q asks words[bounds[q]:bounds[q + 1]] (ascending in each query) `asked` times each, and
    `own` int64[q] names a document that is left out for it, its own, -1 for none. Returns numbers
    inside the index int32[q, k] and scores float32[q, k] by (score descending, number ascending);
    only documents that share a word are found, the rest is number -1 and score -inf.
    """
    numbers = np.full((len(own), k), -1, dtype=np.int32)
    scores = np.zeros((len(own), k), dtype=np.float32)
    word = word_numbers(words, vocabulary)
    kept = (word >= 0) & (asked > 0)
    before = np.concatenate([[0], np.cumsum(kept)])
    _search(
        frozen(index.starts),
        frozen(index.document),
        frozen(index.weight),
        frozen(before[bounds]),
        frozen(word[kept]),
        frozen(asked[kept]),
        frozen(own),
        np.empty(documents, dtype=np.float64),
        numbers,
        scores,
    )
    scores[numbers < 0] = -np.inf
    return numbers, scores
