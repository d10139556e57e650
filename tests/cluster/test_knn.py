from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.bench.datasets import flat
from longctx.cluster.knn import (
    edge_parts,
    merge_lists,
    search,
    search_rows,
    search_within,
    sort_edges,
    undirected_edges,
)
from longctx.cluster.similarity import pair_similarities


@pytest.fixture(scope="module")
def vectors():
    return flat(2000)


@pytest.fixture(scope="module")
def table(vectors):
    return search(vectors, 0, len(vectors))


def shards(n: int, count: int) -> list[tuple[int, int]]:
    cuts = np.linspace(0, n, count + 1).astype(int)
    return list(pairwise(cuts))


def test_exact_copies_list_each_other_and_never_themselves():
    copies = np.array([[1, 0], [1, 0], [1, 0], [0.6, 0.8]], dtype=np.float32)
    lists, sims = search(copies, 0, 4, 2)
    np.testing.assert_array_equal(lists, [[1, 2], [0, 2], [0, 1], [0, 1]])
    np.testing.assert_array_equal(sims[:3], 1)


def test_lists_are_sorted_and_hold_exact_similarities(vectors, table):
    lists, sims = table
    assert (np.diff(sims, axis=1) <= 0).all()
    assert (lists != np.arange(2000)[:, None]).all()
    rows = np.repeat(np.arange(2000), 32)
    np.testing.assert_array_equal(sims.ravel(), pair_similarities(vectors, rows, lists.ravel()))


@pytest.mark.parametrize("count", [3, 7])
def test_query_shards_give_the_lists_of_one_worker(vectors, table, count):
    parts = [search(vectors, a, b) for a, b in shards(2000, count)]
    np.testing.assert_array_equal(np.vstack([p[0] for p in parts]), table[0])
    np.testing.assert_array_equal(np.vstack([p[1] for p in parts]), table[1])


@pytest.mark.parametrize("count", [3, 7])
def test_document_shards_merge_to_the_lists_of_one_worker_in_any_order(vectors, table, count):
    parts = [search(vectors, 500, 900, among=block) for block in shards(2000, count)]
    for sequence in (parts, parts[::-1]):
        merged = sequence[0]
        for part in sequence[1:]:
            merged = merge_lists(merged, part, 32)
        np.testing.assert_array_equal(merged[0], table[0][500:900])
        np.testing.assert_array_equal(merged[1], table[1][500:900])


def test_shuffled_rows_give_the_same_neighbours(vectors, table):
    shuffle = np.random.default_rng(3).permutation(2000)
    lists, sims = search(vectors[shuffle], 0, 2000)
    np.testing.assert_array_equal(shuffle[lists], table[0][shuffle])
    np.testing.assert_array_equal(sims, table[1][shuffle])


@pytest.mark.parametrize("n", [0, 1, 2, 3, 9])
def test_lists_longer_than_the_corpus_end_in_minus_one(n):
    lists, sims = search(flat(20)[:n], 0, n, 8)
    filled = min(8, max(n - 1, 0))
    assert lists.shape == (n, 8)
    assert (lists[:, :filled] >= 0).all()
    assert (lists[:, filled:] == -1).all()
    assert np.isneginf(sims[:, filled:]).all()
    assert len(undirected_edges(lists, sims, 8)[0]) <= n * (n - 1) // 2


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_edges_hold_every_listed_pair_once_in_order(n, k, seed):
    x = np.random.default_rng(seed).integers(-1, 2, (n, 4)).astype(np.float32)
    lists, sims = search(x, 0, n, k)
    u, v, sim = undirected_edges(lists, sims, k)
    wanted = {(min(i, j), max(i, j)) for i in range(n) for j in lists[i] if j >= 0}
    got = list(zip(u.tolist(), v.tolist(), strict=True))
    assert len(got) == len(wanted)
    assert set(got) == wanted
    assert got == [got[e] for e in np.lexsort((v, u, -sim))]
    halves = [undirected_edges(lists[a:b], sims[a:b], k, a) for a, b in ((0, n // 2), (n // 2, n))]
    again = sort_edges(*(np.concatenate(part) for part in zip(*halves, strict=True)))
    for one, two in zip((u, v, sim), again, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("at_once", [1, 500, 10**9])
def test_parts_of_falling_similarity_are_the_edges_in_their_order(table, at_once):
    lists, sims = table[0][:, :12], table[1][:, :12]
    whole = undirected_edges(lists, sims, 10)
    parts = list(edge_parts(lists, sims, 10, at_once))
    assert len(parts) == (16 if at_once < 1000 else 1)
    for one, column in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(column), one)


def test_edges_of_equal_similarity_are_never_divided():
    x = np.tile(np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32), (20, 1))
    lists, sims = search(x, 0, 60, 45)
    assert (sims == -1).any()
    whole = undirected_edges(lists, sims, 45)
    parts = list(edge_parts(lists, sims, 45, 1))
    assert [set(sim.tolist()) for _, _, sim in parts] == [{1.0}, {0.0}, {-1.0}]
    for one, column in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(column), one)


def test_edges_are_sorted_from_above_one_to_below_zero_and_signed_zeros_tie():
    sim = np.array([-0.0, 1.0000001, -1, 0.0, 0.5, -0.5, 0.0], dtype=np.float32)
    u, v = np.arange(7, dtype=np.int32)[::-1].copy(), np.full(7, 9, dtype=np.int32)
    got_u, got_v, got = sort_edges(u, v, sim)
    order = np.lexsort((v, u, -sim))
    np.testing.assert_array_equal(got_u, u[order])
    np.testing.assert_array_equal(got_v, v[order])
    np.testing.assert_array_equal(got, sim[order])


def test_any_rows_among_any_members(vectors, monkeypatch):
    rng = np.random.default_rng(8)
    members, rows = np.sort(rng.choice(2000, 700, replace=False)), rng.choice(2000, 90)
    lists, sims = search_rows(vectors, rows, 9, members)
    monkeypatch.setattr("longctx.cluster.knn._DOCUMENT_BLOCK", 64)
    for one, two in zip((lists, sims), search_rows(vectors, rows, 9, members), strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.isin(lists, members).all()
    assert (lists != rows[:, None]).all()
    within, within_sims = search_within(vectors, members, 9)
    fresh, fresh_sims = search(vectors[members], 0, 700, 9)
    np.testing.assert_array_equal(within, fresh)
    np.testing.assert_array_equal(within_sims, fresh_sims)
