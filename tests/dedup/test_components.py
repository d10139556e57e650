import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components as scipy_components

from longctx.dedup.components import (
    connected_components,
    edges_digest,
    large_star,
    neighbourhoods,
    small_star,
)
from longctx.ids import h64

Pairs = list[tuple[int, int]]
SPEC: Pairs = [(5, 3), (3, 8), (8, 1), (2, 7)]
edge_lists = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60)


def arrays(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(pairs, dtype=np.uint64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def pairs_of(edges: tuple[np.ndarray, np.ndarray]) -> set[tuple[int, int]]:
    return set(zip(edges[0].tolist(), edges[1].tolist(), strict=True))


def stars_to_the_end(pairs: Pairs) -> tuple[dict[int, int], int]:
    """Parents after the last round, and the number of rounds with the final check."""
    edges = arrays(pairs)
    digest, rounds = None, 0
    while digest != (digest := edges_digest(*edges)):
        edges = small_star(*neighbourhoods(*large_star(*neighbourhoods(*edges))))
        rounds += 1
    return dict(pairs_of(edges)), rounds


def test_rounds_of_the_specification():
    large = large_star(*neighbourhoods(*arrays(SPEC)))
    assert pairs_of(large) == {(5, 3), (7, 2), (8, 1), (8, 3)}
    first = small_star(*neighbourhoods(*large))
    assert pairs_of(first) == {(3, 1), (5, 3), (7, 2), (8, 1)}
    second = small_star(*neighbourhoods(*large_star(*neighbourhoods(*first))))
    assert pairs_of(second) == {(3, 1), (5, 1), (7, 2), (8, 1)}
    third = small_star(*neighbourhoods(*large_star(*neighbourhoods(*second))))
    assert pairs_of(third) == pairs_of(second)


def test_labels_of_the_specification():
    nodes, labels = connected_components(*arrays(SPEC))
    assert nodes.tolist() == [1, 2, 3, 5, 7, 8]
    assert labels.tolist() == [1, 2, 1, 1, 2, 1]


def test_keys_of_the_whole_uint64_range():
    top = 2**64 - 1
    nodes, labels = connected_components(*arrays([(top, 2**63), (2**63, 5), (top - 1, 6)]))
    assert dict(zip(nodes.tolist(), labels.tolist(), strict=True)) == {
        5: 5, 6: 6, 2**63: 5, top: 5, top - 1: 6,
    }  # fmt: skip


@given(edge_lists)
@settings(deadline=None)
def test_union_find_equals_scipy_and_the_stars(pairs: Pairs):
    u, v = arrays(pairs)
    nodes, labels = connected_components(u, v)
    n = 31
    graph = coo_matrix((np.ones(len(pairs)), (u.astype(int), v.astype(int))), shape=(n, n))
    _, theirs = scipy_components(graph, directed=False)
    smallest = {c: min(np.flatnonzero(theirs == c)) for c in set(theirs)}
    assert labels.tolist() == [smallest[theirs[int(node)]] for node in nodes]
    parents, _ = stars_to_the_end(pairs)
    for node, label in zip(nodes.tolist(), labels.tolist(), strict=True):
        assert parents.get(node, node) == label


@given(edge_lists, st.integers(1, 5))
@settings(deadline=None)
def test_stars_may_be_taken_by_buckets_of_nodes(pairs: Pairs, n_buckets: int):
    node, neighbour = neighbourhoods(*arrays(pairs))
    for star in (large_star, small_star):
        whole = pairs_of(star(node, neighbour))
        parts = [node % np.uint64(n_buckets) == b for b in range(n_buckets)]
        assert set().union(*(pairs_of(star(node[p], neighbour[p])) for p in parts)) == whole
        assert all(larger > smaller for larger, smaller in whole)


@pytest.mark.parametrize("order", ["random", "sorted"])
def test_a_long_path_ends_after_few_rounds(order: str):
    path = np.arange(10_000)
    if order == "random":
        path = np.random.default_rng(0).permutation(path)
    parents, rounds = stars_to_the_end(
        list(zip(path[:-1].tolist(), path[1:].tolist(), strict=True))
    )
    assert set(parents.values()) == {0}
    assert len(parents) == 9_999
    assert rounds <= 16


def test_the_digest_is_of_the_set_of_edges():
    u, v = arrays([(5, 3), (8, 1)])
    key = h64((5).to_bytes(8, "little") + (3).to_bytes(8, "little"))
    assert edges_digest(u[:1], v[:1]) == (1, key)
    assert edges_digest(u, v) == edges_digest(v[::-1], u[::-1])
    assert edges_digest(np.tile(u, 2), np.tile(v, 2)) == edges_digest(u, v)
    assert edges_digest(u, v) != edges_digest(*arrays([(5, 1), (8, 3)]))
    assert edges_digest(u[:0], v[:0]) == (0, 0)
