"""MDS shards (MosaicML Streaming, format version 2) as bytes.

The columns are those of ProLong-style trainers (2410.02660): domain, indices, input_ids, length.
Written from the format's description and checked byte for byte against the reference writer 0.13;
the package itself pins NumPy below 2.2 and is not needed. Pure bytes in and out: shard names carry
the part's folder, so that tasks write alone and the driver merges the indices. One copy of a
shard's tokens at a time (`size_limit`, 64 MiB).
"""

import itertools
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.errors import RunError
from longctx.io.window_files import Found, ShardFile, Target
from longctx.pack.windows import flatten_lists, list_values

NAMES = r"index\.json|p\d{5,}/shard\.\d{5,}\.mds"
SIZE_LIMIT = 67_108_864
VERSION = 2

ENCODINGS = {
    "domain": "str",
    "indices": "ndarray:uint32",
    "input_ids": "ndarray:uint32",
    "length": "int",
}
_SIZES = {"str": None, "ndarray:uint32": None, "int": 8}
_SHAPE_TYPES = tuple(enumerate(("<u1", "<u2", "<u4", "<u8")))


def config(size_limit: int = SIZE_LIMIT) -> dict[str, Any]:
    """The description of the columns that every shard and every index entry carries."""
    return {
        "column_encodings": list(ENCODINGS.values()),
        "column_names": list(ENCODINGS),
        "column_sizes": [_SIZES[encoding] for encoding in ENCODINGS.values()],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": size_limit,
        "version": VERSION,
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def encode_array(array: npt.NDArray[np.uint32]) -> bytes:
    """`ndarray:uint32` column: (ndim, width of the shape numbers), shape, values.

    Raises ValueError for an empty array, which the format does not allow.
    """
    if array.size == 0:
        raise ValueError("MDS has no empty arrays")
    code, shape_type = next(
        (code, kind) for code, kind in _SHAPE_TYPES if max(array.shape) <= np.iinfo(kind).max
    )
    head = bytes([array.ndim << 2 | code]) + np.array(array.shape, shape_type).tobytes()
    return head + array.astype("<u4", copy=False).tobytes()


def encode_sample(row: Mapping[str, Any]) -> bytes:
    """One sample from its columns `domain`, `indices` (uint32[k, 2]), `input_ids`, `length`."""
    variable = [
        row["domain"].encode(),
        encode_array(row["indices"]),
        encode_array(row["input_ids"]),
    ]
    sizes = np.array([len(column) for column in variable], "<u4").tobytes()
    return sizes + b"".join(variable) + np.array(row["length"], "<i8").tobytes()


def mds_rows(windows: pa.Table) -> Iterator[dict[str, Any]]:
    """Columns of each row of `schema.WINDOWS`, arrays as uint32.

    `domain` is the source of the longest segment (the first of equals).
    """
    ids, id_at = list_values(windows["input_ids"])
    segments, segment_at = flatten_lists(windows["segments"])
    source = pc.fill_null(pc.struct_field(segments, "source"), "").to_pylist()
    borders = [np.asarray(pc.struct_field(segments, name)) for name in ("start", "end")]
    indices = np.stack(borders, axis=1).astype(np.uint32)
    for row in range(len(windows)):
        first, stop = segment_at[row], segment_at[row + 1]
        size = indices[first:stop, 1] - indices[first:stop, 0]
        input_ids = ids[id_at[row] : id_at[row + 1]]
        yield {
            "domain": source[first + int(size.argmax())],
            "indices": indices[first:stop],
            "input_ids": input_ids.astype(np.uint32),
            "length": len(input_ids),
        }


def cut_shards(samples: Iterable[bytes], size_limit: int = SIZE_LIMIT) -> Iterator[list[bytes]]:
    """Group samples into shards whose files stay within `size_limit` bytes.

    A sample that is larger by itself makes a shard of its own. Depends on the samples only.
    """
    header = 8 + len(_json(config(size_limit)))
    shard: list[bytes] = []
    size = header
    for sample in samples:
        if shard and size + len(sample) + 4 > size_limit:
            yield shard
            shard, size = [], header
        shard.append(sample)
        size += len(sample) + 4
    if shard:
        yield shard


def shard_bytes(samples: Sequence[bytes], size_limit: int = SIZE_LIMIT) -> bytes:
    """The file of one shard; RunError if its offsets would not fit 32 bits."""
    head = _json(config(size_limit))
    n = len(samples)
    sizes = np.array([4 + 4 * (n + 1) + len(head), *map(len, samples)], dtype=np.int64)
    offsets = np.cumsum(sizes)
    if offsets[-1] >= 2**32:
        raise RunError(
            f"an MDS shard of {offsets[-1]} bytes does not fit 32-bit offsets",
            where="write mds",
            remedy="lower size_limit or the window length",
        )
    counts = np.array([n, *offsets.tolist()], dtype="<u4").tobytes()
    return b"".join([counts, head, *samples])


def index_entry(
    basename: str, n_bytes: int, samples: int, size_limit: int = SIZE_LIMIT
) -> dict[str, Any]:
    """Index entry of a shard; `basename` is relative to the index, with "/" for sub-folders."""
    return config(size_limit) | {
        "raw_data": {"basename": basename, "bytes": n_bytes, "hashes": {}},
        "samples": samples,
        "zip_data": None,
    }


def merge_index(entries: Iterable[Mapping[str, Any]]) -> bytes:
    """`index.json` over the entries of all tasks, in the given order."""
    return _json({"shards": [dict(entry) for entry in entries], "version": VERSION})


def shard_name(number: int) -> str:
    """File name of a task's shard by its number in the task's folder."""
    return f"shard.{number:05d}.mds"


def shard(windows: pa.Table, number: str, target: Target) -> Iterator[ShardFile]:
    """A task's files, in a folder of its own; each notes its index entry."""
    encoded = (encode_sample(row) for row in mds_rows(windows))
    for i, samples in enumerate(cut_shards(encoded)):
        name, data = f"p{number}/{shard_name(i)}", shard_bytes(samples)
        yield ShardFile(name, data, len(samples), index_entry(name, len(data), len(samples)))


def merge(notes: Sequence[dict[str, Any]], target: Target) -> dict[str, bytes]:
    """The index over all folders: what `StreamingDataset(local=...)` opens."""
    return {"index.json": merge_index(notes)}


def describe(notes: Sequence[dict[str, Any]], target: Target) -> dict[str, Any]:
    """For the manifest."""
    windows = sum(int(note["samples"]) for note in notes)
    return {"windows": windows, "shards": len(notes), "columns": list(ENCODINGS)}


def read(files: Mapping[str, bytes], target: Target) -> Found:
    """The samples of a task's shards, arrays as lists."""
    places = [
        (name, data[begin:end]) for name, data in files.items() for begin, end in _borders(data)
    ]

    def window(row: int) -> tuple[str, dict[str, Any]]:
        name, sample = places[row]
        return name, _decoded(sample)

    return Found(len(places), window)


def _borders(data: bytes) -> Iterator[tuple[int, int]]:
    (n,) = struct.unpack_from("<I", data)
    offsets = struct.unpack_from(f"<{n + 1}I", data, 4)
    yield from itertools.pairwise(offsets)


def _decoded(sample: bytes) -> dict[str, Any]:
    domain, indices, ids = struct.unpack_from("<3I", sample)
    at = np.cumsum([12, domain, indices, ids])
    return {
        "domain": sample[at[0] : at[1]].decode(),
        "indices": _array(sample[at[1] : at[2]]).tolist(),
        "input_ids": _array(sample[at[2] : at[3]]).tolist(),
        "length": struct.unpack_from("<q", sample, at[3])[0],
    }


def _array(data: bytes) -> npt.NDArray[np.uint32]:
    kind = np.dtype(_SHAPE_TYPES[data[0] & 3][1])
    shape = np.frombuffer(data, kind, data[0] >> 2, 1)
    return np.frombuffer(data, "<u4", offset=1 + shape.nbytes).reshape(shape)


def expected(row: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """What `read` must return for a canonical row."""
    segments = row["segments"]
    longest = max(segments, key=lambda s: s["end"] - s["start"])
    return {
        "domain": longest["source"] or "",
        "indices": [[s["start"], s["end"]] for s in segments],
        "input_ids": row["input_ids"],
        "length": row["n_tokens"],
    }
