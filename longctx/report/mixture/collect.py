"""From the record of a stage that mixed to what its page shows."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter

from longctx.credentials import masked
from longctx.report.format import compact, count, percent
from longctx.report.mixture.data import OPS, Amount, Bucket, MixtureData, SourceMix, Strategy
from longctx.report.mixture.evidence import evidence_of
from longctx.report.mixture.shape import Came, Line, Mixture, Natural, Plan
from longctx.report.run_shape import check_shape

KEY = "mixture"
_SHAPE = TypeAdapter(Mixture)
_WITH_P = ("keep_below", "target_long_share")


def mixture_of(run: Mapping[str, Any]) -> MixtureData | None:
    """The mixture of a run whose record was checked; None without a stage that mixed."""
    for stage in run["stages"]:
        if stage["op"] in OPS and stage["summary"].get(KEY) is not None:
            return _data(run["name"], stage, Mixture.model_validate(stage["summary"][KEY]))
    return None


def check_mixture(stage: Mapping[str, Any], file: str, place: tuple[str | int, ...]) -> None:
    """Raise RecipeError where a stage tells of a mixture in another form than runs do."""
    if stage["op"] in OPS and stage["summary"].get(KEY) is not None:
        check_shape(_SHAPE, stage["summary"][KEY], file, (*place, "summary", KEY))


def _data(run: str, stage: Mapping[str, Any], found: Mixture) -> MixtureData:
    plan, natural, came = found.plan, found.natural, found.realised
    evidence = evidence_of(found.evidence)
    planned: dict[str, float] = {}
    for line in plan.sources:
        planned[line.source] = planned.get(line.source, 0.0) + line.weight
    own = {name: one.share for name, one in natural.sources.items()}
    told = {one.name: one for one in came.sources}
    return MixtureData(
        run=run,
        stage=stage["stage"],
        op=stage["op"],
        by=plan.by,
        unit=plan.unit,
        before=natural.size,
        budget=plan.budget,
        after=came.size,
        sources=sorted(
            (_source(plan, line, told.get(line.name), natural) for line in plan.sources),
            key=lambda one: (-one.target.share, -one.before.share, one.name),
        ),
        buckets=_buckets(plan.sources),
        strategies=[
            Strategy(
                name=one.strategy,
                shares=one.shares,
                to_natural=one.l1,
                long_share=one.long_share,
                most_epochs=one.max_epochs,
                most_tokens=one.b_max,
                note="" if one.status == "ok" else one.status,
            )
            for one in found.strategies
        ],
        unused=list(plan.unused),
        warnings=list(plan.warnings),
        settings=_settings(plan),
        to_target=came.l1,
        to_natural=natural.l1,
        left_out=found.sources_left_out,
        long_from=plan.long_from,
        long_before=natural.long_share,
        long_after=came.long_share,
        natural=own,
        planned=planned,
        evidence=evidence,
        foreign=bool(found.evidence) and evidence is None,
    )


def _source(plan: Plan, line: Line, came: Came | None, natural: Natural) -> SourceMix:
    """A line of the plan; one that nothing is told of came to nothing."""
    rule = plan.per_source.get(line.source, plan.length)
    kept = rule.get("kind") in _WITH_P
    return SourceMix(
        name=line.name,
        before=Amount(
            line.size,
            line.size / natural.size if natural.size else 0.0,
            line.long_size / line.size if line.size else None,
            line.docs,
        ),
        target=Amount(line.target, line.weight, line.planned_long_share),
        after=Amount(came.size, came.share, came.long_share, came.docs)
        if came
        else Amount(0, 0.0, None, 0),
        copies=came.copies if came else 0,
        epochs=came.epochs if came else 0.0,
        most_copies=line.max_rate,
        keep_asked=line.p_asked if kept else None,
        keep_used=line.p_used if kept else None,
        z=came.z if came else None,
        calibrated=came.calibrated if came else False,
    )


def _buckets(lines: Sequence[Line]) -> list[Bucket]:
    """Tokens by length over all lines; none where a line has no cells."""
    if any(line.cells is None for line in lines):
        return []
    cells = [cell for line in lines for cell in line.cells or ()]
    ends = {end for cell in cells for end in (cell.lo, cell.hi) if end is not None}
    edges: list[int | None] = [*sorted(ends)]
    if any(cell.hi is None for cell in cells):
        edges.append(None)
    found = []
    for low, high in pairwise(edges):
        inside = [cell for cell in cells if cell.lo == low]
        after = sum(cell.size * cell.rate for cell in inside)
        found.append(Bucket(low or 0, high, sum(cell.size for cell in inside), after))
    return found


def _settings(plan: Plan) -> list[tuple[str, str]]:
    unit = plan.unit
    asked = plan.budget_asked
    budget = f"{compact(plan.budget)} {unit}"
    if asked is not None and asked != plan.budget:
        budget += f" ({compact(asked)} were asked for)"
    held = f"{percent(plan.holdout_fraction)} of the documents"
    ruled = "; ".join(f"{source}: {_words(rule)}" for source, rule in plan.per_source.items())
    return [
        ("Budget", budget),
        ("Sources by", plan.by),
        ("Sizes in", unit),
        ("Weights", _words(plan.front_end)),
        ("Length rule", _words(plan.length)),
        *([("In some sources", ruled)] if ruled else []),
        *([("Rates by", _words(plan.rate_by))] if plan.rate_by else []),
        ("Long from", f"{count(plan.long_from)} {unit}"),
        ("Most epochs", f"{count(plan.max_epochs)}, else {plan.on_cap}"),
        ("Calibrated", plan.calibrate),
        *([("Held out", held)] if plan.holdout_fraction else []),
        ("Seed", str(plan.seed)),
    ]


def _words(rule: Mapping[str, Any]) -> str:
    """A rule of a recipe in words: "keep_below (threshold 4096, p 0.1)"."""
    said = []
    for name, value in rule.items():
        if name == "kind" or value is None or value == {}:
            continue
        many = isinstance(value, Mapping | list)
        said.append(f"{name} of {len(value)}" if many else f"{name} {masked(str(value))}")
    kind = str(rule.get("kind", ""))
    return f"{kind} ({', '.join(said)})".strip() if said else kind
