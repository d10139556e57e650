"""Rows to read: the context around its evidence, where in it that stands, and what was said.

One layout for all systems; `systems` says what a row has of its own, in blocks that are drawn here.
"""

from collections.abc import Sequence

from longctx.report.figures import Bar, Segment, bars, percentage
from longctx.report.format import compact, count, one_line, plural
from longctx.report.layout import code, figure, paragraph, table
from longctx.report.markup import NOTHING, Markup, join, tag, text
from longctx.report.scores.data import Piece
from longctx.report.scores.documents import pieces
from longctx.report.synth.data import (
    Block,
    Excerpt,
    Gap,
    Grid,
    Lengths,
    Passages,
    Said,
    Sample,
)

_BAR, _THICK = 14, 8  # pixels
_LEAST = 0.006  # of the width: a mark that can be seen
_STEPS = 60


def samples(rows: Sequence[Sample]) -> Markup:
    """Rows from the shortest to the longest, the first one open."""
    return tag(
        "ul",
        *(tag("li", _sample(row, unfold=i == 0)) for i, row in enumerate(rows)),
        class_="ladder samples",
    )


def _sample(row: Sample, *, unfold: bool) -> Markup:
    line = [
        tag("b", text(f"{compact(row.tokens)} tokens"), class_="score"),
        *(
            tag("span", text(one_line(said, 60)))
            for said in (row.kind, row.lang, row.source)
            if said
        ),
        code(one_line(row.row_id, 120)),
    ]
    body = [_context(row.context)] if row.context is not None else []
    body += [_block(block) for block in row.blocks]
    return tag(
        "details", tag("summary", join(line, " ")), tag("div", *body), open="" if unfold else None
    )


def _context(found: Excerpt) -> Markup:
    where = f"Context of {plural(found.tokens, 'token')}"
    if found.places:
        where += f"; marked is {_evidence(found)}"
    parts = (_part(part) for part in found.parts)
    return join(
        [
            tag("h4", text(where)),
            _strip(found) if found.places else NOTHING,
            tag("blockquote", *parts, class_="text", dir="auto"),
        ]
    )


def _evidence(found: Excerpt) -> str:
    first = round(found.places[0][0] * 100)
    at = f"{first} % of the way into it" if first else "at its very beginning"
    n = len(found.places)
    return f"the evidence, {at}" if n == 1 else f"the evidence in {n} places, the first {at}"


def _part(part: Sequence[Piece] | Gap) -> Markup:
    if isinstance(part, Gap):
        more = f", with {plural(part.evidence, 'more place')} of evidence" if part.evidence else ""
        said = f"about {plural(part.tokens, 'token')} left out{more}"
        return tag("span", text(said), class_="gap")
    return pieces(part)


def _strip(found: Excerpt) -> Markup:
    """The context as a thin bar, with the evidence where it stands."""
    y = (_BAR - _THICK) / 2
    marks = []
    for start, end in found.places:
        width = max(end - start, _LEAST)
        marks.append(
            tag(
                "rect",
                x=percentage(min(start, 1 - width)),
                y=0,
                width=percentage(width),
                height=_BAR,
                class_="tone-contrast",
            )
        )
    return tag(
        "svg",
        tag("title", text("Where in the context the evidence stands")),
        tag("desc", text(_evidence(found))),
        tag("rect", y=y, width="100%", height=_THICK, class_="track"),
        *marks,
        role="img",
        width="100%",
        height=_BAR,
        class_="strip",
    )


def _block(block: Block) -> Markup:
    if isinstance(block, Said):
        return _said(block)
    if isinstance(block, Grid):
        return _grid(block)
    if isinstance(block, Passages):
        return _passages(block)
    return _lengths(block)


def _said(block: Said) -> Markup:
    body = (
        tag("blockquote", text(block.text), class_="text", dir="auto")
        if block.text
        else tag("p", text("Empty."), class_="calm")
    )
    return join([tag("h4", text(block.name)), body])


def _grid(block: Grid) -> Markup:
    rows = [[text(cell) for cell in row] for row in block.rows]
    return table(block.caption, block.header, rows, len(block.header) - block.numbers)


def _passages(block: Passages) -> Markup:
    entries = (
        tag(
            "li",
            tag("b", text(name), class_="kept" if gold else None),
            tag("mark", text(said)) if gold else tag("span", text(said)),
        )
        for name, said, gold in block.entries
    )
    return join(
        [tag("h4", text(block.caption)), tag("ul", *entries, class_="passages", dir="auto")]
    )


def _lengths(block: Lengths) -> Markup:
    """Two bars a step on one scale: planned, written."""
    longest = max((n for _, *both in block.steps for n in both), default=0) or 1
    rows = [
        Bar(
            f"{k}. {name}",
            [
                [Segment(max(planned, 0) / longest, "soft", f"planned: {count(planned)}")],
                [Segment(max(wrote, 0) / longest, "accent", f"written: {count(wrote)}")],
            ],
            [f"{count(planned)} planned", f"{count(wrote)} written"],
        )
        for k, (name, planned, wrote) in enumerate(block.steps[:_STEPS], 1)
    ]
    drawn = figure(bars(rows), block.note, [("soft", "planned"), ("accent", "written")])
    more = len(block.steps) - _STEPS
    rest = paragraph(f"{plural(more, 'more step')} are left out here.") if more > 0 else NOTHING
    return join([tag("h4", text(block.caption)), drawn, rest])
