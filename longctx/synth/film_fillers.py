"""Fillers of IN2 contexts (arXiv 2404.16811): how long a context is, and what it is filled with.

A pool of pieces that all workers address by the same numbers (a sorted file, or a sample of it by
hash), so that what a row draws depends on the row alone. Uniform over pieces, not over documents.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longctx.ids import U64, doc_key, doc_keys, mix64, priorities
from longctx.synth.film import SEGMENT, Segment, fill_to_target

LENGTHS = (4_096, 32_768)
_REDRAWS = 20


@dataclass(frozen=True, slots=True)
class Pool:
    """The pieces that fillers are drawn from, addressed by a number that all workers share.

    `docs` and `clusters` are keys (`longctx.ids.doc_key`), uint64[n], cluster 0 for none;
    `n_tokens` int32[n]; `usable` bool[n] is false for contaminated texts; `at` fetches a piece.
    """

    docs: U64
    clusters: U64
    n_tokens: npt.NDArray[np.int32]
    usable: npt.NDArray[np.bool_]
    at: Callable[[int], Segment]


def pool_of(segments: Sequence[Segment], contaminated: Iterable[str] = ()) -> Pool:
    """A pool of listed pieces, without the documents that share n-grams with evaluation texts."""
    bad = set(contaminated)
    clusters = [doc_key(s.cluster_id) if s.cluster_id else 0 for s in segments]
    return Pool(
        doc_keys([s.doc_id for s in segments]),
        np.array(clusters, dtype=np.uint64),
        np.array([s.n_tokens for s in segments], dtype=np.int32),
        np.array([s.doc_id not in bad for s in segments], dtype=np.bool_),
        segments.__getitem__,
    )


def piece_hashes(docs: U64, k: npt.NDArray[np.int64], seed: int) -> U64:
    """uint64[n], even over all numbers: of piece k of the document with a key, by the seed."""
    return mix64(priorities(docs, seed) + k.astype(np.uint64))


def hash_bounds(pieces: Mapping[str, int], wanted: int) -> dict[str, int]:
    """By language the largest hash of a piece that is in a pool of about `wanted` pieces.

    `pieces` is how many there are of each language; where they are no more, all are in it.
    """
    return {
        lang: min(2**64, 2**64 * wanted // n) - 1 for lang, n in sorted(pieces.items()) if n > 0
    }


def draw_target(
    rng: np.random.Generator, source_tokens: int, lo: int = LENGTHS[0], hi: int = LENGTHS[1]
) -> int | None:
    """Tokens of the context, a uniform whole number of [lo, hi] that holds the source.

    None where 20 further draws are all too small (`source_too_long`).
    """
    drawn = rng.integers(lo, hi, size=1 + _REDRAWS, endpoint=True)
    return next((int(target) for target in drawn if target >= source_tokens), None)


def choose_fillers(
    rng: np.random.Generator,
    pool: Pool,
    source: Sequence[Segment],
    target: int,
    join_tokens: int = 0,
) -> list[int] | None:
    """Numbers of fillers up to the first that would pass the target, none twice.

    None where the pool ends before. Never of the documents of the source nor their clusters.
    """
    own = {doc_key(s.doc_id) for s in source}
    clusters = {doc_key(s.cluster_id) for s in source if s.cluster_id}
    lengths = [s.n_tokens for s in source]
    chosen: dict[int, int] = {}
    size, block = len(pool.docs), target // SEGMENT + SEGMENT
    for _ in range(8 + 8 * size // block if size else 0):
        for i in rng.integers(size, size=block).tolist():
            own_text = int(pool.docs[i]) in own or int(pool.clusters[i]) in clusters
            if i not in chosen and pool.usable[i] and not own_text:
                chosen[i] = int(pool.n_tokens[i])
        fitting, _ = fill_to_target(lengths, list(chosen.values()), target, join_tokens)
        if fitting < len(chosen):
            return list(chosen)[:fitting]
    return None
