import json
from pathlib import Path

import zstandard

from longctx.io import jsonl_windows
from longctx.io.jsonl_windows import lines
from longctx.schema import WINDOWS
from tests.io.packed import LENGTH, VOCABULARY, packed_windows, two_windows
from tests.io.window_readers import read_jsonl
from tests.io.written import target, write


def test_another_reader_finds_all_200_windows_with_every_column(tmp_path: Path):
    windows = packed_windows()
    write(jsonl_windows, tmp_path, windows, target(LENGTH, VOCABULARY))
    assert read_jsonl(tmp_path) == windows.to_pylist()


def test_a_line_has_sorted_keys_and_no_spaces():
    first, second = lines(two_windows())
    assert first.startswith(b'{"input_ids":[1,2,3,4,5,6,7,8],"n_tokens":8,"next_token":null,')
    assert json.loads(second) == two_windows().to_pylist()[1]
    assert list(json.loads(second)) == sorted(WINDOWS.names)


def test_lines_come_in_bounded_batches_and_stay_the_same(monkeypatch):
    windows = packed_windows()
    expected = list(lines(windows))
    monkeypatch.setattr(jsonl_windows, "_TOKENS_AT_ONCE", 3 * LENGTH)
    assert list(lines(windows)) == expected


def test_no_windows_make_an_empty_file():
    (file,) = jsonl_windows.shard(WINDOWS.empty_table(), "00000", target(8, 500))
    assert zstandard.ZstdDecompressor().decompressobj().decompress(file.data) == b""
