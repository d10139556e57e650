"""Readers of the packed formats, written from their descriptions (packing.md 9) alone.

They share no code with the writers, on purpose: an error made twice would not be seen. Each takes
a folder and gives one dictionary of plain values for each window, in the order of the files.
"""

import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import zstandard

Row = dict[str, Any]

MEGATRON_TYPES = {4: np.int32, 8: np.uint16}


def megatron_index(path: Path) -> tuple[type, list[int], list[int], list[int]]:
    """Token type, lengths, byte offsets and document index of an `.idx`."""
    data = path.read_bytes()
    magic, version, code, n, documents = struct.unpack_from("<9sQBQQ", data)
    assert magic == b"MMIDIDX\0\0"
    assert version == 1
    assert documents == n + 1
    lengths = struct.unpack_from(f"<{n}i", data, 34)
    offsets = struct.unpack_from(f"<{n}q", data, 34 + 4 * n)
    index = struct.unpack_from(f"<{n + 1}q", data, 34 + 12 * n)
    assert len(data) == 34 + 20 * n + 8
    return MEGATRON_TYPES[code], list(lengths), list(offsets), list(index)


def read_megatron(folder: Path) -> list[Row]:
    found = []
    for path in sorted(folder.glob("*.bin")):
        dtype, lengths, offsets, index = megatron_index(path.with_suffix(".idx"))
        tokens = np.memmap(path, dtype, "r")
        assert index == list(range(len(lengths) + 1))
        for length, offset in zip(lengths, offsets, strict=True):
            first = offset // tokens.itemsize
            found.append({"input_ids": tokens[first : first + length].tolist()})
    return found


def read_ds(folder: Path, length: int) -> list[Row]:
    """`tokens` and `positions` of windows of length + 1 tokens, as nanotron reads them."""
    found = []
    for path in sorted(folder.glob("*.ds")):
        tokenizer, count, _ = path.with_name(f"{path.name}.metadata").read_text().split("\n")
        tokens = np.fromfile(path, {"2": "<u2", "4": "<u4"}[tokenizer.split("|")[1]])
        assert len(tokens) == int(count)
        assert len(tokens) % (length + 1) == 0
        ends = np.fromfile(f"{path}.index", "<u8").tolist()
        assert ends == sorted(set(ends))
        assert ends[-1] == len(tokens)
        position, positions, restarts = 0, [], set(ends)
        for i in range(len(tokens)):
            position = 0 if i in restarts or i % (length + 1) == 0 else position + 1
            positions.append(position)
        for start in range(0, len(tokens), length + 1):
            own = slice(start, start + length + 1)
            found.append({"tokens": tokens[own].tolist(), "positions": positions[own]})
    return found


def read_webdataset(folder: Path) -> list[Row]:
    found: list[Row] = []
    for path in sorted(folder.glob("*.tar")):
        last = None
        with tarfile.open(path) as tar:
            for member in tar:
                key, suffix = member.name.split(".", 1)
                if key != last:
                    found.append({})
                last = key
                content = tar.extractfile(member)
                assert content is not None
                data = content.read()
                value = json.loads(data) if suffix == "json" else np.load(io.BytesIO(data))
                assert suffix not in found[-1]
                found[-1][suffix] = value
    return found


def read_jsonl(folder: Path) -> list[Row]:
    found = []
    for path in sorted(folder.glob("*.jsonl.zst")):
        with zstandard.open(path, "rt", encoding="utf-8") as lines:
            found += [json.loads(line) for line in lines]
    return found


def read_trl(folder: Path) -> list[Row]:
    return [row for p in sorted(folder.glob("*.parquet")) for row in pq.read_table(p).to_pylist()]
