"""Packing side by side on named data: figures against the published ones, the trade-off, speed.

    python -m jobs.bench.pack [--sets hier20000,wiki2,flat20000] [--json] [--write]

Lengths are log-normal (median 703 tokens), the same for every order. First the published table:
windows, fill, documents cut, token-weighted coherence. Then, along the path of every set, what each
rule and look-ahead of the automatic choice is worth, and which one is chosen. Then speed on one
core: tokens per second of planning, of planning and assembling windows of tokens that are at hand,
and of both with the Parquet bytes. Exit code 1 when a figure is off the published one by more than
its tolerance.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jobs.bench.datasets import F32, I64, lengths
from jobs.bench.order import DATA, SEED, Problem, load
from jobs.bench.pack_published import (
    COHERENT,
    CUT,
    FILL,
    LENGTH,
    PUBLISHED,
    UNORDERED,
    WINDOWS,
    Case,
)
from jobs.bench.pack_speed import speed
from jobs.bench.report import table, write_section
from longctx.cluster.groups import balanced_groups
from longctx.order.cluster_path import cluster_path
from longctx.order.icp import icp_order
from longctx.order.improve import improve_path
from longctx.order.path import greedy_edge_path
from longctx.pack.audit import placement_partial
from longctx.pack.frame import Plan
from longctx.pack.lookahead import RULES, plan_look_ahead
from longctx.pack.plan import plan_windows
from longctx.pack.similarity import coherence

SETS = ("hier20000", "wiki2", "flat20000")
CURVE = (16, 64, 256, 512, 1024)


class Row(NamedTuple):
    """What a case measured: windows, fill, documents cut, of those that fit, coherence."""

    case: Case
    windows: int
    fill: float
    split: float
    split_short: float
    coherence: float
    off: list[str]


class Ordered(NamedTuple):
    """Documents of a set in some order: vectors float32[n, d], framed lengths int64[n]."""

    vectors: F32
    lengths: I64

    @property
    def tour(self) -> Any:
        """One tour of all documents."""
        return np.zeros(len(self.lengths), dtype=np.int32)


def main(argv: list[str] | None = None) -> int:
    from jobs.bench.machine import describe

    parser = argparse.ArgumentParser(description="Packing side by side on named data.")
    parser.add_argument("--sets", default=",".join(SETS), help=f"of {', '.join(SETS)}")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with posttrain/")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="write them to docs/benchmarks.md")
    args = parser.parse_args(argv)
    wanted = args.sets.split(",")
    if unknown := [name for name in wanted if name not in SETS]:
        parser.error(f"unknown set {unknown[0]!r}, expected some of {', '.join(SETS)}")
    orders = {name: found for name in wanted if (found := ordered(name, args.data)) is not None}
    for name in [n for n in wanted if n not in orders]:
        print(f"skipped {name}: its data is not under {args.data}", file=sys.stderr)
    if not orders:
        return 1
    rows = [measure(case, orders[case.dataset]) for case in PUBLISHED if case.dataset in orders]
    curves = {name: trade_off(found["path"]) for name, found in orders.items()}
    largest = max(orders.values(), key=lambda o: len(o["path"].lengths))["path"]
    rates = speed(largest.vectors, largest.lengths)
    text = "\n\n".join([_published(rows), *map(_curve, curves, curves.values()), _rates(rates)])
    if args.json:
        cases = [{**row._asdict(), "case": row.case._asdict()} for row in rows]
        values = {"machine": describe(), "rows": cases, "look_ahead": curves, "tokens_per_s": rates}
        print(json.dumps(values, indent=1))
    else:
        print(text)
    if args.write:
        write_section("Packing", text)
    return int(any(row.off for row in rows))


def ordered(
    name: str, data: Path, wanted: Collection[str] | None = None
) -> dict[str, Ordered] | None:
    """The `wanted` orders of a set (default: those of its rows); None if its files are absent."""
    problem = load(name, data)
    if problem is None:
        return None
    sizes, drawn = lengths(len(problem.vectors), 4 if name == "wiki2" else 3)
    if wanted is None:
        wanted = {"path"}.union(c.order for c in PUBLISHED if c.dataset == name)
    ways: dict[str, Callable[[Problem], I64]] = {
        "random": lambda _: drawn,
        "icp": lambda p: icp_order(p.lists, p.sims, priority=p.priority, graph="directed")[0],
        "path": _path,
        "cluster_path": _cluster_path,
    }
    made = {order: ways[order](problem) for order in wanted}
    return {order: Ordered(problem.vectors[at], sizes[at]) for order, at in made.items()}


def _path(p: Problem) -> I64:
    return improve_path(p.vectors, greedy_edge_path(p.vectors, p.edges), p.lists, p.sims)


def _cluster_path(problem: Problem) -> I64:
    """The path over n // 50 clusters of documents."""
    n = len(problem.vectors)
    k = max(1, n // 50)
    one_each = np.ones(n, dtype=np.int64)
    groups = balanced_groups(
        problem.vectors, one_each, problem.priority, k, max_tokens=2 * n // k, niter=8, seed=SEED
    )
    return cluster_path(problem.vectors, groups)[0]


def measure(case: Case, orders: dict[str, Ordered]) -> Row:
    """One row of the table, with the names of the figures that are off."""
    documents = orders[case.order]
    plan = _plan(case.strategy, documents, case.length, case.options)
    windows, fill = _filled(plan, case.length)
    sums = placement_partial(plan.placement, documents.lengths, case.length)
    n = len(documents.lengths)
    split, short = sums["split_docs"] / n, sums["split_short"] / n
    coherent = coherence(plan.placement, documents.vectors) or 0.0
    loose = case.order == "random" or case.strategy == "best_fit"
    limits = (WINDOWS * case.published[0], FILL, CUT, CUT, UNORDERED if loose else COHERENT)
    found = (windows, fill, split, short, coherent)
    names = ("windows", "fill", "split", "split_short", "coherence")
    off = [
        name
        for name, value, published, limit in zip(names, found, case.published, limits, strict=True)
        if published is not None and abs(value - published) > limit
    ]
    return Row(case, *found, off)


def _plan(strategy: str, documents: Ordered, length: int, options: dict[str, Any]) -> Plan:
    where = (documents.lengths, documents.tour, length)
    return plan_windows(strategy, *where, vectors=documents.vectors, **options)


def _filled(plan: Plan, length: int) -> tuple[int, float]:
    windows = int(plan.placement.window[-1]) + 1
    return windows, plan.placement.tokens / (windows * length)


def trade_off(documents: Ordered) -> dict[str, Any]:
    """What rules and look-aheads are worth along an order, and which the packer takes.

    `curve` holds them all; `seconds` are those of the packer's own choice.
    """
    where = (documents.lengths, documents.tour, LENGTH)
    curve = [
        plan_look_ahead(*where, rule=rule, look_ahead=look, vectors=documents.vectors)[1]["tried"]
        for rule in RULES
        for look in CURVE
    ]
    started = time.process_time()
    _, report = plan_look_ahead(*where, vectors=documents.vectors)
    seconds = time.process_time() - started
    return {**report, "seconds": seconds, "curve": [c for tried in curve for c in tried]}


def _published(rows: list[Row]) -> str:
    header = ["set", "L", "order", "strategy", "windows", "fill", "cut", "cut though short"]
    header += ["coherence", "published", "off"]
    lines = [
        [
            row.case.dataset,
            f"{row.case.length:,}",
            row.case.order,
            ", ".join([row.case.strategy, *(str(v) for v in row.case.options.values())]),
            f"{row.windows:,}",
            f"{row.fill:.4f}",
            f"{row.split:.2%}",
            f"{row.split_short:.2%}",
            f"{row.coherence:.4f}",
            " / ".join("" if v is None else f"{v:g}" for v in row.case.published),
            ", ".join(row.off),
        ]
        for row in rows
    ]
    return f"### Published figures\n\n{table(header, lines)}"


def _curve(name: str, report: dict[str, Any]) -> str:
    header = ["rule", "look-ahead", "windows", "fill", "coherence", "of the order's", "taken"]
    lines = [
        [
            c["rule"],
            f"{c['look_ahead']:,}",
            f"{c['windows']:,}",
            f"{c['fill']:.4f}",
            f"{c['coherence']:.4f}",
            f"{c['coherence'] / report['coherence_of_order']:.1%}",
            "x" if (c["rule"], c["look_ahead"]) == (report["rule"], report["look_ahead"]) else "",
        ]
        for c in report["curve"]
    ]
    about = (
        f"Windows of {LENGTH:,} tokens along the path; coherence of the order itself (concat) "
        f"{report['coherence_of_order']:.4f}; {report['seconds']:.2f} CPU s for the choice."
    )
    return f"### Look-ahead, {name}\n\n{about}\n\n{table(header, lines)}"


def _rates(rates: dict[str, dict[str, float]]) -> str:
    steps = list(next(iter(rates.values())))
    lines = [[name, *(f"{own[s] / 1e6:.1f}" for s in steps)] for name, own in rates.items()]
    return f"### Million tokens per CPU second\n\n{table(['strategy', *steps], lines)}"


if __name__ == "__main__":
    sys.exit(main())
