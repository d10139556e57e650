"""datatrove's four MinHash steps, by its local executor.

Its own settings otherwise: English word tokenizer (a pipeline has one language), 64-bit xxhash.
The fourth step reads the text again and writes the removed documents only: the removal list at
the least cost.
"""

import gzip
import json
import time

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import JsonlWriter

from jobs.bench.peers.job import BANDS, NGRAM, ROWS, Job, main

SETTINGS = "English word tokenizer for all languages (its default), xxhash of 64 bits"


def remove(job: Job) -> tuple[list[str], dict[str, float]]:
    """Ids of the removed documents, and the seconds of each step."""
    config = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)
    folder = {n: str(job.work / n) for n in ("signatures", "buckets", "clusters", "removed")}
    reader = ParquetReader(str(job.corpus), glob_pattern="*.parquet", read_metadata=False)
    removed = JsonlWriter(folder["removed"])
    files = len(job.files)
    steps: list[tuple[str, int, list[PipelineStep]]] = [
        ("signatures", files, [reader, MinhashDedupSignature(folder["signatures"], config)]),
        (
            "buckets",
            BANDS,
            [MinhashDedupBuckets(folder["signatures"], folder["buckets"], config=config)],
        ),
        ("cluster", 1, [MinhashDedupCluster(folder["buckets"], folder["clusters"], config)]),
        ("filter", files, [reader, MinhashDedupFilter(folder["clusters"], removed)]),
    ]
    seconds = {}
    for name, tasks, pipeline in steps:
        started = time.perf_counter()
        LocalPipelineExecutor(
            pipeline,
            tasks=tasks,
            workers=min(job.workers, tasks),
            logging_dir=str(job.work / "logs" / name),
        ).run()
        seconds[f"{name} s"] = round(time.perf_counter() - started, 1)
    found = []
    for file in (job.work / "removed").glob("*.jsonl.gz"):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            found += [json.loads(line)["id"] for line in lines]
    return found, seconds


if __name__ == "__main__":
    main("datatrove", SETTINGS, remove)
