"""Windows as WebDataset shards: plain USTAR files that `tarfile` writes.

The files of a sample follow each other and share the name up to the first dot: `input_ids.npy`
(uint32), `json` (window_id, segments, stats, and the pass where documents are copied) and
`seq_lengths.npy` (int32, the segment lengths).
Owner, time and mode are fixed, so equal windows give equal bytes. A task's shard is one tar,
`packed-000003.tar`, so that `packed-{000000..000011}.tar` names them all; beyond 1 GB it goes on in
`packed-000003-001.tar`. Samples are numbered within the shard. Costs three tar headers (1.5 kB,
padding aside) a window.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.io.window_files import Found, ShardFile, Target, total
from longctx.pack.windows import flatten_lists, list_values

NAMES = r"packed-\d{6,}(-\d{3,})?\.tar"
SIZE_LIMIT = 1_000_000_000
# `pass` is there only where a mixture copies documents.
_TOLD = ("window_id", "segments", "stats", "pass")
_BLOCK = 512
# Two empty blocks at the end, and the whole filled up to a record.
_END = 2 * _BLOCK + tarfile.RECORDSIZE

Sample = list[tuple[str, bytes]]


def samples(windows: pa.Table) -> Iterator[Sample]:
    """Suffixes and contents of the files of each row of `schema.WINDOWS`."""
    ids, id_at = list_values(windows["input_ids"])
    segments, segment_at = flatten_lists(windows["segments"])
    size = pc.subtract(pc.struct_field(segments, "end"), pc.struct_field(segments, "start"))
    sizes = np.asarray(size, dtype="<i4")
    told = windows.select([n for n in _TOLD if n in windows.column_names])
    for row in range(len(windows)):
        (record,) = told.slice(row, 1).to_pylist()
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        yield [
            ("input_ids.npy", _npy(ids[id_at[row] : id_at[row + 1]].astype("<u4"))),
            ("json", text.encode()),
            ("seq_lengths.npy", _npy(sizes[segment_at[row] : segment_at[row + 1]])),
        ]


def _npy(array: npt.NDArray[Any]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=(1, 0), allow_pickle=False)
    return out.getvalue()


def cut_tars(
    numbered: Iterable[tuple[int, Sample]], size_limit: int = SIZE_LIMIT
) -> Iterator[list[tuple[int, Sample]]]:
    """Group numbered samples into tars of at most `size_limit` bytes; a larger one stands alone."""
    held: list[tuple[int, Sample]] = []
    size = _END
    for number, sample in numbered:
        own = sum(_BLOCK + -(-len(data) // _BLOCK) * _BLOCK for _, data in sample)
        if held and size + own > size_limit:
            yield held
            held, size = [], _END
        held.append((number, sample))
        size += own
    if held:
        yield held


def tar_bytes(numbered: Iterable[tuple[int, Sample]]) -> bytes:
    """The tar of some samples, each named by its number."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, sample in numbered:
            for suffix, data in sample:
                member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                member.size, member.mode = len(data), 0o444
                tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def shard(
    windows: pa.Table, number: str, target: Target, size_limit: int = SIZE_LIMIT
) -> Iterator[ShardFile]:
    """A shard's tar, or its tars where one would pass `size_limit` bytes."""
    for i, held in enumerate(cut_tars(enumerate(samples(windows)), size_limit)):
        more = f"-{i:03d}" if i else ""
        name = f"packed-{int(number):06d}{more}.tar"
        data = tar_bytes(held)
        yield ShardFile(name, data, len(held), {"windows": len(held), "bytes": len(data)})


def merge(notes: Sequence[dict[str, Any]], target: Target) -> dict[str, bytes]:
    """Nothing: shards are named by number."""
    return {}


def describe(notes: Sequence[dict[str, Any]], target: Target) -> dict[str, Any]:
    """For the manifest."""
    return {"windows": total(notes, "windows"), "tars": len(notes)}


def read(files: Mapping[str, bytes], target: Target) -> Found:
    """A shard's windows: `input_ids`, `seq_lengths` and the fields of their JSON."""
    places: dict[str, tuple[str, dict[str, bytes]]] = {}
    for name, data in files.items():
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                content = data[member.offset_data : member.offset_data + member.size]
                places.setdefault(key, (name, {}))[1][suffix] = content
    found = list(places.values())

    def window(row: int) -> tuple[str, dict[str, Any]]:
        name, contents = found[row]
        arrays = {
            suffix.removesuffix(".npy"): np.load(io.BytesIO(data), allow_pickle=False).tolist()
            for suffix, data in contents.items()
            if suffix.endswith(".npy")
        }
        return name, {**json.loads(contents["json"]), **arrays}

    return Found(len(found), window)


def expected(row: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """What `read` must return for a canonical row."""
    told = {name: row[name] for name in (*_TOLD, "input_ids") if name in row}
    return {**told, "seq_lengths": [s["end"] - s["start"] for s in row["segments"]]}
