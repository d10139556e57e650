"""How much of a document other documents hold, chunk by chunk.

Jaccard similarity is blind to containment: a chapter that is a tenth of a book has J = 0.1. Here a
chunk of a document A is covered by a document B where B holds a share `tau` of the chunk's sampled
shingles (`longctx.dedup.chunk_samples`), wherever in B they stand, so the chunks of B and an offset
play no part. The coverage of A by B is the share of A's words in chunks that B covers. The estimate
is Broder's containment from samples (1997); chunks, coverage and the rule are ours, because MinHash
of fixed windows fails at what is wanted: a copy shifted by half a window has J = 1/3.

Shingles that more than `max_df` documents hold are common: licences, headings, templates. They
count for a chunk's common share and are never expanded into pairs, so a shingle costs at most
max_df rows for each document that holds it, whatever the corpus.

Cost: a lookup for each sample, and for each shared one the documents that share it. Lost: the
estimate from 32 samples has a standard deviation of up to 0.09, so chunks near `tau` fall on either
side (the same one in every run); where every tenth word was changed, 0.59 of the shingles survive
and about half of the chunks are found; chunks of fewer than `min_samples` samples, and documents
of fewer than `min_last` words, are never covered.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from longctx.dedup.chunk_samples import Samples, chunk_samples, chunks_of, run_sums, spread
from longctx.dedup.chunking import Grid, Sampling
from longctx.text.normalise import Profile

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

_ROW_BITS = 32


class Meetings(NamedTuple):
    """Shingles that several documents hold, once for each part that has one of them.

    Sorted by (shingle, part): `shingles` uint64[m], `parts` int32[m] and `counts` int64[m], how
    many of `documents` int64[sum(counts)] hold it, ascending; 0 where the shingle is common.
    """

    shingles: U64
    parts: I32
    counts: I64
    documents: I64


class Coverage(NamedTuple):
    """What other documents hold of n documents.

    Pairs sorted by (document, other): `document` int64[m] (0 ... n-1), `other` int64[m], an
    address, and `words` and `chunks` int64[m] that it covers. `any_words` and `common_words`
    int64[n]: words in chunks that some other document covers, and in chunks that are common.
    """

    document: I64
    other: I64
    words: I64
    chunks: I64
    any_words: I64
    common_words: I64


def address(part: int | I32, row: I32) -> I64:
    """Documents as one number each, by part and row in it; in the order of both."""
    return (np.asarray(part, dtype=np.int64) << _ROW_BITS) + row


def part_of(documents: I64) -> I32:
    """The part of each address."""
    return (documents >> _ROW_BITS).astype(np.int32)


def row_of(documents: I64) -> I32:
    """The row in its part of each address."""
    return (documents & ((1 << _ROW_BITS) - 1)).astype(np.int32)


def distinct_samples(shingle: U64, document: I64, most: int) -> tuple[U64, I64]:
    """Rows (shingle, document) sorted, without repeats, and of no shingle more than `most`.

    For the rows of one part: with most = max_df + 1 what is common stays so, and a template that
    every document holds brings a hundred rows from each part instead of all.
    """
    order = np.lexsort((document, shingle))
    shingle, document = shingle[order], document[order]
    new = _changes(shingle) | _changes(document)
    shingle, document = shingle[new], document[new]
    starts, counts = _runs(shingle)
    few = np.arange(shingle.size) - np.repeat(starts, counts) < most
    return shingle[few], document[few]


def meetings(shingle: U64, document: I64, max_df: int) -> Meetings:
    """Who meets whom, from the `distinct_samples` of all parts, in any order.

    Whoever holds a shingle must be among the rows, up to `distinct_samples`' limit for each part.
    """
    order = np.argsort(shingle)
    _, counts = _runs(shingle[order])
    # Most shingles are held by one document: only the others are worth a second sort.
    order = order[np.repeat(counts > 1, counts)]
    order = order[np.lexsort((document[order], shingle[order]))]
    shingle, document = shingle[order], document[order]
    starts, counts = _runs(shingle)
    group = np.repeat(np.arange(starts.size), counts)
    parts = part_of(document)
    named = np.flatnonzero(_changes(group) | _changes(parts))
    told = np.where(counts > max_df, 0, counts)
    documents = spread(document[(told > 0)[group]], told, group[named])
    return Meetings(shingle[named], parts[named], told[group[named]], documents)


def _changes(ordered: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """True where a value differs from the one before it, and at the first."""
    new = np.ones(ordered.size, dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return new


def _runs(ordered: npt.NDArray[np.generic]) -> tuple[I64, I64]:
    """Starts and lengths of the runs of equal values."""
    starts = np.flatnonzero(_changes(ordered))
    return starts, np.diff(starts, append=ordered.size)


def containment(
    texts: pa.Array | Sequence[str],
    sampling: Sampling,
    grid: Grid,
    max_df: int = 100,
    profile: Profile = "text",
) -> tuple[Samples, Coverage]:
    """Who covers whom among texts in memory; `other` is a number of a text, as `document` is."""
    held = chunk_samples(texts, sampling, profile)
    chunks = chunks_of(held.words, sampling.chunk, sampling.min_last)
    own = address(0, np.arange(held.words.size, dtype=np.int32))
    document = np.repeat(own, run_sums(held.sizes, chunks))
    rows = distinct_samples(held.hashes, document, max_df + 1)
    return held, coverage(held, own, meetings(*rows, max_df), grid)


def coverage(samples: Samples, own: I64, met: Meetings, grid: Grid) -> Coverage:
    """What other documents hold of the documents of one part.

    `own` int64[n] are the addresses of the documents of `samples`, `met` the rows of their part.
    """
    order = np.argsort(met.shingles)
    known, counts = met.shingles[order], met.counts[order]
    others = spread(met.documents, met.counts, order)
    starts = np.concatenate([[0], np.cumsum(counts)])
    at = np.searchsorted(known, samples.hashes)
    at[np.append(known, np.uint64(0))[at] != samples.hashes] = -1
    at[at == known.size] = -1
    chunks = chunks_of(samples.words, grid.chunk, grid.min_last)
    totals = np.zeros((2, own.size), dtype=np.int64)
    found = _cover(samples.words, chunks, samples.sizes, at, starts, others, own, grid, totals)
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    new = np.flatnonzero(_changes(found[:, 0]) | _changes(found[:, 1]))
    n_chunks = np.diff(new, append=len(found))
    words = run_sums(found[:, 2], n_chunks)
    return Coverage(found[new, 0], found[new, 1], words, n_chunks, *totals)


def self_covered(samples: Samples, grid: Grid) -> I64:
    """Words in chunks of whose samples a share tau stands in earlier chunks too, int64[n]."""
    chunks = chunks_of(samples.words, grid.chunk, grid.min_last)
    return _cover_self(samples.words, chunks, samples.sizes, samples.hashes, grid)


def evaluated(samples: Samples, grid: Grid) -> I64:
    """Number of chunks that have enough samples to be judged, int64[n]."""
    chunks = chunks_of(samples.words, grid.chunk, grid.min_last)
    return run_sums((samples.sizes >= grid.min_samples).astype(np.int64), chunks)


@njit(nogil=True, cache=True)
def _words_of(k: int, n_chunks: int, words: int, chunk: int) -> int:
    """Words of chunk k of a document."""
    return chunk if k < n_chunks - 1 else words - k * chunk


@njit(nogil=True, cache=True)
def _covering(at: I64, starts: I64, others: I64, own: int, tau: float) -> I64:
    """Other documents that hold a share tau of the samples of one chunk, ascending."""
    shared = rows = 0
    for i in at:
        if i >= 0:
            shared += starts[i + 1] > starts[i]
            rows += starts[i + 1] - starts[i]
    met = np.empty(rows, dtype=np.int64)
    if shared / at.size < tau:
        return met[:0]
    filled = 0
    for i in at:
        if i >= 0:
            for j in range(starts[i], starts[i + 1]):
                met[filled] = others[j]
                filled += others[j] != own
    met[:filled].sort()
    found = begin = 0
    for i in range(filled):
        if i + 1 == filled or met[i + 1] != met[i]:
            if (i + 1 - begin) / at.size >= tau:
                met[found] = met[i]
                found += 1
            begin = i + 1
    return met[:found]


@njit(nogil=True, cache=True)
def _common_share(at: I64, starts: I64) -> float:
    """Share of the samples of one chunk that are common."""
    common = 0
    for i in at:
        common += i >= 0 and starts[i + 1] == starts[i]
    return common / at.size


@njit(nogil=True, cache=True)
def _cover(
    words: I64,
    chunks: I64,
    sizes: I64,
    at: I64,
    starts: I64,
    others: I64,
    own: I64,
    grid: Grid,
    totals: I64,
) -> I64:
    """Rows (document, other, words) for every chunk of one that the other covers.

    at[i] is the number of sample i among the shared shingles, or -1; starts and others are the
    documents of each of those. Adds words to totals[0] (any other) and totals[1] (common).
    """
    found = np.empty((64, 3), dtype=np.int64)
    filled = chunk = end = 0
    for d in range(words.size):
        for k in range(chunks[d]):
            begin, end = end, end + sizes[chunk]
            chunk += 1
            if end - begin < grid.min_samples or words[d] < grid.min_last:
                continue
            size = _words_of(k, chunks[d], words[d], grid.chunk)
            if _common_share(at[begin:end], starts) >= grid.tau:
                totals[1, d] += size
            covering = _covering(at[begin:end], starts, others, own[d], grid.tau)
            if covering.size:
                totals[0, d] += size
            if filled + covering.size > len(found):
                longer = np.empty((2 * len(found) + covering.size, 3), dtype=np.int64)
                longer[:filled] = found[:filled]
                found = longer
            for other in covering:
                found[filled] = d, other, size
                filled += 1
    return found[:filled].copy()


@njit(nogil=True, cache=True)
def _cover_self(words: I64, chunks: I64, sizes: I64, hashes: U64, grid: Grid) -> I64:
    """Words of the chunks that earlier chunks of the same document cover."""
    covered = np.zeros(words.size, dtype=np.int64)
    chunk = end = 0
    for d in range(words.size):
        first = end
        end += sizes[chunk : chunk + chunks[d]].sum()
        seen = _seen_before(hashes[first:end])
        begin = 0
        for k in range(chunks[d]):
            size = sizes[chunk + k]
            share = seen[begin : begin + size].sum() / max(1, size)
            if size >= grid.min_samples and share >= grid.tau:
                covered[d] += _words_of(k, chunks[d], words[d], grid.chunk)
            begin += size
        chunk += chunks[d]
    return covered


@njit(nogil=True, cache=True)
def _seen_before(values: U64) -> npt.NDArray[np.bool_]:
    """True where an equal value stands before."""
    seen = np.zeros(values.size, dtype=np.bool_)
    order = np.argsort(values, kind="mergesort")  # stable, so the first of equals comes first
    for i in range(1, values.size):
        seen[order[i]] = values[order[i]] == values[order[i - 1]]
    return seen
