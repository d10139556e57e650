"""Addresses of rows, so that what a barrier finds can be sent home, and columns as arrays."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.steps import BUCKET
from longctx.errors import RunError
from longctx.ids import doc_keys

PART = "part"
# Below this norm a vector points nowhere.
NO_VECTOR = 1e-6
ADDRESS = [("doc_id", pa.string()), ("doc_key", pa.uint64()), (PART, pa.int32()), (ROW, pa.int32())]


def addressed(part: Part, table: pa.Table) -> pa.Table:
    """`doc_id`, `doc_key`, `part` and `row` of a part's rows, as columns of ADDRESS."""
    keys = doc_keys(table.column("doc_id").to_pylist())
    return pa.table(
        {
            "doc_id": table.column("doc_id"),
            "doc_key": keys,
            PART: pa.array(np.full(table.num_rows, part.index, dtype=np.int32)),
            ROW: table.column(ROW),
        }
    )


def to_part(table: pa.Table, setting: Setting) -> pa.Table:
    """Prepare for `sidecar`: the part's number is the bucket."""
    bucket = table.column(PART)
    return table.drop_columns([PART]).append_column(BUCKET, bucket)


def home_of(rows: np.ndarray, brought: pa.Table) -> pa.Array:
    """For each row of a part the number of the one that was brought for it; null for none.

    `rows` int32[n] ascending; the column `row` of `brought` names some of them, each once.
    """
    index = np.full(len(rows), -1, dtype=np.int64)
    index[np.searchsorted(rows, brought.column(ROW).to_numpy())] = np.arange(brought.num_rows)
    return pa.array(index, mask=index < 0)


def numbers(values: pa.ChunkedArray, column: str, where: str) -> np.ndarray:
    """A column as float64[n], NaN where it is null. Raises RunError where it holds no numbers."""
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or kind == pa.bool_()):
        raise RunError(
            f"the column `{column}` is {kind}, which has no bounds",
            where=where,
            remedy="name a column of numbers, such as n_tokens",
        )
    missing = pc.is_null(values, nan_is_null=True).to_numpy()
    found = values.cast(pa.float64(), safe=False).fill_null(0).to_numpy()
    return np.where(missing, np.nan, found)


def vectors(column: pa.ChunkedArray) -> np.ndarray:
    """A fixed-size list column of float32 as a matrix (n, d); null rows become zeros."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else array.chunk(0)
    size = array.type.list_size
    if array.null_count:
        zero = pa.scalar([0.0] * size, type=array.type)
        array = array.fill_null(zero)
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(-1, size), dtype=np.float32)


def usable(matrix: np.ndarray) -> np.ndarray:
    """Which rows of a matrix are vectors that can be compared: bool (n,)."""
    norm = np.linalg.norm(matrix, axis=1)
    return np.asarray(np.isfinite(matrix).all(axis=1) & (norm > NO_VECTOR))


def as_binary(matrix: np.ndarray) -> pa.Array:
    """Rows of a matrix as fixed-size binary: the form in which vectors travel an exchange."""
    rows = np.ascontiguousarray(matrix)
    width = rows.dtype.itemsize * rows.shape[1]
    kind = pa.binary(width)
    return pa.Array.from_buffers(kind, len(rows), [None, pa.py_buffer(rows.tobytes())])


def from_binary(column: pa.ChunkedArray, dtype: type) -> np.ndarray:
    """Inverse of `as_binary`: a matrix of `dtype` with one row for each value."""
    array = column.combine_chunks()
    kind = array.type
    width = kind.byte_width // np.dtype(dtype).itemsize
    if len(array) == 0:
        return np.zeros((0, width), dtype=dtype)
    data = np.frombuffer(array.buffers()[1], dtype=np.uint8)
    start = array.offset * kind.byte_width
    used = data[start : start + len(array) * kind.byte_width]
    return used.view(dtype).reshape(len(array), width)
