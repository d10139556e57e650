"""Which columns of a file in the run folder are compressed: those that get smaller by it.

Vectors, signatures and hashes are as good as random. zstd would work through them when they are
written and again when they are read, for a twelfth of their size at the most. Ids of tokens, texts
and numbers do get smaller. A column says itself which it is, by its first 64 kB.
"""

from collections.abc import Sequence

import pyarrow as pa

_SAMPLE, _VALUES = 1 << 16, 256
# Compressed bytes to bytes above which the work is not worth it.
_WORTH = 0.9


def compressions(tables: Sequence[pa.Table], schema: pa.Schema) -> dict[str, str]:
    """zstd or none for each column, by the first of the tables that has rows."""
    first = next((t for t in tables if t.num_rows), None)
    noise = {f.name for f in schema if first is not None and _is_noise(first.column(f.name))}
    return {f.name: "none" if f.name in noise else "zstd" for f in schema}


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, of one length or of any."""
    return any(
        check(kind)
        for check in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    )


def _is_noise(column: pa.ChunkedArray) -> bool:
    sample = _sample(column.slice(0, _VALUES))
    return bool(sample) and len(pa.compress(sample, "zstd", asbytes=True)) > _WORTH * len(sample)


def _sample(column: pa.ChunkedArray) -> bytes:
    """The first bytes of a column of bytes or of vectors; nothing of any other."""
    kind = column.type
    if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type):
        values = [chunk.flatten().drop_null().to_numpy().tobytes() for chunk in column.chunks]
        return b"".join(values)[:_SAMPLE]
    found, left = [], _SAMPLE if is_bytes(kind) else 0
    for value in column if left else ():
        if value.is_valid and left:
            found.append(value.as_buffer()[:left].to_pybytes())
            left -= len(found[-1])
    return b"".join(found)
