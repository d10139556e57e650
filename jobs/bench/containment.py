"""`dedup.containment`: its speed beside `dedup.minhash`, planted passages, and what it removes.

    python -m jobs.bench.containment [--corpus DIR] [--cores N] [--json] [--write]

Speed: the kernels on one core (CPU seconds, best of three passes that take turns), then both ops on
a local Ray whose workers have done both on one file before, over a corpus that is read already: CPU
seconds of all processes, and of the units alone. Passages: words of one document put into another,
some of them replaced; found is a passage of which half or more is said to be covered. Removed:
every document that goes with `min_chunks: 1` against the share of all its shingles (no samples)
that the document kept for it holds.

Exit code 1 when the samples of chunks take more than 1.25 times the CPU of signatures, or a passage
that nobody changed is missed.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.bench.machine import describe
from jobs.bench.report import table, write_section
from jobs.bench.watch import tree_seconds
from longctx import run
from longctx.dedup.chunk_samples import chunk_samples
from longctx.dedup.chunking import Grid, Sampling
from longctx.dedup.containment import containment
from longctx.dedup.minhash import signatures
from longctx.dedup.shingles import text_shingles
from longctx.engine.manifest import RunRecord

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus" / "dev"
OPS = ("dedup.minhash", "dedup.containment")
PART_MB = 16.0
SLOWEST = 1.25
PASSAGE, LEAST_WORDS, PASSAGES = 4096, 9000, 60
CHANGED = (0.0, 0.02, 0.05, 0.1)
CHUNKS = ((1, 1), (2, 3), (4, 9), (10, None))
MOSTLY = 0.7


class Speed(NamedTuple):
    """One op on the corpus: seconds of the clock and of all CPUs, and bytes."""

    op: str
    wall: float
    cpu: float
    units: float
    exchanged: int
    stored: int


class Planted(NamedTuple):
    """Passages of which a share of the words was replaced: found, coverage over truth, strangers.

    Strangers are pairs of a document with a passage and one that is not its origin.
    """

    changed: float
    found: float
    covered: float
    strangers: int


class Removed(NamedTuple):
    """Removed documents of so many chunks, and what their keepers really hold of them."""

    chunks: str
    documents: int
    tenth: float
    median: float
    mostly: int
    alike: int


def main(argv: list[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    files = sorted(args.corpus.glob("*.parquet"))
    if not files:
        print(f"no Parquet files in {args.corpus}; name a folder with --corpus", file=sys.stderr)
        return 2
    texts = [pq.read_table(f, columns=["text"])["text"].combine_chunks() for f in files]
    mb = sum(t.nbytes for t in texts) / 1e6
    kernels = kernel_seconds(texts)
    passages = planted([t for chunk in texts for t in chunk.to_pylist()])
    with tempfile.TemporaryDirectory(prefix="bench-containment-") as folder:
        speeds, record = in_runs(files, Path(folder), args.cores)
        gone = removed(Path(record.run_dir), record.stages[-1].stage)
    page = report(mb, kernels, speeds, passages, gone)
    if args.json:
        rows = [r._asdict() for found in (speeds, passages, gone) for r in found]
        print(json.dumps({"machine": describe(), "MB": mb, "kernels": kernels, "rows": rows}))
    else:
        print(page)
    if args.write:
        write_section("Containment", page)
    slow = kernels["samples of chunks"] > SLOWEST * kernels["MinHash signatures"]
    return int(slow or passages[0].found < 1)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="dedup.containment: speed, recall, removals.")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of Parquet files")
    parser.add_argument("--cores", type=int, default=2, help="workers of both ops")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    return parser


def kernel_seconds(texts: list[pa.Array], passes: int = 3) -> dict[str, float]:
    """CPU seconds of one core over the corpus, of signatures and of samples."""
    work: dict[str, Callable[[pa.Array], object]] = {
        "MinHash signatures": signatures,
        "samples of chunks": lambda chunk: chunk_samples(chunk, Sampling()),
    }
    for do in work.values():
        do(pa.array(["compile before the clock starts"], pa.large_string()))
    best = dict.fromkeys(work, float("inf"))
    for _ in range(passes):
        for name, do in work.items():
            started = time.process_time()
            for chunk in texts:
                do(chunk)
            best[name] = min(best[name], time.process_time() - started)
    return best


def in_runs(files: list[Path], folder: Path, cores: int) -> tuple[list[Speed], RunRecord]:
    """Both ops on the whole corpus, and the record of the last run."""

    def job(name: str, paths: Iterable[Path], op: str, part_mb: float) -> RunRecord:
        recipe = {
            "name": name,
            "input": [{"path": [str(p) for p in paths], "source": "corpus", "id": "id"}],
            "run_dir": str(folder / name),
            "engine": {"workers": cores, "part_mb": part_mb},
            "stages": [{"op": op, **({"min_chunks": 1} if op == OPS[1] else {})}],
        }
        return run(recipe, num_cpus=cores)

    for op in OPS:
        job("warm", files[:1], op, 1.0)
    # Reads the corpus; both ops find it read.
    job("corpus", files, "dedup.exact", PART_MB)
    speeds = []
    for op in OPS:
        before = tree_seconds(os.getpid())
        record = job("corpus", files, op, PART_MB)
        cpu = tree_seconds(os.getpid()) - before
        stage = record.stages[-1]
        units, moved, kept = (
            sum(c[n] for c in stage.costs.values()) for n in ("cpu", "received", "stored")
        )
        speeds.append(Speed(op, stage.seconds, cpu, units, moved, kept))
    return speeds, record


def planted(texts: list[str]) -> list[Planted]:
    """Passages of long documents in other documents, at every rate of replaced words."""
    long = [t.split() for t in texts if t.count(" ") >= LEAST_WORDS]
    long = [w for w in long if len(w) >= LEAST_WORDS]
    rng = np.random.default_rng(17)
    drawn = rng.permutation(len(long))[: 2 * min(PASSAGES, len(long) // 2)]
    origins, hosts = drawn[::2], drawn[1::2]
    found = []
    for changed in CHANGED:
        made, cut = zip(
            *(_put(long[o], long[h], changed, rng) for o, h in zip(origins, hosts, strict=True)),
            strict=True,
        )
        _, cover = containment([*(" ".join(long[o]) for o in origins), *made], Sampling(), Grid())
        n = len(origins)
        passage_words = chunk_samples(list(cut), Sampling()).words
        of_made = cover.document >= n
        own = of_made & (cover.other == cover.document - n)
        covered = np.zeros(n)
        covered[cover.document[own] - n] = cover.words[own]
        share = covered / passage_words
        strangers = int((of_made & ~own).sum())
        found.append(Planted(changed, float((share >= 0.5).mean()), float(share.mean()), strangers))
    return found


def _put(
    origin: list[str], host: list[str], changed: float, rng: np.random.Generator
) -> tuple[str, str]:
    """A document of 6,000 words of the host around a passage, and the passage itself."""
    start = int(rng.integers(0, len(origin) - PASSAGE))
    passage = list(origin[start : start + PASSAGE])
    for at in np.flatnonzero(rng.random(PASSAGE) < changed):
        passage[at] = f"replaced{chr(97 + at % 26)}{chr(97 + at // 26 % 26)}{chr(97 + at // 676)}"
    place = int(rng.integers(0, 6000))
    return " ".join([*host[:place], *passage, *host[place:6000]]), " ".join(passage)


def removed(run_dir: Path, stage: str) -> list[Removed]:
    """Removed documents by their number of chunks, against all shingles of both texts."""
    columns = ["ct_n_chunks", "ct_prev_doc", "drop_reason"]
    gone: dict[str, tuple[int, str]] = {}
    for part in sorted((run_dir / "documents").glob("*.parquet")):
        ids = pq.read_table(part, columns=["doc_id"])["doc_id"].to_pylist()
        rows = pq.read_table(run_dir / "stages" / stage / part.name, columns=columns).to_pylist()
        gone |= {
            i: (r["ct_n_chunks"], r["ct_prev_doc"])
            for i, r in zip(ids, rows, strict=True)
            if r["drop_reason"]
        }
    shingles = _shingles(run_dir, {*gone, *(other for _, other in gone.values())})
    judged = [(n, *_overlap(shingles[i], shingles[other])) for i, (n, other) in gone.items()]
    found = []
    for low, high in CHUNKS:
        some = [(c, j) for n, c, j in judged if low <= n and (high is None or n <= high)]
        held, alike = np.array(some).reshape(-1, 2).T
        name = f"{low} or more" if high is None else f"{low} to {high}" if high > low else f"{low}"
        tenth, median = np.quantile(held, [0.1, 0.5]) if len(some) else (np.nan, np.nan)
        mostly, near = int((held >= MOSTLY).sum()), int((alike >= MOSTLY).sum())
        found.append(Removed(name, len(some), float(tenth), float(median), mostly, near))
    return found


def _shingles(run_dir: Path, wanted: set[str]) -> dict[str, npt.NDArray[np.uint64]]:
    found = {}
    for part in sorted((run_dir / "documents").glob("*.parquet")):
        for row in pq.read_table(part, columns=["doc_id", "text"]).to_pylist():
            if row["doc_id"] in wanted:
                found[row["doc_id"]] = text_shingles(row["text"], Sampling().ngram)
    return found


def _overlap(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> tuple[float, float]:
    """Share of a that b holds, and the Jaccard similarity of both."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / len(a), common / (len(a) + len(b) - common)


def report(
    mb: float,
    kernels: dict[str, float],
    speeds: list[Speed],
    passages: list[Planted],
    gone: list[Removed],
) -> str:
    """The section of the page."""
    one_core = [[name, f"{s:.2f}", f"{mb / s:.1f}"] for name, s in kernels.items()]
    ops = [
        [
            s.op,
            f"{s.wall:.1f}",
            f"{s.cpu:.1f}",
            f"{mb / s.cpu:.1f}",
            f"{s.units:.1f}",
            f"{mb / s.units:.1f}",
            f"{s.exchanged / 1e6:.1f}",
            f"{s.stored / 1e6:.1f}",
        ]
        for s in speeds
    ]
    planted_rows = [
        [f"{p.changed:.0%}", f"{p.found:.0%}", f"{p.covered:.2f}", str(p.strangers)]
        for p in passages
    ]
    removals = [
        [
            g.chunks,
            str(g.documents),
            f"{g.tenth:.2f}",
            f"{g.median:.2f}",
            str(g.mostly),
            str(g.alike),
        ]
        for g in gone
    ]
    op_head = ["op", "wall s", "CPU s", "MB/s per core", "units, CPU s", "MB/s per core"]
    return "\n\n".join(
        [
            f"{mb:.1f} MB of text. The kernels on one core:",
            table(["step", "CPU s", "MB/s per core"], one_core),
            "The ops on a warm local Ray, the corpus read already:",
            table([*op_head, "exchanged MB", "stored MB"], ops),
            f"Passages of {PASSAGE:,} words of one document inside another of 6,000:",
            table(["words replaced", "found", "coverage to truth", "strangers"], planted_rows),
            "Removed with `min_chunks: 1`, and the share of all their shingles that the kept "
            "document holds:",
            table(
                ["chunks", "removed", "10 %", "median", f"{MOSTLY} or more", f"J ≥ {MOSTLY}"],
                removals,
            ),
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
