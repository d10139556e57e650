"""Paragraphs that ChatQA2's contexts are put together of (arXiv 2407.14482, first version).

A document is cut into paragraphs of at most a given number of tokens: blocks between blank lines,
short ones joined with the next, long ones cut between sentences. A pool is a sample of all
paragraphs of a corpus. How many there are is only known once texts are tokenised, so what is drawn
are marks, one every `spacing` tokens, whose number follows from the document's length; a paragraph
is in the sample with the first mark in it. So a paragraph is as likely as any other, and only
documents with a drawn mark are ever read.

What we changed: the paper takes chunks of its retriever; sizes, pool and cut are ours. Cost: one
pass of the tokenizer over the documents that are read. Lost: sentences longer than a paragraph may
be, and what is left of a text between two marks (headings before such a sentence, short ends).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.synth.chatqa2_pages import PARAGRAPH, index_page
from longctx.synth.tokens import TokenCounter

F32 = npt.NDArray[np.float32]

# Marks that the longest paragraph can hold: so many are drawn for each one that is wanted.
MARKS = 5
_SHORTEST = 4  # a block that holds this share of the most tokens stands alone


class Cut(NamedTuple):
    """A paragraph of a document: its first mark, its text, its tokens with a blank line behind."""

    mark: int
    text: str
    n_tokens: int


def spacing(most: int) -> int:
    """Tokens from one mark to the next, for paragraphs of at most `most` tokens."""
    return max(1, most // _SHORTEST)


def n_marks(n_tokens: int, most: int) -> int:
    """Marks of a document of `n_tokens` tokens."""
    return -(-n_tokens // spacing(most))


def paragraphs_of(text: str, counter: TokenCounter, most: int) -> list[Cut]:
    """The paragraphs of a cleaned text that hold a mark, in order; each of at most `most` tokens.

    Counted as tokens of the text: alone one has another where its beginning parts a token, and the
    blank line. Marks ascend strictly, from 0 to below `n_marks` of the text's tokens.
    """
    page, step = index_page(text, counter), spacing(most)
    places, tokens = page.places.tolist(), page.tokens.tolist()
    found: list[Cut] = []
    for first, last in _spans(text, places, tokens, most):
        mark = -(-tokens[first] // step)
        if tokens[last] - tokens[first] <= most and mark * step < tokens[last]:
            own = text[places[first] : places[last]].strip()
            found.append(Cut(mark, own, counter.count(own + PARAGRAPH)))
    return found


def _spans(text: str, places: list[int], tokens: list[int], most: int) -> Iterator[tuple[int, int]]:
    """Ranges of places (indices) that are a paragraph each; one sentence may be too long."""
    first = 0
    for at in range(1, len(places)):
        if tokens[at] - tokens[first] > most and at - 1 > first:
            yield first, at - 1
            first = at - 1
        if tokens[at] - tokens[first] >= spacing(most) and _ends_block(text, places[at]):
            yield first, at
            first = at
    if first < len(places) - 1:
        yield first, len(places) - 1


def _ends_block(text: str, at: int) -> bool:
    """Whether a blank line stands before a character."""
    breaks = 0
    while at and text[at - 1].isspace():
        at -= 1
        breaks += text[at] == "\n"
    return breaks > 1


def rank_paragraphs(vectors: F32, summary: F32, first: int = 1_024) -> Iterator[int]:
    """Rows of `vectors` float32[n, d] by cosine to `summary` float32[d], the most similar first.

    All are unit vectors. Of equal ones the earlier row is first. The `first` ones are searched for
    before any is given, then twice as many each time: most are never asked for.
    """
    from longctx.cluster.similarity import nearest

    told, wanted = 0, min(first, len(vectors))
    while told < len(vectors):
        rows, _ = nearest(summary[None], vectors, wanted)
        yield from rows[0, told:].tolist()
        told, wanted = wanted, min(2 * wanted, len(vectors))
