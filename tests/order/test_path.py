from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.cluster.cells import group, search_within, widened
from longctx.cluster.kmeans import assign
from longctx.cluster.knn import edge_parts, search, sort_edges, undirected_edges
from longctx.order.improve import improve_path
from longctx.order.metrics import adjacency
from longctx.order.path import (
    accept_edges,
    greedy_edge_path,
    join_fragments,
    no_links,
    path_of_parts,
)
from longctx.order.random import random_order
from tests.order.conftest import at_degrees, corpus_of, named


def same_path(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b) or np.array_equal(a, b[::-1])


ARC = (0, 9, 21, 22, 40, 63, 64, 90, 131, 170)


@pytest.mark.parametrize("k", [1, 2, 3, 9, 20])
def test_arc_comes_out_sorted_before_and_after_improvement(k):
    place = np.array([3, 8, 0, 5, 9, 1, 7, 2, 6, 4])  # the numbers say nothing about the angles
    corpus = corpus_of(at_degrees(*np.array(ARC)[place]), k_search=20, k=k)
    path = greedy_edge_path(corpus.vectors, corpus.edges)
    better = improve_path(corpus.vectors, path, corpus.lists, corpus.sims)
    for order in (path, better):
        assert same_path(place[order], np.arange(10))
        assert order[0] < order[-1]
        assert adjacency(corpus.vectors, order) == pytest.approx(0.918638, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 1790), min_size=2, max_size=30, unique=True), st.integers(1, 6))
def test_any_arc_comes_out_sorted(tenths, k):
    angles = np.array(tenths) / 10
    angles = angles + angles**2 * 1e-5  # equal gaps would tie
    corpus = corpus_of(at_degrees(*angles), k_search=10, k=k)
    path = greedy_edge_path(corpus.vectors, corpus.edges)
    best = adjacency(corpus.vectors, np.argsort(angles))
    assert adjacency(corpus.vectors, path) == pytest.approx(best, abs=1e-6)


def test_eight_vectors(eight):
    links = no_links(8)
    accept_edges(links, eight.edges)
    assert 8 - int(links.degree.sum()) // 2 == 3
    path = greedy_edge_path(eight.vectors, eight.edges)
    np.testing.assert_array_equal(path, [3, 4, 1, 5, 0, 6, 2, 7])
    assert adjacency(eight.vectors, path) == pytest.approx(0.611315, abs=1e-6)
    lists, sims = search(eight.vectors, 0, 8, 7)
    two_opt = improve_path(eight.vectors, path, lists, sims, K=7, moves="2opt")
    np.testing.assert_array_equal(two_opt, path)
    better = improve_path(eight.vectors, path, lists, sims, K=7)
    np.testing.assert_array_equal(better, [5, 3, 4, 1, 0, 6, 2, 7])
    assert adjacency(eight.vectors, better) == pytest.approx(0.632742, abs=1e-6)
    cosine = eight.vectors @ eight.vectors.T
    best = max(cosine[p[:-1], p[1:]].mean() for p in map(np.array, permutations(range(8))))
    assert best == pytest.approx(0.632742, abs=1e-6)


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 60),
    st.integers(1, 10),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from(["2opt", "2opt+oropt"]),
)
def test_improvement_is_a_permutation_and_never_lowers_adjacency(n, k, seed, fixed_ends, moves):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3)) if seed % 2 else rng.integers(-1, 2, (n, 3)) + 0.1
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    corpus = corpus_of(x, k_search=k, k=k)
    before = rng.permutation(n)
    after = improve_path(x, before, corpus.lists, corpus.sims, moves=moves, fixed_ends=fixed_ends)
    np.testing.assert_array_equal(np.sort(after), np.arange(n))
    if n > 1:
        assert adjacency(x, after) >= adjacency(x, before) - 1e-6
    if fixed_ends and n:
        assert (after[0], after[-1]) == (before[0], before[-1])
    elif n:
        assert after[0] <= after[-1]


def test_no_2opt_or_or_opt_move_is_left(named_set):
    """The moves are looked for again, by definition instead of by the search's bookkeeping."""
    corpus = named(named_set)
    x = corpus.vectors[:300]
    small = corpus_of(x)
    path = improve_path(x, greedy_edge_path(x, small.edges), small.lists, small.sims)
    cycle = np.append(path, 300)
    s = np.zeros((301, 301))
    s[:300, :300] = x.astype(np.float64) @ x.T.astype(np.float64)
    near = {(i, j) for i in range(300) for j in small.lists[i, :10].tolist()}
    m = len(cycle)
    for i in range(m):
        for j in range(i + 1, m):
            a, b, c, e = cycle[i], cycle[(i + 1) % m], cycle[j], cycle[(j + 1) % m]
            new = ((a, c, b), (c, a, e), (b, e, a), (e, b, c))
            if any((x_, y_) in near and s[x_, y_] > s[x_, old] + 1e-5 for x_, y_, old in new):
                assert s[a, c] + s[b, e] - s[a, b] - s[c, e] <= 1e-5
    for start in range(m):
        for length in (1, 2, 3):
            ring = np.roll(cycle, -start)
            first, last, q, p = ring[0], ring[length - 1], ring[length], ring[-1]
            freed = s[p, first] + s[last, q] - s[p, q]
            for t in range(length, m - 1):
                x_, y_ = ring[t], ring[t + 1]
                for left, right in ((first, last), (last, first)):
                    if (left, x_) in near or (right, y_) in near:
                        gain = s[left, x_] + s[right, y_] - s[x_, y_] - freed
                        assert gain <= 1e-5


def test_improvement_works_on_the_open_path_not_on_a_cycle():
    # The best cycle of an arc is a zigzag; without the dummy node the result would be .84092.
    corpus = corpus_of(at_degrees(*ARC))
    zigzag = np.array([0, 2, 4, 6, 8, 9, 7, 5, 3, 1])
    better = improve_path(corpus.vectors, zigzag, corpus.lists, corpus.sims)
    assert adjacency(corpus.vectors, better) == pytest.approx(0.918638, abs=1e-6)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_shards_of_the_search_and_of_the_edges_give_the_same_path(count, named_set):
    corpus = named(named_set)
    cuts = np.linspace(0, 2000, count + 1).astype(int)
    shards = []
    for a, b in pairwise(cuts):
        lists, sims = search(corpus.vectors, a, b)
        shards.append(undirected_edges(lists, sims, 10, a))
    edges = sort_edges(*(np.concatenate(part) for part in zip(*shards, strict=True)))
    whole = greedy_edge_path(corpus.vectors, corpus.edges)
    np.testing.assert_array_equal(greedy_edge_path(corpus.vectors, edges), whole)
    links = no_links(2000)
    for part in range(7):  # streamed in decreasing similarity
        span = slice(part * len(edges[0]) // 7, (part + 1) * len(edges[0]) // 7)
        accept_edges(links, (edges[0][span], edges[1][span], edges[2][span]))
    at_once = no_links(2000)
    accept_edges(at_once, edges)
    np.testing.assert_array_equal(links.link, at_once.link)


def test_parts_of_edges_and_joining_in_cells_give_the_path_of_one_piece(named_set, monkeypatch):
    monkeypatch.setattr("longctx.order.path.ALL_PAIRS_UP_TO", 100)
    monkeypatch.setattr("longctx.cluster.cells.EXACT_AMONG", 100)
    corpus = named(named_set)
    whole = greedy_edge_path(corpus.vectors, corpus.edges)
    centroids = corpus.vectors[::50]
    cells = group(assign(corpus.vectors, centroids)[0], centroids, 40)
    for search_ends in (None, search_within(corpus.vectors, cells)):
        parts = edge_parts(corpus.lists, corpus.sims, 10, at_once=3000)
        path = path_of_parts(corpus.vectors, parts, search=search_ends)
        np.testing.assert_array_equal(path, whole)
    few = search_within(corpus.vectors, widened(cells, 1))
    path = path_of_parts(corpus.vectors, [corpus.edges], search=few)
    np.testing.assert_array_equal(np.sort(path), np.arange(2000))
    loss = adjacency(corpus.vectors, whole) - adjacency(corpus.vectors, path)
    assert 0 <= loss < 0.005


def test_shuffled_rows_give_the_same_path(named_set):
    corpus = named(named_set)
    shuffle = np.random.default_rng(4).permutation(2000)
    moved = corpus_of(corpus.vectors[shuffle])
    path = greedy_edge_path(corpus.vectors, corpus.edges)
    assert same_path(shuffle[greedy_edge_path(moved.vectors, moved.edges)], path)
    position = np.argsort(shuffle)
    better = improve_path(corpus.vectors, path, corpus.lists, corpus.sims)
    again = improve_path(moved.vectors, position[path], moved.lists, moved.sims)
    assert same_path(shuffle[again], better)


def test_moves_longer_than_the_limit_are_not_made(monkeypatch):
    corpus = named("hier")
    start = random_order(corpus.priority)
    free = improve_path(corpus.vectors, start, corpus.lists, corpus.sims)
    monkeypatch.setattr("longctx.order.improve.LONG_PATH", 100)
    monkeypatch.setattr("longctx.order.improve.LONGEST_MOVE", 20)
    short = improve_path(corpus.vectors, start, corpus.lists, corpus.sims)
    np.testing.assert_array_equal(np.sort(short), np.arange(2000))
    values = [adjacency(corpus.vectors, order) for order in (start, short, free)]
    assert values[0] + 0.05 < values[1] < values[2] - 0.05
    monkeypatch.setattr("longctx.order.improve.LONGEST_MOVE", 0)
    assert same_path(improve_path(corpus.vectors, start, corpus.lists, corpus.sims), start)


def test_state_is_13_bytes_a_document():
    assert sum(array.nbytes for array in no_links(1000)) == 13_000


def test_joining_takes_few_rounds_and_survives_a_search_that_finds_nothing(monkeypatch):
    corpus = named("flat")
    monkeypatch.setattr("longctx.order.path.ALL_PAIRS_UP_TO", 100)
    links = no_links(2000)
    accept_edges(links, corpus.edges)
    assert join_fragments(corpus.vectors, links) <= 3
    narrow = greedy_edge_path(corpus.vectors, corpus.edges)

    def blind(ends: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(ends), k)
        return np.full(shape, -1, dtype=np.int32), np.full(shape, -np.inf, dtype=np.float32)

    blindly = greedy_edge_path(corpus.vectors, corpus.edges, search=blind)
    np.testing.assert_array_equal(blindly, narrow)
    with pytest.raises(ValueError, match="at least 2"):
        greedy_edge_path(corpus.vectors, corpus.edges, k_join=1)
