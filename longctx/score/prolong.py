"""ProLong LDS (Chen et al., arXiv 2405.17915): long-dependency score from pairs of chunks.

A document is cut into chunks of 128 tokens; P_i is the perplexity of tokens 2..128 of chunk i read
alone, P_{i|j} that of the same tokens with an earlier chunk j in front. Over sampled pairs with
DST = (P_i - P_{i|j}) / P_i above a threshold, LDS = Σ (α·DST + β·DDI)·DSP_i, where DDI is the
distance of the chunks and DSP_i = 1 - H/ln m punishes a chunk that all of its m partners help
equally (H: entropy of the softmax of P_i - P_{i|j}).

What we changed. Documents with fewer than 500 pairs use all they have; in the released code they
score 0, like every document that failed. Pairs are drawn by a generator of the document, so a score
does not depend on the order of files. DDI uses the true place of a chunk (`index="sampled"`: the
place among the sampled ones, as released). The softmax of raw differences of perplexity lets one
noisy chunk decide, so `pl_lds_log` is the same sum with differences of ln P. A sum grows with the
number of pairs: compare `pl_lds_per_pair`. α = β = 1 as in the code; the paper's are not known.

Cost: 128 tokens of forward pass a chunk and 256 a pair, at most 160 k for a document of any
length; memory about 2 kB for each pair of the documents that are read together. Lost: repeated
patterns score high (chat logs), books low. No BOS is fed.

Not to be taken for the data recipe ProLong of Gao et al. (arXiv 2410.02660).
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.score.causal_lm import I32, Segment
from longctx.score.likelihood import Columns
from longctx.score.plan import Scorer, read

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Index = Literal["true", "sampled"]

CHUNK, MAX_CHUNKS, MAX_PAIRS, THRESHOLD = 128, 256, 500, 0.1
_LARGEST = 700.0  # nats


class Draw(NamedTuple):
    """What is read of a document: `n_chunks` it has, `chunks` int64 [k] ascending, pairs of them.

    `pairs` int64 [m, 2] holds places in `chunks`, the later one first.
    """

    n_chunks: int
    chunks: I64
    pairs: I64


def draw(
    n: int,
    rng: np.random.Generator,
    *,
    chunk: int = CHUNK,
    max_chunks: int = MAX_CHUNKS,
    max_pairs: int = MAX_PAIRS,
) -> Draw:
    """Chunks and distinct pairs of a document of n tokens, uniformly, both in ascending order.

    All of them where there are no more than the limits.
    """
    total = n // chunk
    chunks = _sample(rng, total, max_chunks)
    count = len(chunks) * (len(chunks) - 1) // 2
    numbers = _sample(rng, count, max_pairs)
    # Pair number p of the later chunk i comes after the i(i-1)/2 pairs of those before it.
    firsts = np.arange(len(chunks) + 1, dtype=np.int64)
    firsts = firsts * (firsts - 1) // 2
    later = np.searchsorted(firsts, numbers, side="right") - 1
    return Draw(total, chunks, np.stack([later, numbers - firsts[later]], axis=1))


def _sample(rng: np.random.Generator, total: int, most: int) -> I64:
    if total <= most:
        return np.arange(total, dtype=np.int64)
    return np.sort(rng.choice(total, size=most, replace=False)).astype(np.int64)


def perplexities(
    scorer: Scorer, documents: Sequence[I32], draws: Sequence[Draw], chunk: int = CHUNK
) -> list[tuple[F64, F64]]:
    """P_i float64 [k] of each document's chunks and P_{i|j} float64 [m] of its pairs.

    In one call of the scorer. P_i is read, and else NaN, where chunk i has an earlier partner. NaN
    also where the model gave no numbers; a mean NLL of more than 700 nats counts as 700.
    """
    asked = [_segments(ids, d, chunk) for ids, d in zip(documents, draws, strict=True)]
    results = []
    for d, found in zip(draws, read(scorer, asked), strict=True):
        means = np.array([f.nll.mean(dtype=np.float64) for f in found], np.float64)
        values = np.exp(np.where(np.isfinite(means), np.minimum(means, _LARGEST), np.nan))
        later = np.unique(d.pairs[:, 0])
        alone = np.full(len(d.chunks), np.nan)
        alone[later] = values[: len(later)]
        results.append((alone, values[len(later) :]))
    return results


def _segments(ids: I32, found: Draw, chunk: int) -> list[Segment]:
    pieces = [ids[c * chunk : (c + 1) * chunk] for c in found.chunks.tolist()]
    later = np.unique(found.pairs[:, 0]).tolist()
    alone = [Segment(pieces[i], 1, chunk, bos=False) for i in later]
    return alone + [
        Segment(np.concatenate([pieces[j], pieces[i]]), chunk + 1, 2 * chunk, bos=False)
        for i, j in found.pairs.tolist()
    ]


def lds(
    alone: npt.ArrayLike,
    joint: npt.ArrayLike,
    pairs: npt.ArrayLike,
    index: npt.ArrayLike,
    *,
    scale: float = MAX_CHUNKS - 1,
    threshold: float = THRESHOLD,
    alpha: float = 1.0,
    beta: float = 1.0,
    log: bool = False,
) -> F64:
    """The term of each pair, float64 [m]: 0 unless DST > threshold; their sum is LDS.

    `alone` are P_i [k], `joint` P_{i|j} [m] of `pairs` [m, 2] of places (later, earlier), `index`
    the places [k] by which distances are measured, over `scale`. With `log` the softmax is over
    ln P_i - ln P_{i|j}. NaN where a perplexity is.
    """
    p, q, at = (np.asarray(a, np.float64) for a in (alone, joint, index))
    later, earlier = np.asarray(pairs, np.int64).reshape(-1, 2).T
    dst = _dst(p, q, later)
    ddi = np.minimum(1.0, (at[later] - at[earlier]) / scale)
    gain = np.log(p[later]) - np.log(q) if log else p[later] - q
    dsp = np.zeros(len(q))
    for i in np.unique(later):
        own = later == i
        dsp[own] = _certainty(gain[own])
    return np.where(dst <= threshold, 0.0, (alpha * dst + beta * ddi) * dsp)


def _dst(alone: F64, joint: F64, later: I64) -> F64:
    """Share of a chunk's perplexity that the chunk in front takes away, by pair."""
    return np.asarray((alone[later] - joint) / alone[later], np.float64)


def _certainty(gains: F64) -> float:
    """1 - H/ln m of the softmax over m partners, in [0, 1]; 1 for a single one."""
    if len(gains) == 1:
        return 1.0
    weights = np.exp(gains - gains.max())
    weights /= weights.sum()
    some = weights[weights > 0]
    entropy = -float((some * np.log(some)).sum())
    return float(np.clip(1 - entropy / math.log(len(gains)), 0.0, 1.0))


def columns(
    found: Draw,
    alone: F64,
    joint: F64,
    *,
    index: Index = "true",
    scale: float = MAX_CHUNKS - 1,
    threshold: float = THRESHOLD,
) -> Columns:
    """All scores of a document by column; sums are null without a pair, NaN without numbers."""
    places = found.chunks if index == "true" else np.arange(len(found.chunks))
    raw, log = (
        lds(alone, joint, found.pairs, places, scale=scale, threshold=threshold, log=by)
        for by in (False, True)
    )
    hits = _dst(alone, joint, found.pairs[:, 0]) > threshold
    m = len(joint)
    return {
        "pl_lds": float(raw.sum()) if m else None,
        "pl_lds_per_pair": float(raw.mean()) if m else None,
        "pl_lds_log": float(log.sum()) if m else None,
        "pl_hits": int(hits.sum()) if m else None,
        "pl_pairs": m,
        "pl_n_chunks": found.n_chunks,
    }
