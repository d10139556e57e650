"""Fill the caches that a first run would otherwise fill while the user waits.

Compiles the numba kernels and distils the packaged static encoder: about a minute, once per
installation. Nothing depends on it; a run without it is only slower at the start.
"""

import numpy as np


def main() -> None:
    """Run every kernel once on tiny input and build the static encoder."""
    from longctx.cluster.knn import search, undirected_edges
    from longctx.dedup.chunking import Grid, Sampling
    from longctx.dedup.components import connected_components
    from longctx.dedup.containment import containment, evaluated, self_covered
    from longctx.dedup.minhash import band_keys, leader_edges, signatures
    from longctx.dedup.semantic import semdedup_pairs
    from longctx.embed.encoders import static_folder
    from longctx.filter.decontaminate import item_grams
    from longctx.filter.heuristics import doc_and_window_stats
    from longctx.ids import doc_keys
    from longctx.order.bm25 import build_index, count_words, document_frequencies, vocabulary
    from longctx.order.bm25 import search as search_words
    from longctx.order.icp import icp_order
    from longctx.order.icp_released import icp_released_order
    from longctx.order.improve import improve_path
    from longctx.order.path import greedy_edge_path
    from longctx.order.splice import splice_tours
    from longctx.pack.lookahead import plan_look_ahead
    from longctx.pack.plan import plan_windows
    from longctx.score.language import languages, packaged_model
    from longctx.text.tokenize import load_tokenizer

    print("longctx: compiling kernels and preparing the packaged encoder (once)")
    rows = np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"d{i}" for i in range(len(rows))]
    keys = doc_keys(names)
    lists, sims = search(rows, 0, len(rows), 12)
    path = greedy_edge_path(rows, undirected_edges(lists, sims, 10))
    improve_path(rows, path, lists, sims)
    icp_order(lists, sims, 10, priority=keys)
    icp_released_order(lists, 9, 21, priority=keys)
    splice_tours(lists, np.ones(len(rows), dtype=np.int64), 8, priority=keys)
    held = count_words("the quick brown fox", 4)
    known = vocabulary(*document_frequencies([held.words] * 2), 2, 1.0)
    one, four = np.array([0, 4]), np.array([4])
    index = build_index(one, held.words, held.counts, four, 4.0, known)
    search_words(index, 1, one, held.words, held.asked, np.array([-1]), known, 1)
    semdedup_pairs(rows, np.zeros(len(rows), dtype=np.float32), names)
    signed, _ = signatures(["the quick brown fox jumps over the lazy dog " * 4] * 2)
    bands = band_keys(signed, 14, 8)
    leader_edges(bands[:, 0], keys[:2], signed)
    connected_components(keys[:2], keys[2:4])
    samples, _ = containment(["one two three four five six"] * 2, Sampling(), Grid())
    evaluated(samples, Grid())
    self_covered(samples, Grid())
    doc_and_window_stats("The quick brown fox jumps over the lazy dog.\n" * 20)
    item_grams("The quick brown fox jumps over the lazy dog.", 4, 2)
    languages("The quick brown fox jumps over the lazy dog.", packaged_model(), 2000, 0.5)
    load_tokenizer("embedded").encode_batch(["The quick brown fox, 3 times."])
    packed = (np.full(8, 100, dtype=np.int64), np.zeros(8, dtype=np.int32), 256)
    plan_look_ahead(*packed, vectors=rows[:8], separator=1)
    plan_windows("best_fit", *packed, separator=1)
    static_folder()


if __name__ == "__main__":
    main()
