from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from longctx.io import trl
from tests.io.packed import LENGTH, VOCABULARY, packed_windows
from tests.io.window_readers import read_trl
from tests.io.written import target, write


def test_another_reader_finds_all_200_windows(tmp_path: Path):
    windows = packed_windows()
    write(trl, tmp_path, windows, target(LENGTH, VOCABULARY))
    found = read_trl(tmp_path)
    assert len(found) == 200
    for read, row in zip(found, windows.to_pylist(), strict=True):
        assert read["input_ids"] == row["input_ids"]
        assert read["seq_lengths"] == [s["end"] - s["start"] for s in row["segments"]]
        assert min(read["seq_lengths"]) >= 1
        assert sum(read["seq_lengths"]) == len(read["input_ids"])


def test_columns_are_plain_lists_of_int32(tmp_path: Path):
    write(trl, tmp_path, packed_windows(), target(LENGTH, VOCABULARY))
    schema = pq.read_schema(tmp_path / "part-00000.parquet")
    assert schema.names == ["input_ids", "seq_lengths"]
    assert all(pa.types.is_list(f.type) and f.type.value_type == pa.int32() for f in schema)
