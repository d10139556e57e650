"""The page of `longctx mix optimise --report`."""

from collections.abc import Sequence
from typing import Any

from longctx.report.format import one_line, plural
from longctx.report.html import document
from longctx.report.layout import Section, facts
from longctx.report.markup import join, tag, text
from longctx.report.mixture.evidence import Evidence
from longctx.report.mixture.fit import fit_section
from longctx.report.mixture.optimum import optimum_sections
from longctx.report.mixture.words import model_named


def render_optimum(written: dict[str, Any]) -> str:
    """The page as text, to be written as UTF-8, of what is written to the file of weights."""
    evidence = Evidence.model_validate(written["evidence"])
    sources = len(evidence.predicted.shares)
    said = f"{plural(sources, 'source')}, {plural(evidence.runs, 'run')}, {evidence.date}"
    heading = tag(
        "header",
        tag("p", text("Shares from small runs"), class_="kicker"),
        tag("h1", text("Which shares lose least?")),
        tag("p", text(said), class_="when"),
    )
    sections = [*optimum_sections(evidence), *evidence_sections(evidence)]
    return document("Recommended mixture", heading, sections)


def evidence_sections(evidence: Evidence) -> list[Section]:
    """The fit behind the weights, and how they were found."""
    return [*([fit_section(evidence.fit)] if evidence.fit else []), _method(evidence)]


def _method(evidence: Evidence) -> Section:
    method = evidence.method
    named: Sequence[tuple[str, str]] = [
        ("Model", model_named(method.model)),
        ("Found by", method.solver),
        ("Lambda", f"{method.lam:g}"),
        ("Prior", method.prior),
        ("Bounds", evidence.bounds.kind),
        ("Targets", ", ".join(one_line(target, 60) for target in method.targets)),
        ("Date", evidence.date),
    ]
    body = facts([(name, text(one_line(value, 2_000))) for name, value in named if value])
    return Section("method", "How they were found", join([body]))
