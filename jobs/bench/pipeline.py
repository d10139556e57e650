"""The whole job as its corpus grows: time per document, memory, workers, overhead of the engine.

    python -m jobs.bench.pipeline [--sizes 0.125,0.25,0.5,1,10] [--corpus FOLDER] [--write]

Every run is the recipe of the development corpus as a command of its own, on a share or an
enlargement of the corpus (`enlarged.py`), watched from outside. The full corpus also runs with one
worker. A stage's seconds are the run's own record; what its units worked is in their commits. The
engine's overhead is what a run with one worker takes beyond that: starting tasks, exchanges,
commits, reports. Starting Ray and Python is told apart.

Exit code 1 when a document costs more than 1.15 times what it costs on the smallest corpus, two
workers are less than 1.7 times as fast as one, or the overhead exceeds a tenth.
"""

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from jobs.bench.enlarged import make
from jobs.bench.report import table, write_section
from jobs.bench.watch import Taken, watched

RECIPE = Path(__file__).parents[1] / "recipes" / "dev.yaml"
CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus" / "dev"
MOST_GROWTH, LEAST_SPEEDUP, MOST_OVERHEAD = 1.15, 1.7, 0.10


@dataclass(frozen=True)
class Stage:
    """Wall seconds of a stage, and seconds that its units worked."""

    wall: float
    busy: float


@dataclass(frozen=True)
class Measured:
    """One run: its size, what it took, and its stages by name."""

    size: float
    workers: int
    documents: int
    megabytes: float
    taken: Taken
    stages: dict[str, Stage]

    @property
    def wall(self) -> float:
        """Seconds of all stages, without the start of Python and Ray."""
        return sum(s.wall for s in self.stages.values())

    @property
    def overhead(self) -> float:
        """Share of `wall` in which no unit worked; of meaning with one worker only."""
        return 1 - sum(s.busy for s in self.stages.values()) / self.wall

    @property
    def milliseconds(self) -> float:
        """Wall milliseconds for one document that was read."""
        return 1000 * self.wall / self.documents


def main(argv: list[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    files = sorted(args.corpus.glob("*.parquet"))
    if not files:
        print(f"no Parquet files in {args.corpus}: name a corpus with --corpus", file=sys.stderr)
        return 2
    sizes = [float(size) for size in args.sizes.split(",")]
    wanted = [(size, args.workers) for size in sizes]
    if 1 in sizes and args.workers > 1:
        wanted.insert(sizes.index(1), (1.0, 1))
    runs = []
    for size, workers in wanted:
        runs.append(measure(files, args.folder, size, workers))
        print(_line(runs[-1]), file=sys.stderr, flush=True)
    page = describe(runs)
    print(page)
    if args.write:
        write_section("The whole job", page)
    found = verdict(runs)
    return int(
        found["growth"] > MOST_GROWTH
        or found.get("speedup", LEAST_SPEEDUP) < LEAST_SPEEDUP
        or found.get("overhead", 0) > MOST_OVERHEAD
    )


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The whole job as its corpus grows.")
    parser.add_argument("--sizes", default="0.125,0.25,0.5,1,10", help="times the corpus")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of Parquet files")
    parser.add_argument("--folder", type=Path, default=Path("build/bench-pipeline"))
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    return parser


def measure(files: list[Path], folder: Path, size: float, workers: int) -> Measured:
    """Run the recipe afresh on `size` times the corpus. Raises SystemExit where the run fails."""
    corpus = make(files, folder / f"corpus-{size:g}", size)
    run_dir = (folder / f"run-{size:g}-{workers}").absolute()
    shutil.rmtree(run_dir, ignore_errors=True)
    recipe = yaml.safe_load(RECIPE.read_text())
    recipe["input"][0] |= {"path": f"{corpus.absolute()}/*.parquet", "meta": []}
    recipe["run_dir"] = str(run_dir)
    recipe["engine"] = {"workers": workers}
    written = folder / "recipe.yaml"
    written.write_text(yaml.safe_dump(recipe))
    taken = watched([sys.executable, "-m", "longctx.cli", "run", written])
    if taken.code:
        raise SystemExit(f"the run of {size:g} times the corpus failed:\n{taken.errors}")
    record = json.loads((run_dir / "run.json").read_text())
    stages = {
        stage["stage"]: Stage(stage["seconds"], _busy(run_dir / "stages" / stage["stage"]))
        for stage in record["stages"]
    }
    documents = record["stages"][0]["rows_in"]
    characters = sum(
        pq.ParquetFile(f).metadata.row_group(g).column(1).total_uncompressed_size
        for f in corpus.glob("*.parquet")
        for g in range(pq.ParquetFile(f).metadata.num_row_groups)
    )
    return Measured(size, workers, documents, characters / 1e6, taken, stages)


def _busy(folder: Path) -> float:
    """Seconds that the units of a stage worked, over all its steps."""
    commits = (json.loads(f.read_text()) for f in folder.rglob("*.commit.json"))
    return sum(commit["stats"]["seconds"] for commit in commits)


def verdict(runs: list[Measured]) -> dict[str, float]:
    """The figures that have limits; `speedup` and `overhead` where one worker ran, too.

    `growth` is the dearest document over the dearest of the smaller corpora before it.
    """
    many = max(run.workers for run in runs)
    grown = sorted((r for r in runs if r.workers == many), key=lambda r: r.size)
    found = {"growth": max(r.milliseconds for r in grown) / grown[0].milliseconds}
    one = next((r for r in runs if r.workers == 1), None)
    if one is not None and many > 1:
        same = next(r for r in grown if r.size == one.size)
        found |= {"speedup": one.wall / same.wall, "overhead": one.overhead}
    return found


def describe(runs: list[Measured]) -> str:
    """Markdown: what every run took, then its stages in milliseconds of wall time a document."""
    head = ["figure", *(f"{r.size:g} x, {r.workers} worker{'s'[: r.workers > 1]}" for r in runs)]
    rows: list[tuple[str, list[str]]] = [
        ("documents read", [f"{r.documents:,}" for r in runs]),
        ("MB of text", [f"{r.megabytes:,.0f}" for r in runs]),
        ("wall s, command", [f"{r.taken.wall:.1f}" for r in runs]),
        ("wall s, stages", [f"{r.wall:.1f}" for r in runs]),
        ("CPU s, all processes", [f"{r.taken.cpu:.1f}" for r in runs]),
        ("ms a document", [f"{r.milliseconds:.2f}" for r in runs]),
        ("peak GB, all processes", [f"{r.taken.peak / 1e9:.2f}" for r in runs]),
        ("peak GB, driver", [f"{r.taken.driver / 1e9:.2f}" for r in runs]),
        ("peak GB, largest worker", [f"{r.taken.worker / 1e9:.2f}" for r in runs]),
        ("outside units", [f"{r.overhead:.1%}" if r.workers == 1 else "" for r in runs]),
    ]
    for name in runs[0].stages:
        cells = [f"{1000 * r.stages[name].wall / r.documents:.3f}" for r in runs]
        rows.append((f"{name}, ms a document", cells))
    found = verdict(runs)
    lines = [f"- Dearest document over that of the smallest corpus: {found['growth']:.2f}."]
    if "speedup" in found:
        lines.append(f"- Two workers against one: {found['speedup']:.2f} times as fast.")
        lines.append(f"- With one worker, {found['overhead']:.1%} of the time no unit worked.")
    return "\n".join([table(head, [[name, *cells] for name, cells in rows]), "", *lines])


def _line(run: Measured) -> str:
    return (
        f"{run.size:g} x, {run.workers} workers: {run.documents:,} documents, {run.wall:.1f} s, "
        f"{run.milliseconds:.2f} ms each"
    )


if __name__ == "__main__":
    raise SystemExit(main())
