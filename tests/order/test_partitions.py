"""Partitions of similar documents, how they follow one another, and their rows in one table."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.bench.datasets import hier
from longctx.cluster.division import dealt, partition_of
from longctx.cluster.kmeans import assign, train
from longctx.cluster.similarity import pair_similarities
from longctx.cluster.stages_cells import cells_for
from longctx.ids import mix64
from longctx.order.metrics import adjacency, best_earlier, coherence
from longctx.order.partitions import (
    Place,
    group_cells,
    in_place,
    join_partitions,
    merged_figures,
)
from tests.order.conftest import at_degrees

X = hier(2000, 32)
PRIORITY = mix64(np.arange(2000, dtype=np.uint64))


@pytest.mark.parametrize("limit", [100, 450, 1999, 2000])
def test_no_partition_is_too_large_and_few_are_small(limit: int):
    cells = cells_for(len(X), limit)
    centroids = train(X, cells, seed=3)
    home, _ = assign(X, centroids)
    counts = np.bincount(home, minlength=cells)
    grouping = group_cells(centroids, counts, limit, seed=3)
    sizes = np.bincount(partition_of(home, PRIORITY, grouping), minlength=grouping.partitions)
    whole = sizes[np.unique(grouping.first[grouping.shares == 1])]
    assert whole.max() <= limit
    assert sizes.sum() == 2000
    assert grouping.partitions <= 3 * -(-2000 // limit)
    if limit == 2000:
        assert grouping.partitions == 1


def test_cells_are_many_but_not_without_end():
    assert cells_for(10, 5) == 10
    assert cells_for(20_000, 5_000) == 128
    assert cells_for(10**9, 10**6) == 16_384
    assert cells_for(10**10, 10**6) == 40_000


def test_a_cell_that_is_too_large_is_dealt_to_partitions_side_by_side():
    centroids = at_degrees(0, 40, 80)
    grouping = group_cells(centroids, np.array([10, 95, 10]), limit=20, seed=0)
    assert grouping.shares.tolist() == [1, 5, 1]
    assert grouping.partitions == 6  # the two small ones are one
    assert grouping.first[0] == grouping.first[2]
    home = np.repeat([0, 1, 2], [10, 95, 10]).astype(np.int32)
    found = partition_of(home, PRIORITY[:115], grouping)
    own = np.unique(found[home == 1])
    assert own.tolist() == list(range(grouping.first[1], grouping.first[1] + 5))
    assert set(found[home != 1]).isdisjoint(own)
    again = partition_of(home[::-1], PRIORITY[:115][::-1], grouping)
    np.testing.assert_array_equal(again[::-1], found)


def test_documents_that_nothing_tells_apart_are_dealt_evenly():
    counts = np.bincount(dealt(PRIORITY, 8), minlength=8)
    assert counts.sum() == 2000
    assert counts.min() > 150
    assert dealt(PRIORITY[:3], 0).tolist() == [0, 0, 0]


def test_no_cells_no_partitions():
    nothing = group_cells(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), 10, 0)
    assert nothing.partitions == 0


def test_partitions_are_turned_where_the_rule_allows_it():
    heads, tails = at_degrees(10, 20, 50), at_degrees(0, 30, 40)
    joints = join_partitions(heads, tails, may_turn=True)
    assert joints.turned.tolist() == [True, False, True]
    assert np.isnan(joints.sim[0])
    ten = np.cos(np.deg2rad(10))
    np.testing.assert_allclose(joints.sim[1:], [ten, ten], atol=1e-6)
    kept = join_partitions(heads, tails, may_turn=False)
    assert not kept.turned.any()
    np.testing.assert_allclose(kept.sim[1:], np.cos(np.deg2rad([20, 20])), atol=1e-6)
    assert len(join_partitions(heads[:0], tails[:0], may_turn=True).sim) == 0


def table_of(tours: list[list[int]], n: int) -> pa.Table:
    """Rows of documents 0..n-1 at i degrees, arranged as `tours`; those in none have left."""
    rows: list[dict[str, Any]] = [
        dict.fromkeys(["tour_id", "rank", "sim_prev", "jump", "link"]) | {"row": i}
        for i in range(n)
    ]
    for number, tour in enumerate(tours):
        for rank, i in enumerate(tour):
            sim = float(np.float32(np.cos(np.deg2rad(i - tour[rank - 1])))) if rank else None
            rows[i] |= {
                "tour_id": f"t{number:08d}",
                "rank": rank,
                "sim_prev": sim,
                "jump": bool(rank or number) and (i % 2 == 1),
                "link": "start" if rank == 0 else f"to {i}",
            }
    schema = pa.schema(
        [
            ("row", pa.int32()),
            ("tour_id", pa.string()),
            ("rank", pa.int64()),
            ("sim_prev", pa.float32()),
            ("jump", pa.bool_()),
            ("link", pa.string()),
        ]
    )
    return pa.Table.from_pylist(rows, schema=schema)


def in_order(table: pa.Table) -> list[tuple[int, str, int]]:
    seated = [r for r in table.to_pylist() if r["rank"] is not None]
    seated.sort(key=lambda r: (r["tour_id"], r["rank"]))
    return [(r["row"], r["tour_id"], r["rank"]) for r in seated]


def test_a_partition_in_place_keeps_its_tours():
    table = table_of([[4, 2], [7, 1, 3]], 9)
    moved = in_place(table, Place(tour=5, rank=None, turned=False, sim=0.5, width=9))
    assert in_order(moved) == [
        (4, "t000000005", 0),
        (2, "t000000005", 1),
        (7, "t000000006", 0),
        (1, "t000000006", 1),
        (3, "t000000006", 2),
    ]
    same = ["row", "rank", "sim_prev", "jump", "link"]
    assert moved.select(same).equals(table.select(same))
    assert moved.schema == table.schema


def test_a_turned_partition_has_its_links_between_the_same_documents():
    table = table_of([[4, 2], [7, 1, 3]], 9)
    moved = in_place(table, Place(tour=0, rank=None, turned=True, sim=None, width=8))
    assert [(i, t) for i, t, _ in in_order(moved)] == [
        (3, "t00000000"),
        (1, "t00000000"),
        (7, "t00000000"),
        (2, "t00000001"),
        (4, "t00000001"),
    ]
    by_row = {r["row"]: r for r in moved.to_pylist()}
    old = {r["row"]: r for r in table.to_pylist()}
    for later, earlier in ((1, 3), (7, 1), (4, 2)):  # now behind, then behind
        for name in ("sim_prev", "jump", "link"):
            assert by_row[later][name] == old[earlier][name]
    assert [by_row[i]["link"] for i in (3, 2)] == ["start", "start"]
    assert [by_row[i]["sim_prev"] for i in (3, 2)] == [None, None]
    assert by_row[3]["jump"] is False
    assert by_row[2]["jump"] == old[7]["jump"]
    back = in_place(moved, Place(tour=0, rank=None, turned=True, sim=None, width=8))
    assert back.equals(table)


def test_one_tour_goes_on_across_the_seam():
    table = table_of([[4, 2, 3]], 6)
    moved = in_place(table, Place(tour=0, rank=100, turned=False, sim=0.25, width=8))
    assert in_order(moved) == [(i, "t00000000", r) for i, r in ((4, 100), (2, 101), (3, 102))]
    first = moved.to_pylist()[4]
    assert (first["sim_prev"], first["jump"], first["link"]) == (0.25, True, "seam")


def test_a_partition_of_which_nothing_is_left():
    table = table_of([], 3)
    assert in_place(table, Place(0, 7, True, 0.5, 8)).equals(table)
    assert in_place(table, Place(3, None, True, None, 8)).equals(table)


def figures_of(order: np.ndarray) -> dict[str, Any]:
    from longctx.order.tours import histogram

    return {
        "documents": len(order),
        "tours": 1,
        "near_duplicates_dropped": 2,
        "near_duplicates_reported": 0,
        "adjacency": adjacency(X, order),
        "jumps": 0.25 if len(order) > 1 else None,
        "top2_bound": 0.9 if len(order) > 1 else None,
        "coherence": {str(w): coherence(X, order, w) for w in (6, 16, 100)},
        "best_earlier": {str(w): best_earlier(X, order, w) for w in (16, 100)},
        "histogram": histogram(X, order),
        "neighbour_recall": 1.0,
        "bytes_per_document": 100.0,
    }


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=5))
def test_figures_of_partitions_are_those_of_the_whole(sizes: list[int]):
    # In whole groups of 16, so that a mean over groups of 16 is the same.
    ends = np.cumsum([16 * s for s in sizes])
    orders = np.split(np.arange(ends[-1]), ends[:-1])
    full = [order for order in orders if len(order)]
    last, first = [o[-1] for o in full[:-1]], [o[0] for o in full[1:]]
    sims = pair_similarities(X, np.array(last, dtype=np.int64), np.array(first, dtype=np.int64))
    parts = [figures_of(order) for order in orders]
    merged = merged_figures(parts, np.append(sims, np.nan).astype(np.float32), 40)
    whole = figures_of(np.arange(ends[-1]))
    assert merged["documents"] == whole["documents"]
    assert merged["histogram"] == whole["histogram"]
    assert merged["adjacency"] == (
        None if whole["adjacency"] is None else pytest.approx(whole["adjacency"], abs=1e-6)
    )
    for name in ("coherence", "best_earlier"):
        known = whole[name]["16"]
        assert merged[name].get("16") == (None if known is None else pytest.approx(known, abs=1e-6))
