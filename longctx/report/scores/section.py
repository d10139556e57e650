"""The section of the report that leads to the pages about scores."""

from longctx.report.data import ReportData
from longctx.report.format import count
from longctx.report.layout import Section, code, paragraph, table
from longctx.report.markup import NOTHING, join, tag, text
from longctx.report.scores.numbers import written


def scores(data: ReportData) -> Section | None:
    """A row for each main score, with its median and a link; null without any scores."""
    if not data.scores:
        return None
    rows = [
        [
            tag("a", text(row.stage), href=row.page),
            code(row.column) if row.column else text("what it dropped"),
            text(count(row.scored)),
            text(count(sum(row.nulls.values()))),
            *(text(written(value)) for value in (row.p5, row.median, row.p95)),
        ]
        for row in data.scores
    ]
    said = "Each stage has a page: its scores by source, and documents to read from worst to best."
    if any(row.sampled for row in data.scores):
        said += " The numbers are of a sample, which the pages describe."
    header = ["Stage", "Column", "Scored", "Null", "5 %", "Median", "95 %"]
    more = (
        tag("p", tag("a", text("Rank correlations between all scores"), href=data.correlations))
        if data.correlations
        else NOTHING
    )
    return Section(
        "scores", "Scores", join([paragraph(said), table("Scores", header, rows, 2), more])
    )
