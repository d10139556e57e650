import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.cluster.groups import Groups, balanced_groups
from longctx.ids import doc_keys, priorities
from longctx.order.clusters import clusters_order, number_of_clusters, random_sequence
from tests.order.conftest import at_degrees, named


def ranks(n: int, seed: int = 17) -> np.ndarray:
    return priorities(doc_keys([f"d{i}" for i in range(n)]), seed)


def lists(groups: Groups) -> list[list[int]]:
    return [members.tolist() for members in groups.each()]


def test_number_of_clusters_follows_from_tokens():
    assert number_of_clusters(1_000_000, 2 * 8192) == 61
    assert number_of_clusters(5_000, 2 * 8192) == 1
    assert number_of_clusters(0, 2 * 8192) == 1
    assert number_of_clusters(5, 2) == 3  # halves go up


def test_documents_by_distance_to_the_centroid():
    similarity = np.array([0.7, 0.9, 0.8])
    X = np.stack([similarity, np.sqrt(1 - similarity**2)], axis=1).astype(np.float32)
    groups = Groups(np.arange(3), np.zeros(1, dtype=np.int64), np.eye(1, 2, dtype=np.float32))
    priority = np.array([5, 4, 9], dtype=np.uint64)
    one = np.zeros(1, dtype=np.int64)
    assert clusters_order(X, groups, one, "near", priority)[0].tolist() == [1, 2, 0]
    assert clusters_order(X, groups, one, "far", priority)[0].tolist() == [0, 2, 1]
    assert clusters_order(X, groups, one, "random", priority)[0].tolist() == [1, 0, 2]
    X[:] = X[0]
    assert clusters_order(X, groups, one, "far", priority)[0].tolist() == [0, 1, 2]


def test_tours_are_the_groups_in_the_given_sequence():
    groups = Groups(np.array([0, 3, 1, 2, 4]), np.array([0, 2, 3]), np.eye(3, dtype=np.float32))
    priority = np.array([9, 8, 1, 0, 2], dtype=np.uint64)
    X = np.ones((5, 3), dtype=np.float32)
    order, starts = clusters_order(X, groups, np.array([2, 0, 1]), "random", priority)
    assert order.tolist() == [2, 4, 3, 0, 1]
    assert starts.tolist() == [0, 2, 4]
    # The first members 0, 1, 2 have the priorities 9, 8, 1.
    assert random_sequence(groups, priority).tolist() == [2, 1, 0]


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    x = rng.standard_normal((n, 3)) if rng.random() < 0.7 else rng.integers(0, 2, (n, 3)) + 0.1
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 80),
    st.integers(1, 90),
    st.none() | st.integers(1, 400),
    st.integers(1, 6),
    st.integers(0, 2**32 - 1),
)
def test_groups_are_a_partition_within_the_limit(n, k, limit, min_docs, seed):
    rng = np.random.default_rng(seed)
    X, tokens = unit(rng, n), rng.integers(0, 120, n)
    made = balanced_groups(
        X, tokens, ranks(n), k, max_tokens=limit, min_docs=min_docs, niter=3, seed=seed
    )
    groups = made.each()
    assert sorted(made.members) == list(range(n))
    assert [g[0] for g in groups] == sorted(g[0] for g in groups)
    for members in groups:
        assert (np.diff(members) > 0).all()
        assert limit is None or len(members) == 1 or tokens[members].sum() <= limit
    np.testing.assert_allclose(np.linalg.norm(made.centroids, axis=1), 1, atol=1e-6)
    if limit is None and len(groups) > 1:
        assert min(map(len, groups)) >= min_docs


def test_plain_k_means_is_uneven_and_the_limit_holds(named_set):
    corpus = named(named_set)
    one_each = np.ones(2000, dtype=np.int64)
    free, capped = (
        balanced_groups(corpus.vectors, one_each, corpus.priority, 40, max_tokens=limit, seed=17)
        for limit in (None, 100)
    )
    assert max(map(len, free.each())) > 110
    assert max(map(len, capped.each())) <= 100
    assert min(map(len, capped.each())) >= 2
    assert len(capped.starts) <= 1.3 * len(free.starts)


def test_equal_vectors_are_cut_by_priority():
    X = np.ones((100, 4), dtype=np.float32) / 2
    tokens = np.full(100, 10)
    groups = balanced_groups(X, tokens, ranks(100), 1, max_tokens=250)
    assert [len(members) for members in groups.each()] == [25] * 4
    order = np.argsort(ranks(100))
    assert sorted(lists(groups)) == sorted(sorted(order[i : i + 25]) for i in (0, 25, 50, 75))


def test_a_document_above_the_limit_stands_alone():
    X = np.ones((6, 4), dtype=np.float32) / 2
    tokens = np.array([10, 10, 5000, 10, 10, 10])
    groups = lists(balanced_groups(X, tokens, ranks(6), 1, max_tokens=100))
    assert [2] in groups
    assert len(groups) == 2


def test_one_cluster_without_a_limit_holds_everything():
    X = at_degrees(0, 90, 180, 270)
    groups = balanced_groups(X, np.ones(4, dtype=np.int64), ranks(4), 1)
    assert lists(groups) == [[0, 1, 2, 3]]
    # Opposed vectors add up to nothing; the first member stands for their direction.
    np.testing.assert_array_equal(groups.centroids, X[:1])


def test_a_lonely_document_joins_the_nearest_group_with_room():
    X = at_degrees(0, 1, 2, 90, 91, 92, 30)
    tokens = np.full(7, 10)
    for limit, expected in (
        (None, [[0, 1, 2, 6], [3, 4, 5]]),
        (40, [[0, 1, 2, 6], [3, 4, 5]]),
        (35, [[0, 1, 2], [3, 4, 5], [6]]),
    ):
        got = balanced_groups(X, tokens, ranks(7), 3, max_tokens=limit, niter=20)
        assert lists(got) == expected
    tokens[:3] = 13  # no room in the nearest one
    got = balanced_groups(X, tokens, ranks(7), 3, max_tokens=42, niter=20)
    assert lists(got) == [[0, 1, 2], [3, 4, 5, 6]]
    assert len(balanced_groups(X, tokens, ranks(7), 3, min_docs=1).starts) == 3


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_documents(n):
    X = at_degrees(0, 90, 180)[:n]
    tokens = np.full(n, 10)
    for k in (1, 2, 50):
        groups = balanced_groups(X, tokens, ranks(n), k, max_tokens=15)
        assert lists(groups) == [[i] for i in range(n)]
