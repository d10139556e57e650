"""`report.html`: one self-contained page about one run.

The page loads nothing and runs nothing: the style is inlined, the figures are inline SVG, and its
content security policy allows that one style sheet, known by its hash, and forbids all else. It
works from a file, in a mail and on paper.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from longctx.report import rows, settings, summary, windows
from longctx.report.data import ReportData
from longctx.report.layout import Section, section
from longctx.report.markup import Markup, join, tag, text
from longctx.report.mixture.section import mixture_section
from longctx.report.scores.section import scores
from longctx.report.synth.section import rows_section

# The style sheet is ours and is the only text that is not escaped.
_STYLE = Markup(files("longctx.report").joinpath("style.css").read_text(encoding="utf-8"))
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'"
)


def _mixture(data: ReportData) -> Section | None:
    return mixture_section(data.mixture)


def _rows(data: ReportData) -> Section | None:
    return rows_section(data.synthesis)


_SECTIONS = (
    summary.summary,
    rows.stages,
    _mixture,
    _rows,
    rows.lengths,
    scores,
    rows.duplicates,
    windows.order,
    windows.windows,
    windows.sources,
    windows.licences,
    rows.quarantine,
    rows.notes,
    settings.settings,
)


def render(data: ReportData) -> str:
    """The page as text, to be written as UTF-8. Sections without data are left out."""
    drawn = [part for make in _SECTIONS if (part := make(data)) is not None]
    return document(f"{data.name}: run report", summary.heading(data), drawn)


def document(title: str, heading: Markup, sections: Sequence[Section]) -> str:
    """A self-contained page: heading, links to its sections, the sections."""
    links = (tag("a", text(part.heading), href=f"#{part.anchor}") for part in sections)
    page = tag(
        "html",
        _head(title),
        tag(
            "body",
            heading,
            tag("nav", *links, aria_label="Sections"),
            tag("main", *(section(part) for part in sections)),
        ),
        lang="en-GB",
    )
    return f"<!DOCTYPE html>\n{page}\n"


def _head(title: str) -> Markup:
    return tag(
        "head",
        join(
            [
                tag("meta", charset="utf-8"),
                tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
                tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
                tag("meta", name="color-scheme", content="light dark"),
            ]
        ),
        tag("title", text(title)),
        tag("style", _STYLE),
    )
