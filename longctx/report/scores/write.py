"""All pages about scores as text, and what the report itself says of them."""

from longctx.report.data import ScoreRow
from longctx.report.scores import correlation_page, page
from longctx.report.scores.data import CORRELATIONS, ScorePages, StageScores, page_of


def drawn(pages: ScorePages) -> dict[str, str]:
    """Pages by their file, relative to `report.html`, in the order of the stages."""
    found = {page_of(stage.stage): page.render(stage) for stage in pages.stages}
    if pages.correlations is not None:
        found[page_of(CORRELATIONS)] = correlation_page.render(pages.correlations)
    return found


def score_rows(pages: ScorePages) -> list[ScoreRow]:
    """A row for each main score of each stage."""
    return [row for stage in pages.stages for row in _rows(stage)]


def _rows(stage: StageScores) -> list[ScoreRow]:
    if not stage.columns:
        return [ScoreRow(stage.stage, page_of(stage.stage), "", 0, {}, None, None, None)]
    found = []
    for column in stage.columns:
        spread = column.whole.spread
        p5, median, p95 = (spread.p5, spread.p50, spread.p95) if spread else (None, None, None)
        found.append(
            ScoreRow(
                stage.stage,
                page_of(stage.stage),
                column.name,
                column.whole.n,
                column.whole.nulls,
                p5,
                median,
                p95,
                sampled=not stage.looked.whole,
            )
        )
    return found
