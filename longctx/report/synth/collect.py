"""From a finished run to what the page of its rows shows."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from longctx.prefer.pairs import PAIRS
from longctx.report.data import Histogram
from longctx.report.format import one_line
from longctx.report.run_shape import check_shape
from longctx.report.scores.sample import spaced
from longctx.report.scores.statistics import constant, histogram
from longctx.report.synth import pairs
from longctx.report.synth.checks import check_of
from longctx.report.synth.data import (
    OPS,
    Example,
    JudgeControl,
    Quota,
    Sample,
    StageMade,
    SynthData,
    Used,
)
from longctx.report.synth.excerpt import excerpt
from longctx.report.synth.film_pieces import pieces_of_rows
from longctx.report.synth.reading import (
    At,
    Output,
    Row,
    figures_of,
    output_of,
    rejects_of,
    rows_at,
    trees_of,
)
from longctx.report.synth.shape import ControlForm, Files, Stage, Synthesis
from longctx.report.synth.systems import System, shortened, system_of
from longctx.synth.draw import generator

KEY = "synthesis"
_SHAPE, _FILES = TypeAdapter(Synthesis), TypeAdapter(Files)
_SAMPLES = 8
_EXAMPLES, _OF_ONE = 24, 3
_REPLY = 600
DEPTHS = 10


def is_synthesis(stage: Mapping[str, Any]) -> bool:
    """Whether a stage made rows and tells of them."""
    return str(stage["op"]).startswith(OPS) and stage["summary"].get(KEY) is not None


def check_synthesis(stage: Mapping[str, Any], file: str, place: tuple[str | int, ...]) -> None:
    """Raise RecipeError where a stage tells of its rows in another form than runs do."""
    if is_synthesis(stage):
        check_shape(_SHAPE, stage["summary"][KEY], file, (*place, "summary", KEY))
        check_shape(_FILES, stage["steps"].get("files"), file, (*place, "steps", "files"))


def synthesis_of(run: Mapping[str, Any]) -> SynthData | None:
    """What a checked record tells of the rows that a run made; None for a run that made none."""
    stage = next((s for s in run["stages"] if is_synthesis(s)), None)
    if stage is None:
        return None
    found = Synthesis.model_validate(stage["summary"][KEY])
    # A judge is another model than the policy; what counts is one stage with several.
    mixed = [m for one in found.stages.values() if len(m := one.models_reported) > 1]
    models = {name for one in mixed for name in one}
    return SynthData(
        run=run["name"],
        stage=stage["stage"],
        op=stage["op"],
        title=system_of(found.system).title or found.system,
        model=found.model,
        prompts=found.prompt_version,
        chosen=found.chosen,
        rows=found.rows,
        rejects=found.rejects,
        items=found.items,
        stages=[_stage(name, one) for name, one in found.stages.items()],
        checks=[check_of(name, figures) for name, figures in found.checks.items()],
        quotas=[Quota(**one.model_dump()) for one in found.quotas],
        without_language=found.without_language,
        models=sorted(models),
        judge=found.judge.judge if found.judge else "",
        controls=[_control(one) for one in found.judge.controls] if found.judge else [],
        files=stage["steps"]["files"]["files"],
        bytes=stage["steps"]["files"]["bytes"],
    )


def _control(one: ControlForm) -> JudgeControl:
    return JudgeControl(one.name, one.value, one.passed, one.n, one.hard, one.wanted)


def _stage(name: str, one: Stage) -> StageMade:
    told = one.usage
    used = (
        None
        if told is None
        else Used(
            told.requests,
            told.cache_hits,
            told.calls,
            told.prompt_tokens,
            told.completion_tokens,
            told.cost_usd,
        )
    )
    return StageMade(name, one.rows_in, one.ok, one.rejects, used)


def with_rows(data: SynthData, run_dir: str, run: Mapping[str, Any]) -> SynthData:
    """The same with figures of the rows, rows to read and examples of rejects.

    Raises DamagedFileError for a file that cannot be read.
    """
    stage = next(s for s in run["stages"] if s["stage"] == data.stage)
    name = stage["summary"][KEY]["system"]
    system = system_of(name)
    output = output_of(dict(run))
    if isinstance(output, str):
        return replace(data, why=output)
    data = replace(data, examples=_examples(rejects_of(output), name))
    if data.op.startswith("prefer."):
        return _with_pairs(data, output)
    columns = ("id", "lang", "source", "seed", "n_tokens", *system.figures)
    sampled = figures_of(output, system.schema, columns)
    if isinstance(sampled, str):
        return replace(data, why=sampled)
    rows = [row for _, row in sampled.rows]
    lengths, bins = _lengths(rows)
    return replace(
        data,
        read=sampled.looked,
        tokens=lengths,
        bins=bins,
        depths=_depths(rows, system, name),
        samples=_samples(output, system, _chosen(sampled.rows), run_dir, run, data.stage),
    )


def _with_pairs(data: SynthData, output: Output) -> SynthData:
    sampled = figures_of(output, PAIRS, pairs.FIGURES)
    if isinstance(sampled, str):
        return replace(data, why=sampled)
    ordered = sorted(sampled.rows, key=lambda one: (one[1]["margin"] or 0.0, one[1]["id"], one[0]))
    chosen = [ordered[i][0] for i in spaced(len(ordered), _SAMPLES)]
    whole = dict(rows_at(output, PAIRS, chosen))
    found = pairs.figures([row for _, row in ordered])
    shown = [pairs.pair_of(whole[at]) for at in chosen if at in whole]
    trees = pairs.trees_shown(trees_of(output))
    return replace(data, read=sampled.looked, pairs=replace(found, pairs=shown, trees=trees))


def _lengths(rows: Sequence[Row]) -> tuple[Histogram | None, str]:
    values = np.array([row["n_tokens"] for row in rows], dtype=np.float64)
    return (None, "") if constant(values) else histogram(values)


def _depths(rows: Sequence[Row], system: System, name: str) -> Histogram | None:
    """Evidence by tenths of the context; a place of few slots counts anywhere in its slot."""
    counts = [0] * DEPTHS
    for row in rows:
        depths = system.depths(row)
        u = generator(row["seed"], name, "page", row["id"]).random(len(depths)).tolist()
        for (low, high), share in zip(depths, u, strict=True):
            depth = low + share * (high - low)
            if 0 <= depth <= 1:
                counts[min(int(depth * DEPTHS), DEPTHS - 1)] += 1
    edges = [i / DEPTHS for i in range(DEPTHS + 1)]
    return Histogram(edges, counts, "depth") if sum(counts) else None


def _chosen(rows: Sequence[tuple[At, Row]]) -> list[At]:
    """Rows to show, from the shortest to the longest."""
    ordered = sorted(rows, key=lambda one: (one[1]["n_tokens"], one[1]["id"]))
    return [ordered[i][0] for i in spaced(len(ordered), _SAMPLES)]


def _samples(
    output: Output,
    system: System,
    chosen: Sequence[At],
    run_dir: str,
    run: Mapping[str, Any],
    stage: str,
) -> list[Sample]:
    rows = [row for _, row in rows_at(output, system.schema, chosen)]
    texts: dict[str, str] = {}
    if "segments" in system.schema.names:
        texts = pieces_of_rows(run_dir, run, stage, (row["source_doc_id"] for row in rows))
    made = [_sample(row, system, texts) for row in rows]
    return sorted(made, key=lambda one: (one.tokens, one.row_id))


def _sample(row: Row, system: System, texts: Mapping[str, str]) -> Sample:
    context = row["context"]
    around = None
    if context:
        whole = sum(len(row[name]) for name in ("context", "instruction", "response"))
        tokens = row.get("context_tokens") or round(row["n_tokens"] * len(context) / whole)
        around = excerpt(context, tokens, system.evidence(row, texts))
    return Sample(
        row_id=row["id"],
        source=row["source"],
        lang=row["lang"],
        tokens=row["n_tokens"],
        kind=one_line(system.kind(row), 60),
        context=around,
        blocks=system.blocks(row),
    )


def _examples(rejects: Iterable[Row], system: str) -> list[Example]:
    """Of each stage and code a few rejects whose details differ, the most frequent first."""
    kept: dict[tuple[str, str], dict[str, Row]] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for row in rejects:
        key = (row["stage"], row["code"])
        seen[key] += 1
        alike = row["detail"].partition(":")[0].partition("(")[0]
        own = kept.setdefault(key, {})
        if len(own) < _OF_ONE:
            own.setdefault(alike, row)
    found = [
        _example(row, system)
        for key, _ in sorted(seen.items(), key=lambda one: (-one[1], one[0]))
        for row in kept[key].values()
    ]
    return found[:_EXAMPLES]


def _example(row: Row, system: str) -> Example:
    return Example(
        stage=one_line(row["stage"].removeprefix(f"{system}."), 60),
        code=one_line(row["code"], 40),
        detail=one_line(shortened(row["detail"], 300), 320),
        row_id=one_line(row["row_id"], 120),
        reply=shortened(row["text_head"], _REPLY),
        finish=one_line(row["finish_reason"], 30),
    )
