"""Tokens of rendered rows: how many, and where in the text each begins.

Two back-ends: a tokenizer of `longctx.text.tokenize`, which every limit is checked with, and
`whitespace` (one token a run without blanks) for tests and for drafts, whose numbers are small and
plain. Offsets cost one pass more than counting.
"""

import unicodedata
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.ids import h64
from longctx.text.offsets import token_ends
from longctx.text.slices import Ids
from longctx.text.tokenize import Tokenizer, load_tokenizer

I64 = npt.NDArray[np.int64]

WHITESPACE = "whitespace"


class Encoded(NamedTuple):
    """`ids` int32[n], and `offsets` int64[n]: the character at which each token begins.

    Offsets never decrease. A token that begins inside a character has the offset of that
    character, so a text can be sliced at any of them.
    """

    ids: Ids
    offsets: I64


class TokenCounter:
    """Counts and encodes with one tokenizer; without one, runs of characters that are not blank.

    `bos_id` and `eos_id` are those of the tokenizer, None where it has none.
    """

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self._tokenizer = tokenizer
        self.name = tokenizer.name if tokenizer else WHITESPACE
        self.bos_id: int | None = tokenizer.bos_id if tokenizer else None
        self.eos_id: int | None = tokenizer.eos_id if tokenizer else None

    def count(self, text: str) -> int:
        """Number of tokens of a text; no special tokens are added."""
        if self._tokenizer is None:
            return len(text.split())
        return len(self._tokenizer.encode_batch([text])[0])

    def encode(self, text: str) -> Encoded:
        """Ids and offsets of the tokens of a text."""
        if self._tokenizer is None:
            return _words(text)
        ids = self._tokenizer.encode_batch([text])[0]
        return Encoded(ids, _starts(token_ends(self._tokenizer, ids, text), text))


def token_counter(spec: str) -> TokenCounter:
    """The counter that a job names: "whitespace", or what `load_tokenizer` takes.

    Raises `RunError` where there is no such tokenizer.
    """
    return TokenCounter(None if spec == WHITESPACE else load_tokenizer(spec))


def _words(text: str) -> Encoded:
    ids: list[int] = []
    offsets: list[int] = []
    at = 0
    for word in text.split():
        at = text.index(word, at)
        offsets.append(at)
        ids.append(h64(word.encode("utf-8", "replace")) & 0x7FFFFFFF)
        at += len(word)
    return Encoded(np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int64))


def _starts(ends: I64, text: str) -> I64:
    """First characters of tokens from the ends of all; of shared characters, the character."""
    starts = np.append(0, ends)[: len(ends)].astype(np.int64)
    for i in (np.flatnonzero(ends[1:] == ends[:-1]) + 1).tolist():
        place = max(int(ends[i]) - 1, 0)
        while place > 0 and unicodedata.combining(text[place]):
            place -= 1
        starts[i] = place
    # A mark that moved left of a token before it takes that one along.
    return np.minimum.accumulate(starts[::-1])[::-1]
