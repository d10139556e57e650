"""Sections about a fit: predicted against measured losses, and scores beside those of rules."""

from collections.abc import Sequence

from longctx.mixture.assess import OVERALL
from longctx.report.format import MISSING, count, one_line, plural
from longctx.report.layout import Section, figure, folded, paragraph, prose, table
from longctx.report.markup import NOTHING, Markup, join, tag, text
from longctx.report.mixture.evidence import Fit, Pair, TargetFit
from longctx.report.mixture.scatter import scatter
from longctx.report.mixture.words import RULES, model_named

_TALL, _SMALL = 300, 190
_PANELS = 4
_SHOWN = 40
_AXES = ("Measured loss in nats per token", "Predicted loss")


def fit_section(fit: Fit, remarks: Sequence[str] | None = None) -> Section:
    """Points of held-out runs, scores of all targets, and what speaks against them.

    `remarks` says the last in sentences (default: what is said of each target).
    """
    said = _remarks(fit.targets) if remarks is None else remarks
    first, *others = fit.targets
    body = [
        tag("p", prose(_lead(fit, first)), class_="lead"),
        _drawn(first, _TALL, _reading(first)),
        _panels(others),
        scores_table(fit),
        worries("What speaks against it", said) if said else NOTHING,
    ]
    return Section("fit", "Predicted against measured", join(body))


def number(value: float | None) -> str:
    """A correlation or an error: four decimals, none where a plane is off by thousands."""
    if value is None:
        return MISSING
    return count(value) if abs(value) >= 1000 else f"{value:.4f}"


def _lead(fit: Fit, first: TargetFit) -> str:
    return (
        f"On runs that it had not seen, the {model_named(fit.model)} ranks mixtures by "
        f"{_loss(first)} with a correlation of {number(first.rho)}{_beside(first, 'rho')}; it "
        f"is off by {number(first.mae)} nats on average{_beside(first, 'mae')}."
    )


def _loss(one: TargetFit) -> str:
    """The loss of a target in a sentence."""
    whole = one.target == OVERALL
    return "the weighted sum of their losses" if whole else f"their loss on {_name(one)}"


def _beside(one: TargetFit, measure: str) -> str:
    """What the rules that need no model reach, in brackets."""
    found = [
        f"{label} {number(value)}"
        for rule, label in RULES.items()
        if (value := getattr(one.rules.get(rule, Pair()), measure)) is not None
    ]
    return f" ({', '.join(found)})" if found else ""


def _reading(one: TargetFit) -> str:
    shown = len(one.observed)
    part = "" if shown == one.runs else f"; {count(shown)} of {count(one.runs)} are drawn"
    return (
        "Each point is a run, predicted by models fitted without it (the mean over the splits that "
        f"held it out){part}. On the dashed line both losses are the same: points above it were "
        "expected to lose more than they did."
    )


def _drawn(one: TargetFit, height: int, sentence: str = "") -> Markup:
    heading = tag("h3", text(_name(one)))
    if not one.observed:
        return join([heading, paragraph("No held-out run is stored for it.")])
    said = sentence or f"Rank correlation {number(one.rho)}, mean error {number(one.mae)}."
    drawing = scatter(_name(one), one.observed, one.predicted, _AXES, height)
    return tag("div", heading, figure(drawing, said), class_="chart")


def _panels(targets: Sequence[TargetFit]) -> Markup:
    """The single targets, two in a row; those beyond the first are folded away."""
    drawn = [_drawn(one, _SMALL) for one in targets[:_SHOWN]]
    first, rest = drawn[:_PANELS], drawn[_PANELS:]
    more = folded(plural(len(rest), "more target"), _pair(rest)) if rest else NOTHING
    left = len(targets) - _SHOWN
    said = paragraph(f"{plural(left, 'target')} are in the table only.") if left > 0 else NOTHING
    return join([_pair(first) if first else NOTHING, more, said])


def _pair(drawn: Sequence[Markup]) -> Markup:
    return tag("div", *drawn, class_="pair")


def scores_table(fit: Fit) -> Markup:
    """Rank correlation and error of every target on held-out runs, beside those of the rules."""
    header = [
        *("Target", "Rank correlation", "of own share", "of a plane"),
        *("Mean error", "of a plane", "of the mean", "Status"),
    ]
    rows = [_cells(one) for one in fit.targets]
    caption = f"Scores of the {model_named(fit.model)} on held-out runs, beside rules"
    return table(caption, header, rows)


def _cells(one: TargetFit) -> list[Markup]:
    rules = {rule: one.rules.get(rule, Pair()) for rule in RULES}
    marked = tag("strong", text(one.status)) if one.status == "refused" else text(one.status)
    return [
        text(_name(one)),
        with_spread(one.rho, one.rho_sd),
        text(number(rules["own_share"].rho)),
        text(number(rules["ols"].rho)),
        with_spread(one.mae, one.mae_sd),
        text(number(rules["ols"].mae)),
        text(number(rules["mean"].mae)),
        marked,
    ]


def with_spread(value: float | None, sd: float | None) -> Markup:
    """A mean over splits with its standard deviation below."""
    spread = tag("small", text(f"± {number(sd)}")) if sd is not None else NOTHING
    return join([text(number(value)), spread])


def _remarks(targets: Sequence[TargetFit]) -> list[str]:
    return [f"{_name(one)}: {one_line(why, 200)}" for one in targets for why in one.remarks]


def worries(heading: str, sentences: Sequence[str]) -> Markup:
    """A framed list of what deserves a look."""
    items = (tag("li", prose(sentence)) for sentence in sentences)
    return tag("div", tag("h3", text(heading)), tag("ul", *items), class_="worries")


def _name(one: TargetFit) -> str:
    whole = one.target == OVERALL
    return "Weighted sum of the targets" if whole else one_line(one.target, 60) or "(none)"
