"""What a file of weights carries so that others can judge them: points of the fit, single gains.

For every target and the weighted sum the losses of held-out runs as measured and as predicted, the
scores beside those of rules that need no model, and what speaks against it; the gains over the
prior of all resamples. All of it is ours.

The numbers travel on, into the record of every run that uses the weights. So they are rounded to
six decimals (of nats, below any noise of a training run), and thinned: of more than `POINTS` points
or `GAINS` gains those at even ranks are kept, the least and the largest among them.
"""

from typing import Any

import numpy as np

from longctx.mixture.assess import OVERALL
from longctx.mixture.evaluate import F64, I64, Gap
from longctx.mixture.predictor import Model

POINTS = 2_000
GAINS = 1_000
_DECIMALS = 6
_OK, _WARNED, _REFUSED = "ok", "warned", "refused"


def fit_evidence(model: Model, points: int = POINTS) -> dict[str, Any]:
    """How well every target and the weighted sum are predicted, as JSON takes it.

    At most `points` runs over all targets. `runs` counts those that were held out at least once.
    """
    names = [OVERALL, *model.targets] if len(model.targets) > 1 else list(model.targets)
    most = max(1, points // len(names))
    return {"model": model.kind, "targets": [_target(model, name, most) for name in names]}


def gaps_evidence(gap: Gap, most: int = GAINS) -> list[float]:
    """Gains over all resamples in ascending order."""
    found = np.sort(np.asarray(gap.gaps, dtype=np.float64))
    return _short(found[even_ranks(len(found), most)])


def even_ranks(n: int, most: int) -> I64:
    """Up to `most` of the numbers 0..n-1 at even distances, both ends among them; int64."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def _target(model: Model, name: str, most: int) -> dict[str, Any]:
    if name == OVERALL:
        observed, predicted = model.runs.Y @ model.weights, model.held @ model.weights
    else:
        at = model.targets.index(name)
        observed, predicted = model.runs.Y[:, at], model.held[:, at]
    known = np.flatnonzero(~np.isnan(predicted))
    # Thinned along the losses, or the few best and worst runs would be lost.
    order = known[np.argsort(observed[known], kind="stable")]
    kept = order[even_ranks(len(order), most)]
    assessed = model.assessment()[name]
    mean, sd = assessed["holdout"]["mean"], assessed["holdout"]["sd"]
    return {
        "target": name,
        **_status(model, name),
        "runs": len(known),
        "observed": _short(observed[kept]),
        "predicted": _short(predicted[kept]),
        "rho": mean["spearman"],
        "mae": mean["mae"],
        "rho_sd": sd["spearman"],
        "mae_sd": sd["mae"],
        "rules": {
            rule: {"rho": found["mean"]["spearman"], "mae": found["mean"]["mae"]}
            for rule, found in assessed["rules"].items()
        },
    }


def _status(model: Model, name: str) -> dict[str, Any]:
    """The status of a target; that of the weighted sum is the worst of its targets'."""
    ours = model.status.values() if name == OVERALL else [model.status[name]]
    refused, warned = (any(getattr(s, field) for s in ours) for field in (_REFUSED, _WARNED))
    remarks = [] if name == OVERALL else model.status[name].words()
    return {"status": _REFUSED if refused else _WARNED if warned else _OK, "remarks": remarks}


def _short(values: F64) -> list[float]:
    found: list[float] = np.round(values, _DECIMALS).tolist()
    return found
