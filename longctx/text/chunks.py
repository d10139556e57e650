"""Where to look in a text that is too long to be read whole.

A long document is represented by at most `max_chunks` chunks of one size, spread evenly from its
first to its last unit (ours; a prefix alone would say what the introduction says). Pure integer
arithmetic: the chunks depend on the length only, never on the machine.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_SNAP = 64


def evenly_spaced(n: int, size: int, max_chunks: int) -> npt.NDArray[np.int64]:
    """Starts of the chunks of `n` units (tokens or characters), int64, increasing.

    Up to `max_chunks * size` units the chunks tile the text: starts 0, size, 2·size, … and the last
    chunk may be shorter. Beyond, exactly `max_chunks` chunks of `size` units that do not overlap:
    the first begins at 0, the last ends at `n`. Raises ValueError if `size` or `max_chunks` < 1.
    """
    if size < 1 or max_chunks < 1:
        raise ValueError(f"size and max_chunks must be at least 1, got {size} and {max_chunks}")
    if n <= size * max_chunks:
        return np.arange(0, n, size, dtype=np.int64)
    if max_chunks == 1:
        return np.zeros(1, dtype=np.int64)
    return np.arange(max_chunks, dtype=np.int64) * (n - size) // (max_chunks - 1)


def snapped_span(text: str, start: int, end: int) -> tuple[int, int]:
    """The span [start, end) of `text` shrunk to whole words, by at most 64 characters per side.

    A side without whitespace that near (or at the edge of the text) stays where it is.
    """
    if start > 0 and not text[start - 1].isspace():
        gap = next((i for i, c in enumerate(text[start : start + _SNAP]) if c.isspace()), None)
        start += 0 if gap is None else gap
    if end < len(text) and not text[end].isspace():
        tail = text[max(start, end - _SNAP) : end]
        gap = next((i for i, c in enumerate(reversed(tail)) if c.isspace()), None)
        end -= 0 if gap is None else gap
    return start, end


@dataclass(frozen=True)
class Sample:
    """The stretches of one document that are to be tokenised."""

    spans: list[tuple[int, int]]
    whole: bool


def sample_spans(text: str, size: int, max_chunks: int, chars_per_token: int = 4) -> Sample:
    """Character spans that hold the evenly spaced chunks of `size` tokens of `text`.

    A text that probably fits into `max_chunks` chunks (at most `chars_per_token` characters for
    each of their tokens) is one whole span. Of a longer one only `max_chunks` evenly spaced spans
    are read, each of half as many characters again as a chunk should need, so a 200 MB document
    costs no more than a short one. Spans are snapped to whitespace and do not overlap.
    """
    budget = size * max_chunks * chars_per_token
    if len(text) <= budget:
        return Sample([(0, len(text))] if text else [], whole=True)
    width = min(size * chars_per_token * 3 // 2, len(text) // max_chunks)
    starts = evenly_spaced(len(text), width, max_chunks).tolist()
    return Sample([snapped_span(text, start, start + width) for start in starts], whole=False)
