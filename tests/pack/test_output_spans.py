import pyarrow as pa

from longctx.pack.output import _first_span


def test_spans_of_one_document_share_the_first_of_them():
    rows = pa.table({"doc_id": ["b", "a", "b", "c", "a"]})
    assert _first_span(rows).tolist() == [0, 1, 0, 3, 1]
