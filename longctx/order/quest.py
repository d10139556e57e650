"""Quest: documents that answer similar queries stand together (arXiv 2405.19846, ICLR 2025).

Each document has one representative keyword, drawn among its best ones in proportion to their
scores, so that a strong phrase does not swallow all documents that contain it. An inverted index
gives the documents of a keyword. Keywords that fill a context make `long` tours; what remains of
all keywords is run through along a path over the mean vectors of their documents and makes `short`
tours; the last rest and the documents without a keyword are the `pool`.

The paper's steps; its numbers could not be confirmed, so the five best phrases, tours closed as
soon as they hold a context, the path between short keywords (the paper draws at random), and the
rule of the budget are ours. "Random" is by priority.

Cost: linear in the documents, and K²·d for exact neighbours among the K keywords that make short
tours. Lost: nothing without a budget; with one, all documents of the tours not selected.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from longctx.cluster.similarity import F32, I64
from longctx.ids import U64, rng_for
from longctx.order.cluster_path import path_through
from longctx.order.rake import Keyword

BEST = 5
_NONE = np.zeros(0, dtype=np.int64)

KeywordClass = Literal["long", "short", "pool"]
KeywordPath = Callable[[list[I64]], I64]


class Tour(NamedTuple):
    """Documents int64[m] that make one tour, in order."""

    kw_class: KeywordClass
    documents: I64


def representative(candidates: Sequence[Keyword], doc_id: str, seed: int) -> str | None:
    """One of the five best keywords, drawn with p proportional to its score; None without any.

    `candidates` by (score descending, phrase ascending). The draw belongs to the document.
    """
    best = candidates[:BEST]
    if not best:
        return None
    share = np.cumsum([k.score for k in best])
    at = np.searchsorted(share / share[-1], rng_for(seed, "quest", doc_id).random(), side="right")
    return best[min(int(at), len(best) - 1)].phrase


def inverted_index(keywords: Sequence[str | None], priority: U64) -> dict[str, I64]:
    """Keywords in ascending order, each with its documents by (priority, number).

    `keywords` and `priority` uint64[n] of the documents 0..n-1.
    """
    found: dict[str, list[int]] = {}
    for number in np.argsort(priority, kind="stable").tolist():
        word = keywords[number]
        if word is not None:
            found.setdefault(word, []).append(number)
    return {word: np.array(found[word], dtype=np.int64) for word in sorted(found)}


def quest_tours(
    keywords: Sequence[str | None],
    tokens: I64,
    priority: U64,
    length: int,
    keyword_path: KeywordPath,
) -> list[Tour]:
    """Every document in exactly one tour: the long ones by keyword, then short, then pool.

    `keywords`, `tokens` int64[n], `priority` uint64[n] of the documents 0..n-1; `length` the tokens
    at which a tour is closed. `keyword_path` gets the documents of each keyword that makes short
    tours (keywords ascending) and returns the order of the keywords.
    """
    tours: list[Tour] = []
    rests: list[I64] = []
    for documents in inverted_index(keywords, priority).values():
        full, rest = closed(documents, tokens, length)
        tours += [Tour("long", tour) for tour in full]
        if len(rest):
            rests.append(rest)
    run = [rests[i] for i in keyword_path(rests).tolist()] if rests else []
    full, rest = closed(np.concatenate([_NONE, *run]), tokens, length)
    tours += [Tour("short", tour) for tour in full]
    without = np.array([i for i, word in enumerate(keywords) if word is None], dtype=np.int64)
    without = without[np.argsort(priority[without], kind="stable")]
    full, rest = closed(np.concatenate([rest, without]), tokens, length)
    return tours + [Tour("pool", tour) for tour in [*full, rest] if len(tour)]


def closed(documents: I64, tokens: I64, length: int) -> tuple[list[I64], I64]:
    """The documents, in their order, cut into tours of at least `length` tokens, and the rest.

    `tokens` int64 of all documents; each tour is closed as soon as it holds enough.
    """
    ends: list[int] = []
    held = 0
    for at, size in enumerate(tokens[documents].tolist(), start=1):
        held += size
        if held >= length:
            ends.append(at)
            held = 0
    *full, rest = np.split(documents, ends)
    return full, rest


def by_mean_vector(X: F32) -> KeywordPath:
    """A path of `path.py` over the mean vectors of the documents of each keyword.

    X float32[n, d], unit rows, zeros for documents without a vector: they do not count. Keywords
    without any vector come last, in their order.
    """

    def path(groups: list[I64]) -> I64:
        sums = np.stack([X[documents].sum(axis=0, dtype=np.float64) for documents in groups])
        norm = np.sqrt((sums * sums).sum(axis=1))
        known = np.flatnonzero(norm > 1e-6)
        means = (sums[known] / norm[known, None]).astype(np.float32)
        return np.concatenate([known[path_through(means)], np.flatnonzero(norm <= 1e-6)])

    return path


def within_budget(
    tours: Sequence[Tour],
    keywords: Sequence[str | None],
    tokens: I64,
    priority: U64,
    budget: int,
    split_ratio: float = 0.5,
    max_tours_per_keyword: int = 64,
) -> list[Tour]:
    """Tours of at least `budget` tokens (or all there are), in the order of `tours`.

    A share `split_ratio` of them is short, the others long, both by the priority of their first
    document; at most `max_tours_per_keyword` long ones have the same keyword (a short one never has
    two of its own). When one class is used up the other goes on; the pool is not used.
    """
    order = sorted(range(len(tours)), key=lambda t: int(priority[tours[t].documents[0]]))
    used: Counter[str | None] = Counter()
    waiting: dict[str, list[int]] = {"short": [], "long": []}
    for t in order:
        kind, documents = tours[t]
        word = keywords[int(documents[0])]
        if kind == "short" or (kind == "long" and used[word] < max_tours_per_keyword):
            waiting[kind].append(t)
            used[word] += kind == "long"
    taken: list[int] = []
    count = {"short": 0, "long": 0}
    held = 0
    while held < budget and any(count[kind] < len(waiting[kind]) for kind in count):
        kind = "short" if count["short"] < split_ratio * (len(taken) + 1) else "long"
        if count[kind] == len(waiting[kind]):
            kind = "long" if kind == "short" else "short"
        taken.append(waiting[kind][count[kind]])
        count[kind] += 1
        held += int(tokens[tours[taken[-1]].documents].sum())
    return [tours[t] for t in sorted(taken)]
