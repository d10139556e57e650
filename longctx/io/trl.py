"""Windows as TRL's packed data set: a second Parquet view with `input_ids` and `seq_lengths`.

TRL's collator (1.16, `padding_free=True`) makes position ids that restart at each of the
`seq_lengths` and takes the first token of each out of the loss: attention inside documents. For
attention across documents read `input_ids` of the canonical files alone. Nothing is padded and no
length is 0, either of which would shift the collator's rows.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from longctx.io.parquet_files import parquet_file
from longctx.io.parquet_windows import parquet_bytes, trl_view
from longctx.io.window_files import Found, ShardFile, Target, total

NAMES = r"part-\d{5,}\.parquet"


def shard(windows: pa.Table, number: str, target: Target) -> Iterator[ShardFile]:
    """A shard's one file."""
    note = {"windows": len(windows)}
    data = parquet_bytes(trl_view(windows))
    yield ShardFile(f"part-{number}.parquet", data, len(windows), note)


def merge(notes: Sequence[dict[str, Any]], target: Target) -> dict[str, bytes]:
    """Nothing: Parquet files stand for themselves."""
    return {}


def describe(notes: Sequence[dict[str, Any]], target: Target) -> dict[str, Any]:
    """For the manifest."""
    return {"windows": total(notes, "windows"), "columns": ["input_ids", "seq_lengths"]}


def read(files: Mapping[str, bytes], target: Target) -> Found:
    """Both columns of a shard's windows."""
    (name,) = files
    table = parquet_file(io.BytesIO(files[name])).read()
    return Found(len(table), lambda row: (name, table.slice(row, 1).to_pylist()[0]))


def expected(row: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """What `read` must return for a canonical row."""
    sizes = [s["end"] - s["start"] for s in row["segments"]]
    return {"input_ids": row["input_ids"], "seq_lengths": sizes}
