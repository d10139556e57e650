import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from longctx.io import webdataset
from longctx.io.webdataset import cut_tars, samples, tar_bytes
from longctx.schema import WINDOWS
from tests.io.packed import LENGTH, VOCABULARY, packed_windows, two_windows
from tests.io.window_readers import read_webdataset
from tests.io.written import target, write


def ustar(name: str, content: bytes) -> bytes:
    """A member by POSIX 1003.1: 512 bytes of header, content, zeros up to the next 512."""
    fields = [
        name.encode().ljust(100, b"\0"),
        b"0000444\0",
        b"0000000\0" * 2,
        b"%011o\0" % len(content),
        b"%011o\0" % 0,
        b" " * 8,
        b"0" + bytes(100),
        b"ustar\x0000" + bytes(64),
        bytes(8 + 8 + 155 + 12),
    ]
    total = sum(b"".join(fields))
    fields[5] = b"%06o\0 " % total
    return b"".join(fields) + content + bytes(-len(content) % 512)


def npy(kind: str, size: int, values: bytes) -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({size},), }}"
    return b"\x93NUMPY\x01\x00\x76\x00" + text.ljust(117).encode() + b"\n" + values


def test_members_are_those_that_the_standards_describe():
    (file,) = webdataset.shard(two_windows().slice(0, 1), "00000", target(8, 500))
    ids = npy("<u4", 8, b"".join(i.to_bytes(4, "little") for i in range(1, 9)))
    sizes = npy("<i4", 2, b"".join(i.to_bytes(4, "little") for i in (5, 3)))
    text = dict(next(samples(two_windows())))["json"]
    contents = {"input_ids.npy": ids, "json": text, "seq_lengths.npy": sizes}
    expected = b"".join(ustar(f"000000.{suffix}", data) for suffix, data in contents.items())
    assert file.data == expected.ljust(10_240, b"\0")


def test_the_tar_of_the_specification():
    (file,) = webdataset.shard(two_windows(), "00000", target(8, 500))
    assert file.name == "packed-000000.tar"
    assert len(file.data) == 10_240
    assert hashlib.sha256(file.data).hexdigest()[:16] == "aa0b5e995f1c08cf"
    with tarfile.open(fileobj=io.BytesIO(file.data)) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == [
        f"00000{i}.{suffix}"
        for i in range(2)
        for suffix in ("input_ids.npy", "json", "seq_lengths.npy")
    ]
    assert {(m.mode, m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {
        (0o444, 0, 0, 0, "", "")
    }


def test_json_has_sorted_keys_and_no_spaces():
    first, _ = samples(two_windows())
    text = dict(first)["json"].decode()
    value = json.loads(text)
    assert text == json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert list(value) == ["segments", "stats", "window_id"]


def test_another_reader_finds_all_200_windows(tmp_path: Path):
    windows = packed_windows()
    write(webdataset, tmp_path, windows, target(LENGTH, VOCABULARY))
    found = read_webdataset(tmp_path)
    assert len(found) == 200
    for read, row in zip(found, windows.to_pylist(), strict=True):
        assert read["input_ids.npy"].dtype == np.uint32
        assert read["input_ids.npy"].tolist() == row["input_ids"]
        assert read["seq_lengths.npy"].dtype == np.int32
        sizes = [s["end"] - s["start"] for s in row["segments"]]
        assert read["seq_lengths.npy"].tolist() == sizes
        assert read["json"] == {n: row[n] for n in ("window_id", "segments", "stats")}


def test_a_tar_never_passes_its_limit_and_its_sequel_goes_on_counting(tmp_path: Path):
    windows, limit = packed_windows(), 60_000
    files = list(webdataset.shard(windows, "00003", target(LENGTH, VOCABULARY), limit))
    assert [f.name for f in files[:2]] == ["packed-000003.tar", "packed-000003-001.tar"]
    alone = [f for f in files if f.rows == 1]
    assert all(len(f.data) <= limit for f in files if f not in alone)
    for file in files:
        (tmp_path / f"{len(list(tmp_path.iterdir())):03d}.tar").write_bytes(file.data)
    found = read_webdataset(tmp_path)
    assert [r["json"]["window_id"] for r in found] == windows["window_id"].to_pylist()
    with tarfile.open(fileobj=io.BytesIO(files[1].data)) as tar:
        assert tar.getnames()[0] == f"{files[0].rows:06d}.input_ids.npy"


@pytest.mark.parametrize("size", [1, 511, 512, 513, 5_000])
def test_the_bound_on_a_tar_is_one(size: int):
    sample = [("json", bytes(size))]
    for group in cut_tars(((i, sample) for i in range(100)), 30_000):
        assert len(tar_bytes(group)) <= 30_000


def test_chunks_of_the_table_do_not_change_a_byte_and_no_windows_make_no_tar():
    windows = packed_windows()
    assert list(samples(windows.slice(5, 9))) == list(samples(windows))[5:14]
    assert list(webdataset.shard(WINDOWS.empty_table(), "0", target(8, 500))) == []
