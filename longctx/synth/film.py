"""FILM / IN2 training (arXiv 2404.16811): evidence of 128 tokens, anywhere in a long context.

The pieces that contexts are made of, how many fit, and the figures of VaL probing, which measures
whether a model finds what stands at each place. `film_rows` builds the rows, `film_val` the probes.

What we changed: a last piece of 64 tokens and more is kept, a shorter one is dropped, for the paper
does not say; lengths are drawn directly where the paper rejects samples to the same effect. The
released plot leaves out the last position of every bucket: here all count. Cost: one pass of a
tokenizer over the corpus.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from longctx.synth.tokens import I64, TokenCounter

SYSTEM = "film"
PROMPT_VERSION = "film-1"
SEGMENT, MIN_TAIL = 128, 64


class Segment(NamedTuple):
    """Piece k of a document; `cluster_id` names the document's near-duplicates."""

    seg_id: str
    doc_id: str
    cluster_id: str | None
    k: int
    text: str
    n_tokens: int


class Gap(NamedTuple):
    """Mean over buckets of positions, and the best bucket less the worst."""

    avg: float
    gap: float


def n_segments(n: int, size: int = SEGMENT, min_tail: int = MIN_TAIL) -> int:
    """Pieces of a text of n tokens: whole ones, and a last one of `min_tail` tokens or more."""
    return n // size + (n % size >= min_tail)


def segment_spans(
    text: str, counter: TokenCounter, size: int = SEGMENT, min_tail: int = MIN_TAIL
) -> list[tuple[int, int]]:
    """Spans in characters of the pieces of a text, one behind the other from its beginning.

    Cuts stand where a piece's first token begins, or where the character begins that it shares
    with the token before. A dropped last piece has no span; else the spans join to the text.
    """
    return _spans(counter.encode(text).offsets, len(text), size, min_tail)


def _spans(starts: I64, end: int, size: int, min_tail: int) -> list[tuple[int, int]]:
    count = n_segments(len(starts), size, min_tail)
    cuts = [0, *starts[size::size].tolist(), end]
    return [(cuts[i], cuts[i + 1]) for i in range(count)]


def segments_of(
    doc_id: str, text: str, counter: TokenCounter, cluster_id: str | None = None
) -> list[Segment]:
    """The pieces of a document, `DOC#K`; none where it has fewer than 64 tokens (`too_short`)."""
    starts = counter.encode(text).offsets
    return [
        Segment(f"{doc_id}#{k}", doc_id, cluster_id, k, text[a:b], _piece_tokens(len(starts), k))
        for k, (a, b) in enumerate(_spans(starts, len(text), SEGMENT, MIN_TAIL))
    ]


def _piece_tokens(n: int, k: int) -> int:
    return min(SEGMENT, n - k * SEGMENT)


def fill_to_target(
    source_tokens: Sequence[int], filler_tokens: Sequence[int], target: int, join_tokens: int = 0
) -> tuple[int, int]:
    """How many fillers, in their order, fit beside the source, and the tokens of all with joins.

    Stops at the first that would pass the target. The source alone may be longer than that.
    """
    total = sum(source_tokens) + join_tokens * max(0, len(source_tokens) - 1)
    for k, tokens in enumerate(filler_tokens):
        joined = total + tokens + (join_tokens if source_tokens or k else 0)
        if joined > target:
            return k, total
        total = joined
    return len(filler_tokens), total


def word_recall(gt: str, reply: str) -> float:
    """Share of the distinct words of `gt` that a reply has, whatever their case; 0 without any.

    Words are what stands between blanks, with their punctuation: the published score.
    """
    wanted = set(gt.lower().split())
    return len(wanted & set(reply.lower().split())) / len(wanted) if wanted else 0.0


def val_avg_gap(records: Iterable[tuple[str, int, float]], n_positions: int, bucket: int) -> Gap:
    """The two figures of VaL probing of (set, position, score).

    Means over each set and bucket of positions, then over the sets that have something there.
    Raises ValueError without records, for positions outside 0..n_positions-1, or an empty bucket.
    """
    scores: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, position, score in records:
        if not 0 <= position < n_positions:
            raise ValueError(f"position {position} is not one of {n_positions}")
        scores[position // bucket][name].append(score)
    if lacking := sorted(set(range(-(-n_positions // bucket))) - set(scores)):
        raise ValueError(f"no record in bucket {lacking[0]} of {bucket} positions each")
    means = [_mean([_mean(own) for own in sets.values()]) for sets in scores.values()]
    return Gap(_mean(means), max(means) - min(means))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
