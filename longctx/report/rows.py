"""Sections about rows: the funnel, lengths, duplicates, quarantine and counters."""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from longctx.report.data import DuplicateCluster, ReportData, StageRow
from longctx.report.figures import Bar, Segment, bars
from longctx.report.findings import unaccounted
from longctx.report.format import (
    binary,
    compact,
    count,
    decimal,
    duration,
    one_line,
    percent,
    plural,
    ratio,
    tokens,
)
from longctx.report.histogram import Axes, Series, has_counts
from longctx.report.layout import (
    Section,
    chart,
    code,
    figure,
    folded,
    numbers_behind,
    paragraph,
    table,
)
from longctx.report.markup import NOTHING, Markup, join, tag, text
from longctx.report.summary import rows_through

_BARS = 15
_CLUSTERS, _MEMBERS, _SNIPPET = 20, 12, 280
_UNFOLDED = 2
_TONES = ("accent", "contrast", "soft", "neutral")


def stages(data: ReportData) -> Section | None:
    if not data.stages:
        return None
    most_rows = max(stage.rows_in for stage in data.stages) or 1
    most_tokens = max(stage.tokens_out or 0 for stage in data.stages) or 1
    rows = [_funnel(stage, most_rows, most_tokens) for stage in data.stages]
    key = [("accent", "rows kept"), ("neutral", "rows dropped"), ("contrast", "rows quarantined")]
    if any(stage.tokens_out is not None for stage in data.stages):
        key.append(("soft", "tokens kept"))
    rows_in, rows_out = rows_through(data)
    through = ratio(rows_out, rows_in)
    meaning = f" {percent(through)} of the rows came through." if through is not None else ""
    body = [
        figure(
            bars(rows),
            "Each bar is one stage, from what went in to what it kept; the longest stage fills "
            f"the width.{meaning}",
            key,
        ),
        paragraph(_conservation(data.stages)),
        _stage_table(data.stages),
    ]
    return Section("stages", "Rows and tokens by stage", join(body))


def _funnel(stage: StageRow, most_rows: int, most_tokens: int) -> Bar:
    dropped = sum(stage.dropped.values())
    parts = (
        (stage.rows_out, "accent", "kept"),
        (dropped, "neutral", "dropped"),
        (stage.quarantined, "contrast", "quarantined"),
    )
    lines = [
        [Segment(n / most_rows, tone, f"{plural(n, 'row')} {verb}") for n, tone, verb in parts]
    ]
    values = [plural(stage.rows_out, "row")]
    if stage.tokens_out is not None:
        said = tokens(stage.tokens_out)
        lines.append([Segment(stage.tokens_out / most_tokens, "soft", f"{said} kept")])
        values.append(said)
    return Bar(stage.stage, lines, values)


def _conservation(rows: Sequence[StageRow]) -> str:
    lost = [
        stage.stage
        for stage in rows
        if unaccounted(stage.rows_in, stage.rows_out, stage.dropped, stage.quarantined)
    ]
    if lost:
        return "Rows in are not rows out + dropped + quarantined at: " + ", ".join(lost) + "."
    return "At every stage, rows in = rows out + dropped + quarantined."


def _stage_table(rows: Sequence[StageRow]) -> Markup:
    resumed = any(stage.parts_skipped for stage in rows)
    header = ["Stage", "In", "Dropped", "Quarantined", "Out", "Tokens out", "Time"]
    body = [_stage_cells(stage, resumed) for stage in rows]
    if resumed:
        header.append("Parts resumed")
    total = Counter[str]()
    for stage in rows:
        total.update(stage.dropped)
    sums = [
        text("All stages"),
        text(count(rows[0].rows_in)),
        text(count(total.total())),
        text(count(sum(stage.quarantined for stage in rows))),
        text(count(rows[-1].rows_out)),
        text(compact(rows[-1].tokens_out)),
        text(duration(sum(stage.seconds for stage in rows))),
    ]
    if resumed:
        sums.append(text(""))
    return table("What happened to the rows", header, [*body, sums])


def _stage_cells(stage: StageRow, resumed: bool) -> list[Markup]:
    reasons = (
        tag("span", text(f"{one_line(reason, 80)} "), tag("b", text(count(number))))
        for reason, number in sorted(stage.dropped.items(), key=lambda item: -item[1])
    )
    named = not stage.stage.endswith(stage.op)
    cells = [
        join([text(stage.stage), tag("small", text(stage.op)) if named else NOTHING]),
        text(count(stage.rows_in)),
        tag("span", *reasons, class_="reasons") if stage.dropped else text("0"),
        text(count(stage.quarantined)),
        text(count(stage.rows_out)),
        text(compact(stage.tokens_out)),
        text(duration(stage.seconds)),
    ]
    if resumed:
        cells.append(text(f"{count(stage.parts_skipped)} of {count(stage.parts)}"))
    return cells


def lengths(data: ReportData) -> Section | None:
    named = (
        ("before", data.lengths_before, "neutral"),
        ("after", data.lengths_after, "accent"),
    )
    series = [Series(n, h, tone) for n, h, tone in named if h is not None and has_counts(h)]
    if not series:
        return None
    unit = series[0].histogram.unit
    axes = Axes(
        "Documents by length" + (" before and after" if len(series) == 2 else ""),
        "documents",
        f"Length in {unit}, log2 bins",
        binary,
    )
    meaning = ""
    if len(series) == 2:
        before, after = (_middle(one) for one in series)
        meaning = f" The middle document had {before}; afterwards the middle one has {after}."
    sentence = f"Each bar counts the documents of one range of lengths; ranges double.{meaning}"
    return Section("lengths", "Lengths", chart(series, axes, sentence))


def _middle(series: Series) -> str:
    """The median as far as the bins tell it: "1k to 2k tokens"."""
    lengths = series.histogram
    so_far = list(accumulate(lengths.counts))
    index = next(i for i, number in enumerate(so_far) if 2 * number >= so_far[-1])
    low, high = lengths.edges[index : index + 2]
    return f"{binary(low)} to {binary(high)} {lengths.unit}"


def duplicates(data: ReportData) -> Section | None:
    by_source, clusters = data.duplicates_by_source, data.duplicate_clusters
    if not by_source and not clusters:
        return None
    body = []
    if any(sum(found.values()) for found in by_source.values()):
        body.append(_duplicates_by_source(by_source))
    if clusters:
        body += [
            tag("h3", text("Largest clusters")),
            paragraph(
                "Read a few: members should say the same thing. Where they do not, the "
                f"threshold is too low.{_looked(clusters)}"
            ),
            *(_cluster(one, i < _UNFOLDED) for i, one in enumerate(clusters[:_CLUSTERS])),
        ]
    if len(clusters) > _CLUSTERS:
        body.append(paragraph(f"{len(clusters) - _CLUSTERS} more clusters are left out here."))
    if not body:
        body.append(paragraph("No duplicates were found."))
    return Section("duplicates", "Duplicates", join(body))


def _looked(clusters: Sequence[DuplicateCluster]) -> str:
    """Of how many files the clusters are the largest, where that is not of all."""
    looked, there = max((cluster.files for cluster in clusters), key=lambda files: files[1])
    return "" if looked == there else f" They are the largest in {looked} of {count(there)} files."


def _duplicates_by_source(by_source: dict[str, dict[str, int]]) -> Markup:
    total = Counter[str]()
    for found in by_source.values():
        total.update(found)
    kinds = [kind for kind, _ in total.most_common()]
    # Beyond four kinds the last tone is shared: more tones could not be told apart.
    tones = {kind: _TONES[min(i, len(_TONES) - 1)] for i, kind in enumerate(kinds)}
    ordered = sorted(by_source.items(), key=lambda item: -sum(item[1].values()))
    longest = sum(ordered[0][1].values())
    rows = [
        Bar(
            one_line(source, 60) or "(none)",
            [
                [
                    Segment(found[kind] / longest, tones[kind], f"{kind}: {count(found[kind])}")
                    for kind in kinds
                    if found.get(kind)
                ]
            ],
            [count(sum(found.values()))],
        )
        for source, found in ordered[:_BARS]
    ]
    cells = [
        [text(source or "(none)"), *(text(count(found.get(kind, 0))) for kind in kinds)]
        for source, found in ordered
    ]
    first, of_all = one_line(ordered[0][0], 60) or "(none)", longest / total.total()
    sentence = (
        "Each bar counts the duplicates removed from one source. "
        f"{percent(of_all)} of all {count(total.total())} came from {first}."
    )
    key = [(tone, one_line(kind, 60)) for kind, tone in tones.items()]
    return join(
        [
            figure(bars(rows), sentence, key),
            numbers_behind(table("Duplicates", ["Source", *kinds], cells)),
        ]
    )


def _cluster(cluster: DuplicateCluster, unfold: bool) -> Markup:
    members = cluster.members[:_MEMBERS]
    shown = "" if len(members) == cluster.size else f", {count(len(members))} of them here"
    items = (
        tag(
            "li",
            tag(
                "p",
                tag(
                    "b",
                    text("kept" if one.kept else "dropped"),
                    class_="kept" if one.kept else None,
                ),
                code(one_line(one.doc_id, 120)),
                tag("span", text(one_line(one.source, 60))),
                tag("span", text(f"similarity {decimal(one.similarity)}"))
                if one.similarity is not None
                else NOTHING,
            ),
            tag("blockquote", text(one_line(one.snippet, _SNIPPET)), dir="auto"),
        )
        for one in members
    )
    summary = f"{plural(cluster.size, 'document')}, found by {one_line(cluster.stage, 60)}{shown}"
    return folded(summary, tag("ul", *items, class_="members"), unfold=unfold)


def quarantine(data: ReportData) -> Section | None:
    if not data.quarantine:
        return None
    counted = sorted(data.quarantine.items(), key=lambda item: -item[1])
    total = sum(data.quarantine.values()) or 1
    most, number = counted[0]
    sentence = (
        "Each bar counts the rows set aside for one reason; the rows, with their tracebacks, are "
        f"in the run folder under quarantine/. Most frequent: {one_line(most, 80)} "
        f"({percent(number / total)})."
    )
    return Section(
        "quarantine", "Quarantine", _counted(data.quarantine, "Reason", "contrast", sentence)
    )


def notes(data: ReportData) -> Section | None:
    if not data.notes:
        return None
    cells = [[text(name), text(count(number))] for name, number in data.notes.items()]
    said = paragraph("What the stages counted on the way, beside the rows they kept and dropped.")
    return Section(
        "notes", "Counters", join([said, table("Counters", ["Counter", "Count"], cells)])
    )


def _counted(counts: dict[str, int], noun: str, tone: str, sentence: str) -> Markup:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    most = ordered[0][1] or 1
    rows = [
        Bar(one_line(name, 100) or "(none)", [[Segment(n / most, tone, count(n))]], [count(n)])
        for name, n in ordered[:_BARS]
    ]
    drawn = figure(bars(rows), sentence)
    if len(ordered) <= _BARS:
        return drawn
    cells = [[text(name), text(count(n))] for name, n in ordered]
    return join([drawn, folded("All of them", table("All of them", [noun, "Rows"], cells))])
