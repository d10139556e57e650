"""Groups of similar documents, each about as large as a context: the clustering approach.

In-Context Pretraining (arXiv 2310.10638) ablates it: k-means over the vectors, documents of one
cluster in one context (Wikipedia perplexity 7.9; random order 8.2, the paper's own method 7.3). The
paper fixes 11,000 clusters for 235 M documents and samples inside them.

What we changed: the number of clusters follows from the tokens of a context, and groups are kept
below a limit of tokens (`cluster/groups.py`).

Lost: documents at the border of a group stand apart from their nearest neighbours, so adjacency is
below that of `path.py`; in exchange whole contexts are more coherent.
"""

from typing import Literal

import numba
import numpy as np

from longctx.cluster.groups import Groups
from longctx.cluster.similarity import F32, I64, dot, frozen
from longctx.ids import U64

Inside = Literal["random", "near", "far"]


def number_of_clusters(tokens: int, cluster_tokens: int) -> int:
    """Clusters of about `cluster_tokens` that hold `tokens`: the quotient, halves upwards, >= 1."""
    return max(1, (2 * tokens + cluster_tokens) // (2 * cluster_tokens))


@numba.njit(cache=True, nogil=True)
def _to_centroid(X, members, group, centroids, out):  # type: ignore[no-untyped-def]
    for i in range(members.shape[0]):
        out[i] = dot(X[members[i]], centroids[group[i]])


def clusters_order(
    X: F32, groups: Groups, sequence: I64, inside: Inside, priority: U64
) -> tuple[I64, I64]:
    """Order int64[n] and tour starts int64[groups]: groups in `sequence`, each one tour.

    `inside` a group: by priority (`random`), nearest to the centroid first (`near`) or last
    (`far`), ties by number.
    """
    sizes = np.diff(groups.starts, append=len(groups.members))
    group = np.repeat(np.arange(len(sizes)), sizes)
    place = np.empty(len(sizes), dtype=np.int64)
    place[sequence] = np.arange(len(sizes))
    if inside == "random":
        key = priority[groups.members]
    else:
        key = np.empty(len(groups.members), dtype=np.float32)
        _to_centroid(
            frozen(X), frozen(groups.members), frozen(group), frozen(groups.centroids), key
        )
        key = -key if inside == "near" else key
    order = groups.members[np.lexsort((groups.members, key, place[group]))]
    return order, np.cumsum(sizes[sequence]) - sizes[sequence]


def random_sequence(groups: Groups, priority: U64) -> I64:
    """Groups by the priority of their first member, which knows nothing of their size."""
    first = groups.members[groups.starts]
    return np.lexsort((first, priority[first])).astype(np.int64)
