"""`dedup.minhash` against datatrove, text-dedup and data-juicer: the same files, the same cores.

    python -m jobs.bench.minhash_peers [--corpus DIR] [--cores N] [--only NAMES] [--json] [--write]

The whole op, from text to removal list: every tool is a command of its own (`jobs/bench/peers/`, in
an environment of its own) that reads the same Parquet files, and is watched from outside: wall
time, CPU seconds of all its processes, memory. Starting Python, its imports and Ray counts. A start
weighs the less the larger a corpus is, so the speed beyond it stands beside: what the corpus took
more than the small set of pairs did. `ours, op with Ray warm` is measured, not subtracted: the same
job in a Ray whose workers have done the small set before. On the two sets of known pairs every
removal list is judged against the exact Jaccard similarity.

Exit code 1 where the aims are missed: the op 10 MB of text to a CPU second and 5 times the fastest
peer beyond its start; recall and precision at 0.7 at least those of the best peer.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.bench import watch
from jobs.bench.machine import describe
from jobs.bench.minhash_truth import Pair, Score, agreement, read_pairs, scores
from jobs.bench.peers import environments
from jobs.bench.peers.job import Outcome, outcome_of
from jobs.bench.report import table, write_section

SHARED = Path(__file__).parents[3] / "shared" / "data" / "corpus"
ROOT = Path(__file__).parents[2]
OURS, WARM = "ours", "ours, op with Ray warm"
TRUTHS = ("neardup", "mirrors")
MB_S, RATIO, LEVEL = 10.0, 5.0, 0.7


@dataclass(frozen=True)
class Run:
    """One tool on one corpus: what it took (of `mb` MB of text), and what it said."""

    tool: str
    corpus: str
    mb: float
    wall: float
    cpu: float
    peak: int
    outcome: Outcome

    @property
    def speed(self) -> float:
        """MB of text to a CPU second, which is MB/s/core."""
        return self.mb / self.cpu


def main(argv: list[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    truths = {n: args.truth / n for n in TRUTHS if (args.truth / n / "pairs.parquet").exists()}
    absent, tools = {}, [OURS]
    for name in environments.PEERS:
        if args.only and name not in args.only.split(","):
            continue
        if reason := environments.install(name):
            absent[name] = reason
        else:
            tools.append(name)
    runs, failed = measure(tools, args.corpus, truths, args.cores)
    absent |= failed
    if own := absent.get(OURS) or absent.get(WARM):
        print(f"dedup.minhash itself: {own}", file=sys.stderr)
        return 2
    judged = {
        name: judge(read_pairs(folder / "pairs.parquet"), _of(runs, name))
        for name, folder in truths.items()
    }
    missed = misses(_of(runs, "corpus"), _of(runs, TRUTHS[0]), judged)
    page = report(runs, judged, absent, missed)
    print(_as_json(runs, judged, absent, missed) if args.json else page)
    if args.write:
        write_section("MinHash, text to removal list, against other tools", page)
    return int(bool(missed))


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="dedup.minhash against other tools.")
    parser.add_argument("--corpus", type=Path, default=SHARED / "dev", help="Parquet files")
    parser.add_argument("--truth", type=Path, default=SHARED, help="folder of the sets of pairs")
    parser.add_argument("--cores", type=int, default=2, help="cores, and processes of every tool")
    parser.add_argument("--only", default="", help="peers to run, separated by commas")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    return parser


def measure(
    tools: list[str], corpus: Path, truths: dict[str, Path], cores: int
) -> tuple[list[Run], dict[str, str]]:
    """Every tool on every set; and, by tool, why a run failed."""
    runs, failed = [], {}
    with tempfile.TemporaryDirectory(prefix="minhash-peers-") as scratch:
        sets = {"corpus": _linked(corpus.glob("*.parquet"), Path(scratch, "corpus"))}
        for name, folder in truths.items():
            sets[name] = _linked([folder / "docs.parquet"], Path(scratch, name))
        warm = sets.get(TRUTHS[0], sets["corpus"])
        jobs = [(tool, name) for name in sets for tool in tools]
        jobs.insert(1, (WARM, "corpus"))
        for tool, name in jobs:
            if tool in failed:
                continue
            work = Path(scratch, "work")
            work.mkdir()
            found = run(tool, name, sets[name], work, cores, warm)
            shutil.rmtree(work)
            if isinstance(found, str):
                failed[tool] = found
                continue
            runs.append(found)
            said = f"{name}: {tool}: {found.wall:.1f} s, {found.cpu:.1f} CPU s"
            print(said, file=sys.stderr, flush=True)
    return runs, failed


def run(tool: str, name: str, corpus: Path, work: Path, cores: int, warm: Path) -> Run | str:
    """One tool on one corpus, or why it failed."""
    ours = tool in (OURS, WARM)
    script = f"jobs.bench.peers.{OURS if ours else tool}"
    python = sys.executable if ours else environments.python(tool)
    command = [python, "-m", script, str(corpus), str(work), "--workers", str(cores)]
    if tool == WARM:
        command += ["--warm", str(warm)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "hub")}
    taken = watch.watched(command, cwd=ROOT, env={**os.environ, **offline})
    try:
        outcome = outcome_of(taken.printed)
    except ValueError:
        last = (taken.errors.strip().splitlines() or ["it printed nothing"])[-1]
        return f"its run on {name} ended with {taken.code}: {last}"
    wall, cpu = taken.wall, taken.cpu
    if tool == WARM:
        wall, cpu = outcome.figures["job wall s"], outcome.figures["job CPU s"]
    return Run(tool, name, text_mb(corpus), wall, cpu, taken.peak, outcome)


def text_mb(corpus: Path) -> float:
    """MB of UTF-8 in the texts of a folder of Parquet files."""
    total = 0
    for file in corpus.glob("*.parquet"):
        texts = pq.read_table(file, columns=["text"])["text"]
        total += pc.sum(pc.binary_length(texts)).as_py()
    return total / 1e6


def judge(pairs: list[Pair], runs: list[Run]) -> dict[str, list[Score]]:
    """Recall and precision of each tool's removal list against the pairs of a set."""
    return {run.tool: scores(pairs, set(run.outcome.removed)) for run in runs}


def steady(run: Run, small: list[Run]) -> float:
    """MB to a CPU second beyond the start: of the text and time that a small corpus lacked."""
    first = next((r for r in small if r.tool == run.tool), None)
    if first is None or first.cpu >= run.cpu:
        return run.speed
    return (run.mb - first.mb) / (run.cpu - first.cpu)


def misses(
    speeds: list[Run], small: list[Run], judged: dict[str, dict[str, list[Score]]]
) -> list[str]:
    """The aims that were not reached, each in a sentence."""
    found = []
    op = next((run.speed for run in speeds if run.tool == WARM), None)
    peers = {run.tool: steady(run, small) for run in speeds if run.tool not in (OURS, WARM)}
    if op is not None and op < MB_S:
        found.append(f"{op:.1f} MB/s/core of the op, aimed at {MB_S:.0f}")
    if op is not None and peers:
        fastest = max(peers, key=lambda tool: peers[tool])
        if (ratio := op / peers[fastest]) < RATIO:
            found.append(f"{ratio:.1f} times {fastest}, aimed at {RATIO:.0f}")
    for name, by_tool in judged.items():
        at = {t: next(s for s in found if s.level == LEVEL) for t, found in by_tool.items()}
        for what in ("recall", "precision"):
            values = {tool: getattr(score, what) for tool, score in at.items()}
            mine = values.pop(OURS)
            best = max(values, key=lambda tool: values[tool], default=None)
            if best is not None and mine < values[best]:
                found.append(f"{name}: {what} {mine:.3f}, {best} has {values[best]:.3f}")
    return found


def report(
    runs: list[Run],
    judged: dict[str, dict[str, list[Score]]],
    absent: dict[str, str],
    missed: list[str],
) -> str:
    """The section of the page."""
    speeds = _of(runs, "corpus")
    ours = next(run for run in speeds if run.tool == OURS)
    blocks = [
        f"{ours.outcome.documents:,} documents, {ours.mb:.1f} MB of text; shingles of 5 words, "
        "14 bands of 8 permutations. `ours is` compares whole commands.",
        _speeds(speeds, _of(runs, TRUTHS[0])),
        "\n".join(_told(run) for run in speeds),
        *(f"{name} could not be measured: {reason}." for name, reason in absent.items()),
        "### Removal lists\n\nShared part of two lists (of which document of a cluster is kept, "
        "each tool has its own rule).",
        _agreements([run for run in speeds if run.tool != WARM]),
    ]
    for name, by_tool in judged.items():
        blocks.append(f"### Against known pairs: {name}\n\n{_judgement(by_tool)}")
    aims = [f"- missed: {text}" for text in missed] or ["- all reached"]
    blocks.append("\n".join(["### Aims", "", *aims]))
    return "\n\n".join(blocks)


def _speeds(runs: list[Run], small: list[Run]) -> str:
    whole = next(run.speed for run in runs if run.tool == OURS)
    header = ["tool", "wall s", "CPU s", "MB/s/core", "beyond its start", "ours is", "peak GB"]
    rows = [
        [
            run.tool if run.tool in (OURS, WARM) else f"{run.tool} {run.outcome.version}",
            f"{run.wall:.1f}",
            f"{run.cpu:.1f}",
            f"{run.speed:.2f}",
            f"{steady(run, small):.2f}",
            f"{whole / run.speed:.1f} x",
            f"{run.peak / 1e9:.2f}",
            f"{len(run.outcome.removed):,}",
        ]
        for run in runs
    ]
    return table([*header, "removed"], rows)


def _told(run: Run) -> str:
    figures = ", ".join(f"{name} {value}" for name, value in run.outcome.figures.items())
    return f"- {run.tool}: {run.outcome.settings}{f' ({figures})' if figures else ''}"


def _agreements(runs: list[Run]) -> str:
    lists = {run.tool: set(run.outcome.removed) for run in runs}
    rows = [[a, *(f"{agreement(lists[a], lists[b]):.3f}" for b in lists)] for a in lists]
    return table(["", *lists], rows)


def _judgement(by_tool: dict[str, list[Score]]) -> str:
    first = next(iter(by_tool.values()))
    header = ["recall / precision", *(f"J >= {s.level} ({s.pairs} pairs)" for s in first)]
    rows = [
        [tool, *(f"{s.recall:.3f} / {s.precision:.3f}" for s in found)]
        for tool, found in by_tool.items()
    ]
    return table(header, rows)


def _of(runs: list[Run], corpus: str) -> list[Run]:
    return [run for run in runs if run.corpus == corpus]


def _as_json(
    runs: list[Run],
    judged: dict[str, dict[str, list[Score]]],
    absent: dict[str, str],
    missed: list[str],
) -> str:
    content = {
        "machine": describe(),
        "runs": [{**asdict(run), "speed": run.speed} for run in runs],
        "judged": {n: {t: [asdict(s) for s in f] for t, f in b.items()} for n, b in judged.items()},
        "absent": absent,
        "missed": missed,
    }
    return json.dumps(content, indent=1)


def _linked(files: Iterable[Path], folder: Path) -> Path:
    """A folder of links to files, which holds nothing else."""
    folder.mkdir()
    for file in files:
        (folder / file.name).symlink_to(file.resolve())
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
