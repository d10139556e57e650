"""What a model of losses is worth on held-out runs and on other tables, beside trivial rules.

One pass over the splits fits every target once and scores each of them and their weighted sum, so
the sum's error is that of models which never saw the rows. All of it is ours.

Cost: `repeats` fits for every target.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from longctx.mixture.evaluate import (
    F64,
    FRACTION,
    I64,
    REPEATS,
    Fit,
    HeldOut,
    Score,
    baselines,
    score,
    splits,
    summary,
)

OVERALL = "weighted sum"


@dataclass(frozen=True)
class Assessment:
    """Of one target or the weighted sum: held-out and in-sample scores, beside those of rules.

    `rules` holds what `baselines` names on the same splits; `tests` for each other table the score
    of the model as "model" and those of the rules.
    """

    in_sample: Score
    holdout: HeldOut
    rules: Mapping[str, HeldOut]
    tests: Mapping[str, Mapping[str, Score]]

    def as_dict(self) -> dict[str, object]:
        """The same as JSON takes it."""
        return {
            "in_sample": self.in_sample.as_dict(),
            "holdout": self.holdout.as_dict(),
            "rules": {k: v.as_dict() for k, v in self.rules.items()},
            "tests": {
                name: {k: v.as_dict() for k, v in scores.items()}
                for name, scores in self.tests.items()
            },
        }


@dataclass(frozen=True)
class Split:
    """One split: its rows and what models that saw the others predict, float64 [held, targets]."""

    seen: I64
    held: I64
    pred: F64


def refit(
    fits: Sequence[Fit],
    X: F64,
    Y: F64,
    *,
    repeats: int = REPEATS,
    fraction: float = FRACTION,
    seed: int = 0,
) -> list[Split]:
    """Predictions on held-out rows of every split; X float64 [n, m], Y float64 [n, targets]."""
    found = []
    for seen, held in splits(len(X), repeats, fraction, seed):
        pred = [fit(X[seen], Y[seen, j])(X[held]) for j, fit in enumerate(fits)]
        found.append(Split(seen, held, np.stack(pred, axis=1)))
    return found


def mean_predictions(found: Sequence[Split], rows: int) -> F64:
    """What models that never saw a row predict for it, the mean over its splits.

    float64 [rows, targets]; NaN for rows that no split held out.
    """
    total = np.zeros((rows, found[0].pred.shape[1]))
    times = np.zeros((rows, 1))
    for one in found:
        total[one.held] += one.pred
        times[one.held] += 1
    return np.divide(total, times, out=np.full_like(total, np.nan), where=times > 0)


def held_out(
    found: Sequence[Split], X: F64, Y: F64, weights: F64, own: int | None
) -> tuple[HeldOut, dict[str, HeldOut]]:
    """Scores of the weighted sum of some targets on every split, and those of the rules.

    `weights` float64 [targets] picks one target with a single 1; `own` is the number of its
    source, None where it has none.
    """
    y = Y @ weights
    ours = summary([score(one.pred @ weights, y[one.held]) for one in found])
    rules: dict[str, list[Score]] = {}
    for one in found:
        fit_on = (X[one.seen], y[one.seen])
        for name, scored in baselines(X[one.held], y[one.held], own, fit_on=fit_on).items():
            rules.setdefault(name, []).append(scored)
    return ours, {name: summary(scores) for name, scores in rules.items()}


def on_rows(
    pred: F64, X: F64, y: F64, own: int | None, fit_on: tuple[F64, F64]
) -> dict[str, Score]:
    """Score of a model on the rows of another table, and of the rules there."""
    return {"model": score(pred, y), **baselines(X, y, own, fit_on=fit_on)}


def own_source(target: str, sources: Sequence[str]) -> int | None:
    """Number of the source that is also the target, None where there is none."""
    return sources.index(target) if target in sources else None
