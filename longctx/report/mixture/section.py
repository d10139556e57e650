"""The section of the report that tells of the mixture, and leads to its page."""

from longctx.report.figures import Bar, Segment, bars
from longctx.report.format import compact, count, one_line, percent, plural, ratio
from longctx.report.layout import Section, figure, paragraph
from longctx.report.markup import NOTHING, Markup, join, tag, text
from longctx.report.mixture.data import MixtureData
from longctx.report.scores.data import page_of

_BARS = 20
_BRIEF = 8
FAR = 4.0
_UNUSED = 20
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
    reached = percent(ratio(data.after, data.budget))
    said = (
        f"{compact(data.before)} {data.unit} became {compact(data.after)}, {reached} of the "
        f"{compact(data.budget)} that were planned. {percent(data.long_after)} of them are in long "
        f"documents, {percent(data.long_before)} before."
    )
    if data.evidence is not None:
        verdict = one_line(data.evidence.verdict, 60)
        said += f" The weights come from small runs; the verdict on them: {verdict}."
    return said


def remarks(data: MixtureData) -> list[str]:
    """What a reader should know: warnings, sources far from their target, others not used."""
    said = [f"{one_line(warning, 400).rstrip('.')}." for warning in data.warnings]
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
    if data.left_out:
        said.append(
            f"{count(data.left_out)} smaller sources are left out here; the plan in the run folder "
            "has them."
        )
    if data.foreign:
        said.append(
            "The file of weights carries evidence in a form that `longctx mix optimise` does not "
            "write, so it is not drawn."
        )
    return said


def named(source: str) -> str:
    """The name of a source, with words for an empty one."""
    return one_line(source, 60) or "(none)"


def amounts(data: MixtureData, most: int = _BARS) -> Markup:
    """Shares of the sources before, as planned and after, the largest of the plan first."""
    ordered = data.sources
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
        "came out."
    )
    return join([figure(bars(rows), sentence, [(tone, moment) for moment, tone in _TONES]), rest])
