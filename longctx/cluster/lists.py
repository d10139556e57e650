"""Neighbour lists of a set of documents that one process holds.

The same two searches as on the engine (`stages_knn.py`), exact up to a number of documents and in
cells above, for a set of vectors that is small enough to be one unit of work. The lists are those
that the engine's steps would find.

Cost: `knn.py` or `cells.py`; memory 4 bytes an entry of the lists, 4·`REFINED` a document more
while cells are searched.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from longctx.cluster import cells
from longctx.cluster.cells import Cells
from longctx.cluster.kmeans import assign
from longctx.cluster.knn import search
from longctx.cluster.similarity import F32, I32, I64
from longctx.ids import U64

_EXACT_BLOCK = 4096
_CELL_BLOCK = 65_536

Blocks = Callable[[], Iterable[tuple[I64, I32]]]


class Searched(NamedTuple):
    """Neighbour lists of documents 0..n-1 and how they were found.

    `blocks()` yields numbers int64[m] and lists int32[m, k], block by block, as often as it is
    called; `cells` are those that were searched (None: exactly), `recall` the measured share of
    true neighbours.
    """

    blocks: Blocks
    cells: Cells | None
    recall: float


def search_all(X: F32, keys: U64, seed: int, k_search: int, exact_up_to: int) -> Searched:
    """The `k_search` nearest of each row of X float32[n, d] (unit norm).

    `keys` uint64[n] and `seed` choose what cells are trained on and recall is measured on.
    """
    n = len(X)
    k = min(k_search, max(1, n - 1))
    rows = np.arange(n, dtype=np.int64)
    if n <= exact_up_to:
        found = [search(X, at, min(at + _EXACT_BLOCK, n), k)[0] for at in range(0, n, _EXACT_BLOCK)]
        lists = np.concatenate([np.zeros((0, k), dtype=np.int32), *found])
        return Searched(lambda: [(rows, lists)], None, 1.0)
    centroids = cells.train_cells(X, keys, seed)
    grouped = cells.group(assign(X, centroids)[0], centroids)
    grouped, recall = cells.tune_probed(X, grouped, keys, seed, k)
    lists = np.empty((n, k), dtype=np.int32)
    for at in range(0, n, _CELL_BLOCK):
        block = slice(at, at + _CELL_BLOCK)
        lists[block] = cells.search_cells(X, grouped, rows[block], k)[0]
    first = lists[:, : cells.REFINED].copy()
    for at in range(0, n, _CELL_BLOCK):
        block = slice(at, at + _CELL_BLOCK)
        lists[block] = cells.refine(X, rows[block], lists[block], first)[0]
    return Searched(lambda: [(rows, lists)], grouped, recall)
