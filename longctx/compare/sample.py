"""The windows whose text is compared: which segments are one document, and their vectors."""

from dataclasses import dataclass

import numpy as np

from longctx.compare.windows import EMPTY, Packed
from longctx.ids import U64, mix64
from longctx.pack.frame import I64
from longctx.pack.similarity import F32


@dataclass(frozen=True)
class Sample:
    """Segments of the windows to compare, in their order.

    `window` int64[segments] ascending, `tokens` int64[segments], `identity` uint64[segments];
    `document` int64[segments] numbers the identities of each window, `vectors` float32[documents,
    d] has one row for each: segments of one identity in one window are never compared. Rows of
    zeros have no vector.
    """

    windows: int
    window: I64
    tokens: I64
    identity: U64
    document: I64
    vectors: F32


def sample_of(packed: Packed, vectors: F32) -> Sample:
    """The sample of chosen windows; `vectors` float32[segments, d], unit norm or zero."""
    window, identity = packed.window, identities(packed)
    order = np.lexsort((-packed.tokens, identity, window))
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.diff(window[order]) != 0
    new[1:] |= identity[order][1:] != identity[order][:-1]
    document = np.empty(len(order), dtype=np.int64)
    document[order] = np.cumsum(new) - 1
    # Of several pieces of one document in one window the longest speaks for all.
    longest = vectors[order[new]]
    return Sample(len(packed.borders) - 1, window, packed.tokens, identity, document, longest)


def identities(packed: Packed) -> U64:
    """Which document each segment is, uint64[segments]: its id, or its content without ids.

    Where a window holds one content twice, the second is taken for the first, whatever its id.
    """
    # A segment without text is like no other.
    own = mix64(np.arange(1, len(packed.content) + 1, dtype=np.uint64))
    content = np.where(packed.content == EMPTY, own, packed.content)
    document = content if packed.document is None else packed.document
    order = np.lexsort((content, packed.window))
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.diff(packed.window[order]) != 0
    new[1:] |= content[order][1:] != content[order][:-1]
    first = order[new][np.cumsum(new) - 1]
    out = np.empty_like(document)
    out[order] = document[first]
    return out


def known_segments(sample: Sample) -> I64:
    """The segments that have a vector, int64."""
    with_vector = np.asarray(sample.vectors.any(axis=1))
    return np.flatnonzero(with_vector[sample.document])
