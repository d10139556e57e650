"""LOGO: which chunks of a document help to answer a question, and which only look as if they did.

LOGO (arXiv 2410.18533) lets one model answer a question from chunks of a document that share many
entities with it (preferred) and from chunks that share few (dis-preferred), and trains on short
contexts whose positions are stretched over the target window (`logo_positions`).

What we changed. Entities are content words, so that no tagger is needed (`logo_entities` has the
paper's); words of most chunks do not count, or the document's subject would make everything
relevant. The threshold follows the document, for hardly any question shares more than the paper's
six entities with a chunk. The half-relevant context keeps the weaker half of the relevant chunks,
not the better one as the released code does, which often suffices for the answer. Every answer has
equally many chunks, so length tells nothing. Cost: linear in the tokens of the document. Lost:
documents whose chunks cannot be told apart by words; paraphrases of the question.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.prefer import losses
from longctx.prefer.chunks import chunk_text
from longctx.prefer.logo_positions import positions as positions
from longctx.synth.rows import Reject
from longctx.synth.tokens import TokenCounter
from longctx.text.answers import content_words

SYSTEM = "logo"
PROMPT_VERSION = "logo-1"
CHUNK, LEAST_CHUNK = 512, 64
CHUNKS = 16
LEAST_GAP = 2.0
_QUANTILE, _LEAST_DELTA = 0.75, 0.5

loss = losses.logo
Delta = float | Literal["auto"]
Scores = Sequence[int]


class Selection(NamedTuple):
    """Places of chunks, each list ascending: what is answered from, and what is trained on.

    `relevant` gives the preferred answer, `rejected_1` has the least relevant chunks, `rejected_2`
    some of `relevant` among others; all three are equally long. `context` is what they are compared
    in. `gap` is the mean score of the relevant chunks less that of the irrelevant ones.
    """

    relevant: list[int]
    rejected_1: list[int]
    rejected_2: list[int]
    context: list[int]
    delta: float
    gap: float


def chunk_spans(
    text: str, counter: TokenCounter, size: int = CHUNK, least: int = LEAST_CHUNK
) -> list[tuple[int, int]]:
    """Spans in characters of the chunks of a text, which join to it; none without a token.

    Chunks have `size` tokens; a last one of fewer than `least` is joined to the one before.
    """
    return [(c.start_char, c.end_char) for c in chunk_text(text, counter, size, least)]


def query_of(question: str, gold: str | None, side: str = "question+gold") -> str:
    """What chunks are compared with: the question, and the right answer where one is known."""
    return f"{question}\n{gold}" if gold and side == "question+gold" else question


def score_terms(chunks: Sequence[str], query: str) -> list[int]:
    """Number of distinct content words that each chunk shares with a query.

    Words that stand in more than half of the chunks do not count.
    """
    wanted = content_words(query)
    shared = [wanted & content_words(chunk) for chunk in chunks]
    chunks_with = Counter(word for words in shared for word in words)
    rare = {word for word, n in chunks_with.items() if 2 * n <= len(chunks)}
    return [len(words & rare) for words in shared]


def score_entities(
    chunks: Sequence[str], query: str, entities: Callable[[Sequence[str]], list[set[str]]]
) -> list[int]:
    """Number of distinct entities that each chunk shares with a query, as `entities` finds them."""
    wanted, *found = entities([query, *chunks])
    return [len(wanted & own) for own in found]


def threshold(scores: Scores, delta: Delta = "auto") -> float:
    """Above it a chunk is relevant, below it irrelevant; "auto" is the 75th percentile, or 0.5."""
    if delta != "auto":
        return float(delta)
    return max(_LEAST_DELTA, float(np.quantile(np.asarray(scores, np.float64), _QUANTILE)))


def select_chunks(
    scores: Scores,
    N: int = CHUNKS,
    delta: Delta = "auto",
    max_relevant: int | None = None,
    rng: np.random.Generator | None = None,
    *,
    min_relevant: int = 2,
    min_gap: float = LEAST_GAP,
) -> Selection | Reject:
    """The chunks of the three answers and of the context, from the scores of all; or `low_score`.

    `max_relevant` is N/2 by default. `context` has N chunks, or all of a shorter document: the
    relevant ones, then irrelevant ones (those of rejected_2 first, then of rejected_1), and last
    what is neither or too much. Raises ValueError without scores.
    """
    if not len(scores):
        raise ValueError("there are no chunks to select from")
    rng = rng or np.random.default_rng(0)
    s = np.asarray(scores, dtype=np.int64)
    cut = threshold(scores, delta)
    best = sorted(np.flatnonzero(s > cut).tolist(), key=lambda i: (-s[i], i))
    kept = best[: N // 2 if max_relevant is None else max_relevant]
    irrelevant = np.flatnonzero(s < cut)
    n = len(kept)
    if n < min_relevant:
        return Reject("low_score", f"{n} chunks score above {cut:g}, {min_relevant} are needed")
    if len(irrelevant) < n:
        return Reject("low_score", f"{len(irrelevant)} irrelevant chunks, {n} are needed")
    gap = float(s[kept].mean() - s[irrelevant].mean())
    if gap < min_gap:
        return Reject("low_score", f"relevant chunks score {gap:.2f} more, {min_gap:g} are needed")
    by_chance: list[int] = rng.permutation(irrelevant).tolist()
    least = sorted(by_chance, key=lambda i: s[i])[:n]
    drawn = _shuffled(irrelevant, rng)[: n - n // 2]
    rest = _shuffled(np.setdiff1d(np.arange(len(s)), np.append(irrelevant, kept)), rng)
    context = list(dict.fromkeys([*kept, *drawn, *least, *by_chance, *rest]))[: max(N, n)]
    half = kept[n - n // 2 :]
    kept, least, mixed = sorted(kept), sorted(least), sorted([*half, *drawn])
    return Selection(kept, least, mixed, sorted(context), cut, gap)


def _shuffled(places: npt.NDArray[np.int64], rng: np.random.Generator) -> list[int]:
    found: list[int] = rng.permutation(places).tolist()
    return found


def joined(text: str, spans: Sequence[tuple[int, int]], places: Sequence[int]) -> str:
    """The chunks of some places in the order of the document, one line break between them."""
    return "\n".join(text[a:b] for a, b in (spans[i] for i in sorted(places)))


def role_of(place: int, chosen: Selection) -> str:
    """What a chunk of the context is for: the strongest of its uses, "other" for none."""
    if place in chosen.relevant:
        return "relevant"
    for name in ("rejected_2", "rejected_1"):
        if place in getattr(chosen, name):
            return name
    return "other"
