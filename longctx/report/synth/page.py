"""The page of the rows that a language model made: what was made, what was lost, rows to read."""

from collections.abc import Sequence

from longctx.report.data import Histogram
from longctx.report.format import MISSING, compact, count, one_line, percent, plural, ratio
from longctx.report.histogram import Axes, Series
from longctx.report.html import document
from longctx.report.layout import Section, chart, folded, paragraph, prose, table, tiles
from longctx.report.markup import NOTHING, Markup, join, tag, text
from longctx.report.mixture.fit import worries
from longctx.report.scores.numbers import written
from longctx.report.scores.page import heading
from longctx.report.synth.data import Check, Example, StageMade, SynthData, Used
from longctx.report.synth.pairs_page import (
    judge_section,
    pairs_section,
    score_section,
    trees_section,
)
from longctx.report.synth.samples import samples
from longctx.report.synth.section import outcome, remarks, verdicts

_VERDICTS = {
    "fails": "bad",
    "holds": "good",
    "too few rows": "calm",
    "not looked at": "calm",
    "figure": "calm",
}


def render(data: SynthData) -> str:
    """The page as text, to be written as UTF-8."""
    found = [_overview(data), _stages(data), _rejects(data), _checks(data), _lengths(data)]
    found += [_depths(data), _rows(data), judge_section(data.judge, data.controls)]
    if data.pairs is not None:
        found += [score_section(data.pairs), pairs_section(data.pairs), trees_section(data.pairs)]
    sections = [part for part in found if part is not None]
    head = heading(data.stage, data.run, "rows")
    return document(f"{data.stage}: rows of {data.run}", head, sections)


def _overview(data: SynthData) -> Section:
    known = remarks(data)
    body = [
        tag("p", prose(f"{_what(data)} {outcome(data)}"), class_="lead"),
        tiles(_tiles(data)),
        worries("Keep in mind", known) if known else NOTHING,
        paragraph(data.why) if data.why else NOTHING,
    ]
    return Section("overview", "Overview", join(body))


def _what(data: SynthData) -> str:
    """What the op says of itself, where this version knows it."""
    from longctx.registry import OPS, resolve

    if data.op not in OPS:
        return f"Rows that {one_line(data.op, 60)} made."
    op = resolve(data.op)
    summary = op.summary[:1].upper() + op.summary[1:]
    return f"{summary} ({op.source})." if op.source else f"{summary}."


def _tiles(data: SynthData) -> list[tuple[str, str, str]]:
    used, rejects = data.used, sum(data.rejects.values())
    asked = f"of {count(used.requests)} requests" if used.requests else ""
    lost = f"{percent(ratio(rejects, data.chosen))} of the documents"
    cost = [] if used.usd is None else [("Cost", f"{used.usd:,.2f} USD", "")]
    return [
        ("Rows", count(data.rows), f"of {plural(data.chosen, data.items)}"),
        ("Rejects", count(rejects), lost if data.of_documents else ""),
        ("Calls", compact(used.calls), asked),
        ("From the cache", compact(used.hits), f"{percent(ratio(used.hits, used.requests))}"),
        ("Tokens read", compact(used.read), _each(used.read, data.rows)),
        ("Tokens written", compact(used.written), _each(used.written, data.rows)),
        *cost,
    ]


def _each(tokens: int, rows: int) -> str:
    each = ratio(tokens, rows)
    return f"{compact(each)} for each row" if each is not None else ""


def _stages(data: SynthData) -> Section:
    priced = any(one.used is not None and one.used.usd is not None for one in data.stages)
    header = ["Stage", "In", "Good", "Rejects", "Calls", "Cached", "Read", "Written"]
    rows = [
        [
            text(one_line(one.name, 60)),
            text(count(one.rows_in)),
            text(count(one.ok)),
            _codes(one),
            *(text(cell) for cell in _took(one.used)[: 5 if priced else 4]),
        ]
        for one in data.stages
    ]
    said = paragraph(
        "Each stage asks the model about the documents that the one before left; what goes in "
        "is either good or a reject. Calls that the cache answered cost nothing; read and written "
        f"are tokens. Prompts: {one_line(data.prompts, 40)}."
        + ("" if priced else " No price is known of the model.")
    )
    drawn = table("Stages", [*header, *(["USD"] if priced else [])], rows)
    return Section("stages", "Stage by stage", join([said, drawn]))


def _took(used: Used | None) -> list[str]:
    if used is None:
        return [""] * 5
    counts = [compact(n) for n in (used.calls, used.hits, used.read, used.written)]
    return [*counts, MISSING if used.usd is None else f"{used.usd:,.2f}"]


def _codes(one: StageMade) -> Markup:
    if not one.rejects:
        return text("0")
    ordered = sorted(one.rejects.items(), key=lambda item: (-item[1], item[0]))
    return tag(
        "span",
        *(
            tag("span", text(f"{one_line(code, 40)} "), tag("b", text(count(n))))
            for code, n in ordered
        ),
        class_="reasons",
    )


def _rejects(data: SynthData) -> Section | None:
    if not data.rejects:
        return None
    ordered = sorted(data.rejects.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{one_line(code, 40)} {count(n)}" for code, n in ordered[:12])
    said = paragraph(
        f"By code: {listed}. docs/operations.md explains the codes; rejects-*.parquet in the "
        "output has every document with its reason and the beginning of the reply."
    )
    shown = tag("ul", *(tag("li", _example(one)) for one in data.examples), class_="ladder")
    return Section(
        "rejects", "What came to nothing", join([said, shown if data.examples else NOTHING])
    )


def _example(one: Example) -> Markup:
    line = [
        tag("b", text(one.code), class_="score"),
        *(tag("span", text(said)) for said in (one.stage, one.detail) if said),
    ]
    ended = f"; the model stopped with: {one.finish}" if one.finish else ""
    reply = (
        tag("blockquote", text(one.reply), class_="text", dir="auto")
        if one.reply
        else tag("p", text("No reply is kept: the row failed outside of a call."), class_="calm")
    )
    body = [tag("p", text(f"Document {one.row_id}{ended}"), class_="where"), reply]
    return tag("details", tag("summary", join(line, " ")), tag("div", *body))


def _checks(data: SynthData) -> Section | None:
    if not data.checks:
        return None
    order = list(_VERDICTS)
    listed = sorted(data.checks, key=lambda one: order.index(one.verdict))
    items = (tag("li", *_check(one)) for one in listed)
    body = [paragraph(verdicts(data)), tag("ul", *items, class_="checks")]
    return Section("checks", "Checks of all rows together", join(body))


def _check(one: Check) -> list[Markup]:
    badge = tag("span", text(one.verdict), class_=f"status {_VERDICTS[one.verdict]}")
    return [badge, tag("span", prose(one.sentence))]


def _lengths(data: SynthData) -> Section | None:
    if data.read is None:
        return None
    drawn = _histogram(data.tokens, data.bins) if data.tokens is not None else NOTHING
    body = [paragraph(_looked(data)), drawn, _quotas(data)]
    named = "Lengths" if data.tokens is not None else "Documents"
    return Section("lengths", named, join(body))


def _looked(data: SynthData) -> str:
    assert data.read is not None
    if data.read.whole:
        return f"All {plural(data.read.rows, 'row')} are in these figures."
    share = percent(ratio(data.read.rows, data.read.rows_all))
    return (
        f"These figures are of a sample: {count(data.read.rows)} rows ({share}) of "
        f"{count(data.read.parts)} of {plural(data.read.parts_all, 'file')}."
    )


def _histogram(found: Histogram, bins: str) -> Markup:
    axes = Axes("Rows by length", "rows", "Tokens of all turns", written, trim=bins != "cut")
    return chart([Series("rows", found, "accent")], axes, "Each bar counts the rows of one range.")


def _quotas(data: SynthData) -> Markup:
    if not data.quotas:
        return NOTHING
    rows = [
        [
            text(f"{one_line(q.lang, 20)}, {count(q.least)} to {count(q.most)} tokens"),
            *(text(count(n)) for n in (q.wanted, q.available, q.reached)),
        ]
        for q in data.quotas
    ]
    header = ["Documents", "Wanted", "There", "Taken"]
    drawn = table("Documents by language and length", header, rows)
    return folded("Documents that were wanted, there and taken", drawn)


def _depths(data: SynthData) -> Section | None:
    """Where evidence stands, beside what places without a preference would give."""
    if data.depths is None:
        return None
    total = sum(data.depths.counts)
    bins = len(data.depths.counts)
    even = Histogram(data.depths.edges, [max(1, round(total / bins))] * bins, "depth")
    axes = Axes(
        "Places of the evidence",
        "places",
        "Depth: 0 is the beginning of the context, 1 its end",
        lambda edge: f"{edge:.1f}",
        as_share=True,
        trim=False,
    )
    series = [Series("uniform", even, "neutral"), Series("evidence", data.depths, "accent")]
    sentence = (
        f"{plural(total, 'place')} of evidence by depth. A place that is one of few counts "
        "anywhere inside its slot, or the middle of slots would look like a preference."
    )
    return Section("evidence", "Where the evidence stands", chart(series, axes, sentence))


def _rows(data: SynthData) -> Section | None:
    if not data.samples:
        return None
    said = paragraph(
        "Rows from the shortest to the longest. Contexts are shortened around their evidence, "
        "texts are cut where they go on, and personal data is masked here, not in the rows."
    )
    body: Sequence[Markup] = [said, samples(data.samples)]
    return Section("samples", "Rows to read", join(body))
