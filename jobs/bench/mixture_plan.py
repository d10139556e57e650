"""Census, plan, calibration and copies of a mixture: speed, and shares beside the reference's rule.

    python -m jobs.bench.mixture_plan [--rows 10000000] [--write]

Rows are synthetic (20 sources, lengths log-normal), in pieces of a million, through the functions
that the steps of `mix.upsample` call. The reference is the rule of Fu et al.'s code: documents
stream by in a shuffled order, those below 4,096 tokens are kept with probability .1, each source
stops when its budget is full. Both are asked for natural shares of the development corpus. Exit
code 1 when our shares are further from the targets than the reference's.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.bench.report import table, write_section
from longctx.mixture.calibrate import settled
from longctx.mixture.census import add_cells, count_cells, edges_with
from longctx.mixture.chance import F64, I32, I64, copies
from longctx.mixture.plan import build_plan
from longctx.mixture.planned import Plan
from longctx.mixture.realised import take
from longctx.mixture.rules import KeepBelow, Settings
from longctx.mixture.stages_rows import Rates, read_rows

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus" / "dev"
SEED, PIECE, SOURCES = 17, 1_000_000, 20
THRESHOLD, KEPT, DEV_BUDGET = 4096, 0.1, 1e7
_RULE = KeepBelow(kind="keep_below", threshold=THRESHOLD, p=KEPT)
_T = TypeVar("_T")


class Speed(NamedTuple):
    """CPU seconds of what a mixture does with so many rows, which hold `size` bytes of columns."""

    rows: int
    size: int
    census: float
    plan: float
    calibrate: float
    apply: float


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Speed and shares of a mixture's plan.")
    parser.add_argument("--rows", type=int, default=10_000_000, help="synthetic rows")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of Parquet files")
    parser.add_argument("--write", action="store_true", help="write them to docs/benchmarks.md")
    args = parser.parse_args(argv)
    text = _speeds(speed(args.rows))
    shares = compared(args.corpus)
    if shares is None:
        print(f"no Parquet files in {args.corpus}: shares are not compared", file=sys.stderr)
    else:
        text += "\n\n" + shares[0]
    print(text)
    if args.write:
        write_section("Mixtures, from census to copies", text)
    return int(shares is not None and not shares[1])


def pieces(rows: int) -> Iterator[pa.Table]:
    """Synthetic rows: ids of 32 characters, sources, lengths."""
    rng = np.random.default_rng(SEED)
    names = pa.array([f"source-{i:02d}" for i in range(SOURCES)])
    for at in range(0, rows, PIECE):
        n = min(PIECE, rows - at)
        lengths = np.exp(rng.normal(7, 1.3, n)).astype(np.int64) + 1
        yield pa.table(
            {
                "doc_id": [f"{i:032x}" for i in range(at, at + n)],
                "source": names.take(pa.array(rng.integers(0, SOURCES, n))),
                "n_tokens": lengths,
            }
        )


def speed(rows: int) -> Speed:
    """Each step over all pieces, in this process."""
    settings = Settings(budget=rows * 500, calibrate="always")
    edges = edges_with((THRESHOLD,))
    size, spent, counted = 0, {"census": 0.0, "apply": 0.0}, []
    for piece in pieces(rows):
        size += piece.nbytes
        found, took = _timed(partial(_counted, settings, piece, edges))
        spent["census"] += took
        counted.append(found)
    plan, planning = _timed(
        lambda: build_plan(add_cells(counted, edges), settings, length=_RULE, seed=SEED)
    )
    rates = Rates.of(plan)
    draws: list[tuple[I64, F64, I64, pa.Array]] = []
    for piece in pieces(rows):
        found, took = _timed(partial(_copied, settings, plan, rates, piece))
        spent["apply"] += took
        draws.append(found[1])
    calibrating = sum(
        _timed(partial(_calibrated, plan, rates, draws, s))[1] for s in range(len(plan.sources))
    )
    return Speed(rows, size, spent["census"], planning, calibrating, spent["apply"])


def _counted(settings: Settings, piece: pa.Table, edges: tuple[int, ...]) -> pa.Table:
    rows = read_rows(settings, piece, SEED, "bench")
    return count_cells(rows.sources, rows.sizes, None, edges)


def _copied(
    settings: Settings, plan: Plan, rates: Rates, piece: pa.Table
) -> tuple[I32, tuple[I64, F64, I64, pa.Array]]:
    """Copies of the rows of a piece, and what calibration would look at."""
    rows = read_rows(settings, piece, SEED, "bench")
    cell = rows.numbers(rates.cells, plan.edges)
    u = rows.draws(SEED)
    taken = copies(rates.rate[cell], u, plan.max_epochs)
    take(cell, len(rates.cells), rows.sizes, taken)
    return taken, (cell, u, rows.sizes, rows.ids)


def _calibrated(
    plan: Plan, rates: Rates, draws: list[tuple[I64, F64, I64, pa.Array]], number: int
) -> float:
    """The lambda of one source."""
    source = plan.sources[number]
    own = np.array([c.source == source.source for c in rates.cells])
    at = [own[cell] for cell, *_ in draws]
    cell, u, sizes = (
        np.concatenate([d[i][m] for d, m in zip(draws, at, strict=True)]) for i in range(3)
    )
    ids = pa.concat_arrays([d[3].filter(pa.array(m)) for d, m in zip(draws, at, strict=True)])
    return settled(u, sizes, rates.rel[cell], ids, source.target, plan.max_epochs).lam


def compared(corpus: Path) -> tuple[str, bool] | None:
    """Shares of the development corpus by both rules; None where it is absent."""
    files = sorted(corpus.glob("*.parquet"))
    if not files:
        return None
    columns = ["id", "source", "n_tokens"]
    rows = pa.concat_tables([pq.read_table(f, columns=columns) for f in files])
    rows = rows.rename_columns(["doc_id", "source", "n_tokens"])
    settings = Settings(budget=DEV_BUDGET, calibrate="always")
    edges = edges_with((THRESHOLD,))
    lines = []
    census = add_cells([_counted(settings, rows, edges)], edges)
    names, code = np.unique(
        rows.column("source").to_numpy(zero_copy_only=False), return_inverse=True
    )
    sizes = rows.column("n_tokens").to_numpy().astype(np.int64)
    natural = np.bincount(code, weights=sizes) / sizes.sum()
    plan = build_plan(census, settings, length=_RULE, seed=SEED)
    rates = Rates.of(plan)
    (_, (cell, u, _, ids)), applying = _timed(lambda: _copied(settings, plan, rates, rows))
    lam = np.zeros(len(names))
    for i, source in enumerate(plan.sources):
        own = code == list(names).index(source.source)
        held = (u[own], sizes[own], rates.rel[cell[own]], ids.filter(pa.array(own)))
        lam[list(names).index(source.source)] = settled(*held, plan.sources[i].target, 4).lam
    ours = copies(lam[code] * rates.rel[cell], u, plan.max_epochs)
    theirs, streaming = _timed(lambda: streamed(sizes, code, natural * DEV_BUDGET))
    off = []
    for name, taken, took in (("ours, calibrated", ours, applying), ("stream", theirs, streaming)):
        got = np.bincount(code, weights=sizes * taken)
        off.append(float(np.abs(got / got.sum() - natural).sum()))
        long = float((sizes * taken)[sizes >= THRESHOLD].sum() / got.sum())
        lines.append(
            [name, f"{got.sum():,.0f}", f"{off[-1]:.4f}", f"{long:.3f}", f"{len(rows) / took:,.0f}"]
        )
    head = ["rule", "tokens of 10,000,000", "L1 to natural shares", "long share", "documents/s"]
    intro = (
        f"The development corpus ({len(rows):,} documents, {len(names)} sources), natural shares, "
        "documents below 4,096 tokens at a tenth of the rate."
    )
    return f"{intro}\n\n{table(head, lines)}", off[0] <= off[1]


def streamed(sizes: I64, code: I64, budget: F64) -> I32:
    """Fu et al.'s rule: copies int32 [n] after one pass over a shuffled stream."""
    rng = np.random.default_rng(SEED)
    taken, left = np.zeros(len(sizes), dtype=np.int32), budget.tolist()
    draws = rng.random(len(sizes)).tolist()
    for i in rng.permutation(len(sizes)).tolist():
        source = code[i]
        if left[source] <= 0 or (sizes[i] < THRESHOLD and draws[i] >= KEPT):
            continue
        taken[i] = 1
        left[source] -= int(sizes[i])
    return taken


def _speeds(found: Speed) -> str:
    rows = [
        ("census of a part", found.census),
        ("copies of a part (SHA-256 of every id)", found.apply),
        ("calibration of all sources", found.calibrate),
    ]
    lines = [
        [name, f"{took:.2f}", f"{found.rows / took:,.0f}", f"{found.size / took / 1e6:,.0f}"]
        for name, took in rows
    ]
    lines.append([f"plan of {SOURCES} sources", f"{found.plan:.4f}", "", ""])
    return (
        f"{found.rows:,} synthetic rows, {found.size / found.rows:.0f} bytes each in the columns "
        "that are read, one core.\n\n" + table(["step", "CPU s", "documents/s", "MB/s"], lines)
    )


def _timed(work: Callable[[], _T]) -> tuple[_T, float]:
    clock = time.process_time()
    found = work()
    return found, time.process_time() - clock


if __name__ == "__main__":
    sys.exit(main())
