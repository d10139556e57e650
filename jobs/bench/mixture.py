"""Mixtures from proxy runs: our figures beside the published ones on RegMix's runs, and speed.

    python -m jobs.bench.mixture [--quick] [--write]

Every target with both regressors on models of three sizes (trees with the notebook's early
stopping on the 1M rows, which is a leak, for parity alone), beside rules that need no model; the
published search; the optimum of the laws; how many laws of pure noise are refused; CPU seconds.
Exit code 1 when a figure is off the expected one by more than its tolerance.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from jobs.bench.mixture_published import (
    DATA,
    FIXED_ROUNDS_PILE_CC,
    HUBER,
    LAW_DELTA,
    LAWS,
    MEAN_LOSS,
    OLS_PILE_CC,
    OPTIMUM,
    OPTIMUM_SHARES,
    OWN_SHARE,
    REGRET_OF_MEAN_LOSS,
    SCALES,
    SEARCH,
    SEARCH_MILLION,
    TREES,
    RegMix,
    load,
)
from jobs.bench.report import table, write_section
from longctx.mixture.evaluate import F64, Predict, fit_ols, score, spearman
from longctx.mixture.laws import Law, fit_law, law_status, overall, predict
from longctx.mixture.optimise import solve
from longctx.mixture.regmix import BEST, CHUNK, Tree, best_of, fit_tree, prior_draws, search

_T = TypeVar("_T")
_OWN_VERSION = "4.7.0"


class Figure(NamedTuple):
    """One measured value beside what is expected of it."""

    name: str
    ours: float
    expected: float
    tolerance: float

    @property
    def off(self) -> bool:
        """Whether it is further away than its tolerance."""
        return not abs(self.ours - self.expected) <= self.tolerance


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Mixtures from proxy runs, beside published ones.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with RegMix's tables")
    parser.add_argument("--quick", action="store_true", help="without searches of a million draws")
    parser.add_argument("--write", action="store_true", help="write them to docs/benchmarks.md")
    args = parser.parse_args(argv)
    data = load(args.data)
    if data is None:
        print(f"RegMix's tables are not under {args.data}", file=sys.stderr)
        return 1
    text, figures = measure(data, quick=args.quick)
    print(text)
    if args.write:
        write_section("Mixtures from proxy runs", text)
    for one in figures:
        if one.off:
            print(f"off: {one.name} {one.ours:.6g}, expected {one.expected:.6g}", file=sys.stderr)
    return int(any(one.off for one in figures))


def measure(data: RegMix, *, quick: bool) -> tuple[str, list[Figure]]:
    """All tables as Markdown, and the figures that have an expected value."""
    targets = range(len(data.fit.targets))
    trees, tree_time = _timed(lambda: [_parity_tree(data, j) for j in targets])
    laws, law_time = _timed(
        lambda: [fit_law(data.fit.X, data.fit.Y[:, j], LAW_DELTA) for j in targets]
    )
    figures, ranked = _ranked(data, trees, laws)
    of_mean, mean_rows = _mean_loss(data, laws)
    of_search, search_rows, per_second = _searched(data, trees, quick)
    of_optimum, optimum_rows, milliseconds = _optimum(data, laws)
    noise, noise_time = _timed(refusals)
    k = len(trees)
    speeds = [
        ["tree fits, 512 runs of 17 sources, s each", f"{tree_time / k:.2f}"],
        ["law fits, the same, s each", f"{law_time / k:.2f}"],
        ["draws searched with one target's trees, per s", f"{per_second:,.0f}"],
        ["optimum of 13 laws, ms", f"{milliseconds:.1f}"],
        ["laws of noise judged (21 small fits), s each", f"{noise_time / 120:.2f}"],
    ]
    of_noise = [
        Figure("sets of noise refused", min(noise[0], 54), 54, 0),
        Figure("sets with a signal refused", max(noise[1], 3), 3, 0),
    ]
    noisy = [
        ["of 60 sets of noise, refused", str(noise[0]), "54 or more"],
        ["of 60 sets with a signal, refused", str(noise[1]), "3 or fewer"],
    ]
    head = ["figure", "ours", "expected"]
    text = "\n\n".join(
        [
            "Rank correlation x 100 with measured losses on unseen mixtures of 1M, 60M and 1B "
            "models, after a fit to 512 runs of 1M models. In brackets: published, or what this "
            "library is held to. Trees stop early on the 1M rows, as published. `own share` needs "
            "no model at all.",
            table(["target", "trees", "law", "plane", "own share"], ranked),
            "### The mean loss of 13 targets\n\nTrees with 1,000 rounds, no early stopping.",
            table(["model", *SCALES, "regret, 1m"], mean_rows),
            "### Search, optimum, refusals",
            table(head, [*search_rows, *optimum_rows, *noisy]),
            "### CPU seconds on one core",
            table(["what", "figure"], speeds),
        ]
    )
    return text, [*figures, *of_mean, *of_search, *of_optimum, *of_noise]


def _timed(work: Callable[[], _T]) -> tuple[_T, float]:
    begun = time.process_time()
    return work(), time.process_time() - begun


def _parity_tree(data: RegMix, j: int) -> Tree:
    test = data.tests["1m"]
    return fit_tree(data.fit.X, data.fit.Y[:, j], (test.X, test.Y[:, j]))


def _tree_tolerance() -> float:
    from importlib.metadata import version

    return 0.05 if version("lightgbm") == _OWN_VERSION else 0.3


def _rho(data: RegMix, j: int, model: Predict) -> list[float]:
    found = [spearman(model(t.X), t.Y[:, j]) for t in data.tests.values()]
    return [100 * (rho if rho is not None else float("nan")) for rho in found]


def _ranked(
    data: RegMix, trees: list[Tree], laws: list[Law]
) -> tuple[list[Figure], list[list[str]]]:
    figures, rows = [], []
    for j, name in enumerate(data.fit.targets):
        law, own = laws[j], data.own(name)
        ours = {
            "trees": _rho(data, j, trees[j]),
            "law": _rho(data, j, partial(predict, law)),
            "plane": _rho(data, j, fit_ols(data.fit.X, data.fit.Y[:, j])),
            "own share": _rho(data, j, partial(_own_share, own)),
        }
        expected = {
            "trees": TREES.get(name),
            "law": LAWS.get(name),
            "plane": OLS_PILE_CC if name == "pile_cc" else None,
            "own share": OWN_SHARE.get(name),
        }
        tolerances = {
            "trees": [_tree_tolerance()] * 3,
            "law": [0.1, 0.1, 0.3],
            "plane": [0.05] * 3,
            "own share": [0.01] * 3,
        }
        for kind, wanted in expected.items():
            for scale, a, b, tolerance in zip(
                SCALES, ours[kind], wanted or (None,) * 3, tolerances[kind], strict=True
            ):
                if b is not None:
                    figures.append(Figure(f"{kind} of {name} at {scale}", a, b, tolerance))
        rows.append([name, *(_beside(ours[kind], expected[kind]) for kind in ours)])
        if name in HUBER:
            worst = max(law.huber, HUBER[name])
            figures.append(Figure(f"Huber of {name}", worst, HUBER[name], 0.005 * HUBER[name]))
    return figures, rows


def _own_share(own: int, X: F64) -> F64:
    return -X[:, own]


def _beside(ours: list[float], expected: tuple[float | None, ...] | None) -> str:
    said = " / ".join(f"{v:.2f}" for v in ours)
    if expected is None:
        return said
    return f"{said} ({' / '.join('-' if v is None else f'{v:.2f}' for v in expected)})"


def _mean_loss(data: RegMix, laws: list[Law]) -> tuple[list[Figure], list[list[str]]]:
    X, Y = data.fit.X, data.fit.Y
    k = Y.shape[1]
    alike = np.full(k, 1 / k)
    trees = [fit_tree(X, Y[:, j]) for j in range(k)]
    models: dict[str, Predict] = {
        "law": lambda shares: overall(laws, alike, shares),
        "trees": lambda shares: np.mean([tree(shares) for tree in trees], axis=0),
        "plane": fit_ols(X, Y.mean(axis=1)),
    }
    j = data.target("pile_cc")
    figures = [
        Figure(f"trees of 1,000 rounds of pile_cc at {s}", a, b, _tree_tolerance())
        for s, a, b in zip(SCALES, _rho(data, j, trees[j]), FIXED_ROUNDS_PILE_CC, strict=True)
    ]
    figures += [
        Figure(f"regret of {kind}", score(models[kind](t.X), t.Y.mean(axis=1)).regret or 0, b, 1e-4)
        for kind, b in REGRET_OF_MEAN_LOSS.items()
        for t in (data.tests["1m"],)
    ]
    rows = []
    for kind, model in models.items():
        found = {s: score(model(t.X), t.Y.mean(axis=1)) for s, t in data.tests.items()}
        rho = [100 * (found[s].spearman or float("nan")) for s in SCALES]
        wanted = MEAN_LOSS[kind]
        figures += [
            Figure(f"{kind} of the mean loss at {s}", a, b, 0.3)
            for s, a, b in zip(SCALES, rho, wanted, strict=True)
        ]
        cells = [f"{a:.2f} ({b:.2f})" for a, b in zip(rho, wanted, strict=True)]
        rows.append([kind, *cells, f"{found['1m'].regret:.4f}"])
    return figures, rows


def _searched(
    data: RegMix, trees: list[Tree], quick: bool
) -> tuple[list[Figure], list[list[str]], float]:
    tree = trees[data.target("pile_cc")]
    drawn = np.random.RandomState(42).dirichlet(data.prior, 100_000)
    found, seconds = _timed(lambda: best_of([tree], [drawn], 128))
    figures = [
        Figure(f"search, {name}", float(found.shares[data.own(name)]), share, 1e-6)
        for name, share in SEARCH.items()
    ]
    rows = [[f"{f.name} (notebook)", f"{f.ours:.9f}", f"{f.expected:.9f}"] for f in figures]
    if quick:
        return figures, rows, 100_000 / seconds
    own = data.own("pile_cc")
    stream = np.random.RandomState(42)
    chunks = (stream.dirichlet(data.prior, CHUNK) for _ in range(1_000_000 // CHUNK))
    many = float(best_of([tree], chunks, BEST).shares[own])
    figures.append(Figure("search of 1,000,000 draws, pile_cc", many, SEARCH_MILLION, 0.005))
    rows.append(["search of 1,000,000, best 100, pile_cc", f"{many:.4f}", f"{SEARCH_MILLION}"])
    # How much of that hangs on the draws.
    other = search([tree], n=1_000_000, dist=prior_draws(data.prior)).shares[own]
    rows.append(["the same of this library's own draws", f"{other:.4f}", "-"])
    return figures, rows, 100_000 / seconds


def _optimum(data: RegMix, laws: list[Law]) -> tuple[list[Figure], list[list[str]], float]:
    found, seconds = _timed(lambda: solve(laws, prior=data.prior))
    k, m = len(laws), len(data.prior)
    plain = np.stack([data.prior, np.full(m, 1 / m)])
    prior, uniform = overall(laws, np.full(k, 1 / k), plain).tolist()
    ours = {"loss": found.loss, "objective": found.objective, "prior": prior, "uniform": uniform}
    figures = [Figure(f"optimum, {n}", ours[n], v, 5e-4) for n, v in OPTIMUM.items()]
    for name, share in OPTIMUM_SHARES.items():
        ours_share = float(found.shares[data.own(name)])
        figures.append(Figure(f"optimum, share of {name}", ours_share, share, 0.003))
    rows = [[f.name, f"{f.ours:.5f}", f"{f.expected:.5f}"] for f in figures]
    return figures, rows, 1000 * seconds


def refusals(sets: int = 60) -> tuple[int, int]:
    """Laws refused of `sets` data sets without a signal, and of as many with one."""
    return (
        sum(_is_refused(i, 0.01, signal=False) for i in range(sets)),
        sum(_is_refused(i, 0.003, signal=True) for i in range(sets)),
    )


def _is_refused(number: int, noise: float, *, signal: bool) -> bool:
    rng = np.random.default_rng([7, number])
    X = 0.02 + (1 - 3 * 0.02) * rng.dirichlet(np.ones(3), 20)
    y: F64 = 2 + rng.normal(0, noise, 20)
    if signal:
        y = y + 0.1 * np.exp(X @ rng.uniform(-2, 1, 3))
    law = fit_law(X, y, n_grid=16, top=1)
    return bool(law_status(law, X, y, n_grid=16, top=1).refused)


if __name__ == "__main__":
    sys.exit(main())
