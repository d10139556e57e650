import io
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longctx.errors import RunError
from longctx.io.parquet_windows import check_ids, parquet_bytes, row_groups
from longctx.schema import WINDOWS
from tests.io.packed import LENGTH, VOCABULARY, packed_windows

READER = """
import json, sys
import pyarrow.parquet as pq
rows = pq.read_table(sys.argv[1]).to_pylist()
json.dump(rows, sys.stdout)
"""


def test_pyarrow_in_a_new_process_reads_every_row(tmp_path):
    windows = packed_windows()
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(parquet_bytes(windows))
    out = subprocess.run(
        [sys.executable, "-c", READER, str(path)], capture_output=True, check=True, text=True
    )
    read = pa.Table.from_pylist(json.loads(out.stdout), schema=WINDOWS)
    assert read.equals(windows)
    assert {1, LENGTH} <= set(windows["n_tokens"].to_pylist())
    assert max(len(s) for s in windows["segments"].to_pylist()) == 300


def test_schema_compression_and_plain_token_ids():
    data = parquet_bytes(packed_windows())
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.schema_arrow.equals(WINDOWS)
    columns = [file.metadata.row_group(0).column(i) for i in range(file.metadata.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    (ids,) = (c for c in columns if c.path_in_schema.startswith("input_ids"))
    assert "RLE_DICTIONARY" not in ids.encodings


def test_equal_tables_give_equal_bytes_whatever_their_chunks():
    windows = packed_windows()
    expected = parquet_bytes(windows)
    chunked = pa.concat_tables([windows.slice(0, 3), windows.slice(3, 100), windows.slice(103)])
    assert parquet_bytes(packed_windows()) == expected
    assert parquet_bytes(chunked) == expected


def test_row_groups_hold_at_most_the_limit_and_a_longer_row_stands_alone():
    groups = row_groups(np.array([4, 6, 1, 20, 3, 7, 1]), 10)
    assert [(g.start, g.stop) for g in groups] == [(0, 2), (2, 3), (3, 4), (4, 6), (6, 7)]
    assert row_groups(np.zeros(0, np.int64), 10) == []


def test_a_file_has_the_row_groups_of_its_tokens():
    windows = packed_windows()
    metadata = pq.ParquetFile(io.BytesIO(parquet_bytes(windows, 20_000))).metadata
    assert metadata.num_row_groups == len(row_groups(windows["n_tokens"].to_numpy(), 20_000)) > 3


def test_no_windows_still_make_a_file_with_the_schema():
    table = pq.read_table(io.BytesIO(parquet_bytes(WINDOWS.empty_table())))
    assert table.schema == WINDOWS
    assert len(table) == 0


def test_ids_within_the_vocabulary_pass():
    check_ids(packed_windows(), VOCABULARY)
    check_ids(WINDOWS.empty_table(), 1)


def test_an_id_outside_the_vocabulary_names_window_position_id_and_limit():
    windows = packed_windows()
    row, position = next(
        (i, ids.index(VOCABULARY - 1))
        for i, ids in enumerate(windows["input_ids"].to_pylist())
        if VOCABULARY - 1 in ids and i >= 1
    )
    name = windows["window_id"][row].as_py()
    expected = (
        f"window {name}, position {position}: token id {VOCABULARY - 1} "
        f"is outside 0..{VOCABULARY - 2}"
    )
    with pytest.raises(RunError, match=expected):
        check_ids(windows.slice(1), VOCABULARY - 1)


def test_a_negative_id_is_outside_too():
    windows = packed_windows().slice(5, 2)
    ids = [list(row) for row in windows["input_ids"].to_pylist()]
    ids[1][4] = -1
    column = pa.array(ids, pa.list_(pa.int32()))
    windows = windows.set_column(1, WINDOWS.field("input_ids"), column)
    with pytest.raises(RunError, match=r"position 4: token id -1 is outside 0\.\.151935"):
        check_ids(windows, VOCABULARY)
