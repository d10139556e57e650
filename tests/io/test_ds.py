from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from longctx.errors import RunError
from longctx.io import ds
from longctx.io.ds import document_ends, metadata, short_form, token_size
from longctx.schema import WINDOWS
from tests.io.packed import LENGTH, VOCABULARY, packed_windows, two_windows
from tests.io.window_readers import read_ds
from tests.io.written import EOS, target, write


def files(windows, to):
    return {f.name: f.data for f in ds.shard(windows, "00000", to)}


def with_next(windows: pa.Table, values: list[int | None]) -> pa.Table:
    at = WINDOWS.get_field_index("next_token")
    return windows.set_column(at, WINDOWS.field(at), pa.array(values, pa.int32()))


def test_the_bytes_of_the_specification():
    found = files(two_windows(), target(8, 500, 0))
    ids = [1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 10, 11, 12, 13, 300, 0, 0, 0]
    assert found["part-00000.ds"] == b"".join(i.to_bytes(2, "little") for i in ids)
    ends = [5, 9, 15, 18]
    assert found["part-00000.ds.index"] == b"".join(e.to_bytes(8, "little") for e in ends)
    assert found["part-00000.ds.metadata"] == b"a tokenizer|2\n18\n18.0 T"


def test_a_large_vocabulary_takes_four_bytes():
    found = files(two_windows(), target(8, 65_537, 0))
    assert found["part-00000.ds"][:8] == bytes([1, 0, 0, 0, 2, 0, 0, 0])
    assert len(found["part-00000.ds"]) == 18 * 4
    assert (token_size(65_536), token_size(65_537)) == (2, 4)


def test_the_last_token_is_the_one_that_follows_in_the_document(tmp_path: Path):
    write(ds, tmp_path, with_next(two_windows(), [42, None]), target(8, 500, 0), cut=1)
    first, second = read_ds(tmp_path, 8)
    assert first["tokens"] == [1, 2, 3, 4, 5, 6, 7, 8, 42]
    assert second["tokens"] == [9, 10, 11, 12, 13, 300, 0, 0, 0]
    assert first["positions"] == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert second["positions"] == [0, 1, 2, 3, 4, 5, 0, 1, 2]


def test_windows_of_the_length_alone_would_be_sheared(tmp_path: Path):
    (tmp_path / "part-00000.ds").write_bytes(np.array([*range(1, 17), 0, 0], "<u2").tobytes())
    (tmp_path / "part-00000.ds.index").write_bytes(np.array([8, 16, 18], "<u8").tobytes())
    (tmp_path / "part-00000.ds.metadata").write_bytes(metadata("t", 2, 18))
    assert read_ds(tmp_path, 8)[0]["tokens"] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("vocabulary", [65_536, VOCABULARY])
def test_another_reader_finds_all_200_windows(tmp_path: Path, vocabulary: int):
    windows = packed_windows(vocabulary)
    write(ds, tmp_path, windows, target(LENGTH, vocabulary))
    found = read_ds(tmp_path, LENGTH)
    assert len(found) == 200
    for read, row in zip(found, windows.to_pylist(), strict=True):
        ids, after = row["input_ids"], row["next_token"]
        padding = [EOS] * (LENGTH - len(ids))
        assert read["tokens"] == [*ids, *padding, EOS if after is None else after]
        positions = [i for s in row["segments"] for i in range(s["end"] - s["start"])]
        rest = range(len(padding) + 1) if padding else [positions[-1] + 1]
        assert read["positions"] == [*positions, *rest]


def test_ends_of_no_windows_and_of_a_full_window():
    assert document_ends(WINDOWS.empty_table(), 8).tolist() == []
    assert document_ends(two_windows().slice(0, 1), 8).tolist() == [5, 9]
    assert document_ends(two_windows(), 9).tolist() == [5, 8, 10, 16, 20]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (0, "0.00 T"),
        (18, "18.0 T"),
        (999, "999 T"),
        (1_000, "1.00 kT"),
        (27_053_502, "27.1 MT"),
        (123_456_789_012, "123 GT"),
    ],
)
def test_the_short_form_has_three_digits(tokens: int, expected: str):
    assert short_form(tokens) == expected


def test_an_id_outside_the_vocabulary_is_refused():
    with pytest.raises(RunError, match=r"position 5: token id 300 is outside 0\.\.299"):
        list(ds.shard(two_windows(), "0", target(8, 300)))
