"""From a placement and the documents' tokens to rows of `schema.WINDOWS`.

Ours. Tokens are copied once, span by span, in compiled code; ids, segments and statistics are
built column by column, so nothing runs per token in Python. Only the window's hash and (with
embeddings) its similarities run per window. Costs one copy of the tokens beside the input. Rows are
never padded: padding belongs to the trainer (`pack.boundaries`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.errors import RunError
from longctx.ids import U64, h128, mix64
from longctx.pack.frame import I32, I64, Placement, copy_spans, require_int32
from longctx.pack.similarity import F32, Similarity, similarity, window_borders
from longctx.schema import PASS, SEGMENT, WINDOW_STATS, WINDOWS

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n"})
_MAX_TOKENS = 2**31 - 1


@dataclass(frozen=True)
class FramedDocuments:
    """Documents of a placement in its numbering, with the framed tokens that are at hand.

    `tokens[offsets[i]:offsets[i + 1]]` (int32, offsets int64[n + 1]) are the framed tokens of
    document i from position `base[i]` on; `length[i]` is its whole framed length. `base` (None: 0)
    and `length` (None: all tokens are at hand) let a long document come as one span of it, which
    must include the token after the last segment. `origin[i]` (None: 0) is where a span-level row
    begins in its document. `doc_id`, `source`, `license`, `tour_id` are string arrays of length n.
    """

    doc_id: pa.Array
    source: pa.Array
    license: pa.Array
    tokens: I32
    offsets: I64
    tour_id: pa.Array | None = None
    base: I64 | None = None
    length: I64 | None = None
    origin: I64 | None = None

    def __post_init__(self) -> None:
        require_int32(self.tokens)


def flatten_lists(column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, I64]:
    """Values and offsets (int64[n + 1], from 0) of a list, large_list or fixed_size_list column.

    A sliced array's `.values` are those of the whole array, so lengths and flattening are used
    instead: any slice and any chunking give the same. A null row is an empty one.
    """
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0), dtype=np.int64)
    values = pc.list_flatten(column)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return values, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def list_values(column: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[Any], I64]:
    """`flatten_lists` of a column of numbers, as NumPy arrays."""
    values, offsets = flatten_lists(column)
    return values.to_numpy(zero_copy_only=False), offsets


def window_id(segments: Iterable[tuple[str, int, int]], number: int = 0) -> str:
    """Stable id of a window, 32 hex digits, from (doc_id, doc_start, length) of its segments.

    BLAKE2b over one tab-separated line each; tab, newline and backslash in an id are escaped. From
    pass 1 on, `number` of the pass is a line too, of two fields where segments have three: windows
    of the same documents in two passes have two names.
    """
    lines = [f"{d.translate(_ESCAPES)}\t{start}\t{length}" for d, start, length in segments]
    if number:
        lines.append(f"pass\t{number}")
    return h128("\n".join(lines).encode())


def shuffle_key(window_ids: Sequence[str], seed: int) -> U64:
    """Position keys of a seeded shuffle, uint64[n]: sort windows by (key, window_id).

    Related documents sit in adjacent windows, so a sequential reader would see correlated batches.
    """
    heads = np.fromiter((int(i[:16], 16) for i in window_ids), np.uint64, len(window_ids))
    return mix64(heads ^ np.uint64(seed))


def shuffle_windows(windows: pa.Table, seed: int) -> pa.Table:
    """Windows in the order of (`shuffle_key`, window_id)."""
    ids = windows["window_id"].to_pylist()
    return windows.take(pa.array(np.lexsort((np.asarray(ids, dtype=str), shuffle_key(ids, seed)))))


def assemble(
    placement: Placement,
    documents: FramedDocuments,
    *,
    length: int,
    embeddings: F32 | None = None,
    similarities: Similarity | None = None,
    passes: I32 | None = None,
) -> pa.Table:
    """Rows of `schema.WINDOWS`, one for each window of the placement, in its order.

    `length` is the target in tokens (for `stats.fill`). Coherence and adjacency come from
    `embeddings` float32[n, d] of unit norm, or from sums already computed; without either they
    are null. `passes` (int32[windows], the pass that each belongs to) become a column, and names
    tell them apart. Raises RunError if a segment's tokens, or the token after a cut, are not at
    hand, or if the windows hold more tokens than one `list<int32>` column can.
    """
    borders = window_borders(placement.window)
    size = placement.end - placement.start
    at = np.concatenate([np.zeros(1, np.int64), np.cumsum(size)])
    if at[-1] > _MAX_TOKENS:
        raise RunError(
            f"{at[-1]} tokens do not fit the offsets of one list<int32> column",
            where="pack",
            remedy="assemble fewer windows at a time (smaller output shards)",
        )
    if embeddings is not None:
        similarities = similarity(placement, embeddings)

    tokens = np.empty(int(at[-1]), dtype=np.int32)
    copy_spans(documents.tokens, _source_start(placement, documents), size, tokens, at[:-1])
    input_ids = pa.ListArray.from_arrays(at[borders].astype(np.int32), tokens)
    n_tokens = np.diff(at[borders])
    doc_start = placement.start.copy()
    if documents.origin is not None:
        doc_start += documents.origin[placement.document]
    doc_ids = documents.doc_id.take(pa.array(placement.document))
    columns = {
        "window_id": pa.array(_window_ids(borders, doc_ids, doc_start, size, passes), pa.string()),
        "input_ids": input_ids,
        "n_tokens": pa.array(n_tokens, pa.int32()),
        "segments": _segments(placement, documents, borders, at, doc_ids, doc_start),
        "tour_id": _tour_ids(placement, documents, borders),
        "next_token": _next_tokens(placement, documents, borders),
        "stats": _stats(placement, documents, borders, n_tokens / length, similarities),
    }
    table = pa.table(columns, schema=WINDOWS)
    return table if passes is None else table.append_column(PASS, pa.array(passes))


def _source_start(placement: Placement, documents: FramedDocuments) -> I64:
    """Where each segment's tokens begin in `documents.tokens`; RunError if some are missing."""
    document = placement.document
    base = np.zeros(len(placement.window), np.int64)
    if documents.base is not None:
        base = documents.base[document]
    start = documents.offsets[document] + placement.start - base
    end = start + placement.end - placement.start
    missing = (placement.start < base) | (end > documents.offsets[document + 1])
    if missing.any():
        i = int(missing.argmax())
        raise _absent(placement, documents, i, int(placement.start[i]), int(placement.end[i]))
    return start


def _next_tokens(placement: Placement, documents: FramedDocuments, borders: I64) -> pa.Array:
    """The framed token after each window, null where its last segment ends its document."""
    last = borders[1:] - 1
    document, end = placement.document[last], placement.end[last]
    held = documents.offsets[document + 1] - documents.offsets[document]
    base = 0 if documents.base is None else documents.base[document]
    length = held if documents.length is None else documents.length[document]
    is_cut = end < length
    missing = is_cut & (end - base >= held)
    if missing.any():
        i = int(last[missing.argmax()])
        raise _absent(placement, documents, i, int(placement.end[i]), int(placement.end[i]) + 1)
    at = np.where(is_cut, documents.offsets[document] + end - base, 0)
    values = np.zeros(len(at), np.int32)
    values[is_cut] = documents.tokens[at[is_cut]]
    return pa.array(values, mask=~is_cut)


def _absent(
    placement: Placement, documents: FramedDocuments, row: int, start: int, end: int
) -> RunError:
    doc_id = documents.doc_id[int(placement.document[row])].as_py()
    return RunError(
        f"framed tokens {start}..{end} of document {doc_id!r} for window "
        f"{int(placement.window[row])} are not at hand",
        where="pack",
        remedy="the plan and the tokens differ: was the tokenizer or the separator changed?",
    )


def _window_ids(
    borders: I64, doc_ids: pa.Array, doc_start: I64, size: I64, passes: I32 | None
) -> list[str]:
    rows = list(zip(doc_ids.to_pylist(), doc_start.tolist(), size.tolist(), strict=True))
    number = [0] * (len(borders) - 1) if passes is None else passes.tolist()
    windows = zip(pairwise(borders.tolist()), number, strict=True)
    return [window_id(rows[first:stop], k) for (first, stop), k in windows]


def _segments(
    placement: Placement,
    documents: FramedDocuments,
    borders: I64,
    at: I64,
    doc_ids: pa.Array,
    doc_start: I64,
) -> pa.Array:
    window_start = np.repeat(at[borders[:-1]], np.diff(borders))
    document = pa.array(placement.document)
    structs = pa.StructArray.from_arrays(
        [
            doc_ids.cast(pa.string()),
            pa.array(at[:-1] - window_start, pa.int32()),
            pa.array(at[1:] - window_start, pa.int32()),
            pa.array(doc_start, pa.int64()),
            documents.source.take(document).cast(pa.string()),
            documents.license.take(document).cast(pa.string()),
        ],
        fields=list(SEGMENT),
    )
    return pa.ListArray.from_arrays(borders.astype(np.int32), structs)


def _tour_ids(placement: Placement, documents: FramedDocuments, borders: I64) -> pa.Array:
    if documents.tour_id is None:
        return pa.nulls(len(borders) - 1, pa.string())
    first = placement.document[borders[:-1]]
    return documents.tour_id.take(pa.array(first)).cast(pa.string())


def _stats(
    placement: Placement,
    documents: FramedDocuments,
    borders: I64,
    fill: npt.NDArray[np.float64],
    similarities: Similarity | None,
) -> pa.Array:
    row = np.repeat(np.arange(len(borders) - 1), np.diff(borders))
    n_docs = _distinct(row, _codes(documents.doc_id)[placement.document], len(fill))
    n_sources = _distinct(row, _codes(documents.source)[placement.document], len(fill))
    n_tours = pa.nulls(len(fill), pa.int32())
    if documents.tour_id is not None:
        n_tours = _distinct(row, _codes(documents.tour_id)[placement.document], len(fill))
    nothing = np.zeros(len(fill))
    s = similarities
    columns = [
        pa.array(fill, pa.float32()),
        pa.array(n_docs, pa.int32()),
        pa.array(n_sources, pa.int32()),
        pa.array(n_tours, pa.int32()),
        _ratio(nothing, nothing) if s is None else _ratio(s.pairs_cos, s.pairs),
        _ratio(nothing, nothing) if s is None else _ratio(s.adjacent_cos, s.adjacent),
    ]
    return pa.StructArray.from_arrays(columns, fields=list(WINDOW_STATS))


def _codes(strings: pa.Array) -> I64:
    """Small numbers for strings, int64[n], a null being a value of its own."""
    return np.asarray(strings.dictionary_encode("encode").indices, dtype=np.int64)


def _distinct(row: I64, code: I64, n_rows: int) -> I64:
    """Number of distinct codes in each row's group."""
    if len(row) == 0:
        return np.zeros(n_rows, np.int64)
    width = int(code.max()) + 1
    return np.bincount(np.unique(row * width + code) // width, minlength=n_rows)


def _ratio(total: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]) -> pa.Array:
    """total / weight as float32, null where nothing was weighed."""
    empty = weight == 0
    return pa.array(total / np.where(empty, 1, weight), pa.float32(), mask=empty)
