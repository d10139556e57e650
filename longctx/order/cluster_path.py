"""A path inside every group of documents, and a path over the groups: coherence of whole contexts.

Ours. The path of `path.py` has the best neighbours but drifts: on real text its contexts of 16 or
100 documents are less coherent than k-means groups. Here groups of about one context
(`clusters.py`) are ordered by a path over their centroids, the documents of each by a path of their
own, and each inner path is turned so that the similarities at the joints are largest in sum, by
dynamic programming over the two directions of every group.

Cost: exact neighbours inside groups, sum of m²·d over groups of m documents, then about 0.1 ms a
document; exact neighbours among K centroids, K²·d (100,000 groups: some minutes; beyond that choose
larger groups); memory m² float32 of the largest group up to 512 documents, one block of rows above.
1,000,000 documents of 128 dimensions in 99,000 groups took 4 CPU-minutes, k-means included.
Lost against one path over all: up to 2 % of adjacency where documents form clusters, 6-8 % on
encyclopaedia passages; chains that are longer than a context (threads, chapters) are cut.
"""

import numba
import numpy as np

from longctx.cluster.groups import Groups
from longctx.cluster.knn import undirected_edges
from longctx.cluster.similarity import F32, I32, I64, dot, frozen, nearest, pair_similarities
from longctx.order.improve import Moves, improve_path
from longctx.order.path import K_JOIN, greedy_edge_path

IMPROVE_FROM = 8
IMPROVE_K = 10
ALL_PAIRS_UP_TO = 512


@numba.njit(cache=True, nogil=True)
def _all_similarities(X, out):  # type: ignore[no-untyped-def]
    for i in range(X.shape[0]):
        out[i, i] = -np.inf
        for j in range(i):
            out[i, j] = out[j, i] = dot(X[i], X[j])


def _neighbours(X: F32, k: int) -> tuple[I32, F32]:
    """What `nearest` gives for all against all: for few rows without a matrix product.

    Threads of a matrix product on a few dozen rows wait longer than they work.
    """
    n = len(X)
    if n > ALL_PAIRS_UP_TO:
        return nearest(X, X, min(k, n - 1), np.arange(n, dtype=np.int64))
    sims = np.empty((n, n), dtype=np.float32)
    _all_similarities(frozen(X), sims)
    best = np.argsort(-sims, axis=1, kind="stable")[:, : min(k, n - 1)]
    return best.astype(np.int32), np.take_along_axis(sims, best, axis=1)


def path_through(
    X: F32, k: int = 10, k_join: int = K_JOIN, moves: Moves | None = "2opt+oropt"
) -> I64:
    """The path of `path.py` over the rows of X float32[n, d] with exact neighbours; int64[n].

    Two rows stay as they are; fewer than eight are not improved, nor any with `moves` None.
    """
    n = len(X)
    if n <= 2:
        return np.arange(n, dtype=np.int64)
    lists, sims = _neighbours(X, max(k, IMPROVE_K))
    path = greedy_edge_path(X, undirected_edges(lists, sims, k), k_join)
    if moves is None or n < IMPROVE_FROM:
        return path
    return improve_path(X, path, lists, sims, IMPROVE_K, moves=moves)


def orient_paths(X: F32, paths: list[I64]) -> list[I64]:
    """The paths, in their order, each turned or not so that the joints' similarities sum highest.

    X float32[n, d]; each path int64, not empty. A tie leaves a path as it is.
    """
    if len(paths) < 2:
        return list(paths)
    heads = np.array([path[0] for path in paths], dtype=np.int64)
    tails = np.array([path[-1] for path in paths], dtype=np.int64)
    # gain[a, b][t]: path t in direction a (0 as it is, 1 turned) before path t + 1 in direction b.
    ends, begins = (tails[:-1], heads[:-1]), (heads[1:], tails[1:])
    gain = np.array([[pair_similarities(X, end, begin) for begin in begins] for end in ends])
    turned = _best_turns(gain.astype(np.float64))
    return [path[::-1].copy() if turn else path for path, turn in zip(paths, turned, strict=True)]


def _best_turns(gain: np.ndarray) -> list[bool]:
    """Direction of each path on the heaviest way through gain float64[2, 2, joints]."""
    best = (0.0, 0.0)
    came: list[tuple[bool, bool]] = []
    for (kept_kept, kept_turned), (turned_kept, turned_turned) in np.moveaxis(gain, 2, 0).tolist():
        to_kept = best[0] + kept_kept, best[1] + turned_kept
        to_turned = best[0] + kept_turned, best[1] + turned_turned
        came.append((to_kept[1] > to_kept[0], to_turned[1] > to_turned[0]))
        best = max(to_kept), max(to_turned)
    turn = best[1] > best[0]
    turns = [turn]
    for before in reversed(came):
        turn = before[turn]
        turns.append(turn)
    return turns[::-1]


def cluster_path(
    X: F32,
    groups: Groups,
    k: int = 10,
    k_join: int = K_JOIN,
    moves: Moves | None = "2opt+oropt",
) -> tuple[I64, I64]:
    """Order int64[n] and tour starts int64[groups]: one tour for each group.

    X float32[n, d], unit norm; `groups` as `balanced_groups` makes them.
    """
    members = groups.each()
    sequence = path_through(groups.centroids, k, k_join, moves)
    inner = [members[g][path_through(X[members[g]], k, k_join, moves)] for g in sequence]
    order = np.concatenate([np.zeros(0, dtype=np.int64), *orient_paths(X, inner)])
    sizes = np.array([len(path) for path in inner], dtype=np.int64)
    return order, np.cumsum(sizes) - sizes
