"""Lists of ids as the run folder stores them: as their bytes.

Parquet writes a list as levels beside values, and a row is never cut between pages: the ids of one
document of 200 MB (180 MB of int32) took five times their bytes to write and to read. As one
binary value they take 2.4 times, and half the time. The column says so in its metadata and is a
list again for whoever reads it; nothing is copied but the places where the rows begin.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_IDS = pa.large_list(pa.int32())
_WIDTH = 4
_MARK = {b"longctx.stored": b"int32"}


def packed(table: pa.Table) -> pa.Table:
    """The table with its columns of ids as marked binary ones. ValueError if an id is null."""
    for place, field in enumerate(table.schema):
        if field.type == _IDS:
            kind = pa.large_binary()
            chunks = [_as_bytes(chunk) for chunk in table.column(place).chunks]
            marked = field.with_type(kind).with_metadata(_MARK)
            table = table.set_column(place, marked, pa.chunked_array(chunks, kind))
    return table


def restored(table: pa.Table) -> pa.Table:
    """The table with its marked columns as lists of ids."""
    for place, field in enumerate(table.schema):
        if field.metadata and field.metadata.items() >= _MARK.items():
            chunks = [_as_ids(chunk) for chunk in table.column(place).chunks]
            table = table.set_column(place, field.name, pa.chunked_array(chunks, _IDS))
    return table


def _as_bytes(ids: pa.Array) -> pa.Array:
    if ids.values.null_count:
        raise ValueError("a list of ids holds a null")
    validity, offsets, *_ = ids.buffers()
    begins = (_places(ids, offsets) + ids.values.offset) * _WIDTH
    data = ids.values.buffers()[1] or pa.py_buffer(b"")
    return _array(pa.large_binary(), ids, [validity, begins, data], [])


def _as_ids(stored: pa.Array) -> pa.Array:
    validity, offsets, data = stored.buffers()
    data = data or pa.py_buffer(b"")
    values = pa.Array.from_buffers(pa.int32(), len(data) // _WIDTH, [None, data])
    return _array(_IDS, stored, [validity, _places(stored, offsets) // _WIDTH], [values])


def _places(rows: pa.Array, offsets: pa.Buffer | None) -> npt.NDArray[np.int64]:
    """Where rows begin, and where the last one ends; what lies before a slice is in it."""
    count = rows.offset + len(rows) + 1
    return np.zeros(1, np.int64) if offsets is None else np.frombuffer(offsets, np.int64, count)


def _array(kind: pa.DataType, rows: pa.Array, parts: list[Any], children: list[pa.Array]) -> Any:
    """An array over buffers that has the rows, nulls and slice of another one."""
    validity, places, *data = parts
    buffers = [validity, pa.py_buffer(places), *data]
    nulls = rows.null_count
    return pa.Array.from_buffers(kind, len(rows), buffers, nulls, rows.offset, children)
