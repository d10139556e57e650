"""LongMIT's graph work: paths through related documents, links between questions, chains.

MIMG (arXiv 2409.01893): documents are walked along their nearest neighbours; the questions of a
path are linked by similarity, across documents or inside one, and chains of two to four of them
are merged into one question. What we changed: a document is no neighbour of itself by its id, not
by its place in the list; links go to any question, not to later ones alone; no document is used
twice in a chain across documents; a chain walks on from its last question (`walk`), where the
reference takes the neighbours of the first (`star`). Bounds `lo` and `hi` of a link are ours, to be
set anew for every embedder (`link_bounds`).

`traverse` is sequential, O(documents * k) on ids alone; questions of a path cost their square in
similarities. Lost: links between documents of different paths.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.synth.checks import norm_answer
from longctx.synth.draw import generator
from longctx.synth.tokens import TokenCounter
from longctx.text.sentences import sentence_spans

F64 = npt.NDArray[np.float64]
Mode = Literal["walk", "star", "intra"]

SYSTEM = "longmit"
MAX_DOCS = 20
PREFIX_JACCARD = 0.75
CHUNK = 2_048
STARTS, MAX_HOP, TOP_K = 10, 4, 3
LO, HI = 0.50, 0.92
CRITERIA = ("correctness", "multi_fact", "clarity", "naturalness")
LEAST_QUALITY = 8.5
_MOVE = 0.2  # of a chunk, as far as a cut may go to a sentence end


def traverse(
    neighbours: Mapping[int, Sequence[int]] | Sequence[Sequence[int]],
    start_order: Iterable[int],
    max_docs: int = MAX_DOCS,
) -> list[list[int]]:
    """Paths of at most `max_docs` documents: on to the nearest neighbour that no path has yet.

    `neighbours` has the nearest first; a document among its own is passed over. Every document of
    `start_order` is in one path.
    """
    if max_docs < 1:
        raise ValueError(f"max_docs={max_docs}; a path has one document at least")
    visited: set[int] = set()
    paths = []
    for start in start_order:
        if start in visited:
            continue
        path = [start]
        visited.add(start)
        while len(path) < max_docs:
            found = next((j for j in neighbours[path[-1]] if j not in visited), None)
            if found is None:
                break
            path.append(found)
            visited.add(found)
        paths.append(path)
    return paths


def prefix_jaccard(a: str, b: str, n: int = 3, prefix: int = 100) -> float:
    """Jaccard similarity of the character n-grams of two beginnings; 1 for two empty ones."""
    first, second = _grams(a[:prefix], n), _grams(b[:prefix], n)
    return len(first & second) / len(first | second) if first | second else 1.0


def _grams(text: str, n: int) -> set[str]:
    return {text[i : i + n] for i in range(max(1, len(text) - n + 1))} if text else set()


def without_near_duplicates(
    path: Sequence[int],
    text_of: Callable[[int], str],
    above: float = PREFIX_JACCARD,
    clusters: Sequence[object] | None = None,
) -> tuple[list[int], list[int]]:
    """A path, and what was dropped from it (`near_dup_in_path`): too like the one kept before.

    With `clusters` of near-duplicates (None: in none) also what shares one with any kept before,
    for a neighbour of two neighbours may be a near-duplicate of the first.
    """
    kept: list[int] = []
    dropped: list[int] = []
    known: set[object] = set()
    for doc in path:
        cluster = clusters[doc] if clusters else None
        alike = bool(kept) and prefix_jaccard(text_of(kept[-1]), text_of(doc)) > above
        if alike or (cluster is not None and cluster in known):
            dropped.append(doc)
            continue
        kept.append(doc)
        known.add(cluster)
    return kept, dropped


def n_chunks(tokens: int, size: int = CHUNK) -> int:
    """Number of chunks of at most about `size` tokens."""
    return math.ceil(tokens / size)


def chunk_spans(text: str, counter: TokenCounter, size: int = CHUNK) -> list[tuple[int, int]]:
    """Half-open character spans of chunks of equal numbers of tokens; they join to the text.

    A cut moves to the nearest sentence end within a fifth of a chunk, the earlier of two as near.
    """
    offsets = counter.encode(text).offsets
    n = n_chunks(len(offsets), size)
    if n < 2:
        return [(0, len(text))] if text else []
    part = len(offsets) / n
    ends = np.array([end for _, end in sentence_spans(text)], dtype=np.int64)
    places = np.searchsorted(offsets, ends)
    cuts = [0]
    for k in range(1, n):
        wanted = k * part
        nearest = int(np.argmin(np.abs(places - wanted)))
        moved = abs(float(places[nearest]) - wanted) <= _MOVE * part
        cuts.append(int(ends[nearest] if moved else offsets[round(wanted)]))
    return list(zip(cuts, [*cuts[1:], len(text)], strict=True))


class SingleQA(NamedTuple):
    """A question that one chunk answers: `answer` is short, `rationale` the long answer."""

    doc_id: str
    chunk_id: int
    question: str
    answer: str
    rationale: str


def distinct_questions(found: Iterable[SingleQA]) -> list[SingleQA]:
    """The first of equal questions of each document, in order."""
    kept: dict[tuple[str, str], SingleQA] = {}
    for single in found:
        kept.setdefault((single.doc_id, norm_answer(single.question)), single)
    return list(kept.values())


def cross_neighbours(
    i: int,
    S: npt.ArrayLike,
    doc: Sequence[object],
    k: int | None = TOP_K,
    lo: float = LO,
    hi: float = HI,
) -> list[int]:
    """Questions of other documents with a similarity in [lo, hi], best first, one a document.

    `S` is (n, n), `doc` the document of each question; ties go to the smaller number. The first
    `k`, all for None.
    """
    found: dict[object, int] = {}
    for j in _linked(i, S, lo, hi):
        if doc[j] != doc[i]:
            found.setdefault(doc[j], j)
    return list(found.values())[:k]


def intra_neighbours(
    i: int,
    S: npt.ArrayLike,
    doc: Sequence[object],
    k: int | None = TOP_K,
    lo: float = LO,
    hi: float = HI,
) -> list[int]:
    """Other questions of the same document with a similarity in [lo, hi], best first."""
    return [j for j in _linked(i, S, lo, hi) if doc[j] == doc[i]][:k]


def _linked(i: int, S: npt.ArrayLike, lo: float, hi: float) -> list[int]:
    row = np.asarray(S)[i]
    inside = [j for j in np.flatnonzero((row >= lo) & (row <= hi)).tolist() if j != i]
    return sorted(inside, key=lambda j: (-row[j], j))


def build_chain(
    i: int,
    S: npt.ArrayLike,
    doc: Sequence[object],
    mode: Mode = "walk",
    max_hop: int = MAX_HOP,
    lo: float = LO,
    hi: float = HI,
) -> list[int]:
    """A chain of at most `max_hop` questions from question `i` on.

    "walk": from the last to its best neighbour in a document not used yet. "star": the first and
    its neighbours in other documents. "intra": the first and its neighbours in its own document.
    """
    if mode == "star":
        return [i, *cross_neighbours(i, S, doc, max_hop - 1, lo, hi)]
    if mode == "intra":
        return [i, *intra_neighbours(i, S, doc, max_hop - 1, lo, hi)]
    if mode != "walk":
        raise ValueError(f"mode={mode!r} is none of walk, star, intra")
    chain, used = [i], {doc[i]}
    while len(chain) < max_hop:
        nearest = cross_neighbours(chain[-1], S, doc, None, lo, hi)
        found = next((j for j in nearest if doc[j] not in used), None)
        if found is None:
            break
        chain.append(found)
        used.add(doc[found])
    return chain


class Link(NamedTuple):
    """The element of the chain that one is linked to, and their similarity; None for the first."""

    linked_to: int | None
    sim: float | None


def links(chain: Sequence[int], S: npt.ArrayLike, mode: Mode = "walk") -> list[Link]:
    """How each element of a chain came into it."""
    similarity = np.asarray(S)
    to = [k - 1 if mode == "walk" else 0 for k in range(1, len(chain))]
    found = [Link(t, float(similarity[chain[t], chain[k]])) for k, t in enumerate(to, 1)]
    return [Link(None, None), *found]


def start_questions(n: int, seed: int, path_id: str, starts: int = STARTS) -> list[int]:
    """At most `starts` of `n` questions of a path, drawn without repetition."""
    rng = generator(seed, SYSTEM, "starts", path_id)
    return rng.choice(n, size=min(n, starts), replace=False).tolist() if n else []


def link_bounds(
    S: npt.ArrayLike, doc: Sequence[object], percentiles: tuple[float, float] = (60.0, 99.5)
) -> tuple[float, float]:
    """`lo` and `hi` for an embedder: percentiles of similarities between different documents.

    Raises ValueError where all questions are of one document.
    """
    similarity = np.asarray(S, dtype=np.float64)
    numbers = np.unique([str(d) for d in doc], return_inverse=True)[1]
    rows, others = np.triu_indices(len(numbers), 1)
    across = similarity[rows, others][numbers[rows] != numbers[others]]
    if not len(across):
        raise ValueError("similarities between different documents are needed; there are none")
    lo, hi = np.percentile(across, percentiles)
    return float(lo), float(hi)


def quality_score(marks: Mapping[str, float] | Sequence[float]) -> float:
    """Mean of the four marks 0..10, by name or in the order of `CRITERIA`; good above 8.5."""
    values = [marks[name] for name in CRITERIA] if isinstance(marks, Mapping) else list(marks)
    if len(values) != len(CRITERIA):
        raise ValueError(f"{len(values)} marks; there are {len(CRITERIA)}: {', '.join(CRITERIA)}")
    return sum(values) / len(values)
