"""From sources to weights with real training: sample, train, fit, optimise, and train the answer.

    python -m jobs.bench.mixture_proxies [--budget-tokens N] [--cpus N] [--write]

Five sources of the development corpus, 24 proxies of about a million parameters on their mixtures,
a law, its optimum; then the optimum, the natural and the uniform mixture are trained with three
other seeds each, on the same held-out text. The result is what it is: a tie is called one.
Everything goes through the commands that a user has; what is finished stays in the folder
`build/mixture-proxies`, so the script can be stopped and started again.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.bench.report import table, write_section
from longctx.mixture.amounts import amounts_of_run

F64 = npt.NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT.parent / "shared" / "data" / "corpus" / "dev"
FOLDER = ROOT / "build" / "mixture-proxies"
LONGCTX = (sys.executable, "-m", "longctx.cli")
SOURCES = ("code-django", "irc-ubuntu", "law-zh", "meetings-qmsum", "stacks-latex")
DRAWN, SEEDS, FIRST_SEED = 22, 3, 100
COMPARED = ("optimum", "natural", "uniform")
SHAPE = ("--model", "1m", "--block", "128", "--batch", "8", "--eval-tokens", "16384")
_RECIPE = """name: mixture-proxies
input:
  - {{path: "{corpus}/*.parquet", source_field: source, id: id}}
run_dir: {run}
seed: 17
stages:
  - op: score.heuristics
  - op: dedup.exact
"""


def main(argv: list[str] | None = None) -> int:
    """Run the whole way; an exit code."""
    parser = argparse.ArgumentParser(description="Mixtures by proxies that are really trained.")
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="what is made, and kept")
    parser.add_argument("--budget-tokens", type=int, default=150_000, help="of one proxy")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write it to docs/benchmarks.md")
    args = parser.parse_args(argv)
    if not args.corpus.is_dir():
        print(f"the development corpus is not under {args.corpus}", file=sys.stderr)
        return 1
    args.folder.mkdir(parents=True, exist_ok=True)
    text = measure(args.corpus, args.folder, args.budget_tokens, args.cpus)
    print(text)
    if args.write:
        write_section("Mixtures by proxies that are trained", text)
    return 0


def measure(corpus: Path, folder: Path, budget: int, cpus: int) -> str:
    """Everything from the corpus to the comparison, as Markdown."""
    seconds = _Seconds()
    run = folder / "run"
    (folder / "recipe.yaml").write_text(_RECIPE.format(corpus=corpus, run=run))
    seconds.of("read, tokenise", "run", folder / "recipe.yaml", "--quiet", "--cpus", cpus)
    counted = amounts_of_run(json.loads((run / "run.json").read_text()), str(run))
    tokens = folder / "tokens.csv"
    tokens.write_text("source,tokens\n" + "".join(f"{s},{counted[s]:.0f}\n" for s in SOURCES))
    mixtures, losses = folder / "mixtures.csv", folder / "losses.csv"
    drawn = ("--available", tokens, "--runs", DRAWN, "--out", mixtures)
    seconds.of("sample", "mix", "sample", *drawn)
    trained = ("--data", run, "--budget-tokens", budget, "--cpus", cpus, "--device", "cpu", *SHAPE)
    work = ("--work", folder / "proxies", "--max-epochs", 4)
    seconds.of(
        f"train {DRAWN + 2} proxies",
        *("mix", "train", "--mixtures", mixtures, "--out", losses, "--noise-seeds", 0),
        *(*trained, *work),
    )
    model, weights = folder / "model.json", folder / "weights.json"
    fit = ("--mixtures", mixtures, "--losses", losses, "--model", "law", "--out", model)
    seconds.of("fit", "mix", "fit", *fit)
    best = ("--model", model, "--available", tokens, "--out", weights, "--force")
    seconds.of("optimise", "mix", "optimise", *best)
    found = json.loads(weights.read_text())
    final, compared = folder / "final.csv", folder / "compared.csv"
    shares = _shares(found, mixtures)
    _write_mixtures(final, shares)
    seconds.of(
        f"train {len(COMPARED) * SEEDS} to compare",
        *("mix", "train", "--mixtures", final, "--out", compared, "--noise-seeds", 0),
        *("--seeds", SEEDS, "--first-seed", FIRST_SEED, *trained, *work),
    )
    design = json.loads((folder / "proxies" / "design.json").read_text())
    return _told(found, shares, _losses(compared), design, seconds, counted)


class _Seconds:
    """Wall time of each step."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}

    def of(self, name: str, *command: object) -> None:
        """Run a command and remember how long it took. Exits where it fails."""
        begun = time.monotonic()
        subprocess.run([*LONGCTX, *map(str, command)], check=True)
        self.taken[name] = time.monotonic() - begun


def _shares(found: dict[str, Any], mixtures: Path) -> dict[str, list[float]]:
    """The mixtures to compare, shares in the order of SOURCES."""
    with mixtures.open(encoding="utf-8", newline="") as file:
        rows = {row["mixture_id"]: row for row in csv.DictReader(file)}
    plain = {name: [float(rows[name][s]) for s in SOURCES] for name in ("natural", "uniform")}
    return {"optimum": [found["weights"][s] for s in SOURCES], **plain}


def _write_mixtures(place: Path, shares: dict[str, list[float]]) -> None:
    with place.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["mixture_id", *SOURCES])
        writer.writerows([name, *map(repr, row)] for name, row in shares.items())


def _losses(place: Path) -> dict[str, F64]:
    """Losses of each compared mixture, float64 [seeds, targets] in the order of SOURCES."""
    with place.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    seeds = sorted({row["seed"] for row in rows})
    cells = {(r["mixture_id"], r["seed"], r["target"]): float(r["loss"]) for r in rows}
    return {
        name: np.array([[cells[name, seed, target] for target in SOURCES] for seed in seeds])
        for name in COMPARED
    }


def _told(
    found: dict[str, Any],
    shares: dict[str, list[float]],
    losses: dict[str, F64],
    design: dict[str, Any],
    seconds: _Seconds,
    counted: dict[str, float],
) -> str:
    evidence = found["evidence"]
    held = evidence["holdout"]["holdout"]["mean"]
    predicted = {
        "optimum": evidence["predicted"]["loss"],
        **{name: evidence["baselines"][name]["predicted"] for name in ("natural", "uniform")},
    }
    means = {name: rows.mean(axis=1) for name, rows in losses.items()}
    rows = [
        [
            name,
            f"{means[name].mean():.4f}",
            f"{means[name].std(ddof=1):.4f}",
            f"{predicted[name]:.4f}",
            *(f"{loss:.3f}" for loss in losses[name].mean(axis=0)),
        ]
        for name in COMPARED
    ]
    share_rows = [[name, *(f"{100 * share:.1f}" for share in shares[name])] for name in COMPARED]
    sizes = ", ".join(f"{s} {counted[s] / 1e6:.2f} M" for s in SOURCES)
    forced = evidence["method"]["forced"]
    return "\n\n".join(
        [
            f"{DRAWN + 2} proxies of {design['parameters']:,} parameters (shared embedding "
            f"included), {design['tokens']:,} tokens each in {design['training']['steps']:,} "
            f"steps, {len(design['targets'])} sources of the development "
            f"corpus ({sizes} tokens). Law, optimum with the defaults of `longctx mix optimise` "
            f"(prior: natural), then {SEEDS} other seeds of each mixture on the same held-out "
            "text. All runs see less than one pass of every source.",
            f"The law on held-out mixtures: rank correlation {held['spearman']:.3f}, MAE "
            f"{held['mae']:.4f}, R2 {held['r2']:.3f}; verdict of `optimise` on the gain over "
            f"natural: **{evidence['verdict']}**"
            + (f"; refused and forced: {'; '.join(forced)}" if forced else "")
            + ".",
            "### Held-out loss, nats per token\n\nMean of the targets, its standard deviation over "
            "seeds, what the law predicted, and each target.",
            table(["mixture", "loss", "s.d.", "predicted", *SOURCES], rows),
            "\n".join(f"- {line}" for line in verdicts(means)),
            "### Shares in percent",
            table(["mixture", *SOURCES], share_rows),
            "### Wall time, s",
            table(["step", "s"], [[k, f"{v:.0f}"] for k, v in seconds.taken.items()]),
        ]
    )


def verdicts(means: dict[str, F64]) -> Iterable[str]:
    """What the seeds say of the optimum against the others: below 2 s.d. it is a tie."""
    noise = float(np.sqrt(np.mean([rows.var(ddof=1) for rows in means.values()])))
    for name in ("natural", "uniform"):
        gain = float(means[name].mean() - means["optimum"].mean())
        if abs(gain) < 2 * noise:
            said = "a tie"
        else:
            said = "the optimum is better" if gain > 0 else "the optimum is worse"
        yield f"optimum against {name}: {gain:+.4f} nats, 2 s.d. of a run {2 * noise:.4f}: {said}"


if __name__ == "__main__":
    sys.exit(main())
