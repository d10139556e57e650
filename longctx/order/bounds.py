"""Held-Karp upper bound on the adjacency of any order, by 1-trees and subgradient ascent.

Held and Karp 1970/71. A path with a dummy node (cost 0 to all) is a cycle, a cycle is a 1-tree, so
the cheapest 1-tree is no dearer than the best path; penalties on documents whose degree is not 2
push the bound up. Cost of a pair = 1 - cosine.

What we added: a sparse form. Pairs outside the k-nearest-neighbour graph cost at least
(a_i + a_j) / 2 with a_i = 1 - (k-th similarity of i), so a star that charges each end its half
stands for all of them and the result is still a bound, a little weaker.

Cost of a step: dense O(n²) time and n² float32 memory (1.6 GB at n = 20,000): benchmarks only;
sparse O(n·k·log n) time, 24·n·k bytes. 120 steps at n = 2,000 and 50 at 20,000 are enough.
"""

from collections.abc import Callable

import numba
import numpy as np
import numpy.typing as npt

from longctx.cluster.knn import undirected_edges
from longctx.cluster.similarity import F32, I32, I64, pair_similarities

F64 = npt.NDArray[np.float64]
Tree = Callable[[F64], tuple[float, I64]]

PATIENCE = 5
DECAY = 0.7
SMALLEST_GAIN = 1e-4


@numba.njit(cache=True, nogil=True)
def _prim(S, penalty, degree):  # type: ignore[no-untyped-def]
    """Weight of the minimum spanning tree under 1 - S + penalties; fills the degrees."""
    n = S.shape[0]
    degree[:] = 0
    best = np.full(n, np.inf)
    parent = np.zeros(n, dtype=np.int64)
    outside = np.arange(1, n)
    left = n - 1
    here = 0
    weight = 0.0
    while left > 0:
        closest, at_closest = np.inf, 0
        for at in range(left):
            j = outside[at]
            cost = 1.0 - S[here, j] + penalty[here] + penalty[j]
            if cost < best[j]:
                best[j], parent[j] = cost, here
            if best[j] < closest:
                closest, at_closest = best[j], at
        here = outside[at_closest]
        left -= 1
        outside[at_closest] = outside[left]
        weight += closest
        degree[here] += 1
        degree[parent[here]] += 1
    return weight


@numba.njit(cache=True, nogil=True)
def _kruskal(u, v, weights, by_weight, n, degree):  # type: ignore[no-untyped-def]
    """Weight of the minimum spanning tree of a connected edge list; fills the degrees."""
    degree[:] = 0
    parent = np.arange(n)
    total = 0.0
    missing = n - 1
    for e in by_weight:
        a, b = u[e], v[e]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a == b:
            continue
        parent[b] = a
        total += weights[e]
        degree[u[e]] += 1
        degree[v[e]] += 1
        missing -= 1
        if missing == 0:
            break
    return total


def _ascend(tree: Tree, n: int, path_cost: float, steps: int) -> float:
    """Largest 1-tree cost that `steps` steps of subgradient ascent find."""
    penalty = np.zeros(n)
    scale, highest, stale = 1.0, -np.inf, 0
    reference: float | None = None
    for _ in range(steps):
        weight, degree = tree(penalty)
        ends = np.argpartition(penalty, 1)[:2]
        cost = weight + float(penalty[ends].sum()) - 2 * float(penalty.sum())
        highest = max(highest, cost)
        gradient = degree - 2
        gradient[ends] += 1
        length = int((gradient * gradient).sum())
        if length == 0:
            break
        # Relative, because the cost grows with n: any step at 20,000 documents gains 1e-4.
        if reference is None or cost > reference + SMALLEST_GAIN * abs(reference):
            reference, stale = cost, 0
        else:
            stale += 1
        if stale == PATIENCE:
            scale, stale = scale * DECAY, 0
        penalty += scale * (path_cost - cost) / length * gradient
    return highest


def hk_bound(X: F32, path: I64, steps: int = 120) -> float | None:
    """Upper bound on the adjacency of every order of the rows of X float32[n, d], unit norm.

    `path` int64[n] is the best known order (its cost scales the steps; it never affects validity).
    One step is the bound without penalties. None for n < 2. Dense: n² float32.
    """
    n = len(X)
    if n < 2:
        return None
    S = X @ X.T
    degree = np.empty(n, dtype=np.int64)

    def tree(penalty: F64) -> tuple[float, I64]:
        return float(_prim(S, penalty, degree)), degree

    return 1 - _ascend(tree, n, _path_cost(X, path), steps) / (n - 1)


def hk_bound_sparse(
    X: F32, lists: I32, sims: F32, k: int, path: I64, steps: int = 120
) -> float | None:
    """As `hk_bound`, from the first k entries of an exact neighbour table; weaker, linear memory.

    `lists` int32[n, >= k], `sims` float32. A document with fewer than k neighbours has them all, so
    any cost bounds its other pairs; 1 - its last similarity is used.
    """
    n = len(X)
    if n < 2:
        return None
    u, v, sim = undirected_edges(lists, sims, k)
    everyone = np.arange(n, dtype=np.int32)
    last = np.where(np.isfinite(sims[:, :k]), sims[:, :k], np.inf).min(axis=1)
    half = (1.0 - last.astype(np.float64)) / 2
    degree = np.empty(n, dtype=np.int64)

    def tree(penalty: F64) -> tuple[float, I64]:
        charge = half + penalty
        hub = int(charge.argmin())
        spokes = everyone[everyone != hub]
        a = np.concatenate([u, spokes])
        b = np.concatenate([v, np.full(n - 1, hub, dtype=np.int32)])
        weights = np.concatenate(
            [1.0 - sim.astype(np.float64) + penalty[u] + penalty[v], charge[spokes] + charge[hub]]
        )
        total = _kruskal(a, b, weights, np.argsort(weights, kind="stable"), n, degree)
        return float(total), degree

    return 1 - _ascend(tree, n, _path_cost(X, path), steps) / (n - 1)


def _path_cost(X: F32, path: I64) -> float:
    cosine = pair_similarities(X, path[:-1], path[1:])
    return len(cosine) - float(cosine.sum(dtype=np.float64))
