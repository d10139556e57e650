"""The lambda of a source from its documents, so that copies drawn by hash meet the target.

Document i with relative rate rho_i gets its k-th copy as soon as lambda passes (k + u_i) / rho_i:
an event of weight size_i at that place. Events are sorted by place and id, those whose summed
weight is nearest to the target are taken (fewer on a tie), and lambda lies midway between the last
that is taken and the next. So what is realised differs from the target by half the largest document
at most, and copies are still nested and free of order. (Ours; a source of 50 books drawn by hash
alone misses its share by tens of percent.)

A very large source is counted first: `bins` of places, of which only the one that holds the target
is sorted. The result is the same number.

Costs a sort of docs · max_epochs events.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from longctx.mixture.chance import F64, I64

BINS = 4096


class Events(NamedTuple):
    """Events of some documents: row of the document, place, and weight, in no order."""

    row: I64
    place: F64
    weight: I64


class Around(NamedTuple):
    """What lies around sorted events: weight before them, last place before, first after."""

    base: int = 0
    before: float | None = None
    after: float | None = None


NOTHING = Around()


class Settled(NamedTuple):
    """A lambda, and whether all events of the source are used."""

    lam: float
    everything: bool


def events(u: F64, size: I64, rho: F64, max_epochs: int) -> Events:
    """Events of documents with relative rates above 0; empty documents have none."""
    rows = np.flatnonzero((rho > 0) & (size > 0))
    k = np.tile(np.arange(max_epochs, dtype=np.float64), len(rows))
    row = np.repeat(rows, max_epochs)
    return Events(row, (k + u[row]) / rho[row], size[row])


def calibrate(
    u: F64, size: I64, rho: F64, ids: Sequence[str] | pa.Array, target: float, max_epochs: int
) -> float:
    """The lambda of a source, from u, size and relative rate of its documents [n] and their ids."""
    columns = (np.asarray(u, dtype=np.float64), np.asarray(size, dtype=np.int64), np.asarray(rho))
    return settled(*columns, ids, target, max_epochs).lam


def settled(
    u: F64,
    size: I64,
    rho: F64,
    ids: Sequence[str] | pa.Array,
    target: float,
    max_epochs: int,
    around: Around = NOTHING,
    inside: tuple[float, float] | None = None,
) -> Settled:
    """`calibrate` for events of which only those `inside` [first, last] are here.

    ValueError when there is no event at all.
    """
    order = _by_id(ids)
    found = events(u[order], size[order], rho[order], max_epochs)
    place, weight = found.place, found.weight
    if inside is not None:
        kept = (place >= inside[0]) & (place <= inside[1])
        place, weight = place[kept], weight[kept]
    # Documents are in the order of their ids, and the sort is stable: ties go by id.
    at = np.argsort(place, kind="stable")
    return _settle(place[at], weight[at], target, around)


def _by_id(ids: Sequence[str] | pa.Array) -> I64:
    import pyarrow.compute as pc

    array = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids, pa.string())
    found: I64 = pc.sort_indices(array).to_numpy().astype(np.int64)
    return found


def _settle(place: F64, weight: I64, target: float, around: Around) -> Settled:
    if not len(place):
        raise ValueError("a source without events has no lambda")
    sums = around.base + np.concatenate([np.zeros(1, np.int64), np.cumsum(weight)])
    n = int(np.abs(sums - target).argmin())
    left = float(place[n - 1]) if n else around.before
    right = float(place[n]) if n < len(place) else around.after
    if left is None:
        assert right is not None
        return Settled(right / 2, False)
    if right is None:
        return Settled(left + 1, True)
    return Settled(left + (right - left) / 2, False)


class Bins(NamedTuple):
    """Events of a source in bins of places [BINS]: weight and number of events, first and last
    place.

    `first` and `last` are infinite where a bin is empty.
    """

    weight: I64
    events: I64
    first: F64
    last: F64


def no_bins() -> Bins:
    """Bins without an event."""
    nothing = np.zeros(BINS, dtype=np.int64)
    return Bins(nothing, nothing.copy(), np.full(BINS, np.inf), np.full(BINS, -np.inf))


def bins(found: Events, lam: float) -> Bins:
    """Events counted in bins; the last but one ends at twice the planned lambda."""
    number = np.minimum(found.place * ((BINS - 1) / (2 * lam)), BINS - 1).astype(np.int64)
    counted = no_bins()
    ones = np.ones(len(number), dtype=np.int64)
    return add_bins(counted, number, found.weight, ones, found.place, found.place)


def add_bins(counted: Bins, number: I64, weight: I64, events: I64, first: F64, last: F64) -> Bins:
    """Bins to which weights, numbers of events and places were added, in place; bin by `number`."""
    np.add.at(counted.weight, number, weight)
    np.add.at(counted.events, number, events)
    np.minimum.at(counted.first, number, first)
    np.maximum.at(counted.last, number, last)
    return counted


def straddling(counted: Bins, target: float) -> tuple[Around, tuple[float, float]]:
    """The bin in which the summed weight passes the target: what lies around it, and its places.

    ValueError when there is no event at all.
    """
    filled = np.flatnonzero(counted.events)
    if not len(filled):
        raise ValueError("a source without events has no lambda")
    sums = np.cumsum(counted.weight[filled])
    at = min(int(np.searchsorted(sums, target)), len(filled) - 1)
    own = filled[at]
    around = Around(
        base=int(sums[at - 1]) if at else 0,
        before=float(counted.last[filled[at - 1]]) if at else None,
        after=float(counted.first[filled[at + 1]]) if at + 1 < len(filled) else None,
    )
    return around, (float(counted.first[own]), float(counted.last[own]))
