"""`make calibrate`: the coefficients of the cost model, measured on this machine.

    python -m jobs.calibrate [--corpus GLOB] [--sizes 6,24] [--wide 30000,120000] [--out FILE]

Two kinds of corpora, each at two sizes. Real text (the code and documents of this machine's own
packages, or `--corpus`: JSONL or Parquet files with a field `text`) goes through the whole job and
through every order. Documents without text but with vectors and a few tokens are many, so what one
process holds for each of them shows. Figures are those that every commit carries: CPU seconds and
memory of its unit, bytes stored and received. Ten minutes on two quiet cores; coefficients change
by a tenth from run to run, and a busy machine changes CPU seconds by more.
"""

import argparse
import datetime as dt
import glob
import json
import os
import re
import shutil
import sys
import tempfile
import time
import tracemalloc
from collections import defaultdict
from pathlib import Path
from typing import Any

from jobs.bench.machine import describe
from jobs.wide_corpus import wide_corpus
from longctx import run
from longctx.cost.coefficients import FILE
from longctx.cost.fit import Seen, coefficients
from longctx.cost.laws import Size, form_of, step_name
from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import Commit
from longctx.engine.corpus import Corpus
from longctx.engine.op import Barrier, Op, Setting
from longctx.engine.settings import stage_folder
from longctx.engine.units import Step, Unit, compute
from longctx.registry import resolve
from longctx.sample_corpus import build

OUT = Path(__file__).parents[1] / "longctx" / "cost" / FILE
MEGABYTE = 1_000_000
LENGTH = 8192
BEFORE: list[dict[str, Any]] = [
    {"op": "score.heuristics"},
    {"op": "decide", "rules": {"n_tokens": {"min": 1}}},
    {"op": "dedup.exact"},
    {"op": "dedup.minhash"},
    {"op": "dedup.containment"},
    {"op": "embed"},
    {"op": "dedup.semantic", "eps": 0.001},
    {"op": "cluster.kmeans"},
]
PACK = {"op": "pack", "length": LENGTH}
IN_BLOCKS = {**PACK, "one_place_up_to": 100}
IN_CELLS = {"exact_up_to": 0}
APART = {"one_place_up_to": 100, "partition_documents": 100}
TRAINED_APART = {"one_place_clusters": 4, "partition_documents": 10_000}
# Orders that can be arranged in partitions; the last one is that of the whole job.
IN_PARTITIONS = (
    "order.icp",
    "order.clusters",
    "order.cluster_path",
    "order.splice",
    "order.path",
)
# Orders on text; the last of them keeps its tours for `pack`.
ORDERS: list[dict[str, Any]] = [
    *({"op": op, **how} for op in ("order.random", "order.source") for how in (APART, {})),
    *(
        {"op": "order.splice", "length": LENGTH, "retriever": retriever, **how}
        for retriever in ("bm25", "repo")
        for how in ({}, IN_CELLS)
    ),
    {"op": "order.quest", "length": LENGTH},
    {"op": "order.quest", "length": LENGTH, **IN_CELLS},
    {"op": "order.neighbours", "length": LENGTH},
    *({"op": op, "length": LENGTH, **how} for op in IN_PARTITIONS for how in (APART, IN_CELLS, {})),
]
EXPORTS: list[dict[str, Any]] = [
    {"op": "export", "order_by": {"column": "n_tokens"}},
    {"op": "export"},
]
KEEP = {"lf_score": {"top": 0.2}, "longattn": {"top": 0.5}}
# Barriers on many documents without text.
WIDE: list[dict[str, Any]] = [
    {"op": "decide", "keep": KEEP},
    {"op": "decide", "keep": KEEP, "one_place_up_to": 1000},
    {"op": "dedup.semantic"},
    {"op": "cluster.kmeans", "k": 400},
    *({"op": op, **TRAINED_APART} for op in ("dedup.semantic", "cluster.kmeans")),
    {"op": "order.random"},
    {"op": "order.source"},
    *(
        {"op": op, "length": LENGTH, **how}
        for op in IN_PARTITIONS
        for how in (IN_CELLS, {"one_place_up_to": 10_000, "partition_documents": 10_000})
    ),
    {**PACK, "one_place_up_to": 5000},
    PACK,
]
Found = dict[tuple[str, str, str], list[Seen]]


def main(argv: list[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    if args.only:
        return _again(args)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="calibrate-"))
    found: Found = defaultdict(list)
    runs: list[dict[str, Any]] = []
    try:
        for mb in args.sizes:
            runs.append(_text_runs(folder / f"text-{mb:g}", mb, args.corpus, found))
        busy = _busy(runs[-1]["costs"])
        driver = _driver(folder / f"text-{args.sizes[-1]:g}", folder)
        for n in args.wide:
            _wide_runs(folder / f"wide-{n}", n, found)
    finally:
        if args.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    ops: dict[str, dict[str, dict[str, Any]]] = {}
    for (op, form, step), seen in sorted(found.items()):
        made = coefficients(op, step, seen).to_json()
        ops.setdefault(op, {}).setdefault(form, {})[step] = made
    measured = {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "machine": describe(),
        "text": [{k: r[k] for k in ("documents", "mb")} for r in runs],
        "documents without text": args.wide,
        "corpus": args.corpus or "longctx sample-corpus",
        "load of the machine": round(os.getloadavg()[2], 1),
    }
    last = runs[-1]
    content = {
        "measured": measured,
        **driver,
        "busy": round(busy, 3),
        "token_bytes": round(last["mb"] * MEGABYTE / last["tokens"], 3),
        "ops": ops,
    }
    args.out.write_text(one_line_a_step(json.dumps(content, indent=1)) + "\n", encoding="utf-8")
    print(args.out)
    return 0


def _again(args: argparse.Namespace) -> int:
    """Measure some barriers again on documents without text; all other figures stay."""
    found: Found = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="calibrate-") as folder:
        for n in args.wide:
            _wide_runs(Path(folder) / f"wide-{n}", n, found, args.only)
    content = json.loads(args.out.read_text(encoding="utf-8"))
    for (op, form, step), seen in sorted(found.items()):
        made = coefficients(op, step, seen).to_json()
        content["ops"].setdefault(op, {}).setdefault(form, {})[step] = made
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    content["measured"].setdefault("again", {}).update(dict.fromkeys(args.only, today))
    args.out.write_text(one_line_a_step(json.dumps(content, indent=1)) + "\n", encoding="utf-8")
    print(args.out)
    return 0


def one_line_a_step(text: str) -> str:
    """Indented JSON in which the coefficients of each step stand on one line."""
    return re.sub(r'\{\s+"law"[^}]*\}', lambda found: " ".join(found[0].split()), text)


def _numbers(kind: type) -> Any:
    def parse(text: str) -> list[Any]:
        found = [kind(part) for part in text.split(",") if part]
        if len(found) == 1:
            raise argparse.ArgumentTypeError("expected at least two sizes, such as 6,24")
        return sorted(found)

    return parse


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the coefficients of `longctx plan`.")
    parser.add_argument("--corpus", metavar="GLOB", help="JSONL or Parquet files with `text`")
    parser.add_argument("--sizes", type=_numbers(float), default=[6.0, 24.0], help="MB of text")
    parser.add_argument(
        "--wide", type=_numbers(int), default=[30_000, 120_000], help="documents without text"
    )
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        metavar="OP,...",
        help="measure these barriers again on documents without text, and keep all other figures",
    )
    parser.add_argument("--folder", type=Path, help="where runs are kept, to go on with them")
    parser.add_argument("--out", type=Path, default=OUT, help="file to write")
    return parser


def _text_runs(folder: Path, mb: float, corpus: str | None, found: Found) -> dict[str, Any]:
    """The whole job and every order on about `mb` megabytes; what the whole job took."""
    inputs = _inputs(folder, mb, corpus)
    # Parts grow with the corpus, so that what a part costs in memory shows.
    body = {
        "name": "calibrate",
        "input": inputs,
        "run_dir": str(folder / "run"),
        "engine": {"part_mb": mb / 6},
    }
    fresh: list[dict[str, Any]] = []
    for fields in ORDERS:
        order = _known(fields)
        _say(f"{folder.name}: {order}")
        record = run({**body, "stages": [*BEFORE, order]})
        # Later runs skip what the first one did: their clocks say nothing about it.
        fresh = fresh or [c for s in record.stages for c in s.costs.values()]
        _collect(folder / "run", found, only=order["op"])
    for fields in EXPORTS:
        _say(f"{folder.name}: {fields}")
        run({**body, "stages": [*BEFORE, fields]})
        _collect(folder / "run", found, only="export")
    _say(f"{folder.name}: the whole job")
    order = _known(ORDERS[-1])
    run({**body, "stages": [*BEFORE, order, IN_BLOCKS]})
    _collect(folder / "run", found, only="pack")
    record = run({**body, "stages": [*BEFORE, order, PACK]})
    text = _collect(folder / "run", found, skip="order.path")
    rounds = [*BEFORE[:3], {"op": "dedup.minhash", "local_edges": 0}]
    run({**body, "stages": rounds, "run_dir": str(folder / "rounds")})
    _collect(folder / "rounds", found, only="dedup.minhash")
    return {
        "documents": record.stages[0].rows_out,
        "mb": round(text, 2),
        "tokens": record.stages[1].summary["tokens"],
        "costs": fresh,
    }


def _inputs(folder: Path, mb: float, corpus: str | None) -> list[dict[str, Any]]:
    if corpus is None:
        known = folder / "input.json"
        if not known.exists():
            shutil.rmtree(folder / "corpus", ignore_errors=True)
            made = build(folder / "corpus", min_mb=0.5 * mb, max_mb=mb)["input"]
            known.write_text(json.dumps(made))
        return list(json.loads(known.read_text()))
    files, size = [], 0
    for name in sorted(glob.glob(corpus, recursive=True)):
        files.append(name)
        size += Path(name).stat().st_size
        if size >= mb * MEGABYTE:
            break
    return [{"path": files, "source": "corpus"}]


def _collect(
    run_dir: Path, found: Found, only: str | None = None, skip: str | None = None
) -> float:
    """Add what run.json says of the steps; megabytes of text that were read."""
    record = json.loads((run_dir / "run.json").read_text())
    read = record["stages"][0]["summary"]
    mb = read["text_bytes"] / MEGABYTE
    per_character = mb / read["chars"]
    for stage in record["stages"]:
        name = stage["op"]
        if name != skip and (only is None or name == only):
            settings = {k: v for k, v in stage["settings"].items() if k != "op"}
            op = resolve(name).model_validate({"op": name, **settings}) if name != "read" else None
            _add(found, op, stage["rows_in"], mb, stage["costs"])
        mb = (stage["summary"].get("chars") or mb / per_character) * per_character
    return read["text_bytes"] / MEGABYTE


def _add(found: Found, op: Op | None, docs: int, mb: float, costs: dict[str, Any]) -> None:
    name = op.op if op else "read"
    settings = op.model_dump(mode="json") if op else {}
    clusters = op.clusters(docs) if op else 1
    form = form_of(name, settings, docs)
    for step, cost in costs.items():
        unit = cost["largest"] if cost["place"] == "bucket" else mb * MEGABYTE / cost["units"]
        taken = {n: cost[n] for n in ("units", "cpu", "stored", "received", "peak", "grown")}
        seen = Seen(Size(docs, mb, clusters), cost["place"], unit_bytes=unit, **taken)
        found[name, form, step_name(step, form)].append(seen)


def _wide_runs(folder: Path, n: int, found: Found, only: list[str] | None = None) -> None:
    from longctx.engine.cluster import connect

    workers = connect()
    corpus = ordered = wide_corpus(folder, n)
    for fields in WIDE:
        if only and fields["op"] not in only:
            continue
        known = _known(fields)
        op = resolve(fields["op"]).model_validate(known)
        _say(f"{folder.name}: {known}")
        context = _context(folder, ordered if op.op == "pack" else corpus, op, n, workers)
        assert isinstance(op, Barrier)
        op.run(context)
        _add(found, op, n, 0.0, _without_text(context.costs))
        if op.op == "order.path":
            ordered = context.corpus


def _without_text(costs: dict[str, Any]) -> dict[str, Any]:
    """Steps whose cost does not depend on text, which these documents do not have."""
    texts = {"spans", "windows", "tokens", "sentences"}
    return {step: cost for step, cost in costs.items() if step not in texts}


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that an op has, of those that are given to several."""
    return {k: v for k, v in fields.items() if k in resolve(fields["op"]).model_fields}


def _context(folder: Path, corpus: Corpus, op: Op, n: int, workers: int) -> BarrierContext:
    stage = f"09-{op.op}"
    shutil.rmtree(stage_folder(str(folder), stage), ignore_errors=True)
    setting = Setting(
        seed=17,
        tokenizer="embedded",
        stage=stage,
        run_dir=str(folder),
        output=str(folder / "output"),
        formats=("parquet",),
    )
    return BarrierContext(
        corpus,
        op,
        setting,
        stage_folder(str(folder), stage),
        rows=n,
        workers=workers,
        exchange_bytes=64 * MEGABYTE,
    )


def _busy(costs: list[dict[str, Any]]) -> float:
    """Share of the workers' time in which units ran, in the step over parts that took longest.

    Short steps say little: starting them takes a second whatever the corpus.
    """
    from longctx.engine.cluster import cluster_total

    over_parts = (c for c in costs if c["place"] == "part" and c.get("wall"))
    longest = max(over_parts, key=lambda c: c["wall"])
    return float(min(1.0, longest["seconds"] / (cluster_total("CPU") * longest["wall"])))


class _Nothing:
    """The work of a unit that only exists."""

    def __call__(self, payload: Any, sink: Any) -> dict[str, Any]:
        return {}


def _driver(text: Path, folder: Path, units: int = 2000) -> dict[str, float]:
    """What the driver holds for the commit of a part or of another unit, and its CPU seconds."""
    held = (
        _held(text / "run" / "stages" / step / "manifest.json")
        for step in ("01-score.heuristics", "04-dedup.minhash/edges")
    )
    place = folder / "nothing"
    step = Step(str(folder), str(place), [Unit(f"{i:06d}", "x", None) for i in range(units)])
    began = time.process_time()
    done = sum(1 for _ in compute(step, step.units, _Nothing(), workers=2))
    return {
        **dict(zip(("part_bytes", "unit_bytes"), held, strict=True)),
        "driver_seconds": round((time.process_time() - began) / done, 5),
    }


def _held(manifest: Path, copies: int = 1000) -> int:
    """Bytes in memory of the first commit of a step."""
    value = json.dumps(json.loads(manifest.read_text())["commits"][0])
    tracemalloc.start()
    kept = [Commit.from_json(json.loads(value)) for _ in range(copies)]
    held = tracemalloc.get_traced_memory()[0] // len(kept)
    tracemalloc.stop()
    return held


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
