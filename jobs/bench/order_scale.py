"""order.path at 100,000 and 1,000,000 documents: time, memory, recall, adjacency, any workers.

    python -m jobs.bench.order_scale [--sizes 100000,1000000] [--verify N] [--json] [--write]

The named set `flat` (n // 50 equal topics, d = 384) as a corpus of parts with an embedding sidecar,
and the op itself on a local Ray. Each run is a process of its own, watched from outside: wall time,
CPU seconds and the largest sum of PSS over all its processes (Ray's included; pages of mapped files
that are in memory count, shared ones once). `flat` is the hardest case for cells: at a million
documents there are five topics to each cell and nothing above them. `--verify N` runs N documents
with 1, 2 and 4 workers, exact and in cells, and compares the bytes of the result.

Exit code 1 when a run at a million documents exceeds 20 minutes or 8 GB, or a document costs more
than twice what it costs at the smallest size, or workers change a byte.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.bench import watch
from jobs.bench.datasets import flat_blocks
from jobs.bench.report import table, write_section
from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import FileRef
from longctx.engine.corpus import Corpus, Sidecar, parquet_groups
from longctx.engine.op import DROP_REASON, Setting
from longctx.engine.settings import stage_folder
from longctx.ids import mix64
from longctx.io import paths
from longctx.order.stages import OrderPath
from longctx.schema import DOCUMENTS

PART_ROWS, GROUP_ROWS, D = 50_000, 5000, 384
EMBED, ORDER = "01-embed", "02-order.path"
MOST_SECONDS, MOST_BYTES, MOST_RATIO = 1200, 8 * 10**9, 2.0


def main(argv: list[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    if args.run:
        print(json.dumps(run(**json.loads(args.run))))
        return 0
    rows, failed = [], False
    for n in [int(size) for size in args.sizes.split(",") if size]:
        rows.append(watched(args.folder, n=n, workers=args.workers))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    same = verify(args.folder, args.verify) if args.verify else {}
    if args.json:
        print(json.dumps({"runs": rows, "same": same}, indent=1))
    for row in rows:
        ratio = row["CPU ms a document"] / rows[0]["CPU ms a document"]
        large = row["documents"] >= 10**6
        too_much = row["wall s"] > MOST_SECONDS or row["peak GB"] * 1e9 > MOST_BYTES
        failed |= ratio > MOST_RATIO or (large and too_much)
    failed |= not all(same.values())
    if args.write:
        write_section("order.path at scale", _page(rows, same))
    return int(failed)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="order.path at scale.")
    parser.add_argument("--sizes", default="100000,1000000", help="numbers of documents")
    parser.add_argument("--workers", type=int, default=2, help="workers, and CPUs of the local Ray")
    parser.add_argument("--verify", type=int, default=0, help="documents to run with 1, 2, 4")
    parser.add_argument("--folder", type=Path, help="where runs are kept, to go on with them")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    return parser


def _page(rows: list[dict[str, Any]], same: dict[str, bool]) -> str:
    names = [name for name in rows[0] if name != "result"] if rows else []
    text = table(
        ["figure", *(f"{row['documents']:,}" for row in rows)],
        [[name, *(str(row[name]) for row in rows)] for name in names if name != "documents"],
    )
    checks = [f"- {name}: {'the same bytes' if ok else 'DIFFERENT'}" for name, ok in same.items()]
    return "\n".join([text, "", *checks])


def verify(folder: Path | None, n: int) -> dict[str, bool]:
    """Whether 1, 2 and 4 workers write the same order, by how neighbours are searched."""
    same = {}
    for name, exact in (("exact", n), ("in cells", 0)):
        found = [
            watched(folder, n=n, workers=workers, exact_up_to=exact)["result"]
            for workers in (1, 2, 4)
        ]
        same[f"{n:,} documents, neighbours {name}, 1, 2 and 4 workers"] = len(set(found)) == 1
    return same


def watched(folder: Path | None, **what: Any) -> dict[str, Any]:
    """One run in a process of its own, with what it took."""
    name = "-".join(str(value) for value in what.values())
    place = Path(tempfile.mkdtemp(prefix="order-scale-")) if folder is None else folder / name
    try:
        build(place, what["n"])
        command = [sys.executable, "-m", "jobs.bench.order_scale", "--run"]
        taken = watch.watched([*command, json.dumps({**what, "folder": str(place)})])
        print(taken.errors, file=sys.stderr, end="", flush=True)
        if taken.code:
            raise SystemExit(f"the run of {name} ended with {taken.code}")
        found = json.loads(taken.printed.splitlines()[-1])
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
    n = what["n"]
    return {
        "documents": n,
        "wall s": round(taken.wall, 1),
        "CPU s": round(taken.cpu, 1),
        "CPU ms a document": round(1000 * taken.cpu / n, 3),
        "peak GB": round(taken.peak / 1e9, 2),
        **found,
    }


def build(folder: Path, n: int) -> None:
    """The corpus: documents without text in parts, and their vectors as the sidecar of `embed`."""
    if (folder / "built").exists():
        return
    documents, embedded = [], []
    for i, X in enumerate(flat_blocks(n, PART_ROWS, D)):
        # Ids in another order than rows, so that every part has a share of every number.
        rows = np.arange(i * PART_ROWS, i * PART_ROWS + len(X), dtype=np.uint64)
        ids = pa.array([f"{key:016x}" for key in mix64(rows + np.uint64(1))], pa.string())
        fixed = {"text": "", "source": "flat"}
        columns = [
            ids if f.name == "doc_id" else pa.array([fixed.get(f.name)] * len(X), f.type)
            for f in DOCUMENTS
        ]
        documents.append(_write(folder, f"documents/{i:04d}", pa.table(columns, schema=DOCUMENTS)))
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), D)
        sidecar = pa.table({"embedding": vectors, DROP_REASON: pa.nulls(len(X), pa.string())})
        embedded.append(_write(folder, f"stages/{EMBED}/{i:04d}", sidecar))
    refs = {"documents": documents, "embedded": embedded}
    text = json.dumps({name: [vars(f) for f in files] for name, files in refs.items()})
    (folder / "built").write_text(text)


def _write(folder: Path, name: str, whole: pa.Table) -> FileRef:
    groups = [whole.slice(at, GROUP_ROWS) for at in range(0, len(whole), GROUP_ROWS)]
    data = parquet_groups(groups)
    paths.write_atomic(str(folder / f"{name}.parquet"), data)
    return FileRef(f"{name}.parquet", len(data), paths.checksum(data), len(whole))


def run(n: int, workers: int, folder: str, exact_up_to: int | None = None) -> dict[str, Any]:
    """The op on a corpus that `build` made; its figures and a digest of its result."""
    import ray

    from longctx.engine.cluster import connect

    refs = json.loads((Path(folder) / "built").read_text())
    documents, embedded = (tuple(FileRef(**f) for f in files) for files in refs.values())
    corpus = Corpus(folder, documents, (Sidecar(EMBED, ("embedding",), False, embedded),))
    settings = {} if exact_up_to is None else {"exact_up_to": exact_up_to}
    op = OrderPath(op="order.path", **settings)
    # A Ray of one CPU less than workers would run fewer at once.
    connect(num_cpus=max(2, workers, os.cpu_count() or 1))
    context = BarrierContext(
        corpus,
        op,
        Setting(seed=17, tokenizer="", stage=ORDER, run_dir=folder, output=folder),
        stage_folder(folder, ORDER),
        rows=n,
        workers=workers,
        exchange_bytes=64 * 2**20,
        announce=lambda step, todo: print(f"{step}: {todo}", file=sys.stderr, flush=True),
    )
    op.run(context)
    ray.shutdown()
    assert context.final is not None
    stats, cells = context.step_stats["tours"], context.step_stats.get("cells", {})
    lists = sum(f.size for c in context.step_commits["neighbours"] for f in c.files)
    written = "".join(c.files[0].checksum for c in context.final.commits)
    busy = {
        step: round(sum(c.stats["seconds"] for c in commits))
        for step, commits in context.step_commits.items()
    }
    return {
        "cells, searched for each": f"{cells['cells']}, {cells['probed']}" if cells else "exact",
        "recall@10": round(stats["neighbour_recall"], 4),
        "adjacency": round(stats["adjacency"], 4),
        "top2_bound": round(stats["top2_bound"], 4),
        "of bound": round(stats["adjacency"] / stats["top2_bound"], 4),
        "jumps": round(stats["jumps"], 4),
        "bytes a document held after the search": stats["bytes_per_document"],
        "bytes a document stored by the search": round(lists / n, 1),
        "seconds of units by step": ", ".join(f"{s or 'sidecar'} {v}" for s, v in busy.items()),
        "result": paths.checksum(written.encode()),
    }


if __name__ == "__main__":
    raise SystemExit(main())
