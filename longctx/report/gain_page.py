"""The yardstick on the page of a comparison: a section with its figures, or a page of its own."""

from longctx.compare.bootstrap import Interval
from longctx.compare.gain import GainLine
from longctx.compare.result import Gain
from longctx.report.format import count, percent, plural
from longctx.report.gain_words import (
    MEASURES,
    PLACES,
    bounds,
    far,
    gain_caveats,
    gain_verdict,
    label,
    places,
    shown,
)
from longctx.report.html import document
from longctx.report.intervals import Whisker, WhiskerRow, whiskers
from longctx.report.layout import Section, facts, figure, paragraph, prose, table
from longctx.report.markup import NOTHING, Markup, join, tag, text

_TONES = {"all": "accent", "same": "neutral", "other": "contrast"}
_DRAWN = ("longfilter", "dnll")


def gain_section(gain: Gain) -> Section:
    """What was found, two figures, and the tables behind them."""
    notes = (tag("li", prose(sentence)) for sentence in gain_caveats(gain))
    body = [
        *(paragraph(sentence) for sentence in gain_verdict(gain)),
        *(_figure(gain, measure) for measure in _DRAWN),
        _table(gain),
        _differences(gain) if len(gain.lines) > 1 else NOTHING,
        facts([(name, prose(f"{_upper(meaning)}.")) for name, meaning in MEASURES.values()]),
        facts([(name, prose(f"{_upper(meaning)}.")) for name, meaning in PLACES.values()]),
        tag("div", tag("h3", text("Keep in mind")), tag("ul", *notes), class_="worries"),
        facts(
            [
                ("Model", text(f"{gain.model}, {gain.dtype}")),
                ("Contexts", text(f"{count(gain.long)} tokens, and {far(gain)}")),
                ("Seed", text(gain.seed)),
            ]
        ),
    ]
    return Section("gain", "Gain of far context", join(body))


def render_gain(gain: Gain) -> str:
    """A page of the gain alone, as text to be written as UTF-8."""
    names = [label(line) for line in gain.lines]
    heading = tag(
        "header",
        tag("p", text(f"Comparison of {gain.unit}s"), class_="kicker"),
        tag("h1", text("Which data gives a model more context to use?")),
        tag(
            "p",
            text(f"{plural(len(names), 'run')}: "),
            join([tag("span", text(name), class_="run") for name in names], ", "),
            class_="when",
        ),
    )
    return document(f"Gain: {', '.join(names)}", heading, [gain_section(gain)])


def _upper(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _groups(gain: Gain) -> list[str]:
    """All far tokens, and by place where there is more than one."""
    found = places(gain)
    return ["all", *(found if len(found) > 1 else [])]


def _figure(gain: Gain, measure: str) -> Markup:
    drawn = [group for group in _groups(gain) if group in _TONES]
    rows = [
        WhiskerRow(label(line), [_whisker(line, group, measure) for group in drawn])
        for line in gain.lines
    ]
    sentence = (
        "The mark is the mean, the bar its 95 % interval, the line stands at 0. Where the far "
        "context lies in other documents, it is the packing that put them there."
    )
    key = [(_TONES[group], PLACES[group][0]) for group in drawn]
    name, meaning = MEASURES[measure]
    return tag(
        "div",
        tag("h3", text(f"{name}: {meaning}")),
        figure(whiskers(rows), sentence, key),
        class_="chart",
    )


def _whisker(line: GainLine, group: str, measure: str) -> Whisker:
    found = getattr(line.groups[group], measure)
    value = shown(measure, found.value)
    said = bounds(measure, found)
    name = f"{PLACES[group][0]}: {value}{f' ({said})' if said else ''}"
    return Whisker(found, _TONES[group], name, f"{value} {PLACES[group][0]}")


def _table(gain: Gain) -> Markup:
    header = ["Run", "Far context in", "Far tokens", *(name for name, _ in MEASURES.values())]
    rows = [
        [
            text(label(line)),
            text(PLACES[group][0]),
            text(f"{count(line.groups[group].tokens)}, {percent(line.groups[group].share)}"),
            *(_cell(measure, getattr(line.groups[group], measure)) for measure in MEASURES),
        ]
        for line in gain.lines
        for group in _groups(gain)
    ]
    return table("Means over far tokens, with 95 % intervals", header, rows, words=2)


def _differences(gain: Gain) -> Markup:
    first, *others = gain.lines
    rows = [
        [
            text(label(line)),
            text(PLACES[group][0]),
            *(
                _cell(measure, getattr(line.difference[group], measure), signed=True)
                for measure in MEASURES
            ),
        ]
        for line in others
        for group in _groups(gain)
        if line.difference
    ]
    header = ["Run", "Far context in", *(name for name, _ in MEASURES.values())]
    caption = f"More than {label(first)}; clear where the interval excludes 0"
    return table(caption, header, rows, words=2)


def _cell(measure: str, found: Interval, *, signed: bool = False) -> Markup:
    said = bounds(measure, found, signed=signed)
    value = text(shown(measure, found.value, signed=signed))
    if signed and found.side:
        value = tag("strong", tag("i", text("clear ")), value)
    return join([value, tag("small", text(said)) if said else NOTHING])
