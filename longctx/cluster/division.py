"""Which pieces the documents of cells go to, where no process may hold more than a piece.

Cells come from k-means over a sample; a piece is a group of similar ones: many small cells keep
topics whole that a few large ones would cut. A cell that alone holds
too many documents (texts that the encoder cannot tell apart) is dealt by hash to pieces side by
side, so a document's piece follows from its cell and its id and from no other document.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.cluster.groups import Groups, balanced_groups
from longctx.cluster.similarity import F32, I32, I64
from longctx.ids import U64, mix64


class Grouping(NamedTuple):
    """Which partitions the documents of each cell go to.

    `first` int32[c] the first of them and `shares` int32[c] to how many in a row they are dealt (1
    but for a cell that is too large); `partitions` in all.
    """

    first: I32
    shares: I32
    partitions: int


def similar_cells(centroids: F32, counts: I64, limit: int, seed: int) -> Groups:
    """Groups of similar cells that hold at most `limit` documents, unless one cell alone has more.

    `centroids` float32[c, d], unit norm; `counts` int64[c] documents in each.
    """
    wanted = max(1, -(-int(counts.sum()) // limit))
    priority = mix64(np.arange(len(centroids), dtype=np.uint64))
    return balanced_groups(centroids, counts, priority, wanted, max_tokens=limit, seed=seed)


def numbered(groups: Groups, counts: I64, limit: int, sequence: I64) -> Grouping:
    """Partitions of the groups of cells in this sequence; a group above `limit` takes several."""
    first = np.zeros(len(counts), np.int32)
    shares = np.ones(len(counts), np.int32)
    members = groups.each()
    count = 0
    for group in sequence.tolist():
        held = int(counts[members[group]].sum())
        first[members[group]] = count
        shares[members[group]] = -(-held // limit) if held > limit else 1
        count += int(shares[members[group][0]])
    return Grouping(first, shares, count)


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
