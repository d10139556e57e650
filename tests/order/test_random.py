import numpy as np
import pytest

from longctx.ids import doc_key, doc_keys, mix64, priorities, rng_for
from longctx.order.metrics import adjacency
from longctx.order.random import random_order, source_order
from tests.order.conftest import named


def test_random_order_of_eight_documents_at_seed_17():
    key = np.array([doc_key("d0")], dtype=np.uint64) ^ np.uint64(17)
    assert int(mix64(key)[0]) == 14864498524836159963
    order = random_order(priorities(doc_keys([f"d{i}" for i in range(8)]), 17))
    np.testing.assert_array_equal(order, [2, 4, 5, 3, 1, 7, 6, 0])


def test_generators_belong_to_documents():
    assert rng_for(0, "quest", "d1").random() == pytest.approx(0.556545, abs=5e-7)
    assert rng_for(0, "quest", "d2").random() == pytest.approx(0.355452, abs=5e-7)


def test_equal_priorities_fall_back_to_the_number():
    order = random_order(np.array([5, 1, 5, 1], dtype=np.uint64))
    np.testing.assert_array_equal(order, [1, 3, 0, 2])


def test_source_order_sorts_sources_by_name_and_documents_by_priority():
    priority = np.array([4, 3, 2, 1, 0], dtype=np.uint64)
    order, starts = source_order(["web", "arxiv", "web", "Éditions", "arxiv"], priority)
    np.testing.assert_array_equal(order, [4, 1, 2, 0, 3])
    np.testing.assert_array_equal(starts, [0, 2, 4])
    empty, none = source_order([], np.zeros(0, dtype=np.uint64))
    assert len(empty) == len(none) == 0


def test_row_order_of_the_input_does_not_matter_and_the_seed_does():
    keys = doc_keys([f"d{i}" for i in range(500)])
    shuffle = np.random.default_rng(0).permutation(500)
    order = random_order(priorities(keys, 17))
    again = random_order(priorities(keys[shuffle], 17))
    np.testing.assert_array_equal(shuffle[again], order)
    assert (random_order(priorities(keys, 18)) != order).mean() > 0.9


def test_adjacency_of_random_is_the_mean_pairwise_cosine(named_set):
    corpus = named(named_set)
    n = len(corpus.vectors)
    total = corpus.vectors.sum(axis=0, dtype=np.float64)
    mean = (total @ total - n) / (n * (n - 1))
    measured = adjacency(corpus.vectors, random_order(corpus.priority))
    assert measured == pytest.approx(mean, abs=0.01)
