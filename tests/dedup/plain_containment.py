"""Containment of chunks as sets and dictionaries, slow and plain, from the definition alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from longctx.dedup.chunking import Grid, Sampling
from longctx.dedup.shingles import shingle_values
from longctx.ids import h64
from longctx.text.normalise import Profile, dedup_tokens


@dataclass(frozen=True)
class Chunk:
    words: int
    samples: frozenset[int]


def cut(text: str, sampling: Sampling, profile: Profile = "text") -> list[Chunk]:
    """The chunks of a text, a shingle in the chunk of its first token."""
    tokens = dedup_tokens(text, profile)
    hashes = np.array([h64(t.encode()) for t in tokens], dtype=np.uint64)
    values = shingle_values(hashes, sampling.ngram).tolist()
    starts = list(range(0, len(tokens), sampling.chunk))
    if len(starts) > 1 and len(tokens) - starts[-1] < sampling.min_last:
        starts.pop()
    stops = [*starts[1:], len(tokens)]
    return [
        Chunk(b - a, frozenset(v for v in values[a:b] if v % sampling.one_in == 0))
        for a, b in zip(starts, stops, strict=False)
    ]


def plain_scores(
    texts: Mapping[str, str], sampling: Sampling, grid: Grid, max_df: int
) -> dict[str, dict[str, Any]]:
    """All columns of `dedup.containment` by document, and `covers`: id -> (words, chunks)."""
    chunks = {i: cut(t, sampling) for i, t in texts.items()}
    held = {i: frozenset().union(*(c.samples for c in cs)) for i, cs in chunks.items()}
    words = {i: sum(c.words for c in cs) for i, cs in chunks.items()}
    df: dict[int, int] = {}
    for samples in held.values():
        for sample in samples:
            df[sample] = df.get(sample, 0) + 1
    common = frozenset(s for s, n in df.items() if n > max_df)
    return {i: _scores(i, chunks, held, words, common, grid) for i in texts}


def _scores(
    a: str,
    chunks: Mapping[str, list[Chunk]],
    held: Mapping[str, frozenset[int]],
    words: Mapping[str, int],
    common: frozenset[int],
    grid: Grid,
) -> dict[str, Any]:
    if words[a] < grid.min_last:
        status = "too_short" if words[a] else "empty"
        return {"n_chunks": None, "status": status, "covers": {}}
    judged = [c for c in chunks[a] if len(c.samples) >= grid.min_samples]
    if not judged:
        return {"n_chunks": len(chunks[a]), "status": "few_samples", "covers": {}}
    covers: dict[str, tuple[int, int]] = {}
    any_words = common_words = self_words = 0
    before: set[int] = set()
    for chunk in chunks[a]:
        own = chunk.samples
        if len(own) >= grid.min_samples:
            by = [
                b for b in held if b != a and len((own - common) & held[b]) / len(own) >= grid.tau
            ]
            for b in by:
                seen = covers.get(b, (0, 0))
                covers[b] = seen[0] + chunk.words, seen[1] + 1
            any_words += chunk.words * bool(by)
            common_words += chunk.words * (len(own & common) / len(own) >= grid.tau)
            self_words += chunk.words * (len(own & before) / len(own) >= grid.tau)
        before |= own
    earlier = {b: c for b, c in covers.items() if (-words[b], b) < (-words[a], a)}
    return {
        "n_chunks": len(chunks[a]),
        "status": "ok",
        "covers": covers,
        "any_share": any_words / words[a],
        "self_share": self_words / words[a],
        "common_share": common_words / words[a],
        **_best("best", covers, words[a]),
        **_best("prev", earlier, words[a]),
    }


def _best(name: str, covers: Mapping[str, tuple[int, int]], words: int) -> dict[str, Any]:
    if not covers:
        return {f"{name}_doc": None, f"{name}_share": 0.0}
    other = min(covers, key=lambda b: (-covers[b][0], b))
    return {f"{name}_doc": other, f"{name}_share": covers[other][0] / words}
