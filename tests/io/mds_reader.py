"""A reader of MDS files written from the format's description (packing.md 9.2) alone.

It shares no code with the writer, on purpose: an error made twice would not be seen.
"""

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

SHAPE_FORMATS = {0: "B", 1: "H", 2: "I", 3: "Q"}


def read_shard(data: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The config and the samples of one shard file."""
    (n,) = struct.unpack_from("<I", data)
    offsets = struct.unpack_from(f"<{n + 1}I", data, 4)
    config = json.loads(data[4 + 4 * (n + 1) : offsets[0]])
    assert offsets[-1] == len(data)
    return config, [read_sample(data[offsets[i] : offsets[i + 1]], config) for i in range(n)]


def read_sample(data: bytes, config: dict[str, Any]) -> dict[str, Any]:
    at = 0
    sizes = []
    for fixed in config["column_sizes"]:
        if fixed is None:
            sizes.append(struct.unpack_from("<I", data, at)[0])
            at += 4
        else:
            sizes.append(fixed)
    sample = {}
    for name, encoding, size in zip(
        config["column_names"], config["column_encodings"], sizes, strict=True
    ):
        sample[name] = decode(encoding, data[at : at + size])
        at += size
    assert at == len(data)
    return sample


def decode(encoding: str, data: bytes) -> Any:
    if encoding == "str":
        return data.decode("utf-8")
    if encoding == "int":
        return struct.unpack("<q", data)[0]
    assert encoding == "ndarray:uint32"
    n_dimensions, width = data[0] >> 2, data[0] & 3
    shape_format = f"<{n_dimensions}{SHAPE_FORMATS[width]}"
    shape = struct.unpack_from(shape_format, data, 1)
    values = np.frombuffer(data, "<u4", offset=1 + struct.calcsize(shape_format))
    return values.reshape(shape)


def read_all(index: bytes, files: dict[str, bytes]) -> Iterator[dict[str, Any]]:
    """Samples of all shards that an index names, in its order."""
    for entry in json.loads(index)["shards"]:
        data = files[entry["raw_data"]["basename"]]
        assert len(data) == entry["raw_data"]["bytes"]
        config, samples = read_shard(data)
        assert len(samples) == entry["samples"]
        assert config == {key: entry[key] for key in config}
        yield from samples
