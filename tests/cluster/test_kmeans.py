import faiss
import numpy as np
import pytest

from jobs.bench.datasets import flat
from longctx.cluster.kmeans import assign, train, training_sample
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
