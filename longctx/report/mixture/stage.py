"""The page of the stage that mixed: sources and lengths before, as planned and as they came out."""

from longctx.report.data import Histogram
from longctx.report.format import MISSING, binary, compact, count, one_line, percent, ratio
from longctx.report.histogram import Axes, Series
from longctx.report.html import document
from longctx.report.layout import (
    Section,
    chart,
    facts,
    folded,
    numbers_behind,
    paragraph,
    prose,
    table,
    tiles,
)
from longctx.report.markup import NOTHING, Markup, join, tag, text
from longctx.report.mixture.data import MixtureData, SourceMix, Strategy
from longctx.report.mixture.fit import worries
from longctx.report.mixture.optimum import optimum_sections
from longctx.report.mixture.page import evidence_sections
from longctx.report.mixture.section import amounts, named, outcome, total
from longctx.report.scores.page import heading

FAR = 4.0
_UNUSED = 20
_COLUMNS = 12


def render_stage(data: MixtureData) -> str:
    """The page as text, to be written as UTF-8."""
    found = [_overview(data), _sources(data), _lengths(data), _strategies(data), _plan(data)]
    sections = [part for part in found if part is not None]
    if data.evidence is not None:
        sections += optimum_sections(data.evidence)
        sections += evidence_sections(data.evidence)
    head = heading(data.stage, data.run, "mixture")
    return document(f"{data.stage}: mixture of {data.run}", head, sections)


def _overview(data: MixtureData) -> Section:
    known = remarks(data)
    body = [
        tag("p", prose(outcome(data)), class_="lead"),
        tiles(_tiles(data)),
        worries("Keep in mind", known) if known else NOTHING,
    ]
    return Section("overview", "Overview", join(body))


def _tiles(data: MixtureData) -> list[tuple[str, str, str]]:
    after = total(data, "after")
    most = max(data.sources, key=lambda one: one.epochs, default=None)
    shown = [
        (f"{_unit(data)} before", compact(total(data, "before")), ""),
        (f"{_unit(data)} after", compact(after), f"{percent(ratio(after, data.budget))} of budget"),
        ("Copies", count(sum(one.copies for one in data.sources)), "documents, repeats included"),
    ]
    if data.long_after is not None:
        before = "" if data.long_before is None else f"before: {percent(data.long_before)}"
        shown.append(("Long documents", percent(data.long_after), before))
    if most is not None:
        shown.append(("Most epochs", f"{most.epochs:.2f}", named(most.name)))
    for title, value, remark in (
        ("To the plan", data.to_target, "L1 distance of shares"),
        ("To natural", data.to_natural, "L1 distance of the planned shares"),
    ):
        if value is not None:
            shown.append((title, f"{value:.4f}", remark))
    return shown


def remarks(data: MixtureData) -> list[str]:
    """What a reader should know: warnings, sources far from their target, others not used."""
    said = [one_line(warning, 400) for warning in data.warnings]
    said += [
        f"{named(one.name)} came out {abs(one.z):.1f} standard deviations of the draw "
        f"{'above' if one.z > 0 else 'below'} its target; a few very long documents do that."
        for one in data.sources
        if one.z is not None and abs(one.z) > FAR
    ]
    if data.unused:
        listed = ", ".join(named(name) for name in data.unused[:_UNUSED])
        more = len(data.unused) - _UNUSED
        said.append(f"Not used: {listed}{f' and {count(more)} more' if more > 0 else ''}.")
    if data.foreign:
        said.append(
            "The file of weights carries evidence in a form that `longctx mix optimise` does not "
            "write, so it is not drawn."
        )
    return said


def _sources(data: MixtureData) -> Section:
    body = [amounts(data), _source_table(data), _copies_table(data)]
    return Section("sources", f"By {one_line(data.by, 40)}", join(body))


def _source_table(data: MixtureData) -> Markup:
    """Tokens and shares before, as planned and after; sums in the last row."""
    header = [
        *("Source", f"{_unit(data)} before", "Share", "Target", "Share"),
        *("After", "Share", "After / target"),
    ]
    rows = [
        [
            text(named(one.name)),
            *(
                text(cell)
                for moment in (one.before, one.target, one.after)
                for cell in (compact(moment.tokens), percent(moment.share))
            ),
            _against(one),
        ]
        for one in data.sources
    ]
    sums = [total(data, moment) for moment in ("before", "target", "after")]
    of_all = [text(cell) for value in sums for cell in (compact(value), "")]
    rows.append(
        [tag("strong", text("All")), *of_all, text(percent(ratio(sums[2], sums[1])))],
    )
    return table("Planned and realised", header, rows)


def _against(one: SourceMix) -> Markup:
    """The result as a part of the target; below it how far the draw was off, if it was free."""
    reached = text(percent(ratio(one.after.tokens, one.target.tokens)))
    if one.z is not None:
        far = f"{one.z:+.1f} sd"
        below = tag("strong", text(far)) if abs(one.z) > FAR else text(far)
    else:
        below = text("calibrated") if one.calibrated else NOTHING
    return join([reached, tag("small", below)])


def _copies_table(data: MixtureData) -> Markup:
    header = [
        *("Source", "Documents before", "Used", "Copies", "Epochs", "Most copies"),
        *("Long before", "Long planned", "Long after", "Short kept"),
    ]
    rows = [
        [
            text(named(one.name)),
            *(text(count(n)) for n in (one.before.documents, one.after.documents, one.copies)),
            text(f"{one.epochs:.2f}"),
            text(MISSING if one.most_copies is None else f"{one.most_copies:.2f}"),
            *(text(percent(a.long_share)) for a in (one.before, one.target, one.after)),
            _kept(one),
        ]
        for one in data.sources
    ]
    said = paragraph(
        "Epochs are tokens after, divided by tokens before. Most copies is the largest expected "
        "number of copies of a document, short kept how often a short document is taken for each "
        "time that a long one is."
    )
    return join([table("Documents and copies", header, rows), said])


def _kept(one: SourceMix) -> Markup:
    if one.keep_used is None:
        return text(MISSING)
    asked = one.keep_asked
    other = asked is not None and abs(asked - one.keep_used) > 1e-9
    note = tag("small", text(f"asked {asked:.3g}")) if other and asked is not None else NOTHING
    return join([text(f"{one.keep_used:.3g}"), note])


def _lengths(data: MixtureData) -> Section | None:
    """Tokens by length of their document before and after, as shares."""
    if not data.buckets or not any(one.before for one in data.buckets):
        return None
    last = data.buckets[-1]
    top = last.high if last.high is not None else 2 * max(last.low, 1)
    edges = [*(float(one.low) for one in data.buckets), float(top)]

    def tick(edge: float) -> str:
        return "any" if last.high is None and edge == top else binary(edge)

    series = [
        Series("before", Histogram(edges, [round(b.before) for b in data.buckets], ""), "neutral"),
        Series("after", Histogram(edges, [round(b.after) for b in data.buckets], ""), "accent"),
    ]
    axes = Axes(
        f"{_unit(data)} by length of document",
        _unit(data).lower(),
        "Length in tokens",
        tick,
        as_share=True,
    )
    sentence = (
        "Each bar is the part of all tokens that lies in documents of one range of lengths, before "
        "and after mixing."
    )
    drawn = chart([one for one in series if sum(one.histogram.counts)], axes, sentence)
    return Section("lengths", "Lengths", drawn)


def _strategies(data: MixtureData) -> Section | None:
    """Other ways to mix the same documents, beside the natural one."""
    if not data.strategies:
        return None
    header = ["Strategy", "L1 to natural", "Long share", "Most epochs", "Largest budget"]
    rows = [
        [
            join(
                [
                    text(one_line(one.name, 60)),
                    tag("small", text(one_line(one.note, 120))) if one.note else NOTHING,
                ]
            ),
            text(MISSING if one.to_natural is None else f"{one.to_natural:.4f}"),
            text(percent(one.long_share)),
            text(MISSING if one.most_epochs is None else f"{one.most_epochs:.2f}"),
            text(compact(one.most_tokens)),
        ]
        for one in data.strategies
    ]
    said = paragraph(
        "What other rules would make of the same documents and the same budget. The largest budget "
        "is that up to which no document is read more often than the cap allows."
    )
    shares = numbers_behind(_strategy_shares(data.strategies[:_COLUMNS], data))
    body = [said, table("Strategies", header, rows), shares]
    return Section("strategies", "Strategies", join(body))


def _strategy_shares(strategies: list[Strategy], data: MixtureData) -> Markup:
    names = [one.name for one in data.sources]
    others = sorted({source for one in strategies for source in one.shares} - set(names))
    rows = [
        [text(named(source)), *(text(percent(one.shares.get(source, 0.0))) for one in strategies)]
        for source in (*names, *others)
    ]
    header = ["Source", *(one_line(one.name, 30) for one in strategies)]
    return table("Shares by strategy", header, rows)


def _plan(data: MixtureData) -> Section:
    shown = facts([(name, text(one_line(value, 500))) for name, value in data.settings])
    return Section("plan", "Plan", folded("How it was planned", shown, unfold=True))


def _unit(data: MixtureData) -> str:
    return {"tokens": "Tokens", "bytes": "Bytes", "docs": "Documents"}.get(data.unit, "Size")
