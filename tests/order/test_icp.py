import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.cluster.knn import undirected_edges
from longctx.order.icp import icp_order
from longctx.order.icp_released import icp_released_order
from longctx.order.metrics import adjacency
from tests.order.conftest import corpus_of, named


def lists_of(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.int32)


def test_lists_and_degrees_of_the_eight_vectors(eight):
    expected = [[1, 4], [4, 3], [7, 6], [4, 1], [1, 3], [1, 3], [2, 7], [2, 6]]
    np.testing.assert_array_equal(eight.lists, expected)
    u, v, _ = eight.edges
    np.testing.assert_array_equal(np.bincount(np.concatenate([u, v])), [2, 4, 2, 3, 3, 2, 2, 2])


@pytest.mark.parametrize(
    ("graph", "pick", "order", "starts", "value"),
    [
        ("directed", "max", [0, 1, 4, 3, 2, 7, 6, 5], [0, 4, 7], 0.373778),
        ("undirected", "max", [0, 1, 4, 3, 5, 2, 7, 6], [0, 5], 0.463188),
        ("directed", "min", [0, 4, 3, 1, 2, 6, 7, 5], [0, 4, 7], 0.196476),
    ],
)
def test_algorithm_1_on_the_eight_vectors(eight, graph, pick, order, starts, value):
    got, segments = icp_order(eight.lists, eight.sims, 2, graph=graph, pick=pick)
    np.testing.assert_array_equal(got, order)
    np.testing.assert_array_equal(segments, starts)
    assert adjacency(eight.vectors, got) == pytest.approx(value, abs=1e-6)


def test_released_code_on_the_eight_vectors(eight):
    got, _ = icp_released_order(eight.lists, k=2, cap=3)
    np.testing.assert_array_equal(got, [0, 5, 1, 3, 4, 2, 7, 6])
    assert adjacency(eight.vectors, got) == pytest.approx(0.422651, abs=1e-6)


def test_released_code_puts_documents_without_a_place_last():
    lists = lists_of([1, 2], [0, 2], [1, 0], [4, 5], [3, 5], [4, 6], [5, 4])
    order, starts = icp_released_order(lists, k=2, cap=4)
    np.testing.assert_array_equal(order, [3, 4, 5, 6, 2, 1, 0])
    np.testing.assert_array_equal(starts, [0, 4])


def test_priority_says_where_chains_and_tied_segments_start(eight):
    falling = np.arange(8, dtype=np.uint64)[::-1].copy()
    order, _ = icp_order(eight.lists, eight.sims, 2, priority=falling)
    assert order[0] == 7  # the last of the five documents of degree 2
    order, _ = icp_released_order(eight.lists, k=2, cap=8, priority=falling)
    np.testing.assert_array_equal(np.sort(order), np.arange(8))
    assert not np.array_equal(order, icp_released_order(eight.lists, k=2, cap=8)[0])


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 60),
    st.integers(1, 8),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["directed", "undirected"]),
    st.sampled_from(["max", "min"]),
)
def test_segments_are_maximal_paths_of_the_graph(n, k, seed, graph, pick):
    rng = np.random.default_rng(seed)
    corpus = corpus_of(rng.integers(-2, 3, (n, 3)).astype(np.float32), k_search=k, k=k)
    order, starts = icp_order(corpus.lists, corpus.sims, k, graph=graph, pick=pick)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    u, v, _ = corpus.edges
    allowed = {i: set(corpus.lists[i].tolist()) - {-1} for i in range(n)}
    if graph == "undirected":
        for a, b in zip(u.tolist(), v.tolist(), strict=True):
            allowed[a].add(b)
            allowed[b].add(a)
    begins = set(starts.tolist())
    for t in range(n):
        last_of_segment = t + 1 in begins or t == n - 1
        if last_of_segment:
            assert allowed[order[t]] <= set(order[: t + 1].tolist())
        else:
            assert order[t + 1] in allowed[order[t]]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 60), st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_released_code_keeps_every_document_and_dissolves_short_chains(n, k, cap, seed):
    rng = np.random.default_rng(seed)
    corpus = corpus_of(rng.standard_normal((n, 3)).astype(np.float32), k_search=k, k=k)
    order, starts = icp_released_order(corpus.lists, k=k, cap=cap, priority=corpus.priority)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    sizes = np.diff(np.append(starts, n))
    assert (sizes[:-1] >= cap).all()  # only the left-overs, at the end, may be fewer


def test_shuffled_rows_give_the_same_orders(named_set):
    corpus = named(named_set)
    shuffle = np.random.default_rng(4).permutation(2000)
    moved = corpus_of(corpus.vectors[shuffle])
    priority = corpus.priority[shuffle]
    for graph in ("directed", "undirected"):
        one, cut = icp_order(corpus.lists, corpus.sims, priority=corpus.priority, graph=graph)
        two, cut_two = icp_order(moved.lists, moved.sims, priority=priority, graph=graph)
        np.testing.assert_array_equal(shuffle[two], one)
        np.testing.assert_array_equal(cut_two, cut)
    released = icp_released_order(corpus.lists, priority=corpus.priority)[0]
    again = icp_released_order(moved.lists, priority=priority)[0]
    np.testing.assert_array_equal(shuffle[again], released)


def test_degree_is_that_of_the_undirected_graph(eight):
    u, v, _ = undirected_edges(eight.lists, eight.sims, 1)
    order, _ = icp_order(eight.lists, eight.sims, 1, graph="directed")
    degree = np.bincount(np.concatenate([u, v]), minlength=8)
    assert degree[order[0]] == degree.min()
