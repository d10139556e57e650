"""A context shortened around its evidence, for a reader. Pure.

Each place of evidence is shown with some hundred characters on both sides, the beginning and the
end of the context beside it; what is left out between is told in tokens. Tokens are those of the
row shared out over its characters, so no tokenizer is needed; a place is exact to a character.
Cost: that of the text shown. Lost: places behind the first six, counted where they are left out.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from longctx.report.scores.data import Piece
from longctx.report.scores.passages import Place, pieces_of
from longctx.report.synth.data import Excerpt, Gap

_SIDES, _BEGIN, _END = 240, 160, 120
_LONGEST, _MOST = 900, 6
_WITHOUT = (700, 240)
# Between stretches that are nearer than this nothing is left out.
_NEAR = 80
# A text with a word on each line would take pages.
_LINES = 12
_WORD, _BLANK = 24, re.compile(r"\s+")


def excerpt(context: str, tokens: int, evidence: Iterable[Place]) -> Excerpt:
    """A context of so many tokens around the evidence in it; without any, its two ends."""
    size = len(context)
    known = sorted(p for p in evidence if 0 <= p.start < p.end <= size)
    places = [(p.start / size, p.end / size) for p in known]
    shown = _shown(context, known)
    parts: list[list[Piece] | Gap] = []
    for (start, end), (after, _) in pairwise([*shown, (size, size)]):
        parts.append(pieces_of(context, start, end, known))
        if after > end:
            hidden = sum(end <= p.start < after for p in known)
            parts.append(Gap(round((after - end) * tokens / size), hidden))
    return Excerpt(tokens, places, parts)


def _shown(context: str, known: Sequence[Place]) -> list[tuple[int, int]]:
    """The stretches of a context that are shown, apart from each other and ascending."""
    size, (begin, end) = len(context), (_BEGIN, _END) if known else _WITHOUT
    wanted = [(0, _after(context, 0, begin)), (_before(context, size, end), size)]
    for place in known[:_MOST]:
        last = min(place.end, place.start + _LONGEST)
        wanted.append((_before(context, place.start, _SIDES), _after(context, last, _SIDES)))
    found: list[tuple[int, int]] = []
    for start, stop in sorted(w for w in wanted if w[0] < w[1]):
        if found and start <= found[-1][1] + _NEAR:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


def _before(context: str, at: int, most: int) -> int:
    """Where to begin, at most so many characters and a few lines before a place, at a word."""
    start = max(0, at - most)
    lines = context[start:at].split("\n")
    start = max(start, at - len("\n".join(lines[-_LINES:])))
    blank = _BLANK.search(context, start, min(at, start + _WORD)) if start else None
    return blank.end() if blank else start


def _after(context: str, at: int, most: int) -> int:
    """Where to end, at most so many characters and a few lines behind a place, at a word."""
    size = len(context)
    lines = context[at : at + most].split("\n")
    stop = min(at + most, at + len("\n".join(lines[:_LINES])))
    if stop >= size:
        return size
    blanks = [m.start() for m in _BLANK.finditer(context, max(at, stop - _WORD), stop + 1)]
    return blanks[-1] if blanks else stop


def places_in(context: str, texts: Iterable[tuple[str, str]]) -> list[Place]:
    """Where texts stand that follow one another in a context, each with its label.

    A text without a label is passed over, one that is not there is left out.
    """
    found, at = [], 0
    for text, label in texts:
        start = context.find(text, at) if text else -1
        if start < 0:
            continue
        at = start + len(text)
        if label:
            found.append(Place(start, at, label))
    return found
