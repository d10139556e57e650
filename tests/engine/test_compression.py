"""Columns that do not get smaller are left as they are; all others are compressed."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longctx.engine.compression import compressions
from longctx.engine.corpus import parquet_groups
from longctx.engine.rows import as_binary

ROWS, WIDTH = 300, 64
RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)
IDS = RNG.integers(0, 30_000, (ROWS, WIDTH)).astype(np.int32)


def listed(matrix: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (listed(VECTORS), "none"),
        (as_binary(VECTORS), "none"),
        (as_binary(VECTORS).cast(pa.large_binary()), "none"),
        (as_binary(VECTORS.view(np.uint32)).cast(pa.large_binary()), "none"),
        (as_binary(IDS).cast(pa.large_binary()), "zstd"),
        (listed(np.zeros((ROWS, WIDTH), np.float32)), "zstd"),
        (pa.array(["a text"] * ROWS, pa.large_string()), "zstd"),
        (pa.array(RNG.integers(0, 2**62, ROWS)), "zstd"),
        (pa.nulls(ROWS, pa.large_binary()), "zstd"),
        (pa.nulls(ROWS, pa.list_(pa.float32(), WIDTH)), "zstd"),
        (pa.array([b""] * ROWS, pa.binary()), "zstd"),
        (listed(VECTORS)[:0], "zstd"),
    ],
)
def test_what_does_not_get_smaller_is_left_as_it_is(column: pa.Array, expected: str) -> None:
    table = pa.table({"x": column})
    assert compressions([table.slice(0, 0), table], table.schema) == {"x": expected}


def test_chunks_and_empty_tables_decide_nothing() -> None:
    whole = pa.table({"x": listed(VECTORS), "y": as_binary(IDS)})
    cut = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 7), whole.slice(8)])
    assert compressions([cut], cut.schema) == compressions([whole], whole.schema)
    assert compressions([], whole.schema) == {"x": "zstd", "y": "zstd"}


def test_the_file_has_it_and_reads_back_as_it_was() -> None:
    table = pa.table({"embedding": listed(VECTORS), "name": pa.array(["a"] * ROWS)})
    file = pq.ParquetFile(pa.BufferReader(parquet_groups([table])))
    group = file.metadata.row_group(0)
    assert [group.column(i).compression for i in range(2)] == ["UNCOMPRESSED", "ZSTD"]
    assert file.read().equals(table)
