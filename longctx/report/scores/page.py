"""The page of one score stage: how its scores are spread, by source, and documents to read."""

from collections.abc import Sequence

from longctx.report.format import count, one_line, percent, plural, ratio
from longctx.report.histogram import Axes, Series
from longctx.report.html import document
from longctx.report.layout import Section, chart, code, figure, folded, paragraph, table
from longctx.report.markup import NOTHING, Markup, join, tag, text
from longctx.report.scores import cut_page, match_page
from longctx.report.scores.data import Looked, ScoreColumn, SourceSpread, StageScores, Words
from longctx.report.scores.documents import ladder
from longctx.report.scores.numbers import written
from longctx.report.scores.strips import Strip, scale_of, strips

_STRIPS = 40
_WORDS = 12
_REASONS = 4
_BETTER = {"high": "higher is better", "low": "lower is better", "": ""}
_BINS = {
    "whole": "Each bar counts the documents with one value.",
    "doubling": "Each bar counts the documents of one range; ranges double.",
    "even": "Each bar counts the documents of one range.",
    "cut": "Each bar counts the documents of one range; the first and the last bar hold the few "
    "that lie far away.",
}


def render(data: StageScores) -> str:
    """The page as text, to be written as UTF-8."""
    sections = [_overview(data), *cut_page.sections(data), *match_page.sections(data)]
    sections += [_column(data, number) for number in range(len(data.columns))]
    if data.words:
        sections.append(Section("words", "Words", join(_words(one) for one in data.words)))
    if data.others:
        sections.append(_others(data.others))
    return document(f"{data.stage}: scores of {data.run}", heading(data.stage, data.run), sections)


def heading(title: str, run: str, room: str = "scores") -> Markup:
    """The heading of a page beside the report, with the way back."""
    back = tag("a", text("Run report"), href="../report.html")
    return tag(
        "header",
        tag("p", back, text(f" / {room}"), class_="kicker"),
        tag("h1", text(title)),
        tag("p", text("of the run "), tag("span", text(run), class_="run"), class_="when"),
    )


def looked(data: Looked, which: str = "that the stage saw") -> str:
    """How much a page looked at, in a sentence; `which` documents there are."""
    if data.whole:
        return f"All {plural(data.rows, 'document')} {which} are in these figures."
    share = percent(ratio(data.rows, data.rows_all))
    return (
        f"These figures are of a sample: {count(data.rows)} of the {count(data.rows_all)} "
        f"documents {which} ({share}), evenly spaced in {count(data.parts)} of "
        f"{plural(data.parts_all, 'part')}."
    )


def _overview(data: StageScores) -> Section:
    body = [tag("p", text(_what(data)), class_="lead"), paragraph(looked(data.looked))]
    if data.missing_sources:
        body.append(
            paragraph(f"{plural(data.missing_sources, 'source')} have no document in the sample.")
        )
    if data.columns:
        body.append(_glance(data.columns))
    elif data.op != "decide":
        body.append(paragraph("The stage wrote no numbers."))
    return Section("overview", "Overview", join(body))


def _what(data: StageScores) -> str:
    """What the op says of itself, where this version knows it."""
    from longctx.registry import OPS, resolve

    if data.op not in OPS:
        return f"Columns that {data.op} wrote."
    op = resolve(data.op)
    said = f"{data.op}: {op.summary}"
    return f"{said} ({op.source})." if op.source else f"{said}."


def _glance(columns: Sequence[ScoreColumn]) -> Markup:
    rows = [
        [
            join([tag("a", code(c.name), href=f"#{_anchor(i)}"), tag("small", text(c.meaning))]),
            *_cells(c.whole),
        ]
        for i, c in enumerate(columns)
    ]
    return table("Main scores", ["Column", *_HEADER], rows)


_HEADER = ["Scored", "Null", "5 %", "25 %", "Median", "75 %", "95 %"]


def _cells(one: SourceSpread) -> list[Markup]:
    spread = one.spread or [None] * 5
    return [text(count(one.n)), _nulls(one.nulls), *(text(written(value)) for value in spread)]


def _nulls(nulls: dict[str, int]) -> Markup:
    """How many rows have no score; with several, or telling, reasons each with its number."""
    if not nulls:
        return text("0")
    shown = list(nulls.items())[:_REASONS]
    rest = sum(nulls.values()) - sum(n for _, n in shown)
    if rest:
        shown.append(("other reasons", rest))
    return tag(
        "span",
        *(tag("span", text(f"{one_line(why, 60)} "), tag("b", text(count(n)))) for why, n in shown),
        class_="reasons",
    )


def _anchor(number: int) -> str:
    return f"score-{number + 1}"


def _column(data: StageScores, number: int) -> Section:
    column = data.columns[number]
    meaning = column.meaning or f"a column of {data.op}"
    better = f"; {_BETTER[column.better]}" if column.better else ""
    said = f"{meaning[0].upper()}{meaning[1:]}{better}."
    body = [tag("p", text(said), class_="lead")]
    if column.whole.spread is None:
        body.append(paragraph("No document has this score; the reasons are in the table."))
    elif column.histogram is None:
        value = written(column.whole.spread.p50)
        body.append(paragraph(f"All {count(column.whole.n)} documents have the value {value}."))
    else:
        body.append(_histogram(column))
    body += [_sources(column), _ladder(column, data.marks)]
    return Section(_anchor(number), column.name, join(body))


def _histogram(column: ScoreColumn) -> Markup:
    assert column.histogram is not None
    axes = Axes("All documents", "documents", column.name, written, trim=column.bins != "cut")
    return chart([Series("all", column.histogram, "accent")], axes, _BINS[column.bins])


def _sources(column: ScoreColumn) -> Markup:
    """A strip for each source on one scale, and the quantiles behind it."""
    drawn = [(s, s.spread) for s in column.sources if s.spread is not None][:_STRIPS]
    several = len(column.sources) > 1
    figures = NOTHING
    if several and len(drawn) > 1 and column.histogram is not None:
        scale = scale_of([spread for _, spread in drawn], doubling=column.bins == "doubling")
        rows = [
            Strip(_name(s.source), spread, f"median {written(spread.p50)}") for s, spread in drawn
        ]
        more = len([s for s in column.sources if s.spread]) - len(drawn)
        rest = f" {plural(more, 'smaller source')} are in the table only." if more else ""
        figures = figure(
            strips(rows, scale, written),
            "Each line runs from the 5 % to the 95 % quantile of one source, the block from 25 % "
            f"to 75 %; the tick is the median. The largest source comes first.{rest}",
            [("soft", "5 % to 95 %"), ("accent", "25 % to 75 %")],
        )
    rows_of = [[text(_name(s.source)), *_cells(s)] for s in column.sources]
    if several or not rows_of:
        rows_of.insert(0, [tag("strong", text("All sources")), *_cells(column.whole)])
    caption = f"{column.name} by source"
    return join(
        [tag("h3", text("By source")), figures, table(caption, ["Source", *_HEADER], rows_of)]
    )


def _name(source: str) -> str:
    return one_line(source, 60) or "(none)"


def _ladder(column: ScoreColumn, marks: str) -> Markup:
    if not column.ladder:
        return NOTHING
    said = "from the worst to the best" if column.better else "from the lowest to the highest"
    return join(
        [
            tag("h3", text(f"Documents {said}")),
            paragraph(
                "Two at either end and one at each tenth between: open a few and see whether the "
                f"score orders them as you would. Personal data is masked. {marks}".rstrip()
            ),
            ladder(column.ladder, column.better),
        ]
    )


def _words(words: Words) -> Markup:
    """Documents by source and word: the most frequent words have a column each."""
    total: dict[str, int] = {}
    for counts in words.counts.values():
        for word, n in counts.items():
            total[word] = total.get(word, 0) + n
    named = sorted(total, key=lambda word: (-total[word], word))[:_WORDS]
    header = [one_line(word, 30) or "null" for word in named]
    rows = [
        [text(_name(source)), *(text(count(counts.get(word, 0))) for word in named)]
        for source, counts in words.counts.items()
    ]
    more = len(total) - len(named)
    rest = paragraph(f"{plural(more, 'rarer word')} are left out.") if more else NOTHING
    return join([table(f"{words.name} by source", ["Source", *header], rows), rest])


def _others(columns: Sequence[ScoreColumn]) -> Section:
    rows = [[code(column.name), *_cells(column.whole)] for column in columns]
    drawn = table("All other numbers of the stage", ["Column", *_HEADER], rows)
    shown = folded(f"{plural(len(columns), 'more column')}", drawn, unfold=len(columns) <= _WORDS)
    return Section("others", "Other columns", shown)
