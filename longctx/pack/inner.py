"""Order of the documents inside a window, the options of SPLICE (arXiv 2312.17296).

As packed (`tour`), reversed, or shuffled with a seed. Ours: whatever the order, the pieces of one
document that share a window stand together and in order, so that no text reads backwards.
O(segments log segments).
"""

import numpy as np

from longctx.ids import U64, mix64
from longctx.pack.frame import I64, Placement

INNER_ORDERS = ("tour", "reverse", "shuffle")


def inner_order(placement: Placement, order: str, keys: U64, seed: int) -> Placement:
    """The placement with each window's documents reordered; segments that then join are one.

    `keys` uint64[n] are the documents' keys (`ids.doc_keys`) in the placement's numbering.
    Raises ValueError for a name that is not in INNER_ORDERS.
    """
    if order not in INNER_ORDERS:
        raise ValueError(f"inner_order={order!r} is none of {INNER_ORDERS}")
    if order == "tour":
        return placement
    if order == "shuffle":
        rank = mix64(np.asarray(keys, np.uint64) ^ np.uint64(seed))[placement.document]
    else:
        rank = (np.uint64(len(placement.window)) - _first_row(placement)).astype(np.uint64)
    rows = np.lexsort((placement.start, placement.document, rank, placement.window))
    return joined(Placement(*(column[rows] for column in vars(placement).values())))


def _first_row(placement: Placement) -> U64:
    """For each row, the first row of its document in its window."""
    pair = np.stack([placement.window, placement.document])
    _, first, inverse = np.unique(pair, axis=1, return_index=True, return_inverse=True)
    return first[inverse.ravel()].astype(np.uint64)


def joined(placement: Placement) -> Placement:
    """Rows that continue the row before them become part of it."""
    window, document = placement.window, placement.document
    continues = np.zeros(len(window), dtype=bool)
    continues[1:] = (
        (window[1:] == window[:-1])
        & (document[1:] == document[:-1])
        & (placement.start[1:] == placement.end[:-1])
    )
    first: I64 = np.flatnonzero(~continues)
    last = np.append(first[1:], len(window)) - 1 if len(first) else first
    return Placement(window[first], document[first], placement.start[first], placement.end[last])
