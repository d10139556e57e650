"""Excerpts of windows or documents for a language model, with every document's border kept.

A window is in the vocabulary of its run. Each of its documents is decoded and encoded again in the
vocabulary of the model that judges it, so borders lie between tokens, and a separator stands
between two documents as it does in training. Of what is longer than the model shall read, one
excerpt is taken at a place that follows from the window's key: the same in every call, and of all
places one as likely as another.

What far context a position has is told exactly, by its place: a model that reads an excerpt with a
short context and with all of it differs at a position by the tokens before the short context, and
these lie in the document of the position, in others, or in both (ours).

O(n) for an excerpt of n tokens, O(n) more for every place at which a short context begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.ids import U64, mix64

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Where the far context of a position lies; NEAR has none beyond the short one.
NEAR, SAME, OTHER, BOTH = range(4)
_PLACE = np.uint64(0x9E3779B97F4A7C15)  # a place must not follow from the order of keys
_SEPARATOR = -1


class Piece(NamedTuple):
    """What one document has in a window: its key (uint64), and ids int32 [n] of the model.

    Tokens of a piece that is not `judged` (the model does not know its language) are context for
    others and are not counted themselves.
    """

    document: int
    ids: I32
    judged: bool = True


@dataclass(frozen=True)
class Excerpt:
    """`ids` int32 [n]; `document` int64 [n] is the place of each token's document in `documents`.

    Separators belong to no document (-1). `counted` bool [n] marks tokens whose likelihood counts.
    """

    ids: I32
    document: I64
    documents: U64
    counted: Mask

    def __len__(self) -> int:
        return len(self.ids)


def joined(pieces: Sequence[Piece], separator: int) -> Excerpt:
    """The pieces of a window in their order, the token `separator` between two of them."""
    pieces = [piece for piece in pieces if len(piece.ids)]
    keys = np.array([piece.document for piece in pieces], dtype=np.uint64)
    documents, number = np.unique(keys, return_inverse=True)
    sizes = np.array([len(piece.ids) for piece in pieces], dtype=np.int64)
    # A separator behind each piece but the last, as if it were a piece of one token.
    runs = np.ones(max(0, 2 * len(pieces) - 1), dtype=np.int64)
    runs[::2] = sizes
    owner = np.full(len(runs), _SEPARATOR, dtype=np.int64)
    owner[::2] = number
    judged = np.zeros(len(runs), dtype=bool)
    judged[::2] = [piece.judged for piece in pieces]
    document = np.repeat(owner, runs)
    ids = np.full(len(document), separator, dtype=np.int32)
    if pieces:
        ids[document != _SEPARATOR] = np.concatenate([piece.ids for piece in pieces])
    return Excerpt(ids, document, documents, np.repeat(judged, runs))


def cut(whole: Excerpt, size: int, key: int) -> Excerpt:
    """`size` tokens of an excerpt of at least so many, at the place that `key` (uint64) says."""
    first = place(len(whole), size, key)
    return _slice(whole, slice(first, first + size))


def place(length: int, size: int, key: int) -> int:
    """The first token of a cut of `size` tokens: one of the length - size + 1 places."""
    return _drawn(key, length - size + 1)


def cut_at_border(whole: Excerpt, size: int, after: int, key: int) -> Excerpt | None:
    """`size` tokens whose last `after` begin with a document that counts, which one `key` says.

    None where no such document has enough tokens of the window before it.
    """
    begins = (whole.document >= 0) & whole.counted
    begins[1:] &= whole.document[1:] != whole.document[:-1]
    at = np.flatnonzero(begins)
    at = at[(at >= size - after) & (at <= len(whole) - after)]
    if not len(at):
        return None
    end = int(at[_drawn(key, len(at))]) + after
    return _slice(whole, slice(end - size, end))


def _drawn(key: int, number: int) -> int:
    """One of so many things."""
    return int(mix64(np.array([key], dtype=np.uint64) ^ _PLACE)[0]) % number


def _slice(whole: Excerpt, kept: slice) -> Excerpt:
    return Excerpt(whole.ids[kept], whole.document[kept], whole.documents, whole.counted[kept])


def origins(excerpt: Excerpt, start: I64) -> I64:
    """Where the far context of each position lies: NEAR, SAME, OTHER or BOTH, int64 [n].

    `start` int64 [n] is the first token of each position's short context; the far context is all
    before it, and without any (0) the position is NEAR. What it says of a separator means nothing.
    """
    found = np.full(len(excerpt), NEAR, dtype=np.int64)
    for first in np.unique(start[start > 0]).tolist():
        before = excerpt.document[:first]
        held = np.bincount(before[before >= 0], minlength=len(excerpt.documents))
        rows = np.flatnonzero(start == first)
        own = held[excerpt.document[rows]]
        found[rows] = np.where(own == 0, OTHER, np.where(own == held.sum(), SAME, BOTH))
    return found
