"""Connected components of the near-duplicate graph, on stable document keys.

Kiveris et al., "Connected Components in MapReduce and Beyond" (SOCC 2014): rounds of large-star and
small-star, each a group-by on a node, until the edge set no longer changes; every node then hangs
on the smallest key of its component. About log n rounds in practice, O(log^2 n) proven. A broken
round can simply be run again: no state lives outside the tables.

The stars work on rows (node, neighbour), given every neighbour of each node present, so that a
distributed group-by can hand them one bucket of nodes at a time. Where the edges fit one machine
(tens of millions), `connected_components` gives the same labels by union-find in almost linear
time; we added it because 50 M edges are 0.8 GB and a shuffle costs more than that.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from longctx.dedup.blake2b import hash_rows

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Edges = tuple[U64, U64]


def connected_components(u: U64, v: U64) -> tuple[U64, U64]:
    """Nodes of the edges (u[i], v[i]), ascending, and each one's label: its component's smallest.

    Two uint64 arrays of equal shape. Edges may repeat and may be loops.
    """
    nodes, ends = np.unique(np.concatenate([u, v]), return_inverse=True)
    return nodes, nodes[_roots(ends[: len(u)], ends[len(u) :], nodes.size)]


@njit(nogil=True, cache=True)
def _roots(u: I64, v: I64, n_nodes: int) -> I64:
    """Smallest index of each node's component: union by smaller index, with path halving."""
    parent = np.arange(n_nodes)
    for i in range(u.size):
        x, y = _find(parent, u[i]), _find(parent, v[i])
        if x < y:
            parent[y] = x
        else:
            parent[x] = y
    for node in range(n_nodes):
        parent[node] = _find(parent, node)
    return parent


@njit(nogil=True, cache=True)
def _find(parent: I64, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


def neighbourhoods(u: U64, v: U64) -> Edges:
    """Rows (node, neighbour) of undirected edges: each edge from both its ends, loops left out."""
    real = u != v
    u, v = u[real], v[real]
    return np.concatenate([u, v]), np.concatenate([v, u])


def large_star(node: U64, neighbour: U64) -> Edges:
    """Hang every larger neighbour of a node on the smallest of the node and its neighbours.

    Rows must hold each node's whole neighbourhood. Returns distinct edges (larger, smaller).
    """
    smallest = _smallest_of_star(node, neighbour)
    larger = neighbour > node
    return _distinct(neighbour[larger], smallest[larger])


def small_star(node: U64, neighbour: U64) -> Edges:
    """Hang a node and its smaller neighbours on the smallest of them.

    Only the rows with neighbour < node are used, so a caller may send only those. Returns distinct
    edges (larger, smaller).
    """
    smaller = neighbour < node
    node, neighbour = node[smaller], neighbour[smaller]
    smallest = _smallest_of_star(node, neighbour)
    child, parent = np.concatenate([neighbour, node]), np.concatenate([smallest, smallest])
    moved = child != parent
    return _distinct(child[moved], parent[moved])


def edges_digest(u: U64, v: U64) -> tuple[int, int]:
    """Number of distinct edges and the sum mod 2^64 of their H64.

    Equal sets give equal digests in any order and direction; digests of disjoint sets add. H64 is
    taken over both keys as 8-byte LE, the larger first.
    """
    larger, smaller = _distinct(np.maximum(u, v), np.minimum(u, v))
    rows = np.stack([larger, smaller], axis=1).astype("<u8").view(np.uint8)
    return len(rows), int(hash_rows(rows).sum(dtype=np.uint64))


def _smallest_of_star(node: U64, neighbour: U64) -> U64:
    """Per row, the smallest among the row's node and all its neighbours."""
    nodes, star = np.unique(node, return_inverse=True)
    smallest = nodes.copy()
    np.minimum.at(smallest, star, neighbour)
    return smallest[star]


def _distinct(u: U64, v: U64) -> Edges:
    order = np.lexsort((v, u))
    u, v = u[order], v[order]
    first = np.ones(u.size, dtype=np.bool_)
    first[1:] = (u[1:] != u[:-1]) | (v[1:] != v[:-1])
    return u[first], v[first]
