"""Documents to read: folded lines with passages of the texts, places marked and secrets masked.

Used for the ladder from the worst score to the best, and for documents near a threshold.
"""

import re
from collections.abc import Sequence

from longctx.report.format import count, one_line, percent, plural
from longctx.report.layout import code
from longctx.report.markup import NOTHING, Markup, join, tag, text
from longctx.report.scores.data import Passage, Piece, Rung, Shown
from longctx.report.scores.numbers import written

# Several blank lines say no more than one.
_BLANK = re.compile(r"\n\s*\n\s*\n")


def ladder(rungs: Sequence[Rung], better: str) -> Markup:
    """Documents from the worst score to the best, or from the lowest where none is better."""
    ends = ("worst", "best") if better else ("lowest", "highest")
    return listed([(_label(rung.share, ends), rung.document) for rung in rungs])


def _label(share: float, ends: tuple[str, str]) -> str:
    return ends[0] if share == 0 else ends[1] if share == 1 else percent(share)


def listed(documents: Sequence[tuple[str, Shown]]) -> Markup:
    """Documents in the order given, each below a line that says what it is."""
    return tag("ul", *(tag("li", _document(*one)) for one in documents), class_="ladder")


def _document(label: str, one: Shown) -> Markup:
    tokens = plural(one.tokens, "token") if one.tokens is not None else ""
    line = [
        tag("b", text(label), class_="rung"),
        tag("b", text(written(one.score)), class_="score"),
        *(tag("span", text(said)) for said in (one_line(one.source, 60), tokens) if said),
        code(one_line(one.doc_id, 120)),
        tag("span", text(f"dropped by {one_line(one.fate, 80)}"), class_="fate")
        if one.fate
        else NOTHING,
    ]
    remarks = [tag("p", text(remark), class_="calm") for remark in one.remarks]
    body = [*remarks, *(_passage(passage, one.chars) for passage in one.passages)]
    if not one.passages:
        body.append(tag("p", text("The text is empty."), class_="calm"))
    return tag("details", tag("summary", join(line, " ")), tag("div", *body))


def _passage(passage: Passage, chars: int) -> Markup:
    where = (
        f"beginning, of {plural(chars, 'character')}"
        if passage.start == 0
        else f"from character {count(passage.start)} of {count(chars)}"
    )
    return join(
        [
            tag("p", text(where), class_="where"),
            tag(
                "blockquote",
                *(_piece(piece) for piece in passage.pieces),
                class_="text",
                dir="auto",
            ),
        ]
    )


def pieces(shown: Sequence[Piece]) -> Markup:
    """Text in which places are marked, with what was said of them, and secrets are named only."""
    return join(_piece(piece) for piece in shown)


def _piece(piece: Piece) -> Markup:
    if piece.masked:
        return tag("mark", text(piece.label), class_="masked")
    shown = _BLANK.sub("\n\n", piece.text)
    if piece.label.strip():
        return tag("mark", tag("small", text(one_line(piece.label, 60))), text(f" {shown}"))
    if piece.label:
        return tag("mark", text(shown))
    return text(shown)
