from itertools import pairwise

import numpy as np
import pytest

from jobs.bench.datasets import flat, hier
from longctx.cluster.cells import (
    Cells,
    cells_of,
    group,
    number_of_cells,
    refine,
    search_again,
    search_cells,
    search_within,
    train_cells,
    tune_probed,
    widened,
)
from longctx.cluster.kmeans import assign
from longctx.cluster.knn import search, search_rows
from longctx.cluster.near_duplicates import prune, prune_blocks
from longctx.cluster.similarity import pair_similarities
from longctx.ids import doc_keys

N = 2000
EVERY = np.arange(N)
KEYS = doc_keys([f"d{i}" for i in range(N)])


def cells_for(X: np.ndarray, keys: np.ndarray, count: int, probed: int = 16) -> Cells:
    centroids = train_cells(X, keys, 17, count)
    return group(assign(X, centroids)[0], centroids, probed)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return hier(N)


@pytest.fixture(scope="module")
def exact(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return search(vectors, 0, N)


@pytest.fixture(scope="module")
def cells(vectors: np.ndarray) -> Cells:
    return cells_for(vectors, KEYS, 60, 2)


def found_share(lists: np.ndarray, true: np.ndarray) -> float:
    return float((true[:, :, None] == lists[:, None, :]).any(axis=2).mean())


def test_cells_hold_every_document_once_in_ascending_order(vectors, cells):
    assert cells.order.dtype == np.int32
    assert number_of_cells(10**6) == 4000
    np.testing.assert_array_equal(np.sort(cells.order), EVERY)
    for cell, (a, b) in enumerate(pairwise(cells.bounds)):
        members = cells.order[a:b]
        assert (np.diff(members) > 0).all()
        assert (cells.home[members] == cell).all()


def test_all_cells_give_the_exact_lists(vectors, cells, exact):
    lists, sims = search_cells(vectors, widened(cells, 10**6), EVERY, 32)
    np.testing.assert_array_equal(lists, exact[0])
    np.testing.assert_array_equal(sims, exact[1])


def test_few_cells_give_exact_similarities_of_some_neighbours(vectors, cells, exact):
    lists, sims = search_cells(vectors, cells, EVERY, 10)
    assert 0.5 < found_share(lists, exact[0][:, :10]) < 0.95
    np.testing.assert_array_equal(
        sims.ravel(), pair_similarities(vectors, np.repeat(EVERY, 10), lists.ravel())
    )
    assert (np.diff(sims, axis=1) <= 0).all()
    assert (lists != EVERY[:, None]).all()


@pytest.mark.parametrize("count", [3, 7])
def test_shards_give_the_lists_of_one_worker(vectors, cells, count, monkeypatch):
    lists, sims = search_cells(vectors, cells, EVERY, 32)
    better, better_sims = refine(vectors, EVERY, lists, lists[:, :16])
    monkeypatch.setattr("longctx.cluster.cells._MEMBER_BLOCK", 20)
    monkeypatch.setattr("longctx.cluster.cells._REFINE_BLOCK", 100)
    for a, b in pairwise(np.linspace(0, N, count + 1).astype(int)):
        part, part_sims = search_cells(vectors, cells, EVERY[a:b], 32)
        np.testing.assert_array_equal(part, lists[a:b])
        np.testing.assert_array_equal(part_sims, sims[a:b])
        part, part_sims = refine(vectors, EVERY[a:b], lists[a:b], lists[:, :16])
        np.testing.assert_array_equal(part, better[a:b])
        np.testing.assert_array_equal(part_sims, better_sims[a:b])


def test_shuffled_rows_give_the_same_lists(vectors, cells):
    lists, sims = search_cells(vectors, cells, EVERY, 32)
    shuffle = np.random.default_rng(3).permutation(N)
    moved = group(cells.home[shuffle], cells.centroids, cells.probed)
    again, again_sims = search_cells(vectors[shuffle], moved, EVERY, 32)
    np.testing.assert_array_equal(np.where(again >= 0, shuffle[again], -1), lists[shuffle])
    np.testing.assert_array_equal(again_sims, sims[shuffle])


def test_shuffled_rows_give_the_same_centroids(vectors):
    shuffle = np.random.default_rng(4).permutation(N)
    moved = train_cells(vectors[shuffle], KEYS[shuffle], 17, 20)
    np.testing.assert_array_equal(moved, train_cells(vectors, KEYS, 17, 20))


def test_neighbours_of_neighbours_find_what_cells_cut_off(vectors, cells, exact):
    lists, _ = search_cells(vectors, cells, EVERY, 32)
    better, sims = refine(vectors, EVERY, lists, lists[:, :16])
    true = exact[0][:, :10]
    assert found_share(better, true) > found_share(lists, true) + 0.05
    few = np.array([3, 77, 1500])
    known = np.unique(lists[few, :16])
    apart, apart_sims = refine(vectors, few, lists[few], lists[known, :16], known)
    np.testing.assert_array_equal(apart, better[few])
    np.testing.assert_array_equal(apart_sims, sims[few])


def test_recall_is_measured_and_more_cells_are_searched_until_it_suffices():
    X = hier(N)
    cells = cells_for(X, KEYS, 150, 1)
    tuned, recall = tune_probed(X, cells, KEYS, 17, 32, rows=400)
    assert recall >= 0.9
    assert 1 < tuned.probed < 150
    chosen = np.argsort(KEYS)[:400]  # other rows than those that were measured
    lists, _ = search_cells(X, tuned, EVERY, 32)
    better, _ = refine(X, chosen, lists[chosen], lists[:, :16])
    assert found_share(better, search_rows(X, chosen, 10)[0]) == pytest.approx(recall, abs=0.04)


def test_without_any_structure_everything_is_compared_in_the_end(monkeypatch):
    X = np.random.default_rng(0).standard_normal((500, 300)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    monkeypatch.setattr("longctx.cluster.cells.MIN_RECALL", 1.01)
    tuned, recall = tune_probed(X, cells_for(X, KEYS[:500], 40, 8), KEYS[:500], 17, 32)
    assert tuned.probed == 40
    assert recall == 1


def test_rows_are_searched_again_among_the_living_alone(vectors, cells):
    living = np.random.default_rng(5).random(N) < 0.4
    rows = np.flatnonzero(living)[::3]
    lists, _ = search_cells(vectors, cells, rows, 8)
    survivors, _ = search_rows(vectors, rows, 8, np.flatnonzero(living))
    np.testing.assert_array_equal(search_again(vectors, rows, lists, living), survivors)
    fresh = search_again(vectors, rows, lists, living, cells)
    assert living[fresh[fresh >= 0]].all()
    for old, new in zip(lists, fresh, strict=True):  # what was found and lives is not lost
        left = old[living[old]]
        np.testing.assert_array_equal(new[: len(left)][np.isin(new[: len(left)], left)], left)
    wide = search_again(vectors, rows, lists, living, widened(cells, 60))
    np.testing.assert_array_equal(wide, survivors)


def test_near_duplicates_in_all_cells_are_those_of_an_exact_search():
    rng = np.random.default_rng(0)
    X = np.repeat(hier(100), 12, axis=0) + 0.002 * rng.standard_normal((1200, 384))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    n_tokens = rng.integers(50, 5000, 1200)
    keys = doc_keys([f"d{i}" for i in range(1200)])
    lists, sims = search(X, 0, 1200, 8)
    cells = cells_for(X, keys, 30, 30)
    whole = prune(X, lists, sims, n_tokens)
    from_cells = prune_blocks(X, lambda: [(np.arange(1200), lists)], n_tokens, 8, 0.95, None, cells)
    for one, two in zip(whole[:3], from_cells[:3], strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(whole.duplicates.kept_id, from_cells.duplicates.kept_id)


def test_cells_of_the_documents_that_stay(vectors, cells):
    keep = np.flatnonzero(np.random.default_rng(6).random(N) < 0.5)
    left = cells_of(cells, keep)
    np.testing.assert_array_equal(left.home, cells.home[keep])
    living = np.zeros(N, dtype=bool)
    living[keep] = True
    lists, sims = search_cells(vectors[keep], left, np.arange(len(keep)), 5)
    wanted, wanted_sims = search_cells(vectors, cells, keep, 5, living)
    np.testing.assert_array_equal(keep[lists], wanted)
    np.testing.assert_array_equal(sims, wanted_sims)


def test_chosen_documents_are_searched_among_one_another(vectors, cells, monkeypatch):
    chosen = np.flatnonzero(np.random.default_rng(7).random(N) < 0.3)
    true, sims = search(vectors[chosen], 0, len(chosen), 8)
    for one, two in zip(search_within(vectors, cells)(chosen, 8), (true, sims), strict=True):
        np.testing.assert_array_equal(one, two)
    monkeypatch.setattr("longctx.cluster.cells.EXACT_AMONG", 10)
    lists, _ = search_within(vectors, cells)(chosen, 8)
    assert found_share(lists, true) > 0.8
    lists, _ = search_within(vectors, widened(cells, 60))(chosen, 8)
    np.testing.assert_array_equal(lists, true)


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_lists_longer_than_the_corpus_end_in_minus_one(n):
    X = flat(20)[:n]
    cells = cells_for(X, KEYS[:n], number_of_cells(n))
    lists, sims = search_cells(X, cells, np.arange(n), 8)
    true, true_sims = search(X, 0, n, 8)
    np.testing.assert_array_equal(lists, true)
    np.testing.assert_array_equal(sims, true_sims)
    np.testing.assert_array_equal(refine(X, np.arange(n), lists, lists)[0], true)
    assert tune_probed(X, cells, KEYS[:n], 17, 8)[1] == 1


def test_equal_vectors_and_two_orthogonal_groups():
    for X in (np.tile([[1, 0]], (300, 1)), np.repeat([[1, 0], [0, 1]], 150, axis=0)):
        X = X.astype(np.float32)
        cells = cells_for(X, KEYS[:300], number_of_cells(300))
        tuned, recall = tune_probed(X, cells, KEYS[:300], 17, 5)
        lists, sims = search_cells(X, tuned, np.arange(300), 5)
        true, true_sims = search(X, 0, 300, 5)
        assert recall == 1
        np.testing.assert_array_equal(lists, true)
        np.testing.assert_array_equal(sims, true_sims)
