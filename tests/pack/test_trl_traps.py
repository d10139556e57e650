"""The traps of TRL 1.16's packing (section 7 of the specification)."""

import numpy as np
import pyarrow as pa
import pytest

from longctx.io.parquet_windows import trl_view
from longctx.pack.frame import frame
from longctx.pack.window import pack_window
from longctx.pack.windows import FramedDocuments, assemble, list_values

ROWS = [[1, 2, 3], [4], [], [5, 6, 7, 8, 9], [10, 11], [12], [13, 14, 15]]


def pack(column) -> pa.Table:
    text, offsets = list_values(column)
    tokens, offsets = frame(text, offsets, (), (0,))
    n = len(offsets) - 1
    ids = pa.array([f"d{i}" for i in range(n)])
    plan = pack_window(np.diff(offsets), np.zeros(n, np.int32), 4, separator=1)
    return assemble(plan.placement, FramedDocuments(ids, ids, ids, tokens, offsets), length=4)


KINDS = [pa.list_(pa.int32()), pa.large_list(pa.int32())]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sliced_column_packs_like_a_copy_of_the_slice(kind):
    whole = pa.array(ROWS, kind)
    for start, size in [(3, 4), (1, 2), (0, 7), (6, 1), (2, 1)]:
        copy = pa.array(ROWS[start : start + size], kind)
        assert pack(whole.slice(start, size)).equals(pack(copy))
        assert pack(pa.table({"tokens": whole}).slice(start, size)["tokens"]).equals(pack(copy))


@pytest.mark.parametrize("kind", KINDS)
def test_any_chunking_packs_alike(kind):
    whole = pa.array(ROWS, kind)
    expected = pack(whole)
    chunked = pa.chunked_array([whole.slice(0, 3), whole.slice(3, 0), whole.slice(3, 2), whole[5:]])
    assert pack(chunked).equals(expected)
    assert expected["n_tokens"].to_numpy().sum() == 15 + 6


def test_offsets_that_do_not_start_at_zero_and_null_rows():
    lists = pa.ListArray.from_arrays(
        pa.array([2, 3, 3, 6], pa.int32()), pa.array(range(9), pa.int32())
    )
    values, offsets = list_values(lists)
    assert values.tolist() == [2, 3, 4, 5]
    assert offsets.tolist() == [0, 1, 1, 4]
    values, offsets = list_values(pa.array([[1], None, [2, 3]], pa.list_(pa.int32())))
    assert (values.tolist(), offsets.tolist()) == ([1, 2, 3], [0, 1, 1, 3])


def test_fixed_size_lists_are_read_and_lists_are_written():
    fixed = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32(), 2))
    assert pack(fixed[1:]).equals(pack(pa.array([[3, 4], [5, 6]], pa.list_(pa.int32()))))
    assert pack(fixed).schema.field("input_ids").type == pa.list_(pa.int32())


def test_rows_longer_than_a_window_lose_nothing_but_counted_separators():
    lengths = np.array([5_000, 3, 4_097 * 3, 1])
    plan = pack_window(lengths, np.zeros(4, np.int32), 4_096)
    assert plan.placement.tokens == lengths.sum()


def test_seq_lengths_sum_to_the_row_and_nothing_is_padded_or_empty():
    table = pack(pa.array(ROWS, pa.list_(pa.int32())))
    for view in (trl_view(table), trl_view(table.slice(1, 2))):
        assert view["seq_lengths"].type == pa.list_(pa.int32())
        for row in view.to_pylist():
            assert min(row["seq_lengths"]) >= 1
            assert sum(row["seq_lengths"]) == len(row["input_ids"]) <= 4
    assert trl_view(table.slice(1, 2)).equals(trl_view(table).slice(1, 2))
