import hashlib
import json
import struct

import numpy as np
import pyarrow as pa
import pytest

from longctx.errors import RunError
from longctx.io.mds import (
    config,
    cut_shards,
    encode_array,
    encode_sample,
    index_entry,
    mds_rows,
    merge_index,
    shard_bytes,
    shard_name,
)
from longctx.pack.frame import Placement
from longctx.pack.windows import FramedDocuments, assemble
from tests.io.mds_reader import read_all, read_shard
from tests.io.packed import packed_windows, two_windows

CONFIG = (
    b'{"column_encodings": ["str", "ndarray:uint32", "ndarray:uint32", "int"], '
    b'"column_names": ["domain", "indices", "input_ids", "length"], '
    b'"column_sizes": [null, null, null, 8], "compression": null, "format": "mds", '
    b'"hashes": [], "size_limit": 67108864, "version": 2}'
)
FIRST = bytes.fromhex(
    "03000000 13000000 22000000 776562 080202 00000000 05000000 05000000 08000000"
    "0408 01000000 02000000 03000000 04000000 05000000 06000000 07000000 08000000"
    "0800000000000000"
)
SECOND = bytes.fromhex(
    "04000000 0b000000 1a000000 636f6465 080102 00000000 06000000"
    "0406 09000000 0a000000 0b000000 0c000000 0d000000 2c010000 0600000000000000"
)


def files_of(windows: pa.Table, folder: str, size_limit: int):
    """Shard files and index entries of one task."""
    files, entries = {}, []
    samples = (encode_sample(row) for row in mds_rows(windows))
    for number, shard in enumerate(cut_shards(samples, size_limit)):
        name = f"{folder}/{shard_name(number)}"
        files[name] = shard_bytes(shard, size_limit)
        entries.append(index_entry(name, len(files[name]), len(shard), size_limit))
    return files, entries


def test_the_bytes_of_the_reference_writer():
    samples = [encode_sample(row) for row in mds_rows(two_windows())]
    assert samples == [FIRST, SECOND]
    data = shard_bytes(samples)
    assert struct.unpack_from("<4I", data) == (2, 279, 355, 416)
    assert data[16:279] == CONFIG
    assert len(data) == 416
    assert hashlib.sha256(data).hexdigest().startswith("2913d9fbab3fc248")


def test_the_index_of_the_specification():
    entry = index_entry(shard_name(0), 416, 2)
    text = merge_index([entry]).decode()
    assert text.startswith('{"shards": [' + CONFIG.decode()[:-1].split(', "size_limit"')[0])
    found = json.loads(text)
    assert found["version"] == 2
    assert found["shards"][0] == json.loads(CONFIG) | {
        "raw_data": {"basename": "shard.00000.mds", "bytes": 416, "hashes": {}},
        "samples": 2,
        "zip_data": None,
    }
    assert list(found["shards"][0]) == sorted(found["shards"][0])


@pytest.mark.parametrize(("second", "domain"), [("books", "books"), (None, "")])
def test_the_domain_is_the_source_of_the_first_of_the_longest_segments(second, domain):
    placement = Placement(*np.array([[0, 0, 0], [0, 1, 2], [0, 0, 0], [2, 3, 3]]))
    documents = FramedDocuments(
        doc_id=pa.array(["a", "b", "c"]),
        source=pa.array(["web", second, "code"]),
        license=pa.array(["", "", ""]),
        tokens=np.arange(8, dtype=np.int32),
        offsets=np.array([0, 2, 5, 8]),
    )
    (row,) = mds_rows(assemble(placement, documents, length=8))
    assert row["domain"] == domain


@pytest.mark.parametrize(
    ("shape", "head"),
    [
        ((255,), "04ff"),
        ((256,), "050001"),
        ((65_535,), "05ffff"),
        ((65_536,), "0600000100"),
        ((300, 2), "092c010200"),
    ],
)
def test_shape_numbers_take_the_smallest_width(shape, head):
    data = encode_array(np.zeros(shape, np.uint32))
    assert data.hex().startswith(head)
    assert len(data) == len(head) // 2 + 4 * int(np.prod(shape))


def test_empty_arrays_are_illegal():
    with pytest.raises(ValueError, match="empty"):
        encode_array(np.zeros(0, np.uint32))


def test_a_shard_never_passes_its_limit_and_could_not_take_the_next_sample():
    g = np.random.default_rng(1)
    samples = [bytes(int(n)) for n in g.integers(1, 400, 300)]
    limit = 2_000
    shards = list(cut_shards(samples, limit))
    assert [s for shard in shards for s in shard] == samples
    for shard, following in zip(shards, [*shards[1:], None], strict=True):
        assert len(shard_bytes(shard, limit)) <= limit
        if following:
            assert len(shard_bytes([*shard, following[0]], limit)) > limit


def test_a_shard_of_exactly_the_limit_is_full_but_allowed():
    head = len(json.dumps(config(1_000)))
    fits = 1_000 - head - 4 - 4 * 3 - 100
    assert len(list(cut_shards([bytes(100), bytes(fits)], 1_000))) == 1
    assert len(list(cut_shards([bytes(100), bytes(fits + 1)], 1_000))) == 2


def test_a_sample_above_the_limit_stands_alone():
    shards = list(cut_shards([b"a", bytes(5_000), b"b"], 1_000))
    assert [len(shard) for shard in shards] == [1, 1, 1]


def test_offsets_beyond_32_bits_are_refused():
    class Huge(bytes):
        def __len__(self) -> int:
            return 2**31

    with pytest.raises(RunError, match="32-bit offsets"):
        shard_bytes([Huge(), Huge()])


def test_another_reader_finds_all_200_windows_in_the_merged_sub_folders():
    windows = packed_windows()
    files, entries = files_of(windows.slice(0, 90), "p0000", 100_000)
    more_files, more_entries = files_of(windows.slice(90), "p0001", 100_000)
    assert len(files) > 1
    index = merge_index([*entries, *more_entries])
    samples = list(read_all(index, files | more_files))
    assert len(samples) == 200
    for sample, row in zip(samples, windows.to_pylist(), strict=True):
        segments = row["segments"]
        longest = max(segments, key=lambda s: s["end"] - s["start"])
        assert sample["input_ids"].tolist() == row["input_ids"]
        assert sample["indices"].tolist() == [[s["start"], s["end"]] for s in segments]
        assert sample["length"] == row["n_tokens"]
        assert sample["domain"] == longest["source"]
    assert {len(s["indices"]) for s in samples} >= {1, 300}
    assert {s["length"] for s in samples} >= {1, 2_048}


def test_chunks_and_slices_of_the_table_do_not_change_a_byte():
    windows = packed_windows()
    expected = [encode_sample(row) for row in mds_rows(windows)]
    chunked = pa.concat_tables([windows.slice(0, 3), windows.slice(3, 100), windows.slice(103)])
    assert [encode_sample(row) for row in mds_rows(chunked)] == expected
    assert [encode_sample(row) for row in mds_rows(windows.slice(5, 9))] == expected[5:14]


def test_no_windows_make_no_shard():
    assert list(cut_shards(encode_sample(row) for row in mds_rows(two_windows()[:0]))) == []
    config_found, samples = read_shard(shard_bytes([]))
    assert (config_found, samples) == (json.loads(CONFIG), [])
