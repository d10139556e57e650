import numpy as np
import pytest

from jobs.bench.datasets import flat, hier
from longctx.cluster.knn import search, undirected_edges
from longctx.cluster.near_duplicates import (
    greedy_duplicates,
    prune,
    prune_blocks,
    top1_histogram,
)

PAIRS = (
    np.array([1, 0], dtype=np.int32),
    np.array([2, 1], dtype=np.int32),
    np.array([0.97, 0.96], dtype=np.float32),
)


@pytest.mark.parametrize(
    ("n_tokens", "kept_id"), [((100, 200, 150), (1, -1, 1)), ((200, 100, 150), (-1, 2, -1))]
)
def test_a_document_falls_only_for_one_that_stays(n_tokens, kept_id):
    found = greedy_duplicates(PAIRS, np.array(n_tokens), 0.95)
    np.testing.assert_array_equal(found.kept_id, kept_id)
    named = np.array(kept_id)
    expected = {(0, 1): 0.96, (1, 2): 0.97, (2, 1): 0.97}
    for i in np.flatnonzero(named >= 0):
        assert found.sim[i] == np.float32(expected[(i, named[i])])
    assert np.isnan(found.sim[named < 0]).all()


def test_pairs_below_the_threshold_and_equal_lengths():
    found = greedy_duplicates(PAIRS, np.array([5, 5, 5]), 0.965)
    np.testing.assert_array_equal(found.kept_id, [-1, -1, 1])


def test_a_vector_that_saw_half_a_text_too_little_is_reported_not_believed():
    cover = np.array([0.4, 1.0, 0.5])
    found = greedy_duplicates(PAIRS, np.array([100, 200, 150]), 0.95, cover)
    np.testing.assert_array_equal(found.kept_id, [-1, -1, 1])
    assert [list(column) for column in found.reported[:2]] == [[0], [1]]


def test_prune_leaves_no_near_pair_and_names_a_survivor_for_every_loss():
    rng = np.random.default_rng(0)
    X = np.repeat(hier(300), 12, axis=0) + 0.002 * rng.standard_normal((3600, 384))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    n_tokens = rng.integers(50, 5000, 3600)
    lists, sims = search(X, 0, 3600, 8)  # shorter than a group of copies: one round is not enough
    once = greedy_duplicates(undirected_edges(lists, sims, 8), n_tokens)
    result = prune(X, lists, sims, n_tokens)
    gone = np.flatnonzero(result.duplicates.kept_id >= 0)
    assert len(gone) > (once.kept_id >= 0).sum()
    assert len(gone) + len(result.keep) == 3600
    assert np.isin(result.duplicates.kept_id[gone], result.keep).all()
    survivors = X[result.keep]
    _, every = search(survivors, 0, len(survivors), 1)
    assert every.max() < 0.95
    assert (result.duplicates.sim[gone] > 0.9).all()


def test_rows_that_lost_most_of_their_list_are_searched_again():
    X = flat(2000)
    lists, sims = search(X, 0, 2000, 6)
    copies = np.repeat(X[lists[0, :4]], 2, axis=0)  # four neighbours of document 0, twice more each
    copies += np.float32(1e-4) * np.random.default_rng(1).standard_normal(copies.shape)
    copies /= np.linalg.norm(copies, axis=1, keepdims=True)
    both = np.concatenate([X, copies.astype(np.float32)])
    lists, sims = search(both, 0, 2008, 6)
    result = prune(both, lists, sims, np.arange(2008)[::-1])
    np.testing.assert_array_equal(result.keep, np.arange(2000))
    fresh, fresh_sims = search(X, 0, 2000, 6)
    np.testing.assert_array_equal(result.lists[0], fresh[0])
    np.testing.assert_array_equal(result.sims[0], fresh_sims[0])
    counts = (result.lists >= 0).sum(axis=1)
    assert set(counts) > {6}
    for row in range(2000):  # the others keep what is left, a prefix of the fresh list
        np.testing.assert_array_equal(result.lists[row, : counts[row]], fresh[row, : counts[row]])
        assert np.isneginf(result.sims[row, counts[row] :]).all()


@pytest.mark.parametrize("size", [1, 700, 3600])
def test_blocks_and_width_change_nothing_of_what_is_kept(size):
    rng = np.random.default_rng(0)
    X = np.repeat(hier(200), 5, axis=0) + 0.002 * rng.standard_normal((1000, 384))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    n_tokens, cover = rng.integers(50, 5000, 1000), rng.choice([0.3, 1.0], 1000)
    lists, sims = search(X, 0, 1000, 8)
    whole = prune(X, lists, sims, n_tokens, 0.95, cover)
    assert len(whole.duplicates.reported[0])

    def blocks():
        for at in range(0, 1000, size):
            yield np.arange(at, min(at + size, 1000)), lists[at : at + size]

    narrow = prune_blocks(X, blocks, n_tokens, 3, 0.95, cover)
    np.testing.assert_array_equal(narrow.keep, whole.keep)
    np.testing.assert_array_equal(narrow.lists, whole.lists[:, :3])
    np.testing.assert_array_equal(narrow.sims, whole.sims[:, :3])
    np.testing.assert_array_equal(narrow.duplicates.kept_id, whole.duplicates.kept_id)
    for one, two in zip(narrow.duplicates.reported, whole.duplicates.reported, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(narrow.top1, sims[:, 0])
    u, v, near = whole.duplicates.reported
    assert (np.minimum(cover[u], cover[v]) < 0.5).all()
    assert (near >= np.float32(0.95)).all()
    assert np.isin(u, whole.keep).all()


def test_nothing_is_dropped_without_a_threshold():
    equal = np.tile(np.array([1, 0, 0, 0], dtype=np.float32), (9, 1))
    lists, _ = search(equal, 0, 9, 3)
    result = prune_blocks(equal, lambda: [(np.arange(9), lists)], np.arange(9), 2, None)
    np.testing.assert_array_equal(result.lists, lists[:, :2])
    assert (result.duplicates.kept_id < 0).all()


def test_what_an_order_holds_after_the_search_is_below_150_bytes_a_document():
    X = flat(1000)
    lists, _ = search(X, 0, 1000, 32)
    result = prune_blocks(X, lambda: [(np.arange(1000), lists)], np.arange(1000), 10)
    assert result.nbytes == 104 * 1000
    assert lists.nbytes == 128 * 1000  # and what is stored


def test_prune_of_nothing_and_of_all_equal_vectors():
    empty = np.zeros((0, 4), dtype=np.float32)
    assert len(prune(empty, *search(empty, 0, 0, 3), np.zeros(0, dtype=np.int64)).keep) == 0
    equal = np.tile(np.array([1, 0, 0, 0], dtype=np.float32), (50, 1))
    result = prune(equal, *search(equal, 0, 50, 3), np.arange(50))
    np.testing.assert_array_equal(result.keep, [49])
    assert set(result.duplicates.kept_id[:49]) == {49}


def test_the_histogram_tells_when_the_threshold_removes_ordinary_neighbours():
    _, sims = search(hier(2000), 0, 2000, 1)
    cuts, mean, counts, edges = top1_histogram(sims, 0.95)
    assert not cuts
    assert mean == pytest.approx(0.8151, abs=1e-4)
    assert counts.sum() == 2000
    assert len(edges) == 21
    assert top1_histogram(sims, 0.84)[0]
