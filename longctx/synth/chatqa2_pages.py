"""Pages for ChatQA2's long rows (arXiv 2407.14482): cleaned, cut to windows, or put together.

A page is known by its boundaries and the tokens before each, so a window, a place and a cut to the
limit are look-ups and the page is tokenised once for all its questions. Memory beside the text: 16
bytes a sentence.
"""

import html
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.synth.chatqa2 import boundaries, without_begin_of_text
from longctx.synth.checks import has_answer
from longctx.synth.tokens import TokenCounter

I64 = npt.NDArray[np.int64]

_LICENCE_START = re.compile(r"^.*\*\*\*\s*START OF (?:THE|THIS) PROJECT.*$", re.MULTILINE)
_LICENCE_END = re.compile(r"^.*\*\*\*\s*END OF (?:THE|THIS) PROJECT.*$", re.MULTILINE)
_MANY_BREAKS = re.compile(r"\n(?:[^\S\n]*\n){2,}")
PARAGRAPH = "\n\n"


class Page(NamedTuple):
    """A text with the places where something may be inserted.

    `places` int64[m] are characters, from 0 to len(text); `tokens` int64[m] the tokens that begin
    before each.
    """

    text: str
    places: I64
    tokens: I64

    @property
    def n_tokens(self) -> int:
        return int(self.tokens[-1])

    def part(self, first: int, last: int) -> "Page":
        """The page from place `first` to place `last` (indices), counted from its own beginning."""
        places, tokens = self.places[first : last + 1], self.tokens[first : last + 1]
        text = self.text[int(places[0]) : int(places[-1])]
        return Page(text, places - places[0], tokens - tokens[0])


class Paragraph(NamedTuple):
    """A paragraph of another document; `n_tokens` with the blank line behind it.

    `cluster` names the near-duplicates of its document, None where there are none.
    """

    para_id: str
    doc_id: str
    text: str
    n_tokens: int
    cluster: str | None = None


class Related(NamedTuple):
    """Paragraphs that were taken, and how many were not because they hold an answer."""

    paragraphs: list[Paragraph]
    with_answer: int


def clean_page(page: str, story_start: str = "", story_end: str = "") -> str:
    """The story of a page: markers of the table, licence texts, entities, begin-of-text tokens.

    `story_start` and `story_end` are the first and last words that belong to it, whatever blanks
    stand between them; one that is not found cuts nothing.
    """
    text = _from(page, story_start)
    text = _until(text, story_end)
    if found := _LICENCE_START.search(text):
        text = text[found.end() :]
    if found := _LICENCE_END.search(text):
        text = text[: found.start()]
    text = without_begin_of_text(html.unescape(text))
    return _MANY_BREAKS.sub(PARAGRAPH, text.replace("\r\n", "\n")).strip()


def _from(text: str, words: str) -> str:
    found = re.search(_spaced(words), text) if words.strip() else None
    return text[found.start() :] if found else text


def _until(text: str, words: str) -> str:
    found = list(re.finditer(_spaced(words), text)) if words.strip() else []
    return text[: found[-1].end()] if found else text


def _spaced(words: str) -> str:
    return r"\s+".join(map(re.escape, words.split()))


def index_page(text: str, counter: TokenCounter, places: Sequence[int] | None = None) -> Page:
    """A page with its places, by default between all sentences."""
    at = np.asarray(boundaries(text) if places is None else places, dtype=np.int64)
    starts = counter.encode(text).offsets
    return Page(text, at, np.searchsorted(starts, at, side="left").astype(np.int64))


def page_window(page: Page, budget: int, rng: np.random.Generator) -> Page | None:
    """As many whole sentences as `budget` tokens hold, from a uniformly drawn one on.

    Drawn among the sentences from which the page has at least the budget left; the page itself
    where it fits. None where the drawn sentence alone is longer than the budget.
    """
    if page.n_tokens <= budget:
        return page
    starts = int(np.searchsorted(page.tokens, page.n_tokens - budget, side="right"))
    first = int(rng.integers(max(1, starts)))
    end = int(np.searchsorted(page.tokens, page.tokens[first] + budget, side="right")) - 1
    return page.part(first, end) if end > first else None


def trimmed(page: Page, around: int, excess: int) -> tuple[Page, int]:
    """The page without `excess` tokens or a little more, and the place `around` (index) in it.

    Sentences go from the end that is farther from the place; the place itself stays.
    """
    first, last = 0, len(page.places) - 1
    while page.tokens[last] - page.tokens[first] > page.n_tokens - excess:
        before = page.tokens[around] - page.tokens[first]
        after = page.tokens[last] - page.tokens[around]
        if before > after:
            first += 1
        elif last > around:
            last -= 1
        else:
            break
    return page.part(first, last), around - first


def related_paragraphs(
    ranked: Iterable[Paragraph],
    document_id: str,
    answers: Sequence[str],
    budget: int,
    cluster: str | None = None,
) -> Related:
    """The best paragraphs of other documents that hold no answer, until one would pass the budget.

    Counted in tokens with the blank line behind each. None is of a document in `cluster`.
    """
    chosen: list[Paragraph] = []
    with_answer = 0
    for paragraph in ranked:
        alike = cluster is not None and paragraph.cluster == cluster
        if paragraph.doc_id == document_id or alike:
            continue
        if has_answer(answers, paragraph.text):
            with_answer += 1
            continue
        budget -= paragraph.n_tokens
        if budget < 0:
            break
        chosen.append(paragraph)
    return Related(chosen, with_answer)


def joined(texts: Sequence[str]) -> tuple[str, list[int]]:
    """Paragraphs with blank lines between them, and their beginnings with the end behind them."""
    places, at = [0], 0
    for text in texts[:-1]:
        at += len(text) + len(PARAGRAPH)
        places.append(at)
    page = PARAGRAPH.join(texts)
    return page, [*places, len(page)] if page else [0]


def paragraphs_page(texts: Sequence[str], counter: TokenCounter) -> Page:
    """Paragraphs joined by blank lines; places are their beginnings and the end."""
    page, places = joined(texts)
    return index_page(page, counter, places)
