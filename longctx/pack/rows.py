"""The stream that is packed: documents and spans of documents in the order of their tours.

A document stands in one tour; spans of it (`schema.SPANS_TYPE`, from orders that quote sentences)
may stand in others. Every span becomes a row of its own, framed like a document, and remembers
where it begins in its document. A document without a tour but with spans stands in its spans only.
O(rows log rows).
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.errors import RunError
from longctx.pack.frame import I32, I64, SentenceEnds
from longctx.pack.stream import MIXTURE
from longctx.pack.windows import flatten_lists
from longctx.schema import SPANS_TYPE

_KEYS = ("tour_id", "rank", "doc_key", "origin", "size")


def stream_rows(documents: pa.Table, where: str) -> pa.Table:
    """Rows of the stream in the order of tours: one for each document with a tour, each span.

    `documents` has `doc_id`, `doc_key`, `tour_id`, `rank`, `n_tokens` and, where an order wrote
    them, `spans`. The result has `document` (row of `documents`, int64), `doc_key`, `tour_id`,
    `rank`, `origin` and `size` (text tokens from `origin` on, int64) and `is_span`, and the columns
    of a mixture that the documents have.

    Raises RunError, `where` naming the stage, for a document without a place, a place taken twice,
    and a span that is not inside its document.
    """
    n = documents.num_rows
    text = np.asarray(documents["n_tokens"].fill_null(0), dtype=np.int64)
    spans, offsets = _spans(documents)
    placed = pc.and_(documents["tour_id"].is_valid(), documents["rank"].is_valid())
    alone: npt.NDArray[np.bool_] = np.asarray(placed)
    of_span = np.repeat(np.arange(n), np.diff(offsets))
    _assert_placed(documents, alone, spans, of_span, where)
    own = np.flatnonzero(alone)
    document = np.concatenate([own, of_span])
    start, end = (
        np.asarray(spans.field(name).fill_null(-1), dtype=np.int64) for name in ("start", "end")
    )
    _assert_inside(documents, of_span, start, end, text, where)
    tour = pa.chunked_array(
        [*documents["tour_id"].take(pa.array(own)).chunks, spans.field("tour_id")], pa.string()
    )
    rank = pa.chunked_array(
        [*documents["rank"].take(pa.array(own)).cast(pa.int64()).chunks, spans.field("rank")],
        pa.int64(),
    )
    rows = pa.table(
        {
            "document": document,
            "doc_key": documents["doc_key"].take(pa.array(document)),
            "tour_id": tour,
            "rank": rank,
            "origin": np.concatenate([np.zeros(len(own), np.int64), start]),
            "size": np.concatenate([text[own], end - start]),
            "is_span": np.arange(len(document)) >= len(own),
            **{
                name: documents[name].take(pa.array(document))
                for name in MIXTURE
                if name in documents.column_names
            },
        }
    )
    return in_tour_order(documents, rows, where)


def in_tour_order(documents: pa.Table, rows: pa.Table, where: str) -> pa.Table:
    """Rows of the stream sorted by their places. Raises RunError for a place that is taken twice.

    `document` of `rows` is the row of `documents`, which has `doc_id`.
    """
    rows = rows.sort_by([(name, "ascending") for name in _KEYS]).combine_chunks()
    _assert_single(documents, rows, where)
    return rows


def tour_numbers(rows: pa.Table) -> I32:
    """Consecutive numbers of the tours of sorted rows, int32[n]."""
    codes = rows["tour_id"].combine_chunks().dictionary_encode()
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    return codes.indices.to_numpy(zero_copy_only=False).astype(np.int32)


def sentence_ends(rows: pa.Table, ends: pa.Table, prefix: int) -> SentenceEnds:
    """Sentence ends of the rows of a stream in framed tokens.

    `ends` has `document` (int64, ascending) and `ends` (list<int64>, tokens of the document's text)
    for the documents that may be cut; other rows get none. A span gets those inside it.
    """
    values, offsets = flatten_lists(ends["ends"])
    number = values.to_numpy(zero_copy_only=False).astype(np.int64)
    known = np.asarray(ends["document"], dtype=np.int64)
    origin, size = (np.asarray(rows[name], dtype=np.int64) for name in ("origin", "size"))
    at = np.searchsorted(known, rows["document"])
    found: list[I64] = []
    counts = np.zeros(rows.num_rows, dtype=np.int64)
    has = np.append(known, -1)[np.minimum(at, len(known))] == np.asarray(rows["document"])
    for i in np.flatnonzero(has):
        own = number[offsets[at[i]] : offsets[at[i] + 1]] - origin[i]
        inside = own[(own > 0) & (own <= size[i])]
        found.append(inside + prefix)
        counts[i] = len(inside)
    return SentenceEnds(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        np.concatenate([np.zeros(0, np.int64), *found]),
    )


def _spans(documents: pa.Table) -> tuple[pa.StructArray, I64]:
    if "spans" not in documents.column_names:
        none = pa.array([], SPANS_TYPE.value_type)
        return none, np.zeros(documents.num_rows + 1, dtype=np.int64)
    return flatten_lists(documents["spans"].cast(SPANS_TYPE))


def _assert_placed(
    documents: pa.Table,
    alone: npt.NDArray[np.bool_],
    spans: pa.StructArray,
    of_span: I64,
    where: str,
) -> None:
    lost = np.asarray(documents["tour_id"].is_valid()) ^ np.asarray(documents["rank"].is_valid())
    lost |= ~alone & (np.bincount(of_span, minlength=len(alone)) == 0)
    unplaced = pc.or_(spans.field("tour_id").is_null(), spans.field("rank").is_null())
    lost[of_span[np.asarray(unplaced)]] = True
    if lost.any():
        row = documents.slice(int(lost.argmax()), 1).to_pylist()[0]
        raise RunError(
            f"document {row['doc_id']!r} or a span of it has no place: tour {row['tour_id']}, "
            f"rank {row['rank']}",
            where=where,
            remedy="an order gives every document a tour_id and a rank, or spans; remove the "
            "order's stage folder and run again, or drop the document before the order",
        )


def _assert_inside(
    documents: pa.Table, of_span: I64, start: I64, end: I64, text: I64, where: str
) -> None:
    bad = (start < 0) | (start >= end) | (end > text[of_span])
    if bad.any():
        i = int(bad.argmax())
        row = int(of_span[i])
        raise RunError(
            f"a span of document {documents['doc_id'][row].as_py()!r} is tokens {start[i]} to "
            f"{end[i]} of {text[row]}",
            where=where,
            remedy="spans count tokens of the document's text; was another tokenizer used for the "
            "order?",
        )


def _assert_single(documents: pa.Table, rows: pa.Table, where: str) -> None:
    tour, rank = tour_numbers(rows), np.asarray(rows["rank"])
    same = (tour[1:] == tour[:-1]) & (rank[1:] == rank[:-1])
    if same.any():
        i = int(same.argmax())
        first, second = (
            documents["doc_id"][rows["document"][k].as_py()].as_py() for k in (i, i + 1)
        )
        raise RunError(
            f"tour {rows['tour_id'][i].as_py()} has two documents at rank {rank[i]}: "
            f"{first!r} and {second!r}",
            where=where,
            remedy="a rank is a place of one document or span; correct the order that wrote it",
        )
