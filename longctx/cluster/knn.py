"""The neighbour graph: k nearest documents by cosine, one table for every semantic order.

As in In-Context Pretraining (arXiv 2310.10638), with our choices: exact search up to 200,000
documents, IVF with flat lists above, the similarities of what an index returns always computed
again (`similarity.py`), the document itself removed by its number (with exact copies it is not at
rank 0), and recall measured rather than assumed.

A table is computed in blocks of queries, and against blocks of documents joined by `merge_lists`
(associative), so any number of workers gives the same lists. "Number" is the position of a document
in ascending order of `doc_id`; callers sort by it first.

Cost: exact search n²·d multiply-adds (20,000 x 384: about 6 CPU-seconds) and one 64 MiB block; IVF
about n·d·(nlist + nprobe·n/nlist). Table: 8 bytes an entry. Lost: with IVF up to a tenth of the
true neighbours (the recall that `tune_nprobe` accepts), with exact search nothing.
"""

import faiss
import numpy as np

from longctx.cluster.kmeans import one_faiss_thread, train, training_sample
from longctx.cluster.similarity import F32, I32, I64, nearest, rerank
from longctx.ids import U64, priorities

EXACT_UP_TO = 200_000
EXTRA_CANDIDATES = 16
MIN_RECALL = 0.9

Edges = tuple[I32, I32, F32]


def search(
    X: F32,
    start: int,
    stop: int,
    k_search: int = 32,
    *,
    among: tuple[int, int] | None = None,
    index: "faiss.IndexIVFFlat | None" = None,
) -> tuple[I32, F32]:
    """Neighbour lists of the documents start..stop-1.

    X float32[n, d], unit norm, all documents. Returns numbers int32[stop - start, k_search] and
    similarities float32 of the same shape, sorted by (similarity descending, number ascending),
    without the document itself; a list shorter than k_search ends in number -1, similarity -inf.
    `among` = (from, to) searches only that range of documents, for `merge_lists`. With an `index`
    (from `build_ivf`, over all of X) its candidates are ranked exactly; without one all of `among`
    are compared.
    """
    own = np.arange(start, stop, dtype=np.int64)
    if index is not None:
        with one_faiss_thread():
            _, found = index.search(X[start:stop], k_search + EXTRA_CANDIDATES + 1)
        return rerank(X[start:stop], X, found, k_search, own)
    low, high = among if among is not None else (0, len(X))
    inside = (own >= low) & (own < high)
    lists, sims = nearest(X[start:stop], X[low:high], k_search, np.where(inside, own - low, -1))
    lists[lists >= 0] += low
    return lists, sims


def merge_lists(a: tuple[I32, F32], b: tuple[I32, F32], k: int) -> tuple[I32, F32]:
    """The k best of two partial tables of the same queries over disjoint ranges of documents."""
    lists, sims = np.hstack([a[0], b[0]]), np.hstack([a[1], b[1]])
    best = np.lexsort((lists, -sims), axis=1)[:, :k]
    return np.take_along_axis(lists, best, axis=1), np.take_along_axis(sims, best, axis=1)


def build_ivf(X: F32, keys: U64, seed: int, nlist: int | None = None) -> "faiss.IndexIVFFlat":
    """Inverted lists over X [n, d]: nlist = 4·ceil(√n) spherical k-means cells, whole vectors.

    `keys` uint64[n] choose the training sample (256 a cell). The caller sets `nprobe`, or lets
    `tune_nprobe` find it.
    """
    n, d = X.shape
    nlist = nlist if nlist is not None else 4 * int(np.ceil(np.sqrt(n)))
    nlist = max(1, min(nlist, n))
    sample = training_sample(keys, seed, nlist)
    quantizer = faiss.IndexFlatIP(d)
    quantizer.add(train(X[sample], nlist, niter=10, seed=seed))
    index = faiss.IndexIVFFlat(quantizer, d, nlist, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    with one_faiss_thread():
        index.add(X)
    return index


def measure_recall(
    X: F32,
    index: "faiss.IndexIVFFlat",
    keys: U64,
    seed: int,
    *,
    k: int = 10,
    rows: int = 1000,
) -> float:
    """Share of the true k nearest that the index finds, over the `rows` of smallest priority.

    1.0 when there is nothing to find.
    """
    chosen = np.sort(np.argsort(priorities(keys, seed), kind="stable")[:rows])
    true, _ = nearest(X[chosen], X, k, chosen)
    with one_faiss_thread():
        _, candidates = index.search(X[chosen], k + EXTRA_CANDIDATES + 1)
    found, _ = rerank(X[chosen], X, candidates, k, chosen)
    hits = sum(len(np.intersect1d(t[t >= 0], f[f >= 0])) for t, f in zip(true, found, strict=True))
    wanted = int((true >= 0).sum())
    return hits / wanted if wanted else 1.0


def tune_nprobe(
    X: F32, index: "faiss.IndexIVFFlat", keys: U64, seed: int, *, first: int = 16
) -> float:
    """Double `index.nprobe` from `first` until recall@10 reaches 0.9; returns the recall.

    Ends at the latest when every list is searched.
    """
    index.nprobe = min(first, index.nlist)
    while (recall := measure_recall(X, index, keys, seed)) < MIN_RECALL:
        if index.nprobe >= index.nlist:
            break
        index.nprobe = min(2 * index.nprobe, index.nlist)
    return recall


def undirected_edges(lists: I32, sims: F32, k: int, start: int = 0) -> Edges:
    """Edges (u < v, similarity) of the first k neighbours of each row, each pair once.

    Row r of `lists` belongs to document start + r. Sorted as `sort_edges` does.
    """
    dst = lists[:, :k]
    src = np.broadcast_to(np.arange(start, start + len(lists), dtype=np.int32)[:, None], dst.shape)
    real = dst >= 0
    a, b = src[real], dst[real]
    return sort_edges(np.minimum(a, b), np.maximum(a, b), sims[:, :k][real])


def sort_edges(u: I32, v: I32, sim: F32) -> Edges:
    """Edges without repetition, sorted by (similarity descending, u, v).

    A pair's similarity must be the same wherever it occurs: exact similarities are. Edges of
    several shards are joined by concatenating them first.
    """
    order = np.lexsort((v, u, -sim))
    u, v, sim = u[order], v[order], sim[order]
    new = np.ones(len(u), dtype=bool)
    new[1:] = (u[1:] != u[:-1]) | (v[1:] != v[:-1])
    return u[new], v[new], sim[new]


def without_rows(X: F32, lists: I32, sims: F32, keep: I64) -> tuple[I32, F32]:
    """The table among the documents `keep` (ascending numbers), renumbered 0..len(keep)-1.

    Removed neighbours leave their lists; a row that lost more than half of its list is searched
    again among the kept documents, the others end in -1, -inf.
    """
    position = np.full(len(X), -1, dtype=np.int32)
    position[keep] = np.arange(len(keep), dtype=np.int32)
    old = lists[keep]
    left = np.where(old >= 0, position[old], -1)
    lost = (old >= 0).sum(axis=1) - (left >= 0).sum(axis=1)
    again = np.flatnonzero(2 * lost > (old >= 0).sum(axis=1))
    first = np.argsort(left < 0, axis=1, kind="stable")
    left = np.take_along_axis(left, first, axis=1)
    kept_sims = np.take_along_axis(sims[keep], first, axis=1)
    kept_sims[left < 0] = -np.inf
    if len(again):
        survivors = X[keep]
        left[again], kept_sims[again] = nearest(survivors[again], survivors, lists.shape[1], again)
    return left, kept_sims
