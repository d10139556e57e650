"""From a finished run folder to what the pages about its scores show."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.report.scores import cuts, op_steps
from longctx.report.scores.catalogue import Column, is_score, scores_of
from longctx.report.scores.data import (
    BesideBound,
    CorrelationData,
    Looked,
    Rung,
    ScoreColumn,
    ScorePages,
    Shown,
    SourceSpread,
    StageScores,
    Words,
)
from longctx.report.scores.places import meaning, place_columns
from longctx.report.scores.plan import Bound, Mask, Stage, StagePlan, plans_of
from longctx.report.scores.sample import Sample, draw
from longctx.report.scores.statistics import F64, constant, histogram, spearman, spread
from longctx.report.scores.texts import Text, read_texts

_COLUMNS = 120


class _Source(NamedTuple):
    """What pages are made of."""

    sample: Sample
    run: dict[str, Any]
    texts: dict[int, Text]


def gather(run_dir: str, run: dict[str, Any]) -> ScorePages:
    """All pages about scores of a run; none where no stage scored or its documents are gone.

    `run` is the content of `run.json`. Raises DamagedFileError for files that cannot be read.
    """
    stages: list[Stage] = run["stages"]
    if not any(is_score(stage["op"]) for stage in stages):
        return ScorePages()
    sample = draw(run_dir, stages)
    if sample is None:
        return ScorePages()
    plans = plans_of(sample, stages)
    source = _Source(sample, run, read_texts(sample, plans, stages))
    pages = [_page(source, plan) for plan in plans]
    return ScorePages(pages, _correlations(sample, plans, run))


def _page(source: _Source, plan: StagePlan) -> StageScores:
    sample, run = source.sample, source.run
    stage = run["stages"][plan.number]
    named = {column.name for column in plan.main}
    rest = [Column(name, "") for name in plan.columns.numbers if name not in named]
    seen = {sample.source_names[i] for i in np.unique(sample.sources[plan.alive]).tolist()}
    known = stage["summary"].get("by_source") or {}
    return StageScores(
        run=run["name"],
        stage=plan.stage,
        op=plan.op,
        looked=_looked(sample, plan.alive, stage["rows_in"]),
        columns=[_full(source, plan, column) for column in plan.main],
        others=[_brief(sample, plan, column) for column in rest[:_COLUMNS]],
        words=[
            Words(name, _counted(sample, plan.alive, plan.columns.words[name]))
            for name in scores_of(plan.op).words
            if name in plan.columns.words
        ],
        missing_sources=len(set(known) - seen),
        marks=_marks(sample, plan),
        removed=_counted(sample, plan.alive & (sample.died == plan.number), sample.reasons),
        bounds=[_bound(source, plan, bound) for bound in plan.bounds],
        cuts=cuts.cuts_of(sample, stage) if plan.op == "decide" else [],
        matches=op_steps.matches(sample.run_dir, stage)
        if plan.op == "filter.decontaminate"
        else None,
        pairs=op_steps.pairs(sample, stage) if plan.op == "dedup.containment" else None,
    )


def _marks(sample: Sample, plan: StagePlan) -> str:
    """What is marked in the texts of the page, or why nothing is."""
    if plan.unknown_tokens:
        return "Nothing is marked in the texts: the tokenizer of the model is not on this machine."
    return meaning(plan.op, place_columns(plan.op, sample.schemas[plan.stage]))


def _looked(sample: Sample, alive: Mask, rows_in: int) -> Looked:
    rows = int(alive.sum())
    return Looked(rows, max(rows, rows_in), sample.parts, sample.parts_all)


def _full(source: _Source, plan: StagePlan, column: Column) -> ScoreColumn:
    sample, values = source.sample, plan.living(column.name)
    drawn, bins = (None, "") if constant(values) else histogram(values)
    by_source = [
        _spread(sample, plan, values, sample.source_names[i], plan.alive & (sample.sources == i))
        for i in np.unique(sample.sources[plan.alive]).tolist()
    ]
    return ScoreColumn(
        column.name,
        column.meaning,
        column.better,
        _spread(sample, plan, values, "", plan.alive),
        sorted(by_source, key=lambda one: (-one.n, one.source)),
        drawn,
        bins,
        [
            Rung(step.share, _shown(source, plan, step.row, float(values[step.row])))
            for step in plan.ladders.get(column.name, [])
        ],
    )


def _brief(sample: Sample, plan: StagePlan, column: Column) -> ScoreColumn:
    whole = _spread(sample, plan, plan.living(column.name), "", plan.alive)
    return ScoreColumn(column.name, column.meaning, column.better, whole, [])


def _spread(sample: Sample, plan: StagePlan, values: F64, source: str, rows: Mask) -> SourceSpread:
    missing = np.flatnonzero(rows & np.isnan(values))
    nulls = Counter(_why(sample, plan, row) for row in missing.tolist())
    own = values[rows]
    known = int((~np.isnan(own)).sum())
    return SourceSpread(source, known, dict(nulls.most_common()), spread(own))


def _why(sample: Sample, plan: StagePlan, row: int) -> str:
    """Why a row has no score: what the stage said, or that it set the row aside."""
    status = plan.columns.status
    if status is not None and status[row] not in (None, "", "ok"):
        return str(status[row])
    return str(sample.reasons[row]) if sample.died[row] == plan.number else "no value"


def _counted(
    sample: Sample, rows: Mask, words: npt.NDArray[np.object_]
) -> dict[str, dict[str, int]]:
    """Rows by source and word; a null word is empty."""
    found: dict[str, Counter[str]] = {}
    for row in np.flatnonzero(rows).tolist():
        name = sample.source_names[sample.sources[row]]
        found.setdefault(name, Counter())[str(words[row] or "")] += 1
    return {source: dict(counts) for source, counts in sorted(found.items())}


def _shown(source: _Source, plan: StagePlan, row: int, score: float) -> Shown:
    sample, stages = source.sample, source.run["stages"]
    tokens, died = sample.tokens, int(sample.died[row])
    counted = tokens is not None and not np.isnan(tokens[row])
    text = source.texts[row]
    return Shown(
        doc_id=str(sample.doc_ids[row]),
        source=sample.source_names[sample.sources[row]],
        tokens=int(tokens[row]) if tokens is not None and counted else None,
        score=score,
        fate=f"{stages[died]['stage']}: {sample.reasons[row]}" if died < len(stages) else "",
        chars=text.chars,
        passages=text.passages.get(plan.stage, []),
        remarks=text.remarks.get(plan.stage, []),
    )


def _bound(source: _Source, plan: StagePlan, bound: Bound) -> BesideBound:
    sign = ">=" if bound.side == "min" else "<="
    kept, dropped = (
        [_shown(source, plan, row, float(bound.values[row])) for row in rows]
        for rows in (bound.kept, bound.dropped)
    )
    return BesideBound(f"{bound.column} {sign} {bound.value:g}", bound.source, kept, dropped)


def _correlations(
    sample: Sample, plans: Sequence[StagePlan], run: dict[str, Any]
) -> CorrelationData | None:
    """Of all columns that vary; None where there are fewer than two."""
    kept = [
        (plan, name, values)
        for plan in plans
        for name in plan.columns.numbers
        if not constant(values := plan.living(name))
    ][:_COLUMNS]
    if len(kept) < 2:
        return None
    main = {(plan.stage, column.name) for plan in plans for column in plan.main}
    return CorrelationData(
        run=run["name"],
        looked=_looked(sample, sample.alive(0), run["stages"][0]["rows_out"]),
        stages=[plan.stage for plan, _, _ in kept],
        names=[name for _, name, _ in kept],
        main=[i for i, (plan, name, _) in enumerate(kept) if (plan.stage, name) in main],
        found=spearman([values for _, _, values in kept]),
    )
