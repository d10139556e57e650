"""The same job by `dedup.minhash` on a local Ray, from reading the files to the drop reasons.

With `--warm FOLDER` that corpus is done first, so that Ray and its workers stand and have
loaded what they need, and the figures say what the job alone takes.
"""

import os
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from jobs.bench.peers.job import BANDS, NGRAM, ROWS, THRESHOLD, Job, main
from jobs.bench.watch import tree_seconds
from longctx import run
from longctx.engine.manifest import RunRecord

SETTINGS = (
    "its defaults: profile text, edges checked by the signatures' agreement, the longest kept"
)
PART_MB = 16.0  # several parts to each worker
WARM_PART_MB = 0.1  # many, so that each worker gets some
STAGE = "01-dedup.minhash"


def remove(job: Job) -> tuple[list[str], dict[str, float]]:
    """Ids of the removed documents, and the seconds of the job and of its stages."""
    if job.warm:
        warm = replace(job, corpus=job.warm, work=job.work / "warm")
        run(recipe(warm, WARM_PART_MB), num_cpus=job.workers)
    record, figures = _measured(job)
    removed: list[str] = []
    for part in sorted(Path(record.run_dir, "documents").glob("*.parquet")):
        ids = pq.read_table(part, columns=["doc_id"])["doc_id"]
        reasons = pq.read_table(Path(record.run_dir, "stages", STAGE, part.name))["drop_reason"]
        removed += ids.filter(reasons.is_valid()).to_pylist()
    return removed, figures


def _measured(job: Job) -> tuple[RunRecord, dict[str, float]]:
    before, started = tree_seconds(os.getpid()), time.perf_counter()
    record = run(recipe(job), num_cpus=job.workers)
    wall, cpu = time.perf_counter() - started, tree_seconds(os.getpid()) - before
    stages = {f"{stage.op} s": round(stage.seconds, 1) for stage in record.stages}
    return record, {"job wall s": round(wall, 1), "job CPU s": round(cpu, 1), **stages}


def recipe(job: Job, part_mb: float = PART_MB) -> dict[str, object]:
    """The recipe of the job: one input, one stage."""
    return {
        "name": "minhash-peers",
        "input": [{"path": str(job.corpus / "*.parquet"), "source": "corpus", "id": "id"}],
        "run_dir": str(job.work / "run"),
        "seed": 17,
        "engine": {"workers": job.workers, "part_mb": part_mb},
        "stages": [
            {
                "op": "dedup.minhash",
                "threshold": THRESHOLD,
                "ngram": NGRAM,
                "num_perm": BANDS * ROWS,
                "bands": BANDS,
                "rows": ROWS,
            }
        ],
    }


if __name__ == "__main__":
    main("longctx", SETTINGS, remove)
