"""What `verify` reads, and that it finds every kind of difference and names file and window."""

import pyarrow as pa
import pytest

from longctx.errors import RunError
from longctx.io.parquet_windows import parquet_bytes
from longctx.io.paths import checksum
from longctx.io.window_files import Target
from longctx.pack.formats import FORMATS
from longctx.pack.verify import Shard, pick_rows, pick_shards, verify
from longctx.schema import WINDOWS
from tests.io.packed import LENGTH, VOCABULARY, packed_windows

TARGET = Target(LENGTH, 7, VOCABULARY, "a tokenizer")


WINDOWS_60 = packed_windows().slice(0, 60)


class Output:
    """Shards of windows in every format, kept in memory."""

    def __init__(self, windows: pa.Table, cuts: list[int]) -> None:
        self.files: dict[str, bytes] = {}
        self.written: list[tuple[int, dict[str, list[str]]]] = []
        borders = [0, *cuts, len(windows)]
        for number, start in enumerate(borders[:-1]):
            table = windows.slice(start, borders[number + 1] - start)
            names = {"parquet": [f"part-{number:05d}.parquet"]}
            self.files[names["parquet"][0]] = parquet_bytes(table)
            for name in FORMATS:
                names[name] = self.add(name, table, number)
            self.written.append((len(table), names))

    def add(self, name: str, table: pa.Table, number: int) -> list[str]:
        """Write one format of a shard; the names of its files."""
        files = list(FORMATS[name].shard(table, f"{number:05d}", TARGET))
        self.files |= {f"{name}/{file.name}": file.data for file in files}
        return [f"{name}/{file.name}" for file in files]

    def shards(self) -> list[Shard]:
        """With the checksums of what is there now, as if it had been written so."""
        return [
            Shard(n, {f: {p: checksum(self.files[p]) for p in ps} for f, ps in names.items()})
            for n, names in self.written
        ]

    def verify(self, shards: list[Shard] | None = None, seed: int = 1) -> int:
        return verify(shards or self.shards(), FORMATS, TARGET, seed, self.files.__getitem__)


def test_what_was_written_passes_in_every_format():
    # Three shards: 34 windows by priority of each, and the first and last of each.
    assert 102 <= Output(packed_windows(), [60, 120]).verify() <= 108
    assert Output(WINDOWS_60.slice(0, 5), [1, 2]).verify() == 5
    assert verify([], FORMATS, TARGET, 1, {}.__getitem__) == 0


def test_first_last_and_one_more_shard_are_read():
    shards = [Shard(1, {"parquet": {str(i): ""}}) for i in range(50)]
    for seed in range(20):
        first, middle, last = pick_shards(shards, seed)
        assert (first, last) == (shards[0], shards[-1])
        assert middle in shards[1:-1]
    assert len({str(pick_shards(shards, seed)[1]) for seed in range(20)}) > 10
    assert pick_shards(shards[:2], 1) == shards[:2]


def test_first_last_and_the_windows_of_highest_priority_are_compared():
    ids = packed_windows()["window_id"].to_pylist()
    rows = pick_rows(ids, 3, 10)
    assert rows == sorted(set(rows))
    assert {0, 199} < set(rows)
    assert 10 <= len(rows) <= 12
    assert pick_rows(ids, 4, 10) != rows
    assert pick_rows([], 3, 10) == []


@pytest.mark.parametrize("name", ["parquet", *FORMATS])
def test_a_damaged_file_is_named(name: str):
    output = Output(WINDOWS_60, [9])
    shards = output.shards()
    for path in shards[1].files[name]:
        whole = output.files[path]
        middle = len(whole) // 2
        output.files[path] = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        with pytest.raises(RunError, match=f"^{path}: a committed file is damaged"):
            output.verify(shards)
        output.files[path] = whole


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_that_holds_other_windows_is_found(name: str):
    """As a fault of a writer would leave it: checksums right, one window replaced by another."""
    output = Output(WINDOWS_60, [])
    output.add(name, WINDOWS_60.take(pa.array([1, *range(1, 60)])), 0)
    first = WINDOWS_60["window_id"][0].as_py()
    with pytest.raises(RunError, match=rf"^{name}/\S+: window {first}: `\w+` is not that"):
        output.verify()


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_that_lost_a_window_is_found(name: str):
    output = Output(WINDOWS_60, [])
    output.add(name, WINDOWS_60.slice(0, 59), 0)
    with pytest.raises(RunError, match=f"^{name}/.*holds 59 windows, 60 were written"):
        output.verify()


def altered(**columns: list) -> pa.Table:
    """Three windows with some columns of the first replaced."""
    windows = packed_windows().slice(2, 3)
    for name, value in columns.items():
        at = WINDOWS.get_field_index(name)
        values = [value, *windows[name].to_pylist()[1:]]
        windows = windows.set_column(
            at, WINDOWS.field(at), pa.array(values, WINDOWS.field(at).type)
        )
    return windows


ROW = packed_windows().slice(2, 1).to_pylist()[0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"window_id": "0" * 32}, "the name is not that of the segments"),
        ({"segments": ROW["segments"][:-1]}, "the segments do not tile the window"),
        ({"segments": ROW["segments"][1:]}, "the segments do not tile the window"),
        ({"input_ids": ROW["input_ids"][:-1]}, f"it holds {len(ROW['input_ids']) - 1} tokens"),
    ],
)
def test_a_canonical_row_that_contradicts_itself_is_found(columns: dict, message: str):
    output = Output(packed_windows().slice(2, 3), [])
    output.files["part-00000.parquet"] = parquet_bytes(altered(**columns))
    with pytest.raises(RunError, match=rf"^part-00000\.parquet: window \w+: {message}"):
        output.verify()
