"""What is said of an optimum in words, on the terminal and on pages alike. Plain text."""

from longctx.mixture.assess import OVERALL
from longctx.mixture.evaluate import GAIN
from longctx.report.format import one_line, percent
from longctx.report.mixture.evidence import Evidence

MODELS = {"law": "law", "lightgbm": "trees (LightGBM)", "linear": "plane (least squares)"}
RULES = {"own_share": "own share alone", "ols": "plane", "mean": "mean loss"}


def model_named(kind: str) -> str:
    """The name of a kind of model; that of an unknown one as it stands."""
    return MODELS.get(kind, one_line(kind, 40))


def loss_named(evidence: Evidence) -> str:
    """What the predicted losses are of."""
    targets = evidence.method.targets
    return one_line(targets[0], 60) if len(targets) == 1 else OVERALL


def gain_sentence(evidence: Evidence) -> str:
    """The gain, how it varies, the error beside it, and the verdict."""
    found, gap = evidence.predicted, evidence.predicted.bootstrap
    return (
        f"Gain over {one_line(evidence.method.prior, 30)}: {found.gain:.4f} nats predicted; over "
        f"{gap.resamples} draws of the runs {gap.mean:.4f}, 90 % of them {gap.low:.4f} to "
        f"{gap.high:.4f}; the error on held-out runs is {gap.holdout_mae:.4f}. "
        f"Verdict: {one_line(evidence.verdict, 60)}."
    )


def optimum_words(evidence: Evidence) -> list[str]:
    """The gain with its verdict, the largest share, and what a reader should know."""
    return [gain_sentence(evidence), share_sentence(evidence), *cautions(evidence)]


def share_sentence(evidence: Evidence) -> str:
    """The largest share, how far all are from the prior, and how they were found."""
    weights = evidence.predicted.shares
    top = max(weights, key=lambda source: weights[source])
    kl = evidence.predicted.kl
    far = "the prior lacks a source of it" if kl is None else f"KL to the prior {kl:.3f} nats"
    return (
        f"Largest share: {one_line(top, 30)}, {percent(weights[top])}; {far}; "
        f"{one_line(evidence.method.solver, 60)}."
    )


def cautions(evidence: Evidence) -> list[str]:
    """What a reader should know before using the weights; often nothing."""
    method, bounds = evidence.method, evidence.bounds
    said = []
    if evidence.verdict != GAIN:
        said.append(
            "The weights may be used, but these runs do not show that they are better than the "
            "prior."
        )
    if bounds.at_hi or bounds.at_lo:
        said.append(
            "A bound holds these back, so better mixtures may lie beyond it: "
            + ", ".join(
                f"{one_line(source, 30)} ({word})"
                for word, held in (("most", bounds.at_hi), ("least", bounds.at_lo))
                for source in held
            )
        )
    lowest = min(one.predicted for one in evidence.baselines.values())
    if method.lam and lowest < evidence.predicted.loss:
        said.append(
            "A lower loss is predicted for another mixture, which is farther from the prior "
            "(--lambda is its price) or beyond a bound."
        )
    if bounds.kind == "simplex":
        said.append("Bounds are those of the corpus alone: shares may lie where no run has been.")
    if method.forced:
        said.append(
            "Solved although refused: " + "; ".join(one_line(why, 120) for why in method.forced)
        )
    return said
