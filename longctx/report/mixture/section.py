"""The section of the report that tells of the mixture, and leads to its page."""

from longctx.report.figures import Bar, Segment, bars
from longctx.report.format import compact, count, one_line, percent, plural, ratio
from longctx.report.layout import Section, figure, paragraph
from longctx.report.markup import NOTHING, Markup, join, tag, text
from longctx.report.mixture.data import MixtureData
from longctx.report.scores.data import page_of

_BARS = 20
_BRIEF = 8
_TONES = (("before", "neutral"), ("target", "soft"), ("after", "accent"))


def mixture_section(data: MixtureData | None) -> Section | None:
    """What was asked for and what came out, the largest sources, and the link to the page."""
    if data is None:
        return None
    link = tag("a", text(f"All of it: {data.stage}"), href=page_of(data.stage))
    body = [paragraph(outcome(data)), amounts(data, _BRIEF), tag("p", link)]
    return Section("mixture", "Mixture", join(body))


def outcome(data: MixtureData) -> str:
    """What was there, what was asked for and what came out, and the verdict on the weights."""
    before, after = total(data, "before"), total(data, "after")
    said = (
        f"Of {compact(before)} {data.unit} were made {compact(after)}, which is "
        f"{percent(ratio(after, data.budget))} of the {compact(data.budget)} that were asked for."
    )
    if data.long_before is not None and data.long_after is not None:
        said += (
            f" Long documents hold {percent(data.long_after)} of them, "
            f"{percent(data.long_before)} before."
        )
    if data.verdict:
        said += (
            f" The weights come from small runs; the verdict on them: {one_line(data.verdict, 60)}."
        )
    return said


def total(data: MixtureData, moment: str) -> float:
    """Tokens of all sources "before", as "target" or "after"."""
    found: float = sum(getattr(one, moment).tokens for one in data.sources)
    return found


def named(source: str) -> str:
    """The name of a source, with words for an empty one."""
    return one_line(source, 60) or "(none)"


def amounts(data: MixtureData, most: int = _BARS) -> Markup:
    """Shares of the sources before, as planned and after, the largest of the plan first."""
    ordered = sorted(data.sources, key=lambda one: (-one.target.share, -one.before.share, one.name))
    moments = [[getattr(one, moment) for moment, _ in _TONES] for one in ordered]
    longest = max((m.share for row in moments for m in row), default=0.0) or 1.0
    rows = [
        Bar(
            named(one.name),
            [
                [Segment(amount.share / longest, tone, f"{moment}: {percent(amount.share)}")]
                for amount, (moment, tone) in zip(row, _TONES, strict=True)
            ],
            [
                f"{percent(amount.share)} {moment}"
                for amount, (moment, _) in zip(row, _TONES, strict=True)
            ],
        )
        for one, row in list(zip(ordered, moments, strict=True))[:most]
    ]
    more = len(ordered) - most
    rest = (
        paragraph(f"{plural(more, 'smaller source')} are on the page only.")
        if more > 0
        else NOTHING
    )
    sentence = (
        f"Three bars for each source: its share of the {data.unit} before, as planned, and as it "
        f"came out ({count(len(ordered))} in all)."
    )
    return join([figure(bars(rows), sentence, [(tone, moment) for moment, tone in _TONES]), rest])
