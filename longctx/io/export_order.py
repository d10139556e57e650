"""How documents are divided into files: by bytes in the order of the corpus, by places when sorted.

The sorted order is by the value of a column, then by doc_id. It is cut at places of a sample, so
files are of about equal size; a row finds its file by itself.
"""

from bisect import bisect_right

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.filter.cells import order_keys
from longctx.ids import U64

_LAST = np.uint64(2**64 - 1)


def shards_of(held: list[int], limit: int) -> list[list[tuple[int, int]]]:
    """For each file of `limit` bytes the parts that it lies in, each with the bytes before it."""
    groups: list[list[tuple[int, int]]] = []
    before = 0
    for index, size in enumerate(held):
        if size:
            for number in range(before // limit, (before + size - 1) // limit + 1):
                groups += [[] for _ in range(number + 1 - len(groups))]
                groups[number].append((index, before))
        before += size
    return groups


def sort_keys(values: npt.NDArray[np.float64], descending: bool) -> U64:
    """Keys that ascend in the order that is asked for, uint64[n]; nulls (NaN) come last."""
    null = np.isnan(values)
    filled = np.where(null, 0.0, values if descending else -values)
    return np.where(null, _LAST, order_keys(filled))


def borders_of(sample: pa.Table, files: int) -> pa.Table:
    """Where at most so many files begin, but for the first: `key` and `doc_id` of their first row.

    `sample` has these and `size` of some rows, in any order.
    """
    order = [("key", "ascending"), ("doc_id", "ascending")]
    sample = sample.sort_by(order)
    held = np.cumsum(sample.column("size").to_numpy())
    total = int(held[-1]) if len(held) else 0
    wanted = [total * n // files for n in range(1, files)]
    at = np.unique(np.searchsorted(held, wanted, side="right"))
    at = at[(at > 0) & (at < len(sample))]
    return sample.select(["key", "doc_id"]).take(pa.array(at))


def files_of(keys: U64, ids: pa.ChunkedArray, borders: pa.Table) -> npt.NDArray[np.int32]:
    """The file of each row, int32[n]: how many borders are not after it."""
    edges, names = borders.column("key").to_numpy(), borders.column("doc_id").to_pylist()
    below, upto = (np.searchsorted(edges, keys, side=s) for s in ("left", "right"))
    found = below.astype(np.int32)
    tied = np.flatnonzero(upto > below)
    for row, doc_id in zip(tied.tolist(), ids.take(pa.array(tied)).to_pylist(), strict=True):
        found[row] += bisect_right(names[below[row] : upto[row]], doc_id)
    return found
