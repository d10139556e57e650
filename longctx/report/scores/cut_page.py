"""Sections of a page about what a stage removed: reasons, thresholds, documents next to them."""

from collections.abc import Sequence

from longctx.report.format import compact, count, one_line, percent, plural, ratio
from longctx.report.layout import Section, code, folded, paragraph, table
from longctx.report.markup import Markup, join, tag, text
from longctx.report.scores.data import BesideBound, Closest, Cut, CutGroup, Shown, StageScores
from longctx.report.scores.documents import listed
from longctx.report.scores.numbers import written

_REASONS = 12
_READ = (
    "The documents next to a threshold are those that it decides about: if you would keep what it "
    "drops, or drop what it keeps, move it."
)


def sections(data: StageScores) -> list[Section]:
    """What was removed, and for each threshold the documents next to it."""
    found = []
    if data.removed:
        found.append(_removed(data))
    found += [_cut(cut, number) for number, cut in enumerate(data.cuts, start=1)]
    if data.bounds:
        found.append(_bounds(data.bounds))
    return found


def _removed(data: StageScores) -> Section:
    """Rows of the sample that the stage dropped, by source and reason."""
    total: dict[str, int] = {}
    for counts in data.removed.values():
        for reason, n in counts.items():
            total[reason] = total.get(reason, 0) + n
    named = sorted(total, key=lambda reason: (-total[reason], reason))[:_REASONS]
    rows = [
        [
            text(one_line(source, 60) or "(none)"),
            text(count(sum(counts.values()))),
            *(text(count(counts.get(reason, 0))) for reason in named),
        ]
        for source, counts in sorted(data.removed.items(), key=lambda i: -sum(i[1].values()))
    ]
    header = ["Source", "Dropped", *(one_line(reason, 40) for reason in named)]
    dropped = sum(total.values())
    share = percent(ratio(dropped, data.looked.rows))
    more = len(total) - len(named)
    rest = f" {plural(more, 'rarer reason')} have no column." if more else ""
    said = (
        f"{plural(dropped, 'document')} of {count(data.looked.rows)} were dropped ({share}).{rest}"
    )
    return Section("removed", "Dropped", join([paragraph(said), table("Dropped", header, rows)]))


def _cut(cut: Cut, number: int) -> Section:
    """A rule of `keep` by one score: what it did to each group, and what stands next to it."""
    kept, n = sum(g.kept for g in cut.groups), sum(g.n for g in cut.groups)
    where = "all documents together" if cut.per == "all" else "the documents of each source"
    said = (
        f"{count(kept)} of {plural(n, 'document')} with a score are kept by {cut.name} "
        f"({percent(ratio(kept, n))}), which compares {where}. These are figures of all documents."
    )
    header = ["Group", "Rule", "Scored", "Null", "Kept", "Share", "Tokens kept", "From", "To"]
    body = [
        paragraph(said),
        table(f"Cut by {cut.name}", header, [_group(group) for group in cut.groups], words=2),
    ]
    if cut.closest:
        body += [tag("h3", text("Next to the threshold")), paragraph(_READ), *_closest(cut)]
    return Section(f"cut-{number}", f"Cut by {cut.name}", join(body))


def _group(group: CutGroup) -> list[Markup]:
    return [
        text(one_line(group.group, 60) or "all"),
        text(one_line(group.rule, 80)),
        text(count(group.n)),
        text(count(group.nulls)),
        text(count(group.kept)),
        text(percent(ratio(group.kept, group.n))),
        text(f"{compact(group.kept_tokens)} of {compact(group.tokens)}"),
        text(written(group.low)),
        text(written(group.high)),
    ]


def _closest(cut: Cut) -> list[Markup]:
    """For each group the readable documents of both sides; the ids of all of them, folded away."""
    drawn = []
    for group in dict.fromkeys(one.group for one in cut.closest):
        own = [one for one in cut.closest if one.group == group]
        read = [one for one in own if one.document is not None]
        name = one_line(group, 60) or "all"
        ids = folded(f"All {count(len(own))} next to the threshold of {name}", _ids(own))
        if read:
            drawn.append(tag("h4", text(name)))
            edges = len({one.edge for one in own}) > 1
            drawn.append(listed([(_label(o, edges), o.document) for o in read if o.document]))
        drawn.append(ids)
    return drawn


def _side(kept: bool) -> str:
    return "kept" if kept else "dropped"


def _label(one: Closest, edges: bool) -> str:
    """Whether a document is kept, and next to which edge where there are two."""
    return f"{_side(one.kept)}, {one.edge}" if edges else _side(one.kept)


def _ids(closest: Sequence[Closest]) -> Markup:
    rows = [
        [
            code(one_line(one.doc_id, 120)),
            text(_side(one.kept)),
            text(one.edge),
            text(written(one.score)),
        ]
        for one in closest
    ]
    return table(
        "Documents next to the threshold", ["Document", "Verdict", "Edge", "Score"], rows, words=3
    )


def _bounds(bounds: Sequence[BesideBound]) -> Section:
    """Limits that judge a document alone, with the documents of the sample next to them."""
    drawn: list[Markup] = [paragraph(_READ)]
    for one in bounds:
        source = f" for {one_line(one.source, 60)}" if one.source else ""
        drawn.append(tag("h3", text(f"{one.said}{source}")))
        for kept, documents in ((True, one.kept), (False, one.dropped)):
            drawn.append(_beside(kept, documents))
    return Section("bounds", "Next to the limits", join(drawn))


def _beside(kept: bool, documents: Sequence[Shown]) -> Markup:
    if not documents:
        side = "this side" if kept else "the other side"
        return tag("p", text(f"No document of the sample is on {side} of it."), class_="calm")
    return listed([("within" if kept else "beyond", one) for one in documents])
