"""Sections about texts that stand twice: in evaluation sets, and in other documents."""

from collections.abc import Sequence
from itertools import groupby

from longctx.report.format import count, one_line, percent, plural
from longctx.report.layout import Section, code, folded, paragraph, table
from longctx.report.markup import NOTHING, Markup, join, tag, text
from longctx.report.scores.data import Match, Matches, Pair, Pairs, Piece, StageScores
from longctx.report.scores.documents import pieces

_UNFOLDED = 3


def sections(data: StageScores) -> list[Section]:
    """What `filter.decontaminate` and `dedup.containment` found, where a stage has it."""
    found = []
    if data.matches is not None:
        found.append(_matches(data.matches))
    if data.pairs is not None:
        found.append(_pairs(data.pairs))
    return found


def _matches(matches: Matches) -> Section:
    rows = [
        [text(one_line(name, 100)), text(count(documents)), text(count(places))]
        for name, (documents, places) in sorted(
            matches.sets.items(), key=lambda item: (-item[1][0], item[0])
        )
    ]
    body = [
        paragraph("What documents and evaluation sets have in common; all documents are counted.")
        if rows
        else paragraph("No document has anything of an evaluation set."),
        table("Matches by evaluation set", ["Evaluation set", "Documents", "Places"], rows)
        if rows
        else NOTHING,
    ]
    if matches.shown:
        body.append(tag("h3", text("Some of the matches")))
        by_set = groupby(matches.shown, key=lambda match: match.name)
        body += [
            _of_set(name, list(found), unfold=i < _UNFOLDED)
            for i, (name, found) in enumerate(by_set)
        ]
    return Section("matches", "Matches", join(body))


def _of_set(name: str, found: Sequence[Match], *, unfold: bool) -> Markup:
    items = (
        tag(
            "li",
            tag(
                "p",
                code(one_line(match.doc_id, 120)),
                tag("span", text(one_line(match.source, 60))),
                tag("span", text(f"row {count(match.row)}, {one_line(match.field, 60)}")),
            ),
            tag("blockquote", text(match.text), class_="text", dir="auto"),
            tag("p", text("In the evaluation set:"), class_="where"),
            tag("blockquote", text(match.item), class_="text", dir="auto"),
        )
        for match in found
    )
    summary = f"{one_line(name, 100)}: {plural(len(found), 'place')}"
    return folded(summary, tag("ul", *items, class_="members"), unfold=unfold)


def _pairs(pairs: Pairs) -> Section:
    of = "" if pairs.files == pairs.files_all else f", of {pairs.files} of {pairs.files_all} files"
    body = [
        paragraph(
            f"The pairs in which one document holds most of the other's words{of}. Read what they "
            "share: if the shorter one is worth keeping beside the longer, raise theta."
        ),
        *(_pair(pair, unfold=i < _UNFOLDED) for i, pair in enumerate(pairs.shown)),
    ]
    return Section("pairs", "Largest containments", join(body))


def _pair(pair: Pair, *, unfold: bool) -> Markup:
    held = (
        f"{percent(pair.share)} of {one_line(pair.doc_id, 80)} is in {one_line(pair.other_id, 80)}"
    )
    if not pair.common:
        body = tag("p", text("No passage of 16 words in a row is the same in both."), class_="calm")
    else:
        said = f"{plural(pair.common, 'word')} in a row are the same; their beginning is marked."
        body = tag(
            "div",
            tag("p", text(said), class_="where"),
            _side(pair.doc_id, pair.text),
            _side(pair.other_id, pair.other),
        )
    return folded(held, body, unfold=unfold)


def _side(doc_id: str, shown: Sequence[Piece]) -> Markup:
    return join(
        [
            tag("p", code(one_line(doc_id, 120)), class_="where"),
            tag("blockquote", pieces(shown), class_="text", dir="auto"),
        ]
    )
