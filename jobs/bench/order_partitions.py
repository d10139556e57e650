"""What an order loses when it is arranged in partitions, measured where one place holds it too.

    python -m jobs.bench.order_partitions [--sets flat,hier] [--n 20000] [--limits 2000,5000]
        [--json] [--write]

`order.path` over all documents of a named set, and over partitions of at most so many: the pure
functions that the engine's steps call, with exact neighbours. Columns: partitions, documents of the
largest, adjacency, the share of the adjacency in one place that is kept, coherence of 16 and 100,
and the share of the true ten nearest neighbours that lie in the same partition. Beside them the
same with two cells a partition, as if topics were far smaller than cells, and with documents dealt
at random, which is what partitions must not be. Exit code 1 when partitions keep less than `LEAST`
of the adjacency, or no more than random ones.
"""

import argparse
import json
from typing import Any

import numpy as np

from jobs.bench.datasets import flat, hier
from jobs.bench.report import table, write_section
from longctx.cluster.cells import ITERATIONS, PER_CELL
from longctx.cluster.division import dealt, partition_of
from longctx.cluster.kmeans import assign, train, training_sample
from longctx.cluster.knn import search
from longctx.cluster.similarity import F32, I32, I64
from longctx.cluster.stages_cells import cells_for
from longctx.ids import doc_keys, priorities
from longctx.order.cluster_path import path_through
from longctx.order.metrics import adjacency, coherence
from longctx.order.partitions import group_cells, join_partitions

MAKE = {"flat": flat, "hier": hier}
CELLS, COARSE, RANDOM = "by cells", "by 2 cells each", "at random"
LEAST = 0.97
SEED = 17


def main(argv: list[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    limits = [int(size) for size in args.limits.split(",")]
    found, failed = {}, False
    for name in args.sets.split(","):
        X = MAKE[name](args.n)
        found[name] = measured(X, limits)
        for row, _, random in zip(*[iter(found[name][1:])] * 3, strict=True):
            failed |= row["kept"] < LEAST or row["kept"] <= random["kept"]
    if args.json:
        print(json.dumps(found, indent=1))
    if args.write:
        write_section("Orders in partitions", _page(args.n, found))
    return int(failed)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="order.path in partitions.")
    parser.add_argument("--sets", default="flat,hier", help="named sets")
    parser.add_argument("--n", type=int, default=20_000, help="documents of each")
    parser.add_argument("--limits", default="10000,5000,2000", help="documents of a partition")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    return parser


def measured(X: F32, limits: list[int]) -> list[dict[str, Any]]:
    """Figures of the order in one place, and in partitions of at most each of `limits`."""
    priority = priorities(doc_keys([f"d{i}" for i in range(len(X))]), SEED)
    near, _ = search(X, 0, len(X), 10)
    whole = _figures(X, near, np.zeros(len(X), np.int32), "in one place", None)
    rows = [whole]
    for limit in limits:
        wanted = -(-len(X) // limit)
        for how, cells in ((CELLS, cells_for(len(X), limit)), (COARSE, 2 * wanted)):
            rows.append(_figures(X, near, divided(X, limit, cells), how, whole))
        home = dealt(priority, wanted)
        rows.append(_figures(X, near, home, RANDOM, whole))
    return rows


def divided(X: F32, limit: int, cells: int) -> I32:
    """The partition of each document, int32[n], as `stages_partitions` makes them."""
    keys = doc_keys([f"d{i}" for i in range(len(X))])
    sample = training_sample(keys, SEED, cells, PER_CELL)
    centroids = train(X[sample], cells, ITERATIONS, SEED)
    home, _ = assign(X, centroids)
    counts = np.bincount(home, minlength=cells)
    return partition_of(home, priorities(keys, SEED), group_cells(centroids, counts, limit, SEED))


def order_of(X: F32, partition: I32) -> I64:
    """Every partition along a path of its own, turned for the seams; int64[n]."""
    members = [np.flatnonzero(partition == p) for p in range(int(partition.max()) + 1)]
    paths = [own[path_through(X[own])] for own in members if len(own)]
    heads, tails = (X[[path[at] for path in paths]] for at in (0, -1))
    turned = join_partitions(heads, tails, may_turn=True).turned
    return np.concatenate([p[::-1] if t else p for p, t in zip(paths, turned, strict=True)])


def _figures(
    X: F32, near: I32, partition: I32, how: str, whole: dict[str, Any] | None
) -> dict[str, Any]:
    order = order_of(X, partition)
    sizes = np.bincount(partition)
    value = adjacency(X, order) or 0.0
    return {
        "dealt": how,
        "partitions": int((sizes > 0).sum()),
        "most": int(sizes.max()),
        "adjacency": round(value, 4),
        "kept": round(value / whole["adjacency"], 4) if whole else 1.0,
        "coherence 16": round(coherence(X, order, 16) or 0.0, 4),
        "coherence 100": round(coherence(X, order, 100) or 0.0, 4),
        "neighbours inside": round(float((partition[near] == partition[:, None]).mean()), 4),
    }


def _page(n: int, found: dict[str, list[dict[str, Any]]]) -> str:
    blocks = []
    for name, rows in found.items():
        body = [[str(value) for value in row.values()] for row in rows]
        blocks.append(f"`{name}`, {n:,} documents:\n\n" + table(list(rows[0]), body))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    raise SystemExit(main())
