"""Overlap of documents with evaluation sets: runs of n words that both have.

GPT-3 (arXiv 2005.14165, appendix C) compared n-grams of 13 words; Llama, OLMo (2402.00838) and NeMo
do much the same. Here tokens are those of `norm_dedup` (case, accents, punctuation and numbers do
not count; unspaced scripts by character), and an n-gram is one 64-bit number, as in
`longctx.dedup.shingles`. What we changed:

- A value of less than n tokens, but of at least `least`, is looked for as a whole: GPT-3's n goes
  down to 8 for sets of short items, and a question of 10 words would otherwise never be found.
- Of the items of a set that have an n-gram only the first is named.
- Nothing is decided here: the share of a document that is covered, and where, are columns.

Cost: about 20 MB/s per core; 30 bytes an n-gram of the evaluation sets in every worker. Lost:
paraphrases and translations, and copies in which every n-th word is another.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.dedup.shingles import shingle_values, token_hashes
from longctx.text.normalise import UNSPACED_RANGES, dedup_tokens

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

# Tokens whose n-grams are made at a time, so that a long document holds one slice of them.
_SLICE = 1 << 20
_UNSPACED = "".join(f"{chr(low)}-{chr(high)}" for low, high in UNSPACED_RANGES)
# Neither a token nor a number reaches across the borders of these pieces.
_PIECE = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


class Grams(NamedTuple):
    """The n-grams of evaluation sets, one row for each set that has one.

    Ascending by (width, value, set): `width` in tokens int32, `value` uint64, `gram` int32 numbers
    the distinct (width, value) from 0, `item` int32 is the first item of the set that has it.
    """

    width: I32
    value: U64
    gram: I32
    item: I32


class Hits(NamedTuple):
    """Where a document has n-grams of the sets: first token int64, width int32, gram int32.

    In the order of the first tokens, then of the widths.
    """

    token: I64
    width: I32
    gram: I32


class Match(NamedTuple):
    """A stretch of a document, characters start..end-1, that an item of a set has, too."""

    start: int
    end: int
    item: int


def item_grams(text: str, n: int, least: int) -> tuple[int, U64]:
    """Number of tokens of a text, and the distinct values of its n-grams.

    Texts of less than n tokens are one gram of their own width, those of less than `least` none.
    """
    hashes = token_hashes(text)
    if hashes.size < max(1, least):
        return hashes.size, np.empty(0, dtype=np.uint64)
    return hashes.size, np.unique(shingle_values(hashes, n))


def grams_of(found: Iterable[tuple[int, int, U64]], sets: Sequence[int]) -> Grams:
    """The table of all n-grams; `found` has item, width and values, `sets` the set of each item."""
    parts = list(found)
    sizes = [values.size for _, _, values in parts]
    item = np.repeat(np.array([i for i, _, _ in parts], dtype=np.int32), sizes)
    width = np.repeat(np.array([w for _, w, _ in parts], dtype=np.int32), sizes)
    value = np.concatenate([np.empty(0, dtype=np.uint64), *(v for _, _, v in parts)])
    of_set = np.asarray(sets, dtype=np.int32)[item] if len(item) else item
    order = np.lexsort((item, of_set, value, width))
    item, width, value, of_set = item[order], width[order], value[order], of_set[order]
    new_gram = _changes(width) | _changes(value)
    first = new_gram | _changes(of_set)
    gram = (np.cumsum(new_gram) - 1).astype(np.int32)
    return Grams(width[first], value[first], gram[first], item[first])


def _changes(values: npt.NDArray[np.generic]) -> Mask:
    """Where a value is another than the one before; true for the first."""
    changed = np.ones(len(values), dtype=bool)
    changed[1:] = values[1:] != values[:-1]
    return changed


class Index:
    """Looks n-grams up. A filter of one byte for 1/16 of a gram turns nearly all others away."""

    def __init__(self, grams: Grams) -> None:
        distinct = _changes(grams.gram)
        self._widths: list[tuple[int, U64, I32]] = []
        for width in np.unique(grams.width).tolist():
            own = distinct & (grams.width == width)
            self._widths.append((width, grams.value[own], grams.gram[own]))
        bits = min(26, max(12, len(grams.gram).bit_length() + 4))
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << bits, dtype=bool)
        self._filter[(grams.value >> self._shift).astype(np.int64)] = True
        self._first = np.searchsorted(grams.gram, np.arange(len(self) + 1))
        self._item = grams.item

    def __len__(self) -> int:
        return sum(len(values) for _, values, _ in self._widths)

    def hits(self, text: str) -> tuple[int, Hits]:
        """Number of tokens of a text, and where it has n-grams of the index."""
        hashes = token_hashes(text)
        tokens, widths, grams = [], [], []
        for width, values, numbers in self._widths:
            # A shorter text than n has no n-gram, not even a shorter one.
            for start in range(0, hashes.size - width + 1, _SLICE):
                made = shingle_values(hashes[start : start + _SLICE + width - 1], width)
                place = np.flatnonzero(self._filter[(made >> self._shift).astype(np.int64)])
                at = np.searchsorted(values, made[place])
                same = at < values.size
                same[same] = values[at[same]] == made[place[same]]
                tokens.append(place[same] + start)
                widths.append(np.full(int(same.sum()), width, dtype=np.int32))
                grams.append(numbers[at[same]])
        if not tokens:
            none = np.empty(0, dtype=np.int32)
            return hashes.size, Hits(none.astype(np.int64), none, none)
        token, wide = np.concatenate(tokens).astype(np.int64), np.concatenate(widths)
        order = np.lexsort((wide, token))
        return hashes.size, Hits(token[order], wide[order], np.concatenate(grams)[order])

    def items(self, gram: I32) -> tuple[I64, I32]:
        """For n-grams, pairs of a place in `gram` and an item that has it."""
        first, last = self._first[gram], self._first[gram + 1]
        count = last - first
        place = np.repeat(np.arange(len(gram)), count)
        within = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count)
        return place, self._item[np.repeat(first, count) + within]


def token_places(text: str) -> tuple[I64, I64]:
    """For every token of a text the first character and the one after the last of its piece.

    int64 of shape (n_tokens,). A piece reaches from white space to white space, or is one character
    of an unspaced script; a token inside it is not told apart further. Slow (2 MB/s).
    """
    counts: dict[str, int] = {}
    starts: list[int] = []
    ends: list[int] = []
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece not in counts:
            counts[piece] = len(dedup_tokens(piece))
        starts += [match.start()] * counts[piece]
        ends += [match.end()] * counts[piece]
    return np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64)


def covered(hits: Hits) -> int:
    """Number of tokens that lie in at least one of the n-grams."""
    if not len(hits.token):
        return 0
    end = np.maximum.accumulate(hits.token + hits.width)
    before = np.concatenate([[0], end[:-1]])
    return int((end - np.maximum(hits.token, before)).clip(min=0).sum())


def matches(hits: Hits, start: I64, end: I64, index: Index) -> list[Match]:
    """The stretches that consecutive n-grams of an item make, in the order of the text.

    `start` and `end` are the characters at which each hit begins and ends.
    """
    place, item = index.items(hits.gram)
    order = np.lexsort((hits.token[place], item))
    place, item = place[order], item[order]
    first, stop = hits.token[place], (hits.token + hits.width)[place]
    # Within an item ends grow with the beginnings where all are of one width; shorter ones do not.
    found: list[Match] = []
    reach = -1
    for i in range(len(place)):
        one = Match(int(start[place[i]]), int(end[place[i]]), int(item[i]))
        if found and found[-1].item == one.item and first[i] <= reach:
            reach = max(reach, int(stop[i]))
            found[-1] = found[-1]._replace(end=max(found[-1].end, one.end))
        else:
            reach = int(stop[i])
            found.append(one)
    return sorted(found)


def cut(text: str, stretches: Iterable[tuple[int, int]], margin: int) -> str:
    """The text without some stretches, `margin` characters around them, and the words these meet.

    What is left is joined by line ends.
    """
    pieces: list[str] = []
    at = 0
    for start, end in sorted(stretches):
        start, end = max(start - margin, 0), min(end + margin, len(text))
        while start > at and not text[start - 1].isspace():
            start -= 1
        while end < len(text) and not text[end].isspace():
            end += 1
        pieces.append(text[at : max(at, start)])
        at = max(at, end)
    kept = (piece.strip() for piece in [*pieces, text[at:]])
    return "\n".join(piece for piece in kept if piece) if at else text
