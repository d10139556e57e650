"""Windows as JSON lines, one window a line, all columns of the canonical schema.

For readers that know nothing else: `zstdcat part-00000.jsonl.zst | jq .window_id`,
`datasets.load_dataset("json", data_files="part-*.jsonl.zst")`, `pandas.read_json(lines=True)`. Keys
are sorted and nothing depends on time or worker. float32 statistics are written with all digits, so
they read back equal. Compressed with zstd (level 3): decimal ids take more room than their bytes.
20 MB of ids a CPU-second, the slowest of the formats; a million tokens as Python objects at a time.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import zstandard

from longctx.io.window_files import Found, ShardFile, Target, total

NAMES = r"part-\d{5,}\.jsonl\.zst"
_LEVEL = 3
_TOKENS_AT_ONCE = 2**20


def lines(windows: pa.Table) -> Iterator[bytes]:
    """One line for each row, with its line end."""
    step = max(1, _TOKENS_AT_ONCE // max(1, windows["n_tokens"].to_numpy().max(initial=1)))
    for start in range(0, len(windows), step):
        for row in windows.slice(start, step).to_pylist():
            text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            yield text.encode() + b"\n"


def shard(windows: pa.Table, number: str, target: Target) -> Iterator[ShardFile]:
    """A shard's one file."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    data = b"".join([*map(compressor.compress, lines(windows)), compressor.flush()])
    name = f"part-{number}.jsonl.zst"
    yield ShardFile(name, data, len(windows), {"windows": len(windows), "bytes": len(data)})


def merge(notes: Sequence[dict[str, Any]], target: Target) -> dict[str, bytes]:
    """Nothing: every file stands for itself."""
    return {}


def describe(notes: Sequence[dict[str, Any]], target: Target) -> dict[str, Any]:
    """For the manifest."""
    return {"windows": total(notes, "windows"), "compression": "zstd"}


def read(files: Mapping[str, bytes], target: Target) -> Found:
    """A shard's windows with all their columns."""
    (name,) = files
    text = zstandard.ZstdDecompressor().decompressobj().decompress(files[name])
    found = text.splitlines()
    return Found(len(found), lambda row: (name, json.loads(found[row])))


def expected(row: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """What `read` must return for a canonical row: the row."""
    return dict(row)
