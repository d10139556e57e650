import faiss
import numpy as np
import pytest

from jobs.bench.datasets import flat
from longctx.cluster.kmeans import assign, partition, train, training_sample
from longctx.cluster.similarity import pair_similarities
from longctx.ids import doc_keys, priorities


def test_training_sample_takes_the_smallest_priorities_whatever_the_row_order():
    ids = [f"d{i}" for i in range(5000)]
    keys = doc_keys(ids)
    chosen = training_sample(keys, 17, k=3, per_centroid=100)
    assert len(chosen) == 300
    limit = priorities(keys, 17)[chosen].max()
    assert (priorities(keys, 17) <= limit).sum() == 300
    shuffle = np.random.default_rng(0).permutation(5000)
    again = training_sample(keys[shuffle], 17, k=3, per_centroid=100)
    np.testing.assert_array_equal(shuffle[again], chosen)
    assert set(training_sample(keys, 18, k=3, per_centroid=100)) != set(chosen)


def test_train_gives_unit_centroids_that_do_not_depend_on_the_number_of_threads():
    X = flat(2000)
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(1)
        one = train(X, 40, niter=8, seed=17)
        faiss.omp_set_num_threads(4)
        four = train(X, 40, niter=8, seed=17)
        assert faiss.omp_get_max_threads() == 4  # left as it was found
    finally:
        faiss.omp_set_num_threads(before)
    np.testing.assert_array_equal(one, four)
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-6)
    assert not np.array_equal(one, train(X, 40, niter=8, seed=18))


def test_train_finds_planted_groups():
    groups = np.repeat(np.eye(5, 32, dtype=np.float32), 50, axis=0)
    cluster, similarity = assign(groups, train(groups, 5, niter=10, seed=3))
    for g in range(5):
        assert len(set(cluster[50 * g : 50 * (g + 1)])) == 1
    assert similarity.min() > 0.7


def test_assign_takes_the_smaller_cluster_of_a_tie_and_the_exact_similarity():
    X = flat(2000)
    C = np.vstack([X[:30], X[:30]])
    cluster, similarity = assign(X, C)
    assert cluster.max() < 30
    np.testing.assert_array_equal(
        similarity, pair_similarities(np.vstack([X, C]), np.arange(2000), 2000 + cluster)
    )
    shuffle = np.random.default_rng(1).permutation(2000)
    np.testing.assert_array_equal(assign(X[shuffle], C)[0], cluster[shuffle])


@pytest.mark.parametrize("k", [0, 11])
def test_train_refuses_more_centroids_than_rows(k):
    with pytest.raises(ValueError, match="between 1 and the 10"):
        train(flat(10), k)


def test_train_with_as_many_centroids_as_rows_returns_the_rows():
    X = flat(10)
    np.testing.assert_array_equal(train(X, 10), X)


def test_partition_is_training_and_assignment():
    X = flat(2000)
    priority = priorities(doc_keys([f"d{i}" for i in range(2000)]), 17)
    expected, _ = assign(X, train(X, 40, niter=8, seed=3))
    np.testing.assert_array_equal(partition(X, 40, priority, niter=8, seed=3), expected)
    # Two clusters are trained on the 512 documents of smallest priority.
    sample = X[np.argsort(priority)[:512]]
    expected, _ = assign(X, train(sample, 2, niter=8, seed=3))
    np.testing.assert_array_equal(partition(X, 2, priority, niter=8, seed=3), expected)


def test_partition_of_few_documents():
    X = flat(10)
    priority = np.arange(10, dtype=np.uint64)
    np.testing.assert_array_equal(partition(X, 99, priority), np.arange(10))
    np.testing.assert_array_equal(partition(X, 1, priority), np.zeros(10))
    assert len(partition(X[:0], 5, priority[:0])) == 0


def test_two_levels_come_close_to_one(monkeypatch):
    # Without groups to find, many documents lie nearest to a centroid of another cell.
    X = np.random.default_rng(0).standard_normal((1000, 16)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    priority = priorities(doc_keys([f"d{i}" for i in range(1000)]), 17)
    one = partition(X, 125, priority, niter=8)
    monkeypatch.setattr("longctx.cluster.kmeans.TWO_LEVELS_ABOVE", 100)
    two = partition(X, 125, priority, niter=8)
    monkeypatch.setattr("longctx.cluster.kmeans.PROBED", 1)
    bound_to_a_cell = partition(X, 125, priority, niter=8)

    def closeness(label: np.ndarray) -> float:
        assert label.min() >= 0
        assert 100 <= len(np.unique(label)) <= 140
        sums = np.zeros((label.max() + 1, X.shape[1]))
        np.add.at(sums, label, X)
        return np.linalg.norm(sums, axis=1).sum() / len(X)

    assert closeness(two) >= 0.99 * closeness(one)
    assert closeness(bound_to_a_cell) < closeness(two)


def test_two_levels_on_equal_rows_and_on_single_ones(monkeypatch):
    monkeypatch.setattr("longctx.cluster.kmeans.TWO_LEVELS_ABOVE", 3)
    equal = np.tile(flat(1), (30, 1))
    assert len(np.unique(partition(equal, 9, np.arange(30, dtype=np.uint64)))) >= 1
    singles = partition(flat(30), 30, np.arange(30, dtype=np.uint64))
    np.testing.assert_array_equal(np.sort(singles), np.arange(30))
