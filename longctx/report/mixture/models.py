"""The page of `longctx mix fit --report`: the model that is kept, and all scores of all models."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from longctx.mixture.assess import OVERALL
from longctx.mixture.evidence import fit_evidence
from longctx.mixture.laws import Law
from longctx.mixture.predictor import Model
from longctx.report.format import count, one_line, percent, plural
from longctx.report.html import document
from longctx.report.layout import Section, facts, folded, paragraph, table
from longctx.report.markup import Markup, join, tag, text
from longctx.report.mix_tables import TERMS, remarks
from longctx.report.mixture.evidence import Fit
from longctx.report.mixture.fit import fit_section, number, with_spread
from longctx.report.mixture.words import RULES, model_named

_COLUMNS = {"spearman": "Rank correlation", "mae": "MAE", "rmse": "RMSE", "r2": "R2"}
_COLUMNS |= {"regret": "Regret"}
_LAWS = 200
Scores = Mapping[str, Any]


def render_fit(models: Sequence[Model], chosen: Model) -> str:
    """The page as text, to be written as UTF-8; `models` were fitted to the same runs."""
    runs = chosen.runs
    said = (
        f"{plural(len(runs.ids), 'run')} of {plural(len(runs.sources), 'source')}, "
        f"{plural(len(runs.targets), 'target')}; kept: {model_named(chosen.kind)}"
    )
    heading = tag(
        "header",
        tag("p", text("Shares from small runs"), class_="kicker"),
        tag("h1", text("How well do the shares predict the loss?")),
        tag("p", text(said), class_="when"),
    )
    fit = Fit.model_validate(fit_evidence(chosen))
    sections = [fit_section(fit, remarks(chosen)), _all_scores(models), *_other_tables(models)]
    if len(chosen.parts) == 1 and isinstance(chosen.parts[0], Law):
        sections.append(_law(chosen, chosen.parts[0]))
    sections.append(_runs(chosen))
    return document("Fit of losses to mixtures", heading, sections)


def _shown(model: Model) -> list[str]:
    """The weighted sum first, then the targets."""
    return [*([OVERALL] if len(model.targets) > 1 else []), *model.targets]


def _all_scores(models: Sequence[Model]) -> Section:
    first = models[0].assessment()
    targets = _shown(models[0])
    held = first[targets[0]]["holdout"]
    rows = {target: list(_held_rows(models, target)) for target in targets}
    header = ["Rule", *_COLUMNS.values(), "In sample"]
    tables = [
        table(f"{one_line(target, 60)}, held-out runs", header, rows[target]) for target in targets
    ]
    body = [
        paragraph(
            f"{percent(held['fraction'])} of the runs were held out, {held['repeats']} times; "
            "below each mean stands its standard deviation over the splits. The last column is "
            "the rank correlation on the runs of the fit, which says nothing of new mixtures."
        ),
        tables[0],
        *([folded(plural(len(tables) - 1, "target"), join(tables[1:]))] if tables[1:] else []),
        facts([(name, text(meaning)) for name, meaning in TERMS]),
    ]
    return Section("scores", "All scores on held-out runs", join(body))


def _held_rows(models: Sequence[Model], target: str) -> Iterator[list[Markup]]:
    for model in models:
        found = model.assessment()[target]
        mean, sd = found["holdout"]["mean"], found["holdout"]["sd"]
        yield [
            tag("strong", text(model_named(model.kind))),
            *(with_spread(mean[m], sd[m]) for m in _COLUMNS),
            text(number(found["in_sample"]["spearman"])),
        ]
    rules = models[0].assessment()[target]["rules"]
    for label, scores in _rules(rules, models):
        yield [text(label), *(text(number(scores["mean"][m])) for m in _COLUMNS), text("")]


def _rules(found: Scores, models: Sequence[Model]) -> list[tuple[str, Scores]]:
    """Rules that need no model; the plane only where it is not one of the models."""
    fitted = {"ols"} if any(model.kind == "linear" for model in models) else set()
    return [(RULES[r], found[r]) for r in RULES if r in found and r not in fitted]


def _other_tables(models: Sequence[Model]) -> Iterator[Section]:
    """A section for each table of other runs that the models were scored on."""
    first = models[0].assessment()
    targets = _shown(models[0])
    for i, name in enumerate(first[targets[0]]["tests"], start=1):
        rows = []
        for target in targets:
            for model in models:
                scores = model.assessment()[target]["tests"][name]["model"]
                rows.append(_test_row(target, model_named(model.kind), scores))
            for label, scores in _rules(first[target]["tests"][name], models):
                rows.append(_test_row(target, label, scores))
        runs = first[targets[0]]["tests"][name]["model"]["n"]
        caption = f"Scores on {plural(runs, 'run')} of {one_line(name, 60)}"
        said = paragraph(
            "Runs that are not part of the fit. For models of another size only the rank "
            "correlation and the regret mean something."
        )
        drawn = table(caption, ["Target", "Rule", *_COLUMNS.values()], rows, 2)
        yield Section(f"test-{i}", one_line(name, 60), join([said, drawn]))


def _test_row(target: str, label: str, scores: Scores) -> list[Markup]:
    return [
        text(one_line(target, 60)),
        text(label),
        *(text(number(scores[m])) for m in _COLUMNS),
    ]


def _law(model: Model, law: Law) -> Section:
    rows = [
        [
            text(one_line(model.sources[i], 60)),
            text(f"{law.t[i]:.3f}"),
            *(text(percent(float(v[i]))) for v in (law.lo, law.hi, law.zeros)),
        ]
        for i in np.argsort(law.t, kind="stable")[:_LAWS]
    ]
    said = paragraph(f"loss = {law.c:.4f} + exp(sum of t x share); a smaller t lowers it more.")
    header = ["Source", "t", "Least share", "Largest share", "Runs without"]
    return Section("law", "The law", join([said, table("Law", header, rows)]))


def _runs(model: Model) -> Section:
    runs = model.runs
    named = [
        [
            text(one_line(source, 60)),
            *(text(percent(float(f(runs.X[:, i])))) for f in (np.min, np.mean, np.max)),
            text(count(int((runs.X[:, i] == 0).sum()))),
        ]
        for i, source in enumerate(runs.sources)
    ]
    header = ["Source", "Least", "Mean", "Largest", "Runs without"]
    return Section("runs", "The runs", table("Shares in the runs", header, named))
