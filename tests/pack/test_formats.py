import pyarrow as pa
import pytest

from longctx.io.window_files import Target
from longctx.pack.formats import FORMATS, chosen, is_ours
from longctx.recipe import Output
from longctx.schema import WINDOWS
from tests.io.packed import LENGTH, VOCABULARY, packed_windows

TARGET = Target(LENGTH, 7, VOCABULARY, "a tokenizer")


def test_a_recipe_can_name_every_format_and_no_other():
    names = Output.model_json_schema()["properties"]["format"]["items"]["enum"]
    assert set(names) == {"parquet", *FORMATS}


def test_the_order_and_the_repetition_of_names_change_nothing():
    assert list(chosen(["mds", "parquet", "ds", "mds"])) == ["ds", "mds"]
    assert chosen(["parquet"]) == {}


@pytest.mark.parametrize("name", FORMATS)
def test_files_are_known_as_ours_and_no_others(name: str):
    module = FORMATS[name]
    files = list(module.shard(packed_windows(), "00012", TARGET))
    merged = module.merge([file.note for file in files if file.note], TARGET)
    for below in [*(file.name for file in files), *merged]:
        assert is_ours(f"{name}/{below}")
        assert not is_ours(below)
        assert not is_ours(f"mine/{below}")
        assert not is_ours(f"{name}/{below}.bak")
    assert not is_ours(f"{name}/notes.txt")


@pytest.mark.parametrize("name", FORMATS)
def test_equal_windows_give_equal_bytes_whatever_their_chunks(name: str):
    windows = packed_windows()
    expected = [(f.name, f.data, f.rows) for f in FORMATS[name].shard(windows, "00000", TARGET)]
    chunked = pa.concat_tables([windows.slice(0, 3), windows.slice(3, 100), windows.slice(103)])
    again = FORMATS[name].shard(chunked, "00000", TARGET)
    assert [(f.name, f.data, f.rows) for f in again] == expected


@pytest.mark.parametrize("name", FORMATS)
def test_no_windows_are_described_as_none(name: str):
    module = FORMATS[name]
    notes = [f.note for f in module.shard(WINDOWS.empty_table(), "00000", TARGET) if f.note]
    assert module.describe(notes, TARGET)["windows"] == 0
    assert isinstance(module.merge([], TARGET), dict)
