"""Orders side by side on named data: what each is worth, what it costs, how far from the bound.

    python -m jobs.bench.order [--sets flat2000,hier2000,wiki2,dev] [--hk] [--json] [--write]

Exact neighbours; near-duplicates stay in the named sets (as in the published figures) and are
removed from `dev`: the English and code documents of the development corpus with static vectors.
Its Korean and Chinese ones are left out because the encoder is English and sees them as copies of
one another: at 0.95 it would remove 99 % of the Korean reviews. Columns:
adjacency, coherence 16 and 100, best_earlier 16, jumps (share of neighbours in the order that are
no edge of the graph), CPU seconds after the neighbour search, share of the bound reached, and the
published adjacency / coherence 16. Groups of `clusters` and `cluster_path` hold at most twice the
mean number of documents and follow a path over their centroids; those of plain k-means are of any
size and in random order. The Held-Karp bound is computed at 2,000 documents and, with `--hk`,
everywhere (n² float32 of memory); elsewhere the weaker top-2 bound stands in. Below each table:
coherence 16 of cluster_path over that of ICP. Exit code 1 when a measured figure is off the
published one by more than its tolerance.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jobs.bench.datasets import F32, I64, flat, hier, wiki2
from jobs.bench.published import (
    CLUSTER_PATH_16,
    CLUSTER_PATH_50,
    CLUSTERS_50,
    GREEDY,
    ICP_DIRECTED,
    ICP_RELEASED,
    ICP_UNDIRECTED,
    K_MEANS_50,
    PATH,
    SETS,
    SHARDS,
    is_off,
    published,
)
from longctx.cluster.groups import Groups, balanced_groups
from longctx.cluster.knn import Edges, search, undirected_edges
from longctx.cluster.near_duplicates import prune, top1_histogram
from longctx.cluster.similarity import I32
from longctx.ids import U64, doc_keys, priorities
from longctx.order.bounds import hk_bound
from longctx.order.cluster_path import cluster_path, path_through
from longctx.order.clusters import clusters_order, random_sequence
from longctx.order.icp import icp_order
from longctx.order.icp_released import icp_released_order
from longctx.order.improve import improve_path
from longctx.order.metrics import adjacency, best_earlier, coherence, jumps, top2_bound
from longctx.order.path import greedy_edge_path
from longctx.order.random import random_order

DATA = Path(__file__).parents[3] / "shared" / "data"
CACHE = Path(__file__).parents[2] / "build" / "bench"
DEV = "dev"
SEED, K, K_SEARCH = 17, 10, 32
HK_STEPS_SMALL, HK_STEPS_LARGE = 120, 50

HEADER = [
    "order",
    "adjacency",
    "coherence 16",
    "coherence 100",
    "best_earlier 16",
    "jumps",
    "CPU s",
    "of bound",
    "published",
]


class Problem(NamedTuple):
    """Vectors with their neighbour table, ready to be ordered."""

    vectors: F32
    lists: I32
    sims: F32
    edges: Edges
    priority: U64
    notes: str


class Row(NamedTuple):
    """One order on one set."""

    order: str
    adjacency: float
    coherence_16: float
    coherence_100: float
    best_earlier_16: float
    jumps: float
    seconds: float
    of_bound: float
    published: tuple[float, float] | None
    off: bool


def main(argv: list[str] | None = None) -> int:
    from jobs.bench.machine import describe
    from jobs.bench.report import write_section

    parser = _arguments()
    args = parser.parse_args(argv)
    wanted = args.sets.split(",")
    if unknown := [name for name in wanted if name not in (*SETS, DEV)]:
        parser.error(f"unknown set {unknown[0]!r}, expected some of {', '.join((*SETS, DEV))}")
    _compile()
    results: dict[str, dict[str, Any]] = {}
    texts = []
    for name in wanted:
        problem = load(name, args.data)
        if problem is None:
            print(f"skipped {name}: its data is not under {args.data}", file=sys.stderr)
            continue
        small = len(problem.vectors) <= 2000
        rows, bound = measure(name, problem, small or args.hk)
        results[name] = {"bound": bound, "rows": [row._asdict() for row in rows]}
        texts.append(_section(name, problem, rows, bound))
        if not args.json:
            print(texts[-1], flush=True)
    if args.json:
        print(json.dumps({"machine": describe(), "sets": results}, indent=1))
    if args.write and texts:
        write_section("Orders", "\n".join(texts))
    return int(any(row["off"] for found in results.values() for row in found["rows"]))


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Orders side by side on named data.")
    every = ",".join((*SETS, DEV))
    parser.add_argument("--sets", default=every, help=f"some of {every}")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with posttrain/, corpus/")
    parser.add_argument("--hk", action="store_true", help="Held-Karp bound above 2,000, too")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="write them to docs/benchmarks.md")
    return parser


def load(name: str, data: Path) -> Problem | None:
    """A named set with its neighbour table; None if its files are absent."""
    passages = data / "posttrain" / "hipporag_2wiki" / "2wikimultihopqa_corpus.json"
    parts = sorted((data / "corpus" / "dev").glob("*.parquet"))
    if name == DEV:
        return _dev(parts) if parts else None
    if name == "wiki2":
        if not passages.exists():
            return None
        vectors = _cached("wiki2", lambda: wiki2(passages))
    else:
        family = flat if name.startswith("flat") else hier
        vectors = family(int(name.lstrip("flathier")))
    started = time.process_time()
    lists, sims = search(vectors, 0, len(vectors), K_SEARCH)
    ids = [f"d{i}" for i in range(len(vectors))]
    return _problem(vectors, lists, sims, ids, started, "near-duplicates kept")


def _problem(
    vectors: F32, lists: I32, sims: F32, ids: list[str], started: float, notes: str
) -> Problem:
    edges = undirected_edges(lists, sims, K)
    seconds = time.process_time() - started
    notes = f"{len(vectors):,} documents; {notes}; neighbours {seconds:.1f} CPU s"
    return Problem(vectors, lists, sims, edges, priorities(doc_keys(ids), SEED), notes)


def _dev(parts: list[Path]) -> Problem:
    """English and code documents of the development corpus by id, without near-duplicates."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(parts, columns=["id", "text", "n_tokens", "language"]).sort_by("id")
    table = table.filter(pc.is_in(table["language"], pa.array(["en", "code"])))
    vectors = _cached("dev-english", lambda: _static_vectors(table["text"].to_pylist()))
    real = np.flatnonzero(np.linalg.norm(vectors, axis=1) > 0.5)
    vectors, n_tokens = vectors[real], table["n_tokens"].to_numpy()[real]
    ids = table["id"].take(real).to_pylist()
    started = time.process_time()
    lists, sims = search(vectors, 0, len(vectors), K_SEARCH)
    pruned = prune(vectors, lists, sims, n_tokens)
    suspicious, top1, _, _ = top1_histogram(sims)
    warning = ", threshold removes ordinary neighbours" if suspicious else ""
    notes = (
        f"{len(table) - len(real):,} without a vector and {len(real) - len(pruned.keep):,} "
        f"near-duplicates removed (mean top-1 similarity before {top1:.3f}{warning})"
    )
    kept = [ids[i] for i in pruned.keep]
    return _problem(vectors[pruned.keep], pruned.lists, pruned.sims, kept, started, notes)


def _static_vectors(texts: list[str]) -> F32:
    from longctx.embed.encoders import load_encoder

    return load_encoder("static").encode(texts)[0]


def _cached(name: str, make: Callable[[], F32]) -> F32:
    path = CACHE / f"{name}.npy"
    if path.exists():
        cached: F32 = np.load(path)
        return cached
    vectors = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, vectors)
    return vectors


def measure(name: str, problem: Problem, held_karp: bool) -> tuple[list[Row], dict[str, float]]:
    """All orders of one set, and the bound they are compared with."""
    made = {order: _timed(make) for order, make in _methods(problem).items()}
    greedy, greedy_seconds = made[GREEDY]
    path, seconds = _timed(
        lambda: improve_path(problem.vectors, greedy, problem.lists, problem.sims, K)
    )
    made[PATH] = path, greedy_seconds + seconds
    bound = {"top2_bound": top2_bound(problem.sims) or 0.0}
    if held_karp:
        steps = HK_STEPS_SMALL if len(path) <= 10_000 else HK_STEPS_LARGE
        bound["hk_bound"] = hk_bound(problem.vectors, path, steps) or 0.0
    best = min(bound.values())
    return [_row(name, problem, order, *result, best) for order, result in made.items()], bound


def _methods(p: Problem) -> dict[str, Callable[[], I64]]:
    return {
        "random": lambda: random_order(p.priority),
        ICP_DIRECTED: lambda: icp_order(p.lists, p.sims, K, priority=p.priority, graph="directed")[
            0
        ],
        ICP_UNDIRECTED: lambda: icp_order(p.lists, p.sims, K, priority=p.priority)[0],
        ICP_RELEASED: lambda: icp_released_order(p.lists, priority=p.priority)[0],
        GREEDY: lambda: greedy_edge_path(p.vectors, p.edges),
        SHARDS: lambda: _path_in_shards(p, 8),
        K_MEANS_50: lambda: _k_means(p, 50),
        CLUSTERS_50: lambda: _clusters(p, 50),
        CLUSTER_PATH_50: lambda: cluster_path(p.vectors, _groups(p, 50, niter=8))[0],
        CLUSTER_PATH_16: lambda: cluster_path(p.vectors, _groups(p, 16, niter=8))[0],
    }


def _groups(p: Problem, docs: int, niter: int, *, capped: bool = True) -> Groups:
    """n // docs groups, of at most twice as many documents as on average."""
    n = len(p.vectors)
    k = max(1, n // docs)
    one_each = np.ones(n, dtype=np.int64)
    limit = 2 * n // k if capped else None
    return balanced_groups(
        p.vectors, one_each, p.priority, k, max_tokens=limit, niter=niter, seed=SEED
    )


def _k_means(p: Problem, docs: int) -> I64:
    groups = _groups(p, docs, niter=20, capped=False)
    sequence = random_sequence(groups, p.priority)
    return clusters_order(p.vectors, groups, sequence, "random", p.priority)[0]


def _clusters(p: Problem, docs: int) -> I64:
    groups = _groups(p, docs, niter=20)
    sequence = path_through(groups.centroids)
    return clusters_order(p.vectors, groups, sequence, "random", p.priority)[0]


def _path_in_shards(p: Problem, count: int) -> I64:
    shards = [np.sort(shard) for shard in np.array_split(random_order(p.priority), count)]
    return np.concatenate([shard[path_through(p.vectors[shard])] for shard in shards])


def _timed(make: Callable[[], I64]) -> tuple[I64, float]:
    started = time.process_time()
    order = make()
    return order, time.process_time() - started


def _row(name: str, p: Problem, order: str, sequence: I64, seconds: float, bound: float) -> Row:
    value = adjacency(p.vectors, sequence) or 0.0
    coherence_16 = coherence(p.vectors, sequence, 16) or 0.0
    return Row(
        order,
        value,
        coherence_16,
        coherence(p.vectors, sequence, 100) or 0.0,
        best_earlier(p.vectors, sequence, 16) or 0.0,
        jumps(sequence, p.lists, K) or 0.0,
        seconds,
        value / bound,
        published(order, name),
        is_off(order, name, value, coherence_16),
    )


def _section(name: str, problem: Problem, rows: list[Row], bound: dict[str, float]) -> str:
    from jobs.bench.report import table

    lines = [
        [
            row.order,
            *(f"{value:.4f}" for value in row[1:5]),
            f"{row.jumps:.1%}",
            f"{row.seconds:.2f}",
            f"{row.of_bound:.1%}",
            "" if row.published is None else f"{row.published[0]} / {row.published[1]}",
        ]
        for row in rows
    ]
    limits = ", ".join(f"{kind} {value:.4f}" for kind, value in bound.items())
    coherent = {row.order: row.coherence_16 for row in rows}
    compared = " and ".join(
        f"{coherent[CLUSTER_PATH_16] / coherent[icp]:.2f} times that of {icp}"
        for icp in (ICP_DIRECTED, ICP_UNDIRECTED)
    )
    below = f"Coherence 16 of {CLUSTER_PATH_16}: {compared}."
    head = f"{problem.notes}; {limits}."
    return f"### {name}\n\n{head}\n\n{table(HEADER, lines)}\n\n{below}\n"


def _compile() -> None:
    """Compile the kernels before a clock starts."""
    x = flat(200)
    lists, sims = search(x, 0, len(x), K_SEARCH)
    pruned = prune(x, lists, sims, np.ones(len(x), dtype=np.int64))
    problem = _problem(x, pruned.lists, pruned.sims, [str(i) for i in range(200)], 0.0, "")
    measure(DEV, problem, held_karp=True)


if __name__ == "__main__":
    sys.exit(main())
