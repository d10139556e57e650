import numpy as np
import pyarrow as pa
import pytest

from longctx.errors import RunError
from longctx.ids import doc_keys
from longctx.pack.rows import sentence_ends, stream_rows, tour_numbers
from longctx.schema import SPANS_TYPE


def table(*rows: tuple, spans: dict[str, list] | None = None) -> pa.Table:
    """Documents (id, tour, rank, tokens), and spans (tour, rank, start, end) by document."""
    ids, tours, ranks, tokens = (list(c) for c in zip(*rows, strict=True)) if rows else [[]] * 4
    columns = {
        "doc_id": pa.array(ids, pa.string()),
        "doc_key": doc_keys(ids),
        "tour_id": pa.array(tours, pa.string()),
        "rank": pa.array(ranks, pa.int64()),
        "n_tokens": pa.array(tokens, pa.int64()),
    }
    if spans is not None:
        names = ("tour_id", "rank", "start", "end")
        lists = [[dict(zip(names, s, strict=True)) for s in spans.get(i, [])] for i in ids]
        columns["spans"] = pa.array(lists, SPANS_TYPE)
    return pa.table(columns)


def shown(rows: pa.Table) -> list[tuple]:
    names = ("document", "tour_id", "rank", "origin", "size", "is_span")
    return [tuple(row[n] for n in names) for row in rows.to_pylist()]


def test_documents_stand_in_the_order_of_their_tours():
    documents = table(("a", "t1", 0, 5), ("b", "t0", 1, 6), ("c", "t0", 0, None))
    rows = stream_rows(documents, "pack")
    assert shown(rows) == [
        (2, "t0", 0, 0, 0, False),
        (1, "t0", 1, 0, 6, False),
        (0, "t1", 0, 0, 5, False),
    ]
    assert tour_numbers(rows).tolist() == [0, 0, 1]


def test_spans_are_rows_of_their_own_and_a_document_may_stand_in_spans_only():
    documents = table(
        ("a", None, None, 9),
        ("b", "t0", 0, 6),
        spans={"a": [("x1", 1, 0, 4), ("x0", 0, 4, 9)], "b": [("x1", 0, 2, 6)]},
    )
    assert shown(stream_rows(documents, "pack")) == [
        (1, "t0", 0, 0, 6, False),
        (0, "x0", 0, 4, 5, True),
        (1, "x1", 0, 2, 4, True),
        (0, "x1", 1, 0, 4, True),
    ]


def test_no_documents_and_no_spans():
    assert stream_rows(table(), "pack").num_rows == 0
    assert stream_rows(table(("a", "t", 0, 1), spans={}), "pack").num_rows == 1


@pytest.mark.parametrize(
    ("row", "spans"),
    [
        (("a", None, None, 9), None),
        (("a", None, None, 9), {}),
        (("a", "t3", None, 9), {"a": [("x", 0, 0, 4)]}),
        (("a", None, 7, 9), None),
    ],
)
def test_a_document_without_a_place_is_named(row, spans):
    with pytest.raises(
        RunError, match=r"document 'a' or a span of it has no place: tour (None|t3), rank"
    ) as found:
        stream_rows(table(("b", "t0", 0, 4), row, spans=spans), "05-pack")
    assert found.value.where == "05-pack"
    assert "order" in (found.value.remedy or "")


def test_a_place_taken_twice_is_named_with_both_documents():
    documents = table(("a", "t0", 4, 9), ("b", "t0", 3, 9), ("c", "t0", 4, 9))
    with pytest.raises(RunError, match=r"tour t0 has two documents at rank 4: '[ac]' and '[ac]'"):
        stream_rows(documents, "pack")
    documents = table(("a", "t0", 0, 9), spans={"a": [("t0", 0, 0, 4)]})
    with pytest.raises(RunError, match="tour t0 has two documents at rank 0: 'a' and 'a'"):
        stream_rows(documents, "pack")


@pytest.mark.parametrize("span", [(0, 10), (-1, 4), (4, 4), (6, 2), (None, 4), (2, None)])
def test_a_span_outside_its_document_is_named(span):
    documents = table(("a", "t0", 0, 9), spans={"a": [("x", 0, *span)]})
    with pytest.raises(RunError, match=r"a span of document 'a' is tokens .* of 9"):
        stream_rows(documents, "pack")


def test_a_span_without_a_tour_has_no_place():
    documents = table(("a", "t0", 0, 9), spans={"a": [(None, 0, 0, 4)]})
    with pytest.raises(RunError, match="document 'a' or a span of it has no place"):
        stream_rows(documents, "pack")


def test_sentence_ends_of_documents_and_of_spans_in_framed_tokens():
    documents = table(
        ("a", "t1", 0, 30),
        ("b", "t0", 0, 6),
        ("c", None, None, 40),
        spans={"c": [("t0", 1, 10, 25)]},
    )
    rows = stream_rows(documents, "pack")
    ends = pa.table({"document": [0, 2], "ends": [[5, 30], [8, 10, 14, 25, 31]]})
    found = sentence_ends(rows, ends, prefix=2)
    assert found.offsets.tolist() == [0, 0, 2, 4]
    assert found.values.tolist() == [4 + 2, 15 + 2, 5 + 2, 30 + 2]
    none = sentence_ends(rows, ends.slice(0, 0), prefix=0)
    assert none.offsets.tolist() == [0, 0, 0, 0]
    assert none.values.dtype == np.int64
