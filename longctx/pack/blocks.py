"""Blocks of consecutive documents of the order, each planned by a process of its own (ours).

The stream of documents and spans is sorted by tour and rank. Where it is too long for one process,
it is cut at places of that order, chosen from a sample so that blocks are of about equal size, and
every block is packed alone. A place decides its block by itself, so neither parts nor workers
matter.

O(rows log blocks). Lost against one plan over all: at the end of a block one window of each length
may be filled in part, and no window holds documents of two blocks.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from longctx.pack.frame import I32, I64

_RANKS = 40  # bits


class Borders(NamedTuple):
    """The places where blocks begin but for the first: `tour` names, ascending with `rank`
    int64."""

    tour: list[str]
    rank: I64


def choose_borders(tour: list[str], rank: I64, blocks: int) -> Borders:
    """Borders of at most `blocks` blocks from the places of a sample of the rows, in any order."""
    order = sorted(range(len(tour)), key=lambda i: (tour[i], rank[i]))
    at = [order[len(order) * b // blocks] for b in range(1, blocks)] if order else []
    places = sorted({(tour[i], int(rank[i])) for i in at})
    ranks = np.array([r for _, r in places], dtype=np.int64)
    return Borders([t for t, _ in places], ranks)


def block_of(tour: pa.ChunkedArray, rank: I64, borders: Borders) -> I32:
    """The block of each row, int32[n], from its place in the order."""
    if not borders.tour:
        return np.zeros(len(rank), dtype=np.int32)
    names = np.unique(np.array(borders.tour, dtype=str))
    codes = tour.combine_chunks().dictionary_encode()
    known = np.array(codes.dictionary.to_pylist(), dtype=str)
    row = _codes(names, known)[codes.indices.to_numpy(zero_copy_only=False)]
    begin = _place(_codes(names, np.array(borders.tour, dtype=str)), borders.rank)
    return np.searchsorted(begin, _place(row, rank), side="right").astype(np.int32)


def _codes(names: np.ndarray, tours: np.ndarray) -> I64:
    """Where each tour lies among the `names`: odd for one of them, even between two."""
    at = np.searchsorted(names, tours)
    same = names[np.minimum(at, len(names) - 1)] == tours
    return (2 * at + same).astype(np.int64)


def _place(code: I64, rank: I64) -> I64:
    return (code << _RANKS) | rank


def window_starts(counts: dict[int, int], blocks: int) -> I64:
    """The number of the first window of each block, int64[blocks], from the windows in each."""
    held = np.array([counts.get(b, 0) for b in range(blocks)], dtype=np.int64)
    return np.cumsum(held) - held
