"""Sections about what was written: order, windows, and the mix of sources and licences."""

import math
from collections.abc import Sequence

from longctx.report.data import Mix, Neighbours, ReportData, WindowAudit
from longctx.report.figures import Bar, Segment, bars
from longctx.report.findings import shown
from longctx.report.format import (
    compact,
    count,
    decimal,
    percent,
    plural,
    ratio,
    times,
    tokens,
)
from longctx.report.histogram import Axes, Mark, Series, has_counts
from longctx.report.layout import Section, chart, figure, numbers_behind, paragraph, table, tiles
from longctx.report.markup import Markup, join, tag, text

_BARS = 15
_MEANINGFUL = 0.01  # a smaller mean cosine of random pairs makes a ratio to it empty


def order(data: ReportData) -> Section | None:
    found = data.neighbours
    if found is None:
        return None
    named = (("random order", found.random, "neutral"), ("this order", found.ordered, "accent"))
    series = [Series(name, h, tone) for name, h, tone in named if has_counts(h)]
    axes = Axes(
        "Similarity of neighbours",
        "pairs of neighbours",
        "Cosine similarity",
        lambda edge: f"{edge:.3g}",
        as_share=True,
    )
    means = (("mean", found.mean_ordered, "accent"), ("random", found.mean_random, "neutral"))
    marks = [
        Mark(mean, f"{name} {decimal(mean)}", tone)
        for name, mean, tone in means
        if math.isfinite(mean)
    ]
    gain = ratio(found.mean_ordered, found.mean_random)
    meaning = (
        f"Neighbours are {times(gain)} as similar as in a random order."
        if gain is not None and gain >= 1 and found.mean_random >= _MEANINGFUL
        else f"Neighbours have a mean cosine of {decimal(found.mean_ordered)}; in a random order "
        f"it is {decimal(found.mean_random)}."
    )
    sentence = (
        "The further the order's bars lie to the right of the random ones, the more its "
        f"neighbours have to do with each other. {meaning}"
    )
    drawn = chart(series, axes, sentence, marks) if series else paragraph(meaning)
    body = [drawn, paragraph(_steps(found))]
    return Section("order", "Order", join(body))


def _steps(found: Neighbours) -> str:
    said = f"{percent(found.jumps)} of the steps are jumps to a document that is no near neighbour."
    share = ratio(found.mean_ordered, found.bound) if found.bound is not None else None
    if share is None:
        return said
    return (
        f"{said} The mean reaches {percent(share)} of {decimal(found.bound)}, "
        "a bound that no order of these documents can pass."
    )


def windows(data: ReportData) -> Section | None:
    audit = data.windows
    if audit is None:
        return None
    charts = []
    if has_counts(audit.fill_histogram):
        charts.append(_fill(audit))
    if has_counts(audit.docs_per_window):
        charts.append(_documents(audit))
    if not audit.windows:
        body = [paragraph("No windows were written.")]
    else:
        body = [tiles(_tiles(audit)), tag("div", *charts, class_="pair"), _shares(audit)]
    if audit.lengths:
        body.insert(1, _lengths(audit))
    if audit.tokens_dropped:
        cells = [[text(name), text(count(n))] for name, n in audit.tokens_dropped.items()]
        body.append(table("Tokens dropped in packing", ["Reason", "Tokens"], cells))
    return Section("windows", "Windows", join(body))


def _tiles(audit: WindowAudit) -> list[tuple[str, str, str]]:
    above = audit.windows - audit.windows_lower_bound
    least = f"{count(above)} above the fewest possible" if above else "the fewest possible"
    entries = [
        ("Windows", count(audit.windows), least),
        ("Length", count(audit.length), f"tokens, strategy {audit.strategy}"),
        ("Fill", percent(audit.fill), f"{tokens(audit.tokens)} placed"),
        ("Documents", decimal(audit.docs_per_window_mean), "per window on average"),
    ]
    if audit.coherence is not None:
        entries.append(("Coherence", decimal(audit.coherence), "mean cosine inside a window"))
    if audit.adjacent is not None:
        entries.append(("Adjacent", decimal(audit.adjacent), "mean cosine of neighbours inside"))
    return entries


def _lengths(audit: WindowAudit) -> Markup:
    header = ["Length", "Windows", "Tokens", "Asked for", "Reached", "Fill", "Split", "Coherence"]
    cells = [
        [
            text(count(row.length)),
            text(count(row.windows)),
            text(count(row.tokens)),
            *(text(percent(s)) for s in (row.share, row.share_reached, row.fill, row.split_docs)),
            text("" if row.coherence is None else decimal(row.coherence)),
        ]
        for row in audit.lengths
    ]
    return table("Windows by length", header, cells)


def _fill(audit: WindowAudit) -> Markup:
    axes = Axes(
        "Fill of windows",
        "windows",
        "Share of the window that holds tokens",
        _tick_share,
        trim=False,
    )
    sentence = (
        "Bars on the right are full windows; what lies to the left is room left empty. "
        f"{percent(1 - audit.fill)} of all positions are empty."
    )
    return chart([Series("windows", audit.fill_histogram, "accent")], axes, sentence)


def _documents(audit: WindowAudit) -> Markup:
    axes = Axes("Documents per window", "windows", "Documents in the window", compact)
    sentence = (
        "The further left, the longer the documents inside. "
        f"{percent(audit.one_document)} of the windows hold a single document, "
        f"{percent(audit.several_sources)} mix sources."
    )
    return chart([Series("windows", audit.docs_per_window, "accent")], axes, sentence)


def _tick_share(edge: float) -> str:
    return f"{edge * 100:.4g} %"


def _shares(audit: WindowAudit) -> Markup:
    named = [
        ("Documents split over windows", audit.split_docs),
        ("Split although they fit into one", audit.split_short),
        ("Windows with one document", audit.one_document),
        ("Windows with several sources", audit.several_sources),
        *((f"Tokens in documents of {name} or more", s) for name, s in audit.span_ge.items()),
    ]
    rows = [Bar(name, [[Segment(s, "accent", percent(s))]], [percent(s)]) for name, s in named]
    sentence = (
        "Each bar is a share of the whole width. Tokens in long documents are long by nature; the "
        "rest of a window's length comes from packing."
    )
    return tag("div", tag("h3", text("Splits and spans")), figure(bars(rows), sentence))


def sources(data: ReportData) -> Section | None:
    return _mix(data.sources, data.made, "sources", "Sources", "Source")


def licences(data: ReportData) -> Section | None:
    return _mix(data.licenses, data.made, "licences", "Licences", "Licence")


def _mix(mixes: Sequence[Mix], made: str, anchor: str, heading: str, noun: str) -> Section | None:
    if not mixes:
        return None
    ordered = sorted(mixes, key=lambda m: (-m.tokens_packed, -m.tokens_read, m.name))
    read = sum(m.tokens_read for m in mixes) or 1
    packed = sum(m.tokens_packed for m in mixes) or 1
    longest = max(max(m.tokens_read / read, m.tokens_packed / packed) for m in mixes) or 1.0
    rows = [_mix_bar(m, made, read, packed, longest) for m in ordered[:_BARS]]
    key = [("neutral", "share of tokens read"), ("accent", f"share of tokens {made}")]
    largest = ordered[0]
    sentence = (
        f"Two bars for each {noun.lower()}: where the lower is longer, its part has grown. "
        f"{shown(largest)} holds {percent(largest.tokens_packed / packed)} of the {made} tokens."
    )
    header = [noun, "Tokens read", f"Tokens {made}", "Documents read", f"Documents {made}"]
    cells = [
        [
            text(shown(m)),
            *(text(count(n)) for n in (m.tokens_read, m.tokens_packed, m.docs_read, m.docs_packed)),
        ]
        for m in ordered
    ]
    body = [figure(bars(rows), sentence, key)]
    if len(ordered) > _BARS:
        body.append(paragraph(f"{plural(len(ordered) - _BARS, 'more')} are in the table only."))
    body.append(numbers_behind(table(heading, header, cells)))
    return Section(anchor, heading, join(body))


def _mix_bar(mix: Mix, made: str, read: int, packed: int, longest: float) -> Bar:
    before, after = mix.tokens_read / read, mix.tokens_packed / packed
    return Bar(
        shown(mix),
        [
            [Segment(before / longest, "neutral", f"read: {tokens(mix.tokens_read)}")],
            [Segment(after / longest, "accent", f"{made}: {tokens(mix.tokens_packed)}")],
        ],
        [f"{percent(before)} read", f"{percent(after)} {made}"],
    )
