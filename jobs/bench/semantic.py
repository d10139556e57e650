"""k-means and SemDeDup against the bare FAISS calls that do the same work, one thread each.

    python -m jobs.bench.semantic [--sets flat100000,dev] [--json] [--write]

Bare is FAISS on arrays at hand: `Kmeans.train` on the same sample with the same k and iterations,
`IndexFlatIP.search` for the nearest centroid of every vector, and inside every cluster
`IndexFlatIP.search` for the two nearest, of which one is the vector itself. FAISS has no search
among earlier rows only; the whole cluster is what one call can do. Ours twice: the pure functions
on the same arrays, and the ops on a local Ray with one worker, in CPU seconds of their units as the
commits record them, with reading, the exchange's bytes, results and commits. `cluster.kmeans` runs
with its defaults (a cluster for 50 rows), `dedup.semantic` with its own (a cluster for 2,000).

Exit code 1 when the pure functions of an op are slower than 0.8 of bare. What the op takes beyond
them is reading and writing vectors (1.5 kB a document, several times); the table tells both.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import faiss
import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from jobs.bench.datasets import F32, I64, flat
from jobs.bench.machine import describe
from jobs.bench.report import table, write_section
from longctx.cluster.kmeans import PER_CENTROID, assign, one_faiss_thread, train, training_sample
from longctx.cluster.similarity import I32
from longctx.cluster.stages import ClusterKMeans
from longctx.dedup.semantic import semdedup_pairs
from longctx.dedup.stages_semantic import DedupSemantic
from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import FileRef
from longctx.engine.corpus import Corpus, Sidecar, parquet_groups
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.settings import stage_folder
from longctx.ids import doc_keys, mix64
from longctx.io import paths
from longctx.schema import DOCUMENTS

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus" / "dev"
SETS = ("flat100000", "dev")
LEAST = 0.8
PART_ROWS, GROUP_ROWS, SEED = 25_000, 2500, 1234
_FIRST = 1000
KMEANS = ClusterKMeans(op="cluster.kmeans")
SEMANTIC = DedupSemantic(op="dedup.semantic")
T = TypeVar("T")


class Times(NamedTuple):
    """CPU seconds of the three parts: training, assignment, and comparing inside clusters."""

    train: float
    assign: float
    pairs: float

    @property
    def whole(self) -> float:
        """All parts."""
        return sum(self)


class Row(NamedTuple):
    """One op on one set: bare FAISS, the pure functions, and the op in its units."""

    dataset: str
    op: str
    documents: int
    clusters: int
    bare: Times
    pure: Times
    units: float

    @property
    def held(self) -> bool:
        """Whether the pure functions reach the limit."""
        return self.bare.whole / self.pure.whole >= LEAST


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="k-means and SemDeDup against bare FAISS.")
    parser.add_argument("--sets", default=",".join(SETS), help="flatN, dev")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of Parquet files")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    args = parser.parse_args(argv)
    rows: list[Row] = []
    for name in args.sets.split(","):
        X = flat(int(name.removeprefix("flat"))) if name.startswith("flat") else dev(args.corpus)
        if X is None:
            print(f"skipped {name}: no Parquet files in {args.corpus}", file=sys.stderr)
            continue
        rows += measure(name, X)
    if not rows:
        return 1
    text = _page(rows)
    if args.json:
        values = [row._asdict() for row in rows]
        print(json.dumps({"machine": describe(), "rows": values}, indent=1))
    else:
        print(text)
    if args.write:
        write_section("k-means and SemDeDup", text)
    return int(not all(row.held for row in rows))


def dev(corpus: Path) -> F32 | None:
    """Static vectors of the documents of a corpus; None where it is absent."""
    import pyarrow.parquet as pq

    from longctx.embed.encoders import load_encoder

    files = sorted(corpus.glob("*.parquet"))
    if not files:
        return None
    encoder = load_encoder("static")
    found = [
        encoder.encode(batch.column(0).to_pylist())[0]
        for file in files
        for batch in pq.ParquetFile(file).iter_batches(batch_size=500, columns=["text"])
    ]
    X = np.concatenate(found)
    return X[np.linalg.norm(X, axis=1) > 0]


def measure(name: str, X: F32) -> list[Row]:
    """Both ops on one set."""
    ids = [f"{key:016x}" for key in mix64(np.arange(1, len(X) + 1, dtype=np.uint64))]
    keys = doc_keys(ids)
    k_means, k_semantic = max(1, round(len(X) / KMEANS.per_cluster)), -(-len(X) // 2000)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-semantic-") as folder, threadpool_limits(1):
        first = write_corpus(Path(folder) / "first", X[:_FIRST], ids[:_FIRST])
        corpus = write_corpus(Path(folder) / "all", X, ids)
        for op, k, niter in (
            (KMEANS, k_means, KMEANS.niter),
            (SEMANTIC, k_semantic, SEMANTIC.niter),
        ):
            sample = X[training_sample(keys, SEED, k)]
            compares = op is SEMANTIC
            semdedup_pairs(X[:100], np.zeros(100), ids[:100])  # compiles before the clock starts
            bare = bare_faiss(X, sample, k, niter, compares)
            pure = pure_functions(X, sample, ids, k, niter, compares)
            rows.append(Row(name, op.op, len(X), k, bare, pure, in_units(op, first, corpus)))
    return rows


def bare_faiss(X: F32, sample: F32, k: int, niter: int, compares: bool) -> Times:
    """CPU seconds of the FAISS calls."""
    d = X.shape[1]
    options = {"min_points_per_centroid": 1, "max_points_per_centroid": PER_CENTROID}
    kmeans = faiss.Kmeans(d, k, niter=niter, seed=SEED, spherical=True, **options)
    with one_faiss_thread():
        training, _ = _cpu(lambda: kmeans.train(sample))
        index = faiss.IndexFlatIP(d)
        index.add(np.asarray(kmeans.centroids))
        assigning, (_, cluster) = _cpu(lambda: index.search(X, 1))
        groups = members(cluster[:, 0], k) if compares else []
        comparing, _ = _cpu(lambda: [_two_nearest(X[rows]) for rows in groups])
    return Times(training, assigning, comparing)


def _two_nearest(rows: F32) -> F32:
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    similarity: F32 = index.search(rows, 2)[0]
    return similarity


def pure_functions(
    X: F32, sample: F32, ids: list[str], k: int, niter: int, compares: bool
) -> Times:
    """CPU seconds of the functions that the ops call."""
    names = np.array(ids, dtype=object)
    training, centroids = _cpu(lambda: train(sample, k, niter, SEED))
    assigning, (cluster, similarity) = _cpu(lambda: assign(X, centroids))
    groups = members(cluster, k) if compares else []
    comparing, _ = _cpu(
        lambda: [semdedup_pairs(X[g], 1 - similarity[g], names[g].tolist()) for g in groups]
    )
    return Times(training, assigning, comparing)


def members(cluster: I32 | I64, k: int) -> list[I64]:
    """Rows of each cluster, int64, by number; without the empty ones."""
    order = np.argsort(cluster, kind="stable")
    borders = np.searchsorted(cluster[order], np.arange(1, k))
    return [rows for rows in np.split(order, borders) if len(rows)]


def in_units(op: Barrier, first: Corpus, corpus: Corpus) -> float:
    """CPU seconds of all units of an op on a local Ray with one worker.

    The op runs over `first` before: what a process loads once (FAISS, compiled kernels) is not
    part of what it does with documents.
    """
    import ray

    from longctx.engine.cluster import connect

    connect(num_cpus=max(2, os.cpu_count() or 1))
    try:
        _cpu_of_units(op, first)
        return _cpu_of_units(op, corpus)
    finally:
        ray.shutdown()


def _cpu_of_units(op: Barrier, corpus: Corpus) -> float:
    stage = f"02-{op.op}"
    context = BarrierContext(
        corpus,
        op,
        Setting(seed=17, tokenizer="", stage=stage, run_dir=corpus.run_dir, output=corpus.run_dir),
        stage_folder(corpus.run_dir, stage),
        rows=sum(file.rows for file in corpus.documents),
        workers=1,
        exchange_bytes=256 * 10**6,
    )
    op.run(context)
    steps = [*context.step_commits.values()]
    return float(sum(c.stats["used"]["cpu"] for commits in steps for c in commits))


def write_corpus(folder: Path, X: F32, ids: list[str]) -> Corpus:
    """Documents without text in parts, and their vectors as the sidecar of `embed`."""
    documents, embedded = [], []
    for i, at in enumerate(range(0, len(X), PART_ROWS)):
        rows = X[at : at + PART_ROWS]
        fixed = {"text": "", "source": "bench"}
        columns = [
            pa.array(
                ids[at : at + len(rows)] if f.name == "doc_id" else [fixed.get(f.name)] * len(rows),
                f.type,
            )
            for f in DOCUMENTS
        ]
        documents.append(_write(folder, f"documents/{i:04d}", pa.table(columns, schema=DOCUMENTS)))
        made = {
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), X.shape[1]),
            "emb_cover": np.ones(len(rows), dtype=np.float32),
            DROP_REASON: pa.nulls(len(rows), pa.string()),
        }
        embedded.append(_write(folder, f"stages/01-embed/{i:04d}", pa.table(made)))
    beside = Sidecar("01-embed", ("embedding", "emb_cover"), False, tuple(embedded))
    return Corpus(str(folder), tuple(documents), (beside,))


def _write(folder: Path, name: str, whole: pa.Table) -> FileRef:
    groups = [whole.slice(at, GROUP_ROWS) for at in range(0, len(whole), GROUP_ROWS)]
    data = parquet_groups(groups)
    paths.write_atomic(str(folder / f"{name}.parquet"), data)
    return FileRef(f"{name}.parquet", len(data), paths.checksum(data), len(whole))


def _cpu(work: Callable[[], T]) -> tuple[float, T]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def _page(rows: list[Row]) -> str:
    header = ["set", "op", "documents", "clusters", "bare FAISS, CPU s", "pure, CPU s"]
    header += ["units, CPU s", "pure to bare", "", "units to bare", ""]
    lines = [
        [
            row.dataset,
            row.op,
            f"{row.documents:,}",
            f"{row.clusters:,}",
            _seconds(row.bare),
            _seconds(row.pure),
            f"{row.units:.1f}",
            f"{row.bare.whole / row.pure.whole:.2f}",
            "held" if row.held else "MISSED",
            f"{row.bare.whole / row.units:.2f}",
            "held" if row.bare.whole / row.units >= LEAST else "MISSED",
        ]
        for row in rows
    ]
    about = f"Seconds: train + assign + compare. Limit: {LEAST} of the speed of bare FAISS."
    return f"{about}\n\n{table(header, lines)}"


def _seconds(times: Times) -> str:
    return f"{times.train:.1f} + {times.assign:.1f} + {times.pairs:.1f}"


if __name__ == "__main__":
    sys.exit(main())
