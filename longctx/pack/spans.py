"""Spans of framed documents, cut from the documents' tokens into one array.

A framed document is its prefix, its own tokens and its separator. Spans are given in framed
positions, so a span may hold some of each. Tokens are copied once, in compiled code; prefix and
separator are a few positions each and are set for all spans at once.
"""

from collections.abc import Sequence

import numpy as np

from longctx.pack.frame import I32, I64, copy_spans


def cut(
    tokens: I32,
    first: I64,
    size: I64,
    start: I64,
    end: I64,
    prefix: Sequence[int],
    separator: Sequence[int],
) -> tuple[I32, I64]:
    """Ids of all spans one after the other, int32, and where each begins, int64[n + 1].

    Span i is [start[i], end[i]) of the framed document whose own `size[i]` tokens begin at
    `tokens[first[i]]`; all int64[n].
    """
    at = np.concatenate([np.zeros(1, np.int64), np.cumsum(end - start)])
    found = np.empty(int(at[-1]), dtype=np.int32)
    begin = np.clip(start - len(prefix), 0, size)
    stop = np.clip(end - len(prefix), 0, size)
    place = at[:-1] + np.maximum(len(prefix) - start, 0)
    copy_spans(tokens, first + begin, stop - begin, found, place)
    framing = [(np.full(len(size), k), token) for k, token in enumerate(prefix)]
    framing += [(len(prefix) + size + k, token) for k, token in enumerate(separator)]
    for position, token in framing:
        inside = (start <= position) & (position < end)
        found[(at[:-1] + position - start)[inside]] = token
    return found, at
