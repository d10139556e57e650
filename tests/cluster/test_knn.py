from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.bench.datasets import flat
from longctx.cluster.knn import (
    build_ivf,
    measure_recall,
    merge_lists,
    search,
    sort_edges,
    tune_nprobe,
    undirected_edges,
    without_rows,
)
from longctx.cluster.similarity import pair_similarities
from longctx.ids import doc_keys

KEYS = doc_keys([f"d{i}" for i in range(2000)])


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


def test_recall_is_measured_and_nprobe_grows_until_it_suffices(vectors, table):
    index = build_ivf(vectors, KEYS, 17, nlist=64)
    index.nprobe = 1
    poor = measure_recall(vectors, index, KEYS, 17, rows=300)
    assert poor < 0.9
    lists, _ = search(vectors, 0, 2000, 10, index=index)
    hits = (lists[:, :, None] == table[0][:, None, :10]).any(axis=2).sum()
    assert hits / lists.size == pytest.approx(poor, abs=0.03)
    recall = tune_nprobe(vectors, index, KEYS, 17, first=1)
    assert recall >= 0.9
    assert 1 < index.nprobe <= 64


def test_index_candidates_carry_exact_similarities_and_all_lists_mean_full_recall(vectors, table):
    index = build_ivf(vectors, KEYS, 17, nlist=16)
    index.nprobe = 16
    lists, sims = search(vectors, 100, 200, 32, index=index)
    np.testing.assert_array_equal(lists, table[0][100:200])
    np.testing.assert_array_equal(sims, table[1][100:200])
    assert measure_recall(vectors, index, KEYS, 17, rows=100) == 1


def test_rows_that_lost_most_of_their_list_are_searched_again(vectors, table):
    lists, sims = table[0][:, :6], table[1][:, :6]
    removed = lists[0, :4]
    keep = np.setdiff1d(np.arange(2000), removed)
    left, left_sims = without_rows(vectors, lists, sims, keep)
    fresh, fresh_sims = search(vectors[keep], 0, len(keep), 6)
    np.testing.assert_array_equal(left[0], fresh[0])
    np.testing.assert_array_equal(left_sims[0], fresh_sims[0])
    for row in range(len(keep)):  # the others keep what is left, a prefix of the fresh list
        count = (left[row] >= 0).sum()
        np.testing.assert_array_equal(left[row, :count], fresh[row, :count])
        assert np.isneginf(left_sims[row, count:]).all()
