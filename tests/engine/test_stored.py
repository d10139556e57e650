"""Columns of ids are stored as bytes and come back as they were."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.engine.corpus import parquet_groups
from longctx.engine.stored import packed, restored

IDS = pa.large_list(pa.int32())
rows = st.lists(st.none() | st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5), max_size=8)


@given(st.lists(rows, max_size=3), st.integers(0, 4), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_any_slice_and_chunking_comes_back(chunks: list[Any], start: int, length: int) -> None:
    column = pa.chunked_array([pa.array(chunk, IDS) for chunk in chunks], IDS)
    table = pa.table({"n": pa.nulls(len(column)), "ids": column}).slice(start, length)
    stored = packed(table)
    assert stored.schema.field("ids").type == pa.large_binary()
    back = restored(stored)
    back.validate(full=True)
    assert back.schema.equals(table.schema)
    assert back.to_pylist() == table.to_pylist()
    read = restored(pq.read_table(io.BytesIO(parquet_groups([table]))))
    assert read.schema.field("ids").type == IDS
    assert read.to_pylist() == table.to_pylist()


def test_ids_are_not_copied() -> None:
    ids = pa.array([[1, 2], None, [3]], IDS)
    stored = packed(pa.table({"ids": ids})).column(0).chunk(0)
    assert stored.buffers()[2].address == ids.values.buffers()[1].address
    assert stored.to_pylist() == [b"\1\0\0\0\2\0\0\0", None, b"\3\0\0\0"]


def test_other_columns_stay_as_they_are() -> None:
    table = pa.table({"sig": pa.array([b"abcd"], pa.large_binary()), "x": [[1.5]]})
    assert packed(table).equals(table)
    assert restored(table).equals(table)


def test_a_null_id_is_refused() -> None:
    with pytest.raises(ValueError, match="null"):
        packed(pa.table({"ids": pa.array([[1, None]], IDS)}))
