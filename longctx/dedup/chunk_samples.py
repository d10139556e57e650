"""Sampled shingles of the chunks of documents, which `longctx.dedup.containment` compares.

A document is cut into chunks of `chunk` consecutive tokens; a last piece below `min_last` joins the
chunk before it. A shingle belongs to the chunk of its first token and is kept when its value is
divisible by `one_in` (Broder 1997, "On the resemblance and containment of documents": the sketch
modulo m, from which containment can be estimated, as it cannot from a fixed number of minima). The
choice depends on the value alone, so a passage has the same samples wherever it stands.

Cost: the tokens and shingles of `longctx.dedup.kernel`, in one pass over the text, and 8 bytes a
sample; a chunk has about chunk / one_in of them. Lost: a chunk of few distinct shingles (one line
over and over) may have no sample at all.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from longctx.dedup.chartable import Table, char_table
from longctx.dedup.chunking import Sampling
from longctx.dedup.kernel import SLICE, rolled, scan, token_cache
from longctx.dedup.shingles import (
    normalise_by_reference,
    normalised_table,
    token_buffer,
    utf8_of,
)
from longctx.text.normalise import Profile

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
T = TypeVar("T", bound=np.generic)
Buffers = tuple[U8, U64, U64, U64]  # token, cache, hashes, values
_UNSAFE = -1


class Samples(NamedTuple):
    """Sampled shingles of n documents, one chunk after another.

    `words` int64[n], tokens of each document; `sizes` int64[sum of `chunks_of(words)`], samples of
    each chunk; `hashes` uint64[sum(sizes)], ascending and distinct inside a chunk.
    """

    words: I64
    sizes: I64
    hashes: U64


@njit(nogil=True, cache=True)
def _n_chunks(words: int, chunk: int, min_last: int) -> int:
    last = words % chunk
    return words // chunk + (last >= min_last or 0 < words < chunk)


@njit(nogil=True, cache=True)
def chunks_of(words: I64, chunk: int, min_last: int) -> I64:
    """Number of chunks of documents of so many tokens, int64 of the same shape."""
    chunks = np.empty_like(words)
    for i in range(words.size):
        chunks[i] = _n_chunks(words[i], chunk, min_last)
    return chunks


def spread(values: npt.NDArray[T], counts: I64, order: I64) -> npt.NDArray[T]:
    """Runs of `values`, of which run i has counts[i], one after another in the order given."""
    starts = np.cumsum(counts) - counts
    taken = counts[order]
    ends = np.cumsum(taken)
    total = int(ends[-1]) if ends.size else 0
    return values[np.arange(total) + np.repeat(starts[order] - (ends - taken), taken)]


def run_sums(values: I64, counts: I64) -> I64:
    """Sum of each run, of which run i has counts[i]; int64 of the shape of `counts`."""
    total = np.concatenate([[0], np.cumsum(values)])
    ends = np.cumsum(counts)
    return np.asarray(total[ends] - total[ends - counts], dtype=np.int64)


def chunk_samples(
    texts: pa.Array | Sequence[str], sampling: Sampling, profile: Profile = "text"
) -> Samples:
    """Samples of many texts by the compiled kernel. An Arrow string array is read in place.

    Equal to cutting `dedup_tokens(text, profile)` and `shingle_values` of its hashes. ValueError
    where a shingle, a chunk or the sampling is out of range.
    """
    ngram, one_in, chunk, min_last = sampling
    if not 1 <= ngram <= SLICE // 2:
        raise ValueError(f"ngram must be in 1 ... {SLICE // 2}, got {ngram}")
    if one_in < 1 or not 1 <= min_last <= chunk:
        raise ValueError(f"expected one_in >= 1 and 1 <= min_last <= chunk, got {sampling}")
    array = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
    found = _sample(array, char_table(profile), sampling)
    unsafe = np.flatnonzero(found.words == _UNSAFE)
    if not unsafe.size:
        return found
    exceptions = array.take(pa.array(unsafe)).to_pylist()
    normalised = [normalise_by_reference(text, profile) for text in exceptions]
    again = _sample(pa.array(normalised, pa.large_string()), normalised_table(), sampling)
    safe = np.flatnonzero(found.words != _UNSAFE)
    found = found._replace(words=found.words[safe])
    return in_places([(safe, found), (unsafe, again)], sampling)


def in_places(pieces: Iterable[tuple[I64, Samples]], sampling: Sampling) -> Samples:
    """Documents of several Samples in one, document i of a piece at the place places[i]."""
    none = np.empty(0, dtype=np.int64)
    pieces = [(none, Samples(none, none, none.astype(np.uint64))), *pieces]
    words, sizes, hashes = (np.concatenate(c) for c in zip(*(s for _, s in pieces), strict=True))
    chunks = chunks_of(words, sampling.chunk, sampling.min_last)
    order = np.argsort(np.concatenate([places for places, _ in pieces]))
    samples = run_sums(sizes, chunks)
    return Samples(words[order], spread(sizes, chunks, order), spread(hashes, samples, order))


def _sample(array: pa.Array, table: Table, sampling: Sampling) -> Samples:
    data, offsets = utf8_of(array)
    lengths = np.diff(offsets)
    hashes, values = np.empty((2, SLICE), dtype=np.uint64)
    buffers = (token_buffer(int(lengths.max(initial=0))), token_cache(), hashes, values)
    words = np.empty(len(array), dtype=np.int64)
    # A token takes a byte at least, so a text has no more chunks than this.
    sizes = np.empty(int((lengths // sampling.chunk + 1).sum()), dtype=np.int64)
    n_sizes, kept = _sample_all(data, offsets, table, *sampling, buffers, words, sizes)
    return Samples(words, sizes[:n_sizes].copy(), kept)


@njit(nogil=True, cache=True)
def _distinct(values: U64, begin: int, end: int) -> int:
    """Sort values[begin:end] and squeeze out what repeats; returns the new end."""
    values[begin:end].sort()
    kept = begin
    for i in range(begin, end):
        if i == begin or values[i] != values[kept - 1]:
            values[kept] = values[i]
            kept += 1
    return kept


@njit(nogil=True, cache=True)
def _close(out: U64, filled: int, open_size: int, sizes: I64, n_sizes: int) -> tuple[int, int]:
    """Enter the chunk of the last `open_size` samples; returns the fill of `out` and of `sizes`."""
    begin = filled - open_size
    filled = _distinct(out, begin, filled)
    sizes[n_sizes] = filled - begin
    return filled, n_sizes + 1


@njit(nogil=True, cache=True)
def _with_room(out: U64, needed: int) -> U64:
    """`out`, or a longer array that begins with it where it has not room for so many values."""
    if needed <= out.size:
        return out
    longer = np.empty(max(2 * out.size, needed), dtype=np.uint64)
    longer[: out.size] = out
    return longer


@njit(nogil=True, cache=True)
def _sample_text(
    data: U8,
    start: int,
    end: int,
    table: Table,
    ngram: int,
    one_in: np.uint64,
    chunk: int,
    min_last: int,
    buffers: Buffers,
    out: U64,
    filled: int,
    sizes: I64,
    n_sizes: int,
) -> tuple[int, U64, int, int]:
    """Samples of one text, added to `out`, and their number in each chunk, added to `sizes`.

    Returns its tokens (-1 if it needs the reference), `out`, and the fill of both.
    """
    token, cache, hashes, values = buffers
    words = kept = closed = 0
    begin, pos = filled, start  # `begin` is where the open chunk begins in `out`
    while pos < end:
        pos, got = scan(data, pos, end, table, token, cache, hashes, kept)
        if pos < 0:
            return -1, out, filled, n_sizes
        first = words - kept
        words += got - kept
        width = ngram if words > got or pos < end else max(1, min(ngram, got))
        made = rolled(hashes, got, width, values)
        out = _with_room(out, filled + made)
        for i in range(made):
            if values[i] % one_in:
                continue
            for _ in range((first + i) // chunk - closed):
                filled, n_sizes = _close(out, filled, filled - begin, sizes, n_sizes)
                begin, closed = filled, closed + 1
            out[filled] = values[i]
            filled += 1
        kept = min(ngram - 1, got)
        for i in range(kept):
            hashes[i] = hashes[got - kept + i]
    n_chunks = _n_chunks(words, chunk, min_last)
    if closed > 0 and closed == n_chunks:
        # What is open is too short for a chunk: open the one before it again.
        n_sizes, closed = n_sizes - 1, closed - 1
        begin -= sizes[n_sizes]
    for _ in range(n_chunks - closed):
        filled, n_sizes = _close(out, filled, filled - begin, sizes, n_sizes)
        begin = filled
    return words, out, filled, n_sizes


@njit(nogil=True, cache=True)
def _sample_all(
    data: U8,
    offsets: I64,
    table: Table,
    ngram: int,
    one_in: int,
    chunk: int,
    min_last: int,
    buffers: Buffers,
    words: I64,
    sizes: I64,
) -> tuple[int, U64]:
    """Samples of the texts data[offsets[i]:offsets[i+1]]: fills `words` and `sizes`.

    Returns the fill of `sizes` and all samples. A text that needs the reference normalisation has
    -1 words, no chunk and no sample.
    """
    out = np.empty(SLICE, dtype=np.uint64)
    filled = n_sizes = 0
    divisor = np.uint64(one_in)
    for i in range(offsets.size - 1):
        before, sizes_before = filled, n_sizes
        words[i], out, filled, n_sizes = _sample_text(
            data,
            offsets[i],
            offsets[i + 1],
            table,
            ngram,
            divisor,
            chunk,
            min_last,
            buffers,
            out,
            filled,
            sizes,
            n_sizes,
        )
        if words[i] < 0:
            filled, n_sizes = before, sizes_before
    return n_sizes, out[:filled].copy()
