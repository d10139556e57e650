"""Which pieces the documents of cells go to, where no process may hold more than a piece.

Cells come from k-means over a sample; a piece is one or several of them. A cell that alone holds
too many documents (texts that the encoder cannot tell apart) is dealt by hash to pieces side by
side, so a document's piece follows from its cell and its id and from no other document.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.cluster.similarity import I32, I64
from longctx.ids import U64, mix64


class Grouping(NamedTuple):
    """Which partitions the documents of each cell go to.

    `first` int32[c] the first of them and `shares` int32[c] to how many in a row they are dealt (1
    but for a cell that is too large); `partitions` in all.
    """

    first: I32
    shares: I32
    partitions: int


def cell_by_cell(counts: I64, limit: int) -> Grouping:
    """Every cell its own partition, or several where it holds more than `limit` documents.

    `counts` int64[c] documents in each.
    """
    shares = np.maximum(1, -(-counts // limit))
    first = np.cumsum(shares) - shares
    return Grouping(first.astype(np.int32), shares.astype(np.int32), int(shares.sum()))


def partition_of(home: I32, priority: U64, grouping: Grouping) -> I32:
    """The partition of each document, int32[n], from its cell and its priority."""
    share = _share(priority, grouping.shares[home])
    return (grouping.first[home] + share).astype(np.int32)


def dealt(priority: U64, shares: int) -> I32:
    """Documents that nothing tells apart, dealt to `shares` places by hash; int32[n]."""
    return _share(priority, np.full(len(priority), shares)).astype(np.int32)


def _share(priority: U64, shares: npt.NDArray[Any]) -> I64:
    high = mix64(priority) >> np.uint64(32)
    return ((high * shares.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)
