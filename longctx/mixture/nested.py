"""From checkpoints of small models to losses at another length and size, before a mixing law.

The nested pipeline of Data Mixing Laws (Ye and others, arXiv 2403.16952, algorithm 1): a law of
steps for every mixture and size, with one exponent for all groups of held-out text; then a law of
sizes with one exponent for all mixtures and groups. What comes out takes the place of measured
losses in `laws.fit_law`. Exponents are bounded by the published ranges (`scaling.py` says why).

Optional. On the authors' own runs the predictions are off by several times the gain that they
predict: they rank mixtures. So use the result with `evaluate.bootstrap_gap` over the mixtures, and
prefer a law at one size whose ranking is taken over. Cost: a fit per mixture and size, a second
for twenty mixtures.
"""

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture.evaluate import F64
from longctx.mixture.scaling import fit_power

STEP_ALPHA = (0.55, 0.9)
SIZE_ALPHA = (0.3, 0.8)
STEP_DELTA = 0.05
SIZE_DELTA = 0.08


def at_step(steps: F64, losses: F64, step: float) -> F64:
    """Losses [mixtures, groups] at another step, from those [mixtures, steps, groups].

    One law of steps for each mixture. Raises RecipeError for fewer than three steps.
    """
    _fits(losses, steps, "steps")
    laws = (fit_power(steps, one, *STEP_ALPHA, STEP_DELTA) for one in losses)
    return np.stack([law.predict(np.array([step]))[0] for law in laws])


def at_size(sizes: F64, losses: F64, size: float) -> F64:
    """Losses [mixtures, groups] of another model size, from those [mixtures, sizes, groups].

    One exponent for all mixtures and groups. Raises RecipeError for fewer than three sizes.
    """
    _fits(losses, sizes, "sizes")
    mixtures, _, groups = losses.shape
    columns = losses.transpose(1, 0, 2).reshape(len(sizes), mixtures * groups)
    law = fit_power(sizes, columns, *SIZE_ALPHA, SIZE_DELTA)
    return law.predict(np.array([size]))[0].reshape(mixtures, groups)


def nested(steps: F64, sizes: F64, losses: F64, *, step: float, size: float) -> F64:
    """Losses [mixtures, groups] at a step and a size, from [mixtures, sizes, steps, groups].

    `steps` are the last checkpoints of every run, float64 [steps]; `sizes` parameters of the
    models, float64 [sizes].
    """
    losses = np.asarray(losses, dtype=np.float64)
    if losses.ndim != 4:
        raise ValueError(f"losses have shape {losses.shape}, expected 4 dimensions")
    long = np.stack([at_step(steps, losses[:, i], step) for i in range(losses.shape[1])], axis=1)
    return at_size(sizes, long, size)


def _fits(losses: F64, values: F64, name: str) -> None:
    if losses.ndim != 3 or losses.shape[1] != len(values):
        raise RecipeError(
            f"losses of shape {losses.shape} do not fit {len(values)} {name}",
            remedy=f"give losses by mixture, {name} and group",
        )
