"""What is shown of a document: its beginning, a piece of its middle, and marked places. Pure.

Reports are passed on, so personal data and secrets (`longctx.filter.pii`) are masked in all that is
shown, whether or not the recipe looked for any: around each passage as much text is searched as the
longest of them needs. Cost: that of the text shown, not of the document.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from longctx.report.scores.data import Passage, Piece

BEGINNING, MIDDLE = 600, 300
_AROUND, _LONGEST, _MOST = 100, 400, 6
# Private keys are the longest: some thousand characters.
_MARGIN = 4096


class Place(NamedTuple):
    """Characters start..end-1 of a text that a stage said something of."""

    start: int
    end: int
    label: str


def passages(text: str, places: Sequence[Place] = (), beginning: int = BEGINNING) -> list[Passage]:
    """The first `beginning` characters, 300 of the middle, and the first six places with 100
    characters on both sides; what overlaps is one passage."""
    shown = [(0, min(beginning, len(text)))]
    if len(text) > beginning + 2 * MIDDLE:
        half = (len(text) - MIDDLE) // 2
        shown.append((half, half + MIDDLE))
    for place in places[:_MOST]:
        end = min(place.end, place.start + _LONGEST)
        shown.append((max(0, place.start - _AROUND), min(len(text), end + _AROUND)))
    return [Passage(a, pieces_of(text, a, b, places)) for a, b in _merged(shown)]


def around(text: str, place: Place) -> list[Piece]:
    """A place, at most its first 400 characters, with 100 characters on both sides."""
    start, end, _ = place
    end = min(end, start + _LONGEST)
    first, last = max(0, start - _AROUND), min(len(text), end + _AROUND)
    return pieces_of(text, first, last, [Place(start, end, place.label or " ")])


def masked(text: str, limit: int) -> str:
    """The beginning of a text with personal data masked, for places without markup."""
    pieces = pieces_of(text, 0, min(limit, len(text)), ())
    return "".join(f"[{p.label}]" if p.masked else p.text for p in pieces)


def _merged(shown: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in sorted(s for s in shown if s[0] < s[1]):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def pieces_of(text: str, start: int, end: int, places: Sequence[Place]) -> list[Piece]:
    """Characters start..end-1 of a text, cut where a mask or a place begins or ends."""
    from longctx.filter.pii import find

    first = max(0, start - _MARGIN)
    secrets = [
        Place(s.start + first, s.end + first, s.kind.replace("_", " "))
        for s in find(text[first : end + _MARGIN])
    ]
    borders = {start, end}
    for a, b, _ in (*secrets, *places):
        borders |= {x for x in (a, b) if start < x < end}
    found: list[Piece] = []
    for a, b in pairwise(sorted(borders)):
        secret = next((p for p in secrets if p.start <= a < p.end), None)
        place = next((p for p in places if p.start <= a < p.end), None)
        if secret is None:
            found.append(Piece(text[a:b], place.label if place else ""))
        elif not (found and found[-1].masked and secret.start < a):
            found.append(Piece("", secret.label, masked=True))
    return found
