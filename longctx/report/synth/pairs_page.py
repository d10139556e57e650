"""Sections about pairs: what the judge is worth, how scores spread, pairs side by side."""

from collections.abc import Sequence

from longctx.report.format import MISSING, count, one_line, plural
from longctx.report.histogram import Axes, Series
from longctx.report.layout import Section, chart, code, folded, paragraph, table
from longctx.report.markup import NOTHING, Markup, join, tag, text
from longctx.report.prefer_tree import tree_svg
from longctx.report.scores.numbers import written
from longctx.report.synth.data import Dimension, JudgeControl, Pair, PairsData


def judge_section(judge: str, controls: Sequence[JudgeControl]) -> Section | None:
    """What the judge was asked that a sound one cannot fail."""
    if not controls:
        return None
    failed = [c.name for c in controls if c.hard and not c.passed]
    said = f"The judge {one_line(judge, 80)} was asked on a sample what a sound judge cannot fail."
    said += f" It fails: {', '.join(failed)}." if failed else " It passes all that counts."
    rows = [
        [
            join([code(one_line(c.name, 60)), tag("small", text(one_line(c.wanted, 120)))]),
            text(_outcome(c)),
            text("yes" if c.hard else "no"),
            text(written(c.value)),
            text(count(c.cases)),
        ]
        for c in controls
    ]
    header = ["Control", "Outcome", "Ends a run", "Found", "Cases"]
    drawn = table("Controls of the judge", header, rows, 3)
    return Section("judge", "What the judge is worth", join([paragraph(said), drawn]))


def _outcome(one: JudgeControl) -> str:
    return "no case" if one.passed is None else "passed" if one.passed else "failed"


def score_section(found: PairsData) -> Section | None:
    """Scores and marks of both sides, and the margins between them."""
    if not found.dimensions and found.margins is None:
        return None
    body = []
    if found.margins is not None:
        axes = Axes("Margins", "pairs", "Score of the chosen less that of the rejected", written)
        sentence = "Each bar counts the pairs whose texts are so far apart."
        body.append(chart([Series("pairs", found.margins, "accent")], axes, sentence))
    drawn = tag("div", *(_dimension(one) for one in found.dimensions), class_="pair")
    return Section("scores", "Scores of both sides", join([*body, drawn]))


def _dimension(one: Dimension) -> Markup:
    axes = Axes(one.name.capitalize(), "texts", one.name, written)
    series = [Series("rejected", one.rejected, "neutral"), Series("chosen", one.chosen, "accent")]
    return chart(series, axes, "Each bar counts the texts of one range, by side.")


def pairs_section(found: PairsData) -> Section | None:
    """Pairs to read, from the nearest to the farthest apart."""
    if not found.pairs:
        return None
    said = paragraph(
        "Pairs from the smallest margin to the largest. Texts are cut where they go on, and "
        "personal data is masked here, not in the rows."
    )
    listed = (tag("li", _pair(one, unfold=i == 0)) for i, one in enumerate(found.pairs))
    body = [said, tag("ul", *listed, class_="ladder samples")]
    return Section("pairs", "Pairs to read", join(body))


def trees_section(found: PairsData) -> Section | None:
    """Search trees: all candidates of a prompt, and the path that was taken."""
    if not found.trees:
        return None
    said = paragraph(
        "From the left to the right step by step, the candidates of a step below one another; the "
        "thick line is the path that was taken. Mark is the mean of the judge's marks, u the "
        "reward, with the length in it; what a candidate says is its tooltip."
    )
    drawn = (
        folded(
            f"{one.prompt_id}, {plural(len(one.nodes) - 1, 'step')}",
            tree_svg(one.nodes),
            unfold=i == 0,
        )
        for i, one in enumerate(found.trees)
    )
    return Section("trees", "Trees of candidates", join([said, *drawn]))


def _pair(one: Pair, *, unfold: bool) -> Markup:
    apart = f"margin {written(one.margin)}" if one.margin is not None else "no margin"
    line = [
        tag("b", text(apart), class_="score"),
        *(tag("span", text(said)) for said in (one.lang, one.source) if said),
        code(one.row_id),
    ]
    sides = [_side("Chosen", one.chosen, "kept"), _side("Rejected", one.rejected)]
    sides += [_side("Rejected as well", one.second)] if one.second else []
    body = [
        _said("Prompt", one.prompt),
        tag("p", text(one.where), class_="where") if one.where else NOTHING,
        _said("What is written so far", one.prefix) if one.prefix else NOTHING,
        tag("h4", text("Why")),
        paragraph(one.reason),
        tag("div", *sides, class_="sides"),
        _marks(one),
        _checks(one),
    ]
    return tag(
        "details", tag("summary", join(line, " ")), tag("div", *body), open="" if unfold else None
    )


def _said(name: str, words: str) -> Markup:
    return join([tag("h4", text(name)), tag("blockquote", text(words), class_="text", dir="auto")])


def _side(name: str, words: str, class_: str | None = None) -> Markup:
    heading = tag("h4", text(name), class_=class_)
    return tag("div", heading, tag("blockquote", text(words), class_="text", dir="auto"))


def _marks(one: Pair) -> Markup:
    if not one.marks:
        return NOTHING
    rows = [[text(name), text(_mark(a)), text(_mark(b))] for name, a, b in one.marks]
    return table("Marks", ["Dimension", "Chosen", "Rejected"], rows)


def _mark(value: float | None) -> str:
    return MISSING if value is None else written(value)


def _checks(one: Pair) -> Markup:
    if not one.checks:
        return NOTHING
    rows = [[text(name), text("yes" if holds else "no")] for name, holds in one.checks]
    return folded(plural(len(rows), "check"), table("Checks", ["Check", "Holds"], rows, 2))
