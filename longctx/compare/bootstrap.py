"""How far a mean over sampled units may be from that over all: the bootstrap by Poisson weights.

Each unit (a window, a document) weighs in every resample what a Poisson variable of mean 1 gives
it, instead of how often it was drawn ("Estimating Uncertainty for Massive Data Streams", Chamandy
and others 2012; for ratios both have the same limit). Ours: the weights of a unit follow from its
key and the seed alone. So neither order nor number of runs, files or workers can change a bit, and
a unit that two runs share weighs the same in both: their difference is a paired one as far as they
share, and an unpaired one else.

Figures are ratios of sums (tokens weigh alike, a unit by the tokens it has). Intervals are
percentiles, and too short where a few units carry the mean. Simulated with units of log-normal
gain, those of one run hold the truth in 90 of 100 cases with 32 units of moderate skew (sigma .8),
in 78 where it is heavy (1.5; 83 with 100 units). Those of a difference, which decide what is called
clear, do in 92 to 94 in all of these. From fewer than five units there is none: resamples of so few
say more certainty than there is.

O(resamples x units), 8 bytes each.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longctx.ids import U64, rng_for

F64 = npt.NDArray[np.float64]

RESAMPLES = 2_000
LEAST = 5
_LEVEL = (2.5, 97.5)
_SYSTEM = "compare.gain"


@dataclass(frozen=True)
class Interval:
    """A figure and the 95 % interval around it; None where nothing was counted, or too little."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def side(self) -> int:
        """1 where the whole interval lies above 0, -1 below, 0 where it holds 0 or there is none.

        A bound at 0 itself counts as holding it.
        """
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Resampled:
    """A ratio of sums over `units` units that have any weight, and its value in each resample.

    `samples` float64 [resamples] holds NaN where a resample has no such unit.
    """

    value: float | None
    units: int
    samples: F64

    def interval(self) -> Interval:
        """The figure with its percentile interval."""
        return _interval(self.value, self.samples, self.units)

    def less(self, other: "Resampled") -> Interval:
        """This figure minus another one."""
        if self.value is None or other.value is None:
            return Interval()
        return _interval(
            self.value - other.value, self.samples - other.samples, min(self.units, other.units)
        )


def weights(keys: U64, seed: int, resamples: int = RESAMPLES) -> F64:
    """What each unit weighs in each resample, float64 [resamples, units]; `keys` name the units."""
    drawn = [rng_for(seed, _SYSTEM, f"{key:016x}").poisson(1.0, resamples) for key in keys.tolist()]
    return np.array(drawn, dtype=np.float64).reshape(len(keys), resamples).T


def ratio(total: F64, weight: F64, drawn: F64) -> Resampled:
    """Σ total / Σ weight over units, float64 [units] each; `drawn` are their `weights`."""
    held = float(weight.sum())
    if held == 0:
        return Resampled(None, 0, np.full(len(drawn), np.nan))
    # Not a matrix product: the sums of BLAS depend on its threads.
    above, below = (np.einsum("rn,n->r", drawn, column) for column in (total, weight))
    samples = np.full(len(drawn), np.nan)
    np.divide(above, below, out=samples, where=below > 0)
    return Resampled(float(total.sum()) / held, int((weight > 0).sum()), samples)


def _interval(value: float | None, samples: F64, units: int) -> Interval:
    known = samples[np.isfinite(samples)]
    if value is None or units < LEAST or not len(known):
        return Interval(value)
    low, high = np.percentile(known, _LEVEL)
    return Interval(value, float(low), float(high))
