"""An order of more documents than one process holds: partitions of similar ones, then the seams.

Cells of spherical k-means, trained on a sample, are grouped into partitions of similar cells that
hold at most so many documents; the partitions follow one another along a path over their centroids.
Each is arranged alone, by any rule that needs neighbours only, and turned so that the similarities
where two partitions meet are highest in sum. Cutting at random instead would lose far more: it
separates most documents from all of their neighbours.

What we changed against k-means with one centroid a partition: many cells make one partition, so
that none is too large, few are small, and topics that are smaller than a partition stay whole. A
cell that alone holds too many documents (texts that the encoder cannot tell apart) is dealt by hash
to partitions side by side.

Cost: training takes 640·c²·d operations in one thread for c cells (16,384 of 384 dimensions: about
a quarter of an hour) and 128·c·d bytes for the sample; grouping O(c·d). Lost: neighbours and
near-duplicates in two partitions are not seen. Of 20,000 documents in partitions of at most 5,000
`order.path` keeps 99.3 % (`flat`) and 100 % (`hier`) of its adjacency; where topics are far smaller
than a cell, 94.6 % and 99.5 % (random partitions: 93.3 % and 93.6 %, and a third of the coherence
of 16 documents less).
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.cluster.division import Grouping, numbered, similar_cells
from longctx.cluster.similarity import F32, I64, pair_similarities
from longctx.order.cluster_path import orient_paths, path_through

Figures = dict[str, Any]


def group_cells(centroids: F32, counts: I64, limit: int, seed: int) -> Grouping:
    """Cells to partitions of at most `limit` documents, numbered in the order of the tours.

    `centroids` float32[c, d], unit norm; `counts` int64[c] documents in each.
    """
    groups = similar_cells(centroids, counts, limit, seed)
    return numbered(groups, counts, limit, path_through(groups.centroids))


class Joints(NamedTuple):
    """How partitions follow one another: `turned` bool[p], and `sim` float32[p] the similarity of
    the first document of each to the last of the one before (nan where there is none)."""

    turned: npt.NDArray[np.bool_]
    sim: F32


def join_partitions(heads: F32, tails: F32, may_turn: bool) -> Joints:
    """Orient the orders of partitions 0..p-1 by their ends, float32[p, d] each."""
    p = len(heads)
    X = np.concatenate([heads, tails])
    paths = [np.array([i, p + i], dtype=np.int64) for i in range(p)]
    if may_turn:
        paths = orient_paths(X, paths)
    begin = np.array([path[0] for path in paths], dtype=np.int64)
    end = np.array([path[1] for path in paths], dtype=np.int64)
    sim = np.full(p, np.nan, dtype=np.float32)
    if p > 1:
        sim[1:] = pair_similarities(X, end[:-1], begin[1:])
    return Joints(begin >= p, sim)


class Place(NamedTuple):
    """Where a partition stands among all: what is added to its tour numbers and, where all tours
    are one, to its ranks (`rank` None: they stay), whether it is turned, and `sim`, the similarity
    at the seam before it (None at the very beginning); tours are named with `width` digits."""

    tour: int
    rank: int | None
    turned: bool
    sim: float | None
    width: int


def in_place(table: pa.Table, place: Place) -> pa.Table:
    """The tour table of a partition as a piece of the whole order.

    Rows without a tour stay as they are.
    """
    rows = np.flatnonzero(table["rank"].is_valid().to_numpy())
    tour = pc.cast(pc.utf8_slice_codeunits(table["tour_id"], 1), pa.int64())
    number = tour.take(pa.array(rows)).to_numpy()
    rank = table["rank"].take(pa.array(rows)).to_numpy()
    order = np.lexsort((rank, number))
    columns = {n: table[n].take(pa.array(rows[order])) for n in ("sim_prev", "jump", "link")}
    number, rank, rows = number[order], rank[order], rows[order]
    if place.turned:
        last = np.bincount(number)[number] - 1
        number, rank = number.max(initial=0) - number[::-1], (last - rank)[::-1]
        rows = rows[::-1]
        columns = {n: _turned(column, n) for n, column in columns.items()}
    if place.rank is not None:
        number, rank = np.zeros_like(number), rank + place.rank
        if place.sim is not None and len(rows):
            columns = {n: _seam(column, n, place.sim) for n, column in columns.items()}
    last = place.tour + int(number.max(initial=-1))
    names = pa.array([f"t{t:0{place.width}d}" for t in range(place.tour, last + 1)], pa.string())
    columns |= {"tour_id": names.take(pa.array(number)), "rank": pa.array(rank, pa.int64())}
    back = np.full(table.num_rows, -1, dtype=np.int64)
    back[rows] = np.arange(len(rows))
    at = pa.array(back, mask=back < 0)
    for index, name in enumerate(table.column_names):
        if name in columns:
            column = columns[name].take(at).cast(table.schema.field(name).type)
            table = table.set_column(index, name, column)
    return table


def _turned(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """What stood between each document and the one before, between it and the one behind."""
    first = {"sim_prev": None, "jump": False, "link": "start"}[name]
    back = column.slice(1).take(pa.array(np.arange(len(column) - 2, -1, -1)))
    return pa.chunked_array([pa.array([first][: len(column)], column.type), *back.chunks])


def _seam(column: pa.ChunkedArray, name: str, sim: float) -> pa.ChunkedArray:
    first = {"sim_prev": sim, "jump": True, "link": "seam"}[name]
    return pa.chunked_array([pa.array([first], column.type), *column.slice(1).chunks])


_SUMS = ("documents", "tours", "near_duplicates_dropped", "near_duplicates_reported")


def merged_figures(parts: Iterable[Mapping[str, Any]], sims: F32, bins: int) -> Figures:
    """The figures of `tours.figures` over all partitions, seams with similarities `sims` included.

    Means are weighted by what they are taken over (pairs, or whole groups of documents). The bound
    is that on links inside partitions. Random orders are not among them.
    """
    parts = [p for p in parts if p["documents"]]
    sims = sims[np.isfinite(sims)]
    total: Figures = {name: sum(p[name] for p in parts) for name in _SUMS}
    pairs = [p["documents"] - 1 for p in parts]
    total["adjacency"] = _mean(
        [(p["adjacency"], w) for p, w in zip(parts, pairs, strict=True)]
        + [(float(s), 1) for s in sims]
    )
    total["jumps"] = _mean(
        [*((p["jumps"], w) for p, w in zip(parts, pairs, strict=True)), (1.0, len(sims))]
    )
    total["top2_bound"] = _mean([(p["top2_bound"], w) for p, w in zip(parts, pairs, strict=True)])
    for name in ("coherence", "best_earlier"):
        sizes = sorted({w for p in parts for w in p[name]}, key=int)
        total[name] = {
            w: _mean([(p[name][w], p["documents"] // int(w)) for p in parts]) for w in sizes
        }
    counts, _ = np.histogram(np.clip(sims, -1, 1), bins=bins, range=(-1, 1))
    total["histogram"] = np.sum([counts, *(p["histogram"] for p in parts)], axis=0).tolist()
    for name in ("neighbour_recall", "bytes_per_document"):
        total[name] = _mean([(p[name], p["documents"]) for p in parts])
    return total


def _mean(values: list[tuple[float | None, int]]) -> float | None:
    known = [(v, w) for v, w in values if v is not None and w > 0]
    weight = sum(w for _, w in known)
    return sum(v * w for v, w in known) / weight if weight else None
