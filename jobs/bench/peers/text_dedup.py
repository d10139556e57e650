"""text-dedup's MinHash script.

Set as its documentation says is fast: xxh3 instead of SHA-1, 32-bit values. `min_length` is 1
because the script drops shorter documents, which is not what is measured.
"""

import datasets
from text_dedup.minhash import main as script

from jobs.bench.peers.job import BANDS, NGRAM, ROWS, THRESHOLD, Job, main, missing

SETTINGS = "words between characters that are no letter or digit, xxh3 of 32 bits, min_length 1"


def remove(job: Job) -> tuple[list[str], dict[str, float]]:
    """Ids of the removed documents."""
    output = job.work / "kept"
    settings = {
        "path": "parquet",
        "data_files": job.corpus / "*.parquet",
        "split": "train",
        "cache_dir": job.work / "cache",
        "output": output,
        "column": "text",
        "num_proc": job.workers,
        "ngram": NGRAM,
        "min_length": 1,
        "num_perm": BANDS * ROWS,
        "threshold": THRESHOLD,
        "b": BANDS,
        "r": ROWS,
        "hash_func": "xxh3",
        "hash_bits": 32,
    }
    arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    script(arguments, standalone_mode=False)
    kept = datasets.load_from_disk(str(output))["id"]
    return missing(job, list(kept)), {}


if __name__ == "__main__":
    main("text-dedup", SETTINGS, remove)
