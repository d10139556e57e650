"""Framed documents and the pieces they are cut into.

A framed document is prefix + text tokens + separator (Llama-3-style recipes end a document with
EOS; the prefix is for BOS). Everything in this room counts in framed tokens, so a position in a
window can always be traced to a position in one document. Cutting at L, 2L, ... follows "Fewer
Truncations" (arXiv 2404.10830); ours: a last piece of separator tokens alone is dropped, because a
window would open with an end of nothing, short last pieces can be dropped (`min_tail`), and a cut
can move back to the end of a sentence in the last tenth of its piece (`SentenceEnds`), which costs
about a twentieth of the window for each cut of a long document.

Planning needs lengths only, O(documents) time and 8 bytes each. What is lost is counted by reason
in `Plan.counts`; the audit asserts that it all adds up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from longctx.cluster.similarity import frozen

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Counts = dict[str, int]

LONG_DOCUMENTS = ("split", "truncate", "drop")


@dataclass(frozen=True)
class Placement:
    """Which span of which document lies where; rows by window, then by position in the window.

    All int64 of one length: `window` ascending, `document` the row in tour order, `start` and
    `end` half-open in framed tokens. Neighbouring spans that continue each other are one row.
    """

    window: I64
    document: I64
    start: I64
    end: I64

    @property
    def tokens(self) -> int:
        """Tokens of all spans together."""
        return int((self.end - self.start).sum())


@dataclass(frozen=True)
class Plan:
    """A placement and its token account.

    `counts` holds `tokens_in`, `tokens_placed`, one `dropped_<reason>` per reason (tokens), and the
    documents behind them: `separators_dropped`, `documents_dropped`, `empty_documents`. The
    counts of several plans add up.
    """

    placement: Placement
    counts: Counts


@dataclass(frozen=True)
class Pieces:
    """Spans of documents in tour order, none longer than a window: int64 of one length."""

    document: I64
    start: I64
    end: I64


@dataclass(frozen=True)
class SentenceEnds:
    """Where sentences end in framed documents: `values[offsets[i]:offsets[i + 1]]` in document i.

    Both int64, positions ascending in each document. Documents that are never cut need none.
    """

    offsets: I64
    values: I64

    def of(self, documents: slice) -> "SentenceEnds":
        """The ends of consecutive documents, renumbered from 0."""
        first, stop, _ = documents.indices(len(self.offsets) - 1)
        return self.take(np.arange(first, stop))

    def take(self, documents: I64) -> "SentenceEnds":
        """The ends of some documents, in this order."""
        sizes = np.diff(self.offsets)[documents]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        shift = np.repeat(self.offsets[documents] - offsets[:-1], sizes)
        return SentenceEnds(offsets, self.values[np.arange(len(shift)) + shift])


def framed_lengths(text_lengths: I64, prefix: int = 0, separator: int = 1) -> I64:
    """Framed length of each document, int64[n]; 0 (never placed) for one without text tokens.

    `prefix` and `separator` are numbers of tokens.
    """
    text = np.asarray(text_lengths, dtype=np.int64)
    return np.where(text > 0, text + prefix + separator, 0)


def frame(
    tokens: I32, offsets: I64, prefix: Sequence[int] = (), separator: Sequence[int] = ()
) -> tuple[I32, I64]:
    """Put prefix and separator ids around each document.

    `tokens` int32[total] and `offsets` int64[n + 1] hold the text; the result has the same form.
    A document without text tokens stays empty. Raises ValueError for tokens of another dtype.
    """
    require_int32(tokens)
    offsets = np.asarray(offsets, dtype=np.int64)
    text = np.diff(offsets)
    framed = framed_lengths(text, len(prefix), len(separator))
    ends = np.cumsum(framed)
    out_offsets = np.concatenate([np.zeros(1, np.int64), ends])
    out = np.empty(int(out_offsets[-1]), dtype=np.int32)
    copy_spans(tokens, offsets[:-1], text, out, out_offsets[:-1] + len(prefix))
    full = text > 0
    for i, token in enumerate(prefix):
        out[out_offsets[:-1][full] + i] = token
    for i, token in enumerate(separator):
        out[ends[full] - len(separator) + i] = token
    return out, out_offsets


def require_int32(tokens: npt.NDArray[Any]) -> None:
    """Raise ValueError unless token ids are int32: a wider id would wrap into another token."""
    if tokens.dtype != np.int32:
        raise ValueError(f"token ids must be int32, got {tokens.dtype}")


@njit(cache=True, nogil=True)
def copy_spans(source: I32, source_start: I64, length: I64, target: I32, target_start: I64) -> None:
    """Copy span i, `length[i]` tokens from `source_start[i]`, to `target_start[i]`."""
    for i in range(len(length)):
        a, b, n = source_start[i], target_start[i], length[i]
        target[b : b + n] = source[a : a + n]


def admit(lengths: I64, length: int, long_documents: str = "split") -> tuple[I64, Counts]:
    """Framed lengths that may enter windows of `length` tokens, int64[n], and what was refused.

    A document longer than a window is left for cutting (`split`), keeps its first `length` tokens
    (`truncate`) or gets length 0 (`drop`). Raises ValueError for another name.
    """
    if length < 1:
        raise ValueError(f"a window holds at least one token, got length={length}")
    if long_documents not in LONG_DOCUMENTS:
        raise ValueError(f"long_documents={long_documents!r} is none of {LONG_DOCUMENTS}")
    lengths = np.asarray(lengths, dtype=np.int64)
    counts = {"tokens_in": int(lengths.sum()), "empty_documents": int((lengths == 0).sum())}
    if long_documents == "split":
        return lengths, counts
    is_long = lengths > length
    kept = np.where(is_long, length if long_documents == "truncate" else 0, lengths)
    refused = int((lengths - kept).sum())
    if long_documents == "truncate":
        return kept, counts | {"dropped_truncated": refused}
    return kept, counts | {"dropped_long": refused, "documents_dropped": int(is_long.sum())}


def pieces(
    lengths: I64,
    length: int,
    *,
    separator: int = 0,
    min_tail: int = 1,
    long_documents: str = "split",
    ends: SentenceEnds | None = None,
) -> tuple[Pieces, Counts]:
    """Cut framed documents, `lengths` int64[n] in tour order, at L, 2L, ... framed tokens.

    With `ends` a piece that is not a document's last ends at the last sentence end in its final
    tenth, if there is one. `separator` is the number of separator tokens inside each framed length:
    trailing pieces that would hold nothing else are dropped. Then a last piece shorter than
    `min_tail` tokens is dropped. A document that fits a window is never cut nor dropped.
    """
    kept, counts = admit(lengths, length, long_documents)
    document, start = (
        _token_cuts(kept, length)
        if ends is None
        else _sentence_cuts(frozen(kept), length, frozen(ends.offsets), frozen(ends.values))
    )
    end = np.append(start[1:], 0)
    is_last = np.append(document[1:] != document[:-1], True)[: len(document)]
    end = np.where(is_last, kept[document], end[: len(document)])

    only_separator = (start > 0) & (start >= (kept - separator)[document])
    counts["dropped_separator"] = int((end - start)[only_separator].sum())
    counts["separators_dropped"] = len(np.unique(document[only_separator]))
    document, start, end = (a[~only_separator] for a in (document, start, end))

    is_last = np.append(document[1:] != document[:-1], True)[: len(document)]
    short = is_last & (start > 0) & (end - start < min_tail)
    counts["dropped_min_tail"] = int((end - start)[short].sum())
    return Pieces(*(a[~short] for a in (document, start, end))), counts


def _token_cuts(kept: I64, length: int) -> tuple[I64, I64]:
    """Document and first token of each piece, cut at multiples of `length`."""
    n_pieces = -(-kept // length)
    document = np.repeat(np.arange(len(kept)), n_pieces)
    nth = np.arange(len(document)) - np.repeat(np.cumsum(n_pieces) - n_pieces, n_pieces)
    return document, nth * length


@njit(cache=True, nogil=True)
def _sentence_cuts(kept: I64, length: int, offsets: I64, values: I64) -> tuple[I64, I64]:
    """The same with cuts moved back to a sentence end in the last tenth of a piece."""
    least = length - length // 10
    bound = 0
    for i in range(len(kept)):
        bound += kept[i] // least + 1
    document = np.empty(bound, dtype=np.int64)
    start = np.empty(bound, dtype=np.int64)
    rows = 0
    for i in range(len(kept)):
        at, end = 0, offsets[i]
        while at < kept[i]:
            document[rows], start[rows] = i, at
            rows += 1
            while end < offsets[i + 1] and values[end] <= at + length:
                end += 1
            cut = at + length
            if end > offsets[i] and values[end - 1] >= at + least and at + length < kept[i]:
                cut = values[end - 1]
            at = cut
    return document[:rows].copy(), start[:rows].copy()


def streams(tour: I32, cross_tours: bool) -> I64:
    """Borders of the streams that never share a window: int64, from 0 to len(tour).

    `tour` is the tour number of each row, rows of a tour together. One stream when windows may
    cross tours, else one for each tour.
    """
    n = len(tour)
    if cross_tours or n == 0:
        return np.array([0, n], dtype=np.int64)
    inner = np.flatnonzero(np.diff(tour)) + 1
    return np.concatenate([[0], inner, [n]]).astype(np.int64)


def pack_blocks(
    lengths: I64, length: int, *, first_token: int = 0, block_tokens: int | None = None
) -> I64:
    """Pack block of each document, int64[n]: floor(its first framed token / B).

    Blocks are the units that distributed workers pack alone. They depend on the order only, never
    on workers: `first_token` is the position of the first document in the whole order, and B =
    max(512 L, 2**26) tokens (ours), so that at most one window in 512 ends a block badly filled.
    """
    size = max(512 * length, 2**26) if block_tokens is None else block_tokens
    lengths = np.asarray(lengths, dtype=np.int64)
    return (first_token + np.cumsum(lengths) - lengths) // size
