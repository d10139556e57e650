"""What `longctx mix` shows, 80 columns wide: scores beside those of rules, and the optimum.

No score and no predicted loss is shown without what would do without a model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longctx.mixture.assess import OVERALL
from longctx.mixture.evaluate import F64, MEASURES
from longctx.mixture.laws import Law
from longctx.mixture.predictor import Model
from longctx.mixture.recommend import Recommendation
from longctx.report.format import MISSING, count, one_line, percent, plural
from longctx.report.grids import legend, listed
from longctx.report.mixture.evidence import Evidence
from longctx.report.mixture.words import RULES, model_named, optimum_words

_COLUMNS = {"spearman": "rho", "mae": "MAE", "rmse": "RMSE", "r2": "R2", "regret": "regret"}
TERMS = (
    ("rho", "rank correlation with the measured losses (Spearman); 1 is best"),
    ("MAE, RMSE", "error of the predicted loss, nats; for models of another size see rho alone"),
    ("R2", "part of the variance that is explained; below 0 it is worse than the mean"),
    ("regret", "loss of the mixture that is preferred, minus the least one"),
)
_WIDTH = 28


def fit_view(models: Sequence[Model], chosen: Model) -> Group:
    """Scores of fitted models on held-out runs and on other tables, and what speaks against them.

    `models` were fitted to the same runs; `chosen` is the one that is kept.
    """
    runs = chosen.runs
    head = (
        f"{plural(len(runs.ids), 'run')} of {plural(len(runs.sources), 'source')}, "
        f"{plural(len(runs.targets), 'target')}; kept: {model_named(chosen.kind)}"
    )
    parts: list[RenderableType] = [Text(head), Text(), _held_out(models), Text()]
    assessed = {model.kind: model.assessment() for model in models}
    for name in chosen.assessment()[OVERALL]["tests"]:
        parts += [_test(models, assessed, name), Text()]
    parts += [legend(TERMS), Text()]
    if len(chosen.parts) == 1 and isinstance(chosen.parts[0], Law):
        parts += [_law_table(chosen, chosen.parts[0]), Text()]
    return Group(*parts, listed(remarks(chosen) or ["nothing speaks against it."]))


def _scores(heading: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(heading, overflow="fold", min_width=_WIDTH, header_style="bold")
    for name in _COLUMNS.values():
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _held_out(models: Sequence[Model]) -> Table:
    first = models[0].assessment()
    repeats = first[OVERALL]["holdout"]["repeats"]
    part = first[OVERALL]["holdout"]["fraction"]
    table = _scores(f"{percent(part)} held out, {repeats} times")
    for target in _shown(models[0]):
        table.add_row(Text(one_line(target, _WIDTH), style="bold"))
        for model in models:
            found = model.assessment()[target]
            cells = zip(*(_pair(found["holdout"], m) for m in MEASURES), strict=True)
            for label, row in zip(
                (model_named(model.kind), "  +- over splits"), cells, strict=True
            ):
                style = "dim" if label.startswith(" ") else ""
                table.add_row(Text(f"  {label}", style=style), *(Text(c, style=style) for c in row))
            _row(table, "  in sample", found["in_sample"], dim=True)
        _rule_rows(table, {k: v["mean"] for k, v in first[target]["rules"].items()}, models)
    return table


def _pair(holdout: Mapping[str, Any], measure: str) -> tuple[str, str]:
    return _number(measure, holdout["mean"][measure]), _number(measure, holdout["sd"][measure])


def _test(models: Sequence[Model], assessed: Mapping[str, Any], name: str) -> Table:
    first = assessed[models[0].kind]
    rows = first[OVERALL]["tests"][name]["model"]["n"]
    table = _scores(f"{one_line(name, 40)} ({count(rows)} runs)")
    for target in _shown(models[0]):
        table.add_row(Text(one_line(target, _WIDTH), style="bold"))
        for model in models:
            _row(
                table, model_named(model.kind), assessed[model.kind][target]["tests"][name]["model"]
            )
        rules = first[target]["tests"][name]
        _rule_rows(table, rules, models)
    return table


def _rule_rows(
    table: Table, rules: Mapping[str, Mapping[str, Any]], models: Sequence[Model]
) -> None:
    """Rules that need no model; the plane only where it is not one of the models."""
    fitted = {"ols"} if any(model.kind == "linear" for model in models) else set()
    for rule, label in RULES.items():
        if rule in rules and rule not in fitted:
            _row(table, label, rules[rule], dim=True)


def _row(table: Table, label: str, values: Mapping[str, Any], *, dim: bool = False) -> None:
    style = "dim" if dim else ""
    cells = (Text(_number(m, values[m]), style=style) for m in MEASURES)
    table.add_row(Text(f"  {label}", style=style), *cells)


def _number(measure: str, value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return MISSING
    # A plane on other models' losses may be off by thousands.
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4f}"


def _shown(model: Model) -> list[str]:
    return [*model.targets, *([OVERALL] if len(model.targets) > 1 else [])]


def _law_table(model: Model, law: Law) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(f"Law of {one_line(model.targets[0], 30)}", overflow="fold", min_width=_WIDTH)
    for name in ("t", "least", "largest", "runs without"):
        table.add_column(name, justify="right", no_wrap=True)
    for i in np.argsort(law.t, kind="stable"):
        table.add_row(
            Text(one_line(model.sources[i], _WIDTH)),
            Text(f"{law.t[i]:.3f}"),
            Text(percent(law.lo[i])),
            Text(percent(law.hi[i])),
            Text(percent(law.zeros[i])),
        )
    table.caption = f"loss = {law.c:.4f} + exp(sum of t x share); a smaller t lowers it more"
    table.caption_justify = "left"
    return table


def remarks(model: Model) -> list[str]:
    """What speaks against a model, in sentences."""
    said = [
        f"{target}: {words}" for target, status in model.status.items() for words in status.words()
    ]
    missing = model.runs.missing
    if missing:
        named = ", ".join(one_line(m, 20) for m in missing[:5])
        more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
        said.append(f"left out, because a loss is missing: {named}{more}")
    said += model.runs.notes
    beaten = _beaten(model)
    if beaten:
        said.append(
            "the share of its own source alone ranks held-out runs no worse: " + ", ".join(beaten)
        )
    return said


def _beaten(model: Model) -> list[str]:
    found = []
    for target in model.targets:
        one = model.assessment()[target]
        ours = one["holdout"]["mean"]["spearman"]
        own = one["rules"].get("own_share", {}).get("mean", {}).get("spearman")
        if own is not None and (ours is None or own >= ours):
            found.append(one_line(target, 30))
    return found


def optimise_view(found: Recommendation) -> Group:
    """The shares, what is predicted for them and for others, bounds, and how sure the gain is."""
    said = optimum_words(Evidence.model_validate(found.weights_file("")["evidence"]))
    return Group(_share_table(found), Text(), _loss_table(found), Text(), listed(said))


def _share_table(found: Recommendation) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("Shares of tokens", overflow="fold", min_width=24)
    for name in (one_line(found.prior_name, 12), "optimum", "epochs", "from", "to"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    held = {**dict.fromkeys(found.at_lo, "least"), **dict.fromkeys(found.at_hi, "most")}
    for i in np.argsort(-found.shares, kind="stable"):
        name = found.model.sources[i]
        at = held.get(name, "")
        why = f" ({found.bounds.why[i]})" if at == "most" else ""
        table.add_row(
            Text(one_line(name, 40)),
            Text(percent(found.prior[i])),
            Text(percent(found.shares[i]), style="bold"),
            Text(MISSING if found.epochs is None else f"{found.epochs[i]:.2f}"),
            Text(percent(found.bounds.lo[i])),
            Text(percent(found.bounds.hi[i])),
            Text(f"{at}{why}", style="yellow"),
        )
    return table


def _loss_table(found: Recommendation) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    label = found.model.targets[0] if len(found.model.targets) == 1 else OVERALL
    table.add_column(f"Loss ({one_line(label, 20)})", overflow="fold", min_width=24)
    for name in ("predicted", "measured", "optimum is"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(Text("optimum"), Text(f"{found.predicted:.4f}", style="bold"), MISSING, "")
    for one in found.plain:
        table.add_row(
            Text(one_line(one.name, 40)),
            Text(f"{one.predicted:.4f}"),
            Text(MISSING if one.measured is None else f"{one.measured:.4f}"),
            Text(f"{found.predicted - one.predicted:+.4f}"),
        )
    return table


def sample_view(ids: Sequence[str], sources: Sequence[str], X: F64, prior: F64) -> Group:
    """What was drawn: least, mean and largest share of each source, beside the prior."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("Shares of tokens", overflow="fold", min_width=_WIDTH)
    for name in ("prior", "least", "mean", "largest", "without"):
        table.add_column(name, justify="right", no_wrap=True)
    for i, name in enumerate(sources):
        column = X[:, i]
        figures = (prior[i], column.min(), column.mean(), column.max(), (column == 0).mean())
        table.add_row(Text(one_line(name, 40)), *(Text(percent(float(v))) for v in figures))
    m = len(sources)
    enough = (
        f"{plural(len(ids), 'mixture')} of {plural(m, 'source')}; a law wants {3 * (m + 1)} runs "
        "or more, trees 128 or more."
    )
    return Group(table, Text(), Text(enough))
