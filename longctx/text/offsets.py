"""Where tokens lie in the text they were made from: ends of tokens in characters, of sentences in
tokens.

A byte-level vocabulary spells its text byte by byte, so the cumulative byte lengths of the tokens
are their ends in the (composed) text: no second tokenisation, about 10 M tokens per second. Other
vocabularies are encoded again with the offsets of the package `tokenizers`, at the speed of that
package. A token that ends inside a character (byte-level vocabularies spell rare ones in several
tokens) counts as ending behind it, and so does every token up to the one that completes it; hence a
border is reached by the last of the tokens with the same end (`tokens_until`), and no cut can split
a character. Where a tokenizer composes (NFC) a text that was not composed, ends are mapped back to
the characters of the text as given, and runs that compose are not split either.

Memory: 8 bytes a token and, while it runs, about 9 bytes for each byte of the text.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from longctx.text.sentences import sentence_spans

if TYPE_CHECKING:
    from longctx.text.slices import Ids
    from longctx.text.tokenize import Tokenizer

I64 = npt.NDArray[np.int64]


def token_ends(tokenizer: "Tokenizer", ids: "Ids", text: str) -> I64:
    """Where in `text` each token ends, in characters: int64[len(ids)], never decreasing.

    `ids` int32[n] are the ids that `tokenizer` makes of `text` (no BOS or EOS). The last end is
    len(text), or less where the tokenizer drops white space at the end. Tokens that share a
    character all end behind it.

    Raises ValueError when the ids are not those of the text.
    """
    if len(ids) == 0:
        return np.zeros(0, dtype=np.int64)
    return tokenizer.ends(ids, text)


def tokens_until(ends: I64, borders: npt.ArrayLike) -> I64:
    """How many tokens reach each border of the text: int64, 0 for border 0, at most len(ends).

    `ends` as from `token_ends`, `borders` in characters. A border inside a token counts that token,
    one inside a character all tokens of the character.
    """
    at = np.asarray(borders, dtype=np.int64)
    if len(ends) == 0:
        return np.zeros(at.shape, dtype=np.int64)
    reached = ends[np.minimum(np.searchsorted(ends, at, side="left"), len(ends) - 1)]
    return np.where(at <= 0, 0, np.searchsorted(ends, reached, side="right")).astype(np.int64)


def sentence_token_ends(tokenizer: "Tokenizer", ids: "Ids", text: str) -> I64:
    """Numbers of tokens after which a sentence ends: int64[m], increasing, each 1..len(ids).

    A cut there keeps sentences whole. White space behind a sentence stays with it where a token
    ends in or behind it; where the space begins the next word's token, the cut is before the space.
    A sentence that ends inside a token (of the next one too) ends with that token.

    Raises ValueError when the ids are not those of the text.
    """
    return np.unique(span_token_ends(token_ends(tokenizer, ids, text), text, sentence_spans(text)))


def span_token_ends(ends: I64, text: str, spans: Sequence[tuple[int, int]]) -> I64:
    """The number of tokens that hold each span of `text` and all before it; int64[len(spans)].

    `ends` as from `token_ends`; `spans` in characters, in order. See `sentence_token_ends` for the
    white space behind a span. Never decreasing; several spans inside one token share a number.
    """
    if len(ends) == 0:
        return np.zeros(len(spans), dtype=np.int64)
    stops = np.array([stop for _, stop in spans], dtype=np.int64)
    bare = np.array([a + len(text[a:b].rstrip()) for a, b in spans], dtype=np.int64)
    # The last token end that is not behind the span, unless it cuts off more than white space.
    last = np.searchsorted(ends, stops, side="right") - 1
    reach = np.where(last >= 0, ends[np.maximum(last, 0)], 0)
    return tokens_until(ends, np.where(reach >= bare, reach, bare))


def byte_ends(lengths: I64, text: str) -> I64:
    """Characters of `text` begun by tokens that spell it in UTF-8, `lengths` bytes each.

    Raises ValueError if the bytes do not add up to those of the text.
    """
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    ends = np.cumsum(lengths, dtype=np.int64)
    if (int(ends[-1]) if len(ends) else 0) != len(data):
        raise ValueError(f"the ids spell other bytes than the {len(data)} of their text")
    begun = np.zeros(len(data) + 1, dtype=np.int64)
    np.cumsum((data & 0xC0) != 0x80, out=begun[1:])
    return begun[ends]


def composed_byte_ends(lengths: I64, text: str) -> I64:
    """As `byte_ends` for tokens that spell the composition (NFC) of `text`; ends are in `text`."""
    if unicodedata.is_normalized("NFC", text):
        return byte_ends(lengths, text)
    composed, behind = _composition(text)
    return np.append(0, behind)[byte_ends(lengths, composed)]


def _composition(text: str) -> tuple[str, I64]:
    """NFC of a text, and for each of its characters where the run that it comes from ends."""
    begins = [i for i, char in enumerate(text) if i == 0 or not _joins(char)]
    runs: list[str] = []
    behind: list[int] = []
    for begin, end in pairwise([*begins, len(text)]):
        run = unicodedata.normalize("NFC", text[begin:end])
        runs.append(run)
        behind += [end] * len(run)
    return "".join(runs), np.array(behind, dtype=np.int64)


@lru_cache(maxsize=1 << 16)
def _joins(char: str) -> bool:
    """Whether a character may compose or be reordered with what stands before it."""
    first = unicodedata.normalize("NFD", char)[0]
    return unicodedata.combining(first) != 0 or first in _second_parts()


@lru_cache(maxsize=1)
def _second_parts() -> frozenset[str]:
    """Second characters of all canonical pairs, and the vowels and finals of Hangul syllables."""
    hangul = [chr(c) for c in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))]
    pairs = (unicodedata.decomposition(chr(c)).split() for c in range(0x110000))
    seconds = [chr(int(p[1], 16)) for p in pairs if len(p) == 2 and not p[0].startswith("<")]
    return frozenset([*hangul, *seconds])
