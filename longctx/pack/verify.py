"""Published windows read back and compared with the canonical rows.

Every format promises the same windows. Here some are read from the files as a consumer would find
them: in at most three shards (first, last, one by priority) the first and the last window and 100
by priority (`ids.mix64` of the window's id and the seed). Checksums of all files of these shards
and all counts are compared too. Costs one read of those shards; what it cannot see is a fault in
the other shards' bytes, which their checksums in the manifest tell.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from longctx.errors import DamagedFileError, RunError
from longctx.ids import mix64
from longctx.io.parquet_files import parquet_file
from longctx.io.paths import checksum
from longctx.io.window_files import Target
from longctx.pack.formats import Format
from longctx.pack.windows import shuffle_key, window_id
from longctx.schema import PASS

SHARDS, WINDOWS = 3, 100


@dataclass(frozen=True)
class Shard:
    """A committed shard: its windows, and checksums of its files by format and name.

    Names are those that `read` of `verify` takes; the canonical file is the one of `parquet`.
    """

    windows: int
    files: Mapping[str, Mapping[str, str]]


def pick_shards(shards: Sequence[Shard], seed: int) -> list[Shard]:
    """First, last and, by priority, one of the others."""
    if len(shards) <= SHARDS:
        return list(shards)
    keys = mix64(np.arange(1, len(shards) - 1, dtype=np.uint64) ^ np.uint64(seed))
    return [shards[0], shards[1 + int(keys.argmin())], shards[-1]]


def pick_rows(window_ids: Sequence[str], seed: int, count: int) -> list[int]:
    """First, last and `count` rows by priority, ascending."""
    by_priority = np.argsort(shuffle_key(window_ids, seed), kind="stable")[:count]
    return sorted({0, len(window_ids) - 1, *by_priority.tolist()}) if window_ids else []


def verify(
    shards: Sequence[Shard],
    formats: Mapping[str, Format],
    target: Target,
    seed: int,
    read: Callable[[str], bytes],
) -> int:
    """Compare every format of some shards with its canonical rows; the number of windows compared.

    `read` gives a file by its name. Raises RunError naming file, window and field at the first
    difference.
    """
    picked = pick_shards([s for s in shards if s.windows], seed)
    compared = 0
    for shard in picked:
        ((name, _),) = shard.files["parquet"].items()
        whole = _intact(name, shard.files["parquet"][name], read)
        canonical = parquet_file(io.BytesIO(whole)).read()
        _count(name, canonical.num_rows, shard.windows)
        ids = canonical["window_id"].to_pylist()
        rows = pick_rows(ids, seed, -(-WINDOWS // len(picked)))
        kept = canonical.take(pa.array(rows, pa.int64())).to_pylist()
        for row in kept:
            _check_row(name, row, target)
        for format_name, module in formats.items():
            _compare(shard, format_name, module, rows, kept, target, read)
        compared += len(rows)
    return compared


def _compare(
    shard: Shard,
    format_name: str,
    module: Format,
    rows: list[int],
    canonical: list[dict[str, Any]],
    target: Target,
    read: Callable[[str], bytes],
) -> None:
    named = shard.files[format_name]
    files = {name: _intact(name, digest, read) for name, digest in named.items()}
    found = module.read(files, target)
    _count(next(iter(files)), found.windows, shard.windows)
    for number, row in zip(rows, canonical, strict=True):
        file, fields = found.window(number)
        for field, value in module.expected(row, target).items():
            if fields.get(field) != value:
                raise _differs(file, row["window_id"], f"`{field}` is not that of the row")


def _check_row(file: str, row: dict[str, Any], target: Target) -> None:
    """A canonical row against itself: name, tiling and length."""
    segments = row["segments"]
    starts = [0, *(s["end"] for s in segments)]
    if [*(s["start"] for s in segments), row["n_tokens"]] != starts:
        raise _differs(file, row["window_id"], "the segments do not tile the window")
    if not 1 <= len(row["input_ids"]) == row["n_tokens"] <= target.length:
        raise _differs(file, row["window_id"], f"it holds {len(row['input_ids'])} tokens")
    named = ((s["doc_id"], s["doc_start"], s["end"] - s["start"]) for s in segments)
    if window_id(named, row.get(PASS.name, 0)) != row["window_id"]:
        raise _differs(file, row["window_id"], "the name is not that of the segments")


def _intact(name: str, digest: str, read: Callable[[str], bytes]) -> bytes:
    data = read(name)
    if checksum(data) != digest:
        raise DamagedFileError("its checksum is another", file=name)
    return data


def _count(name: str, found: int, written: int) -> None:
    if found != written:
        raise RunError(
            f"the file holds {found} windows, {written} were written",
            where=name,
            remedy="this is a fault of the format's writer, please report it",
        )


def _differs(file: str, window: str, what: str) -> RunError:
    return RunError(
        f"window {window}: {what}",
        where=file,
        remedy="this is a fault of the format's writer, please report it",
    )
