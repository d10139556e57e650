"""RegMix's measured mixtures, and the figures that ours are held against.

The tables are those of sail-sg/regmix (MIT licence), found below the folder of shared data.
Published: the authors' notebook and paper, arXiv 2407.01492. The others were measured once with
the methods of this library and are kept as a check: a change that moves them shows.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from longctx.mixture.evaluate import F64
from longctx.mixture.tables import (
    Losses,
    Mixtures,
    Runs,
    join,
    read_losses,
    read_mixtures,
    same_sources,
)

DATA = Path(__file__).parents[3] / "shared" / "data" / "mixture" / "regmix" / "data"
SCALES = ("1m", "60m", "1B")
LAW_DELTA = 0.05

# The shares of tokens from which the published search draws.
PRIOR = {
    "arxiv": 0.11328527,
    "freelaw": 0.07960865,
    "nih_exporter": 0.00391349,
    "pubmed_central": 0.1853759,
    "wikipedia_en": 0.05108136,
    "dm_mathematics": 0.01596293,
    "github": 0.10175077,
    "philpapers": 0.00370752,
    "stackexchange": 0.06652935,
    "enron_emails": 0.00175077,
    "gutenberg_pg_19": 0.02708548,
    "pile_cc": 0.23686921,
    "ubuntu_irc": 0.01184346,
    "europarl": 0.00792997,
    "hackernews": 0.00803296,
    "pubmed_abstracts": 0.03882595,
    "uspto_backgrounds": 0.04644696,
}

# Rank correlation x 100 on 1M, 60M and 1B models; None where none is published.
TREES: dict[str, tuple[float, float | None, float | None]] = {
    "arxiv": (99.60, 98.88, 98.55),
    "freelaw": (99.71, None, None),
    "pubmed_central": (99.08, 98.26, 94.16),
    "github": (99.77, 99.05, 97.75),
    "gutenberg_pg_19": (99.18, None, None),
    "pile_cc": (98.92, 98.49, 96.51),
    "hackernews": (98.51, 97.77, 85.79),
    "uspto_backgrounds": (99.12, None, None),
}
LAWS: dict[str, tuple[float, float, float]] = {
    "arxiv": (97.92, 97.59, 98.85),
    "freelaw": (98.59, 98.20, 98.65),
    "pubmed_central": (97.10, 96.64, 91.23),
    "github": (97.70, 96.74, 98.40),
    "gutenberg_pg_19": (97.94, 97.78, 88.63),
    "pile_cc": (96.36, 95.85, 98.62),
    "hackernews": (96.04, 94.90, 73.51),
    "uspto_backgrounds": (97.54, 96.25, 97.98),
}
HUBER = {
    "pile_cc": 2.56590e-3,
    "arxiv": 1.29333e-2,
    "freelaw": 6.16453e-3,
    "pubmed_central": 1.01436e-2,
    "github": 1.33163e-2,
    "gutenberg_pg_19": 3.62706e-3,
    "hackernews": 3.42607e-3,
    "uspto_backgrounds": 3.24344e-3,
}
# Trees with 1,000 rounds, no early stopping.
FIXED_ROUNDS_PILE_CC = (99.04, 98.60, 96.17)
OLS_PILE_CC = (90.21, 89.33, 87.66)
OWN_SHARE = {
    "pile_cc": (81.70, 81.38, 98.08),
    "arxiv": (96.01, 94.86, 98.18),
    "github": (90.87, 87.78, 97.78),
}
# Of the mean loss of the 13 targets.
MEAN_LOSS = {
    "law": (96.48, 91.70, 76.03),
    "trees": (99.19, 95.83, 73.63),
    "plane": (62.58, 55.94, 35.77),
}
REGRET_OF_MEAN_LOSS = {"trees": 0.0, "plane": 0.7086}  # at 1m
SEARCH = {"pile_cc": 0.890924344, "ubuntu_irc": 0.0614285142}
SEARCH_MILLION = 0.848
OPTIMUM = {"loss": 4.56222, "objective": 4.57328, "prior": 4.64616, "uniform": 4.60273}
OPTIMUM_SHARES = {
    "pile_cc": 0.131,
    "wikipedia_en": 0.109,
    "uspto_backgrounds": 0.105,
    "stackexchange": 0.100,
    "pubmed_abstracts": 0.097,
}


class RegMix(NamedTuple):
    """The 512 runs of the fit, and the other runs by the scale of their models."""

    fit: Runs
    tests: Mapping[str, Runs]

    def target(self, name: str) -> int:
        """Column of a target's losses."""
        return self.fit.targets.index(name)

    def own(self, name: str) -> int:
        """Column of the source that is the target."""
        return self.fit.sources.index(name)

    @property
    def prior(self) -> F64:
        """The prior in the order of the sources."""
        shares = np.array([PRIOR[source] for source in self.fit.sources])
        return shares / shares.sum()


def load(data: Path = DATA) -> RegMix | None:
    """The tables, None where they are not."""
    if not data.is_dir():
        return None
    fit = join(*_tables(data, "train_mixture_1m", "train_pile_loss_1m"))
    tests = {}
    for scale in SCALES:
        mixtures, losses = _tables(data, f"test_mixture_{scale}", f"test_pile_loss_{scale}")
        tests[scale] = join(same_sources(fit, mixtures), losses, fit.targets)
    return RegMix(fit, tests)


def _tables(data: Path, mixtures: str, losses: str) -> tuple[Mixtures, Losses]:
    return (
        read_mixtures((data / f"{mixtures}.csv").read_bytes(), mixtures),
        read_losses((data / f"{losses}.csv").read_bytes(), losses),
    )
