"""Sections about the recommended shares: how sure the gain is, shares within bounds, losses."""

import math
from collections.abc import Sequence

from longctx.mixture.evaluate import GAIN
from longctx.report.data import Histogram
from longctx.report.format import MISSING, count, one_line, percent, plural
from longctx.report.histogram import Axes, Mark, Series
from longctx.report.layout import (
    Section,
    chart,
    figure,
    numbers_behind,
    paragraph,
    prose,
    table,
    tiles,
)
from longctx.report.markup import NOTHING, Markup, join, tag, text
from longctx.report.mixture.evidence import Evidence, Share, shares
from longctx.report.mixture.fit import worries
from longctx.report.mixture.ranges import Range, ranges
from longctx.report.mixture.scatter import decimals, round_step
from longctx.report.mixture.words import cautions, gain_sentence, loss_named, share_sentence

_BINS, _MOST_BINS = 8, 40
_ROWS = 40
# The part of the axis that the gains themselves must keep where 0 or the error is far off.
_KEPT = 0.3


def optimum_sections(evidence: Evidence) -> list[Section]:
    """The verdict with the gains, the shares, and the losses of mixtures that need no model."""
    return [_gain(evidence), _shares(evidence), _losses(evidence)]


def optimum_tiles(evidence: Evidence) -> Markup:
    """Key figures of an optimum."""
    gap, weights = evidence.predicted.bootstrap, evidence.predicted.shares
    top = max(weights, key=lambda source: weights[source])
    epochs = evidence.bounds.epochs
    shown = [
        ("Predicted loss", f"{evidence.predicted.loss:.4f}", one_line(loss_named(evidence), 40)),
        (
            "Gain",
            f"{evidence.predicted.gain:.4f}",
            f"over {one_line(evidence.method.prior, 30)}; 90 %: {gap.low:.4f} to {gap.high:.4f}",
        ),
        ("Largest share", percent(weights[top]), one_line(top, 40)),
        ("Runs", count(evidence.runs), ""),
    ]
    if epochs:
        most = max(epochs, key=lambda source: epochs[source])
        shown.append(("Most epochs", f"{epochs[most]:.2f}", one_line(most, 40)))
    return tiles(shown)


def _gain(evidence: Evidence) -> Section:
    known = cautions(evidence)
    body = [
        tag("p", prose(gain_sentence(evidence)), class_="lead"),
        optimum_tiles(evidence),
        _gains(evidence),
        worries("Keep in mind", known) if known else NOTHING,
    ]
    return Section("gain", "How sure the gain is", join(body))


def _gains(evidence: Evidence) -> Markup:
    """Gains over all resamples as a distribution, with 0, the interval and the error marked."""
    gap, gaps = evidence.predicted.bootstrap, evidence.gaps
    if not gaps:
        return paragraph("The gains of the single resamples are not stored.")
    drawn = gain_bins(gaps, [0.0, gap.holdout_mae])
    edges = drawn.edges
    digits = decimals(edges[1] - edges[0])
    named = (
        (gap.holdout_mae, "error on held-out runs", "neutral"),
        (0.0, "no gain", "neutral"),
        (gap.low, "5 %", "accent"),
        (gap.high, "95 %", "accent"),
    )
    marks = [Mark(v, label, tone) for v, label, tone in named if edges[0] <= v <= edges[-1]]
    axes = Axes(
        f"Gain over {one_line(evidence.method.prior, 40)}",
        "resamples",
        "Predicted gain in nats per token",
        lambda value: f"{value:.{digits}f}",
        trim=False,
    )
    above = sum(value > 0 for value in gaps) / len(gaps)
    clear = evidence.verdict == GAIN
    sentence = (
        "Each bar counts the times that the runs were drawn again with replacement and fitted "
        f"anew; {percent(above)} of the gains are above 0. A gain is called so where the 5 % "
        "quantile is above 0 and the mean exceeds the error on held-out runs, which is "
        f"{gap.holdout_mae:.4f}: {'both hold' if clear else 'that is not so'} here."
    )
    return chart([Series("gain", drawn, "accent")], axes, sentence, marks)


def gain_bins(gaps: Sequence[float], also: Sequence[float]) -> Histogram:
    """Some eight bins with round edges over the gaps; more, up to those of `also` that are near."""
    low, high = min(gaps), max(gaps)
    spread = high - low
    for value in also:
        wider = max(high, value) - min(low, value)
        if spread >= _KEPT * wider:
            low, high = min(low, value), max(high, value)
    finest = (spread / _BINS, (high - low) / _MOST_BINS, 1e-9, 1e-12 * abs(high))
    step = round_step(max(finest))
    first = math.floor(low / step + 1e-9)
    number = max(1, math.floor(high / step + 1e-9) - first + 1)
    counts = [0] * number
    for value in gaps:
        counts[min(max(math.floor(value / step + 1e-9) - first, 0), number - 1)] += 1
    return Histogram([(first + i) * step for i in range(number + 1)], counts, "gain")


def _shares(evidence: Evidence) -> Section:
    rows = shares(evidence)
    prior = one_line(evidence.method.prior, 30)
    near = [row for row in rows if row.held]
    held = (
        f" {plural(len(near), 'source')} of {count(len(rows))} are held by a bound."
        if near
        else " No bound holds any of them."
    )
    drawn = figure(
        ranges([_range(row) for row in rows[:_ROWS]]),
        f"One line for each source: its share of tokens in the optimum, in the prior ({prior}), "
        f"and the bounds between which it was looked for.{held}",
        [("soft", "bounds"), ("neutral", f"prior: {prior}"), ("accent", "optimum")],
    )
    said = paragraph(share_sentence(evidence))
    more = len(rows) - _ROWS
    rest = (
        paragraph(f"{plural(more, 'more source')} are in the table only.") if more > 0 else NOTHING
    )
    header = ["Source", "Prior", "Optimum", "From", "To", "Epochs", "Held by"]
    cells = table("Shares of tokens", header, [_cells(row) for row in rows])
    return Section("shares", "Shares of tokens", join([drawn, rest, said, numbers_behind(cells)]))


def _range(row: Share) -> Range:
    band = None if row.lo is None or row.hi is None else (row.lo, row.hi)
    values = [f"{percent(row.share)}, prior {percent(row.prior)}"]
    said = [f"{row.epochs:.2f} epochs"] if row.epochs is not None else []
    said += [_held(row)] if row.held else []
    if said:
        values.append(", ".join(said))
    bounds = "" if band is None else f", bounds {percent(band[0])} to {percent(band[1])}"
    label = f"optimum {percent(row.share)}, prior {percent(row.prior)}{bounds}"
    return Range(_name(row.source), row.share, row.prior, band, label, values)


def _held(row: Share) -> str:
    why = f" ({one_line(row.why, 30)})" if row.why and row.held == "most" else ""
    return f"at its {row.held}{why}"


def _cells(row: Share) -> list[Markup]:
    return [
        text(_name(row.source)),
        *(text(percent(value)) for value in (row.prior, row.share, row.lo, row.hi)),
        text(MISSING if row.epochs is None else f"{row.epochs:.2f}"),
        text(_held(row) if row.held else ""),
    ]


def _losses(evidence: Evidence) -> Section:
    ours = evidence.predicted.loss
    rows = [[tag("strong", text("optimum")), text(f"{ours:.4f}"), text(MISSING), text("")]]
    rows += [
        [
            text(one_line(name, 60)),
            text(f"{one.predicted:.4f}"),
            text(MISSING if one.measured is None else f"{one.measured:.4f}"),
            text(f"{ours - one.predicted:+.4f}"),
        ]
        for name, one in evidence.baselines.items()
    ]
    said = paragraph(
        "Losses are those of models of the size of the runs. They rank mixtures for other sizes; "
        "their values do not carry over."
    )
    caption = f"Loss ({one_line(loss_named(evidence), 60)}), nats per token"
    drawn = table(caption, ["Mixture", "Predicted", "Measured", "Optimum is"], rows)
    return Section("losses", "Beside mixtures that need no model", join([drawn, said]))


def _name(source: str) -> str:
    return one_line(source, 60) or "(none)"
