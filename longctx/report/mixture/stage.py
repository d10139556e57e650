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
from longctx.report.mixture.section import FAR, amounts, named, outcome, remarks
from longctx.report.scores.page import heading

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
    most = max(data.sources, key=lambda one: one.epochs, default=None)
    reached = f"{percent(ratio(data.after, data.budget))} of budget"
    shown = [
        (f"{_unit(data)} before", compact(data.before), ""),
        (
            f"{_unit(data)} after",
            compact(data.after),
            reached,
        ),
        ("Copies", count(sum(one.copies for one in data.sources)), "documents, repeats included"),
    ]
    before = f"before: {percent(data.long_before)}"
    shown.append(("In long documents", percent(data.long_after), before))
    if most is not None:
        shown.append(("Most epochs", f"{most.epochs:.2f}", named(most.name)))
    return shown


def _sources(data: MixtureData) -> Section:
    alike = bool(data.sources) and all(one.calibrated for one in data.sources)
    said = paragraph(
        f"The shares that came out lie {data.to_target:.4f} from the planned ones, and these "
        f"{data.to_natural:.4f} from the natural mix (L1 distance, 2 at the most)."
        + (" All sources were calibrated to their documents." if alike else "")
    )
    body = [amounts(data), said, _source_table(data), _copies_table(data)]
    return Section("sources", f"By {one_line(data.by, 40)}", join(body))


def _source_table(data: MixtureData) -> Markup:
    """Tokens and shares before, as planned and after; sums in the last row."""
    header = [
        *("Source", f"{_unit(data)} before", "Share", "Target", "Share"),
        *("After", "Share", "After / target"),
    ]
    alike = all(one.calibrated for one in data.sources)
    rows = [
        [
            text(named(one.name)),
            *(
                text(cell)
                for moment in (one.before, one.target, one.after)
                for cell in (compact(moment.tokens), percent(moment.share))
            ),
            _against(one, alike=alike),
        ]
        for one in data.sources
    ]
    sums = (data.before, data.budget, data.after)
    of_all = [text(cell) for value in sums for cell in (compact(value), "")]
    rows.append(
        [tag("strong", text("All")), *of_all, text(percent(ratio(sums[2], sums[1])))],
    )
    return table("Planned and realised", header, rows)


def _against(one: SourceMix, *, alike: bool) -> Markup:
    """The result as a part of the target; below it how far the draw was off, if it was free."""
    reached = text(percent(ratio(one.after.tokens, one.target.tokens)))
    if one.z is not None:
        far = f"{one.z:+.1f} sd"
        below = tag("strong", text(far)) if abs(one.z) > FAR else text(far)
    else:
        below = text("calibrated" if one.calibrated and not alike else "")
    return join([reached, tag("small", below) if below else NOTHING])


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
        Series(
            "as planned", Histogram(edges, [round(b.after) for b in data.buckets], ""), "accent"
        ),
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
        "mixing and at the copy rates of the plan."
    )
    drawn = chart([one for one in series if sum(one.histogram.counts)], axes, sentence)
    return Section("lengths", "Lengths", drawn)


def _strategies(data: MixtureData) -> Section | None:
    """Other ways to mix the same documents, beside this one and the natural one."""
    if not data.strategies:
        return None
    known = [one for one in data.strategies if one.shares]
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
        for one in (_this(data), *known)
    ]
    said = paragraph(
        "What other rules would make of the same documents and the same budget; original is the "
        "natural mix. Most epochs is "
        "the highest copy rate of any document, the largest budget that up to which it stays "
        "within the cap."
    )
    shares = folded("Shares by strategy", _strategy_shares(known[:_COLUMNS], data))
    without = [f"{one_line(o.name, 60)} ({one_line(o.note, 120)})" for o in data.strategies]
    without = [w for w, one in zip(without, data.strategies, strict=True) if not one.shares]
    left = paragraph(f"Not possible here: {'; '.join(without)}.") if without else NOTHING
    body = [said, table("Strategies", header, rows), left, shares if known else NOTHING]
    return Section("strategies", "Strategies", join(body))


def _this(data: MixtureData) -> Strategy:
    """The mixture itself, as a row among the strategies."""
    rates = [one.most_copies for one in data.sources]
    planned = sum(one.target.share * (one.target.long_share or 0.0) for one in data.sources)
    return Strategy(
        name="this mixture",
        shares={},
        to_natural=data.to_natural,
        long_share=planned,
        most_epochs=max(rates, default=None),
        most_tokens=None,
    )


def _strategy_shares(strategies: list[Strategy], data: MixtureData) -> Markup:
    rows = [
        [
            text(named(source)),
            *(
                text(percent(s.get(source, 0.0)))
                for s in (data.planned, *(o.shares for o in strategies))
            ),
        ]
        for source in sorted(data.natural, key=lambda name: (-data.natural[name], name))
    ]
    header = ["Source", "This mixture", *(one_line(one.name, 30) for one in strategies)]
    return table("Shares by strategy", header, rows)


def _plan(data: MixtureData) -> Section:
    shown = facts([(name, text(one_line(value, 500))) for name, value in data.settings])
    return Section("plan", "Plan", shown)


def _unit(data: MixtureData) -> str:
    return {"tokens": "Tokens", "bytes": "Bytes", "docs": "Documents"}.get(data.unit, "Size")
