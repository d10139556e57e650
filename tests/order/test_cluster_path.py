from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.cluster.groups import Groups, balanced_groups
from longctx.cluster.knn import search, undirected_edges
from longctx.cluster.similarity import pair_similarities
from longctx.order.cluster_path import cluster_path, orient_paths, path_through
from longctx.order.improve import improve_path
from longctx.order.path import greedy_edge_path
from tests.order.conftest import at_degrees, named


def joints(X: np.ndarray, paths: list[np.ndarray]) -> float:
    ends = np.array([path[-1] for path in paths[:-1]])
    begins = np.array([path[0] for path in paths[1:]])
    return float(pair_similarities(X, ends, begins).astype(np.float64).sum())


def test_paths_are_turned_for_the_sum_of_all_joints():
    X = at_degrees(0, 10, 20, 30, 40, 50)
    paths = [np.array(p) for p in ([1, 0], [2, 3], [5, 4])]
    turned = orient_paths(X, paths)
    assert [p.tolist() for p in turned] == [[0, 1], [2, 3], [4, 5]]
    assert joints(X, turned) == pytest.approx(1.969616, abs=1e-6)
    # Turning each for the tail before it alone starts with [10, 0] and loses.
    assert joints(X, [paths[0], *turned[1:]]) == pytest.approx(1.924500, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 3), max_size=7), st.booleans(), st.integers(0, 2**32 - 1))
def test_no_other_directions_have_better_joints(sizes, coarse, seed):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    x = rng.integers(-1, 2, (n, 2)) + 0.1 if coarse else rng.standard_normal((n, 2))
    X = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    paths = np.split(rng.permutation(n), np.cumsum(sizes)[:-1]) if sizes else []
    turned = orient_paths(X, paths)
    assert [sorted(p) for p in turned] == [sorted(p) for p in paths]
    if len(paths) > 1:
        choices = product(*[(p, p[::-1]) for p in paths])
        best = max(joints(X, list(choice)) for choice in choices)
        assert joints(X, turned) == pytest.approx(best, abs=1e-12)


def test_a_tie_leaves_paths_as_they_are():
    X = np.ones((9, 2), dtype=np.float32)
    paths = [np.array([2, 0, 1]), np.array([5, 3, 4]), np.array([8]), np.array([7, 6])]
    for before, after in zip(paths, orient_paths(X, paths), strict=True):
        np.testing.assert_array_equal(before, after)
    assert orient_paths(X, []) == []


@pytest.mark.parametrize("n", range(12))
def test_short_paths(n):
    X = named("hier").vectors[:n]
    path = path_through(X)
    np.testing.assert_array_equal(np.sort(path), np.arange(n))
    if n <= 2:
        np.testing.assert_array_equal(path, np.arange(n))
        return
    table = search(X, 0, n, 10)
    greedy = greedy_edge_path(X, undirected_edges(*table, 10))
    np.testing.assert_array_equal(path_through(X, moves=None), greedy)
    np.testing.assert_array_equal(path, greedy if n < 8 else improve_path(X, greedy, *table))


def test_few_rows_have_the_neighbours_of_many(monkeypatch):
    # Rows that are equal, too: ties must go to the smaller number either way.
    X = np.vstack([named("flat").vectors[:200], named("flat").vectors[:60]])
    alone = path_through(X)
    monkeypatch.setattr("longctx.order.cluster_path.ALL_PAIRS_UP_TO", 10)
    np.testing.assert_array_equal(path_through(X), alone)


def test_groups_are_walked_along_a_line():
    # Ten groups of four on an arc, numbered at random: the walk is the arc or its reverse.
    angles = np.arange(40) * 4.0 + np.arange(40) // 4 * 0.2 + np.arange(40) ** 2 * 1e-4
    place = np.random.default_rng(2).permutation(40)
    X = at_degrees(*angles[place])
    members = [np.flatnonzero(place // 4 == g) for g in range(10)]
    members.sort(key=lambda m: m[0])
    centroids = np.stack([X[m].mean(axis=0) for m in members])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    groups = Groups(np.concatenate(members), np.arange(0, 40, 4), centroids)
    order, starts = cluster_path(X, groups)
    walked = place[order]
    assert walked.tolist() in (list(range(40)), list(range(39, -1, -1)))
    np.testing.assert_array_equal(starts, np.arange(0, 40, 4))


def test_every_tour_is_a_group(named_set):
    corpus = named(named_set)
    one_each = np.ones(2000, dtype=np.int64)
    groups = balanced_groups(corpus.vectors, one_each, corpus.priority, 125, max_tokens=32)
    order, starts = cluster_path(corpus.vectors, groups)
    tours = {tuple(sorted(tour)) for tour in np.split(order, starts[1:])}
    assert tours == {tuple(members) for members in groups.each()}
    again, _ = cluster_path(corpus.vectors, groups)
    np.testing.assert_array_equal(order, again)


def test_no_documents():
    X = np.zeros((0, 4), dtype=np.float32)
    groups = balanced_groups(X, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint64), 3)
    order, starts = cluster_path(X, groups)
    assert len(order) == len(starts) == 0
