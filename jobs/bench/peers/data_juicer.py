"""data-juicer's `document_minhash_deduplicator`, by its default executor without export.

Its own settings otherwise: words between white space, lower case.
"""

import json

from data_juicer.config import init_configs
from data_juicer.core import DefaultExecutor
from data_juicer.ops import base_op

from jobs.bench.peers.job import BANDS, NGRAM, ROWS, THRESHOLD, Job, main, missing

# Frees the models of an op on the GPU: this one has none, and torch would be installed in the run.
base_op.free_models = lambda: None

SETTINGS = "tokenization space (its default), lower case, no export"


def remove(job: Job) -> tuple[list[str], dict[str, float]]:
    """Ids of the removed documents."""
    settings = {
        "project_name": "peer",
        "dataset_path": str(job.corpus),
        "export_path": str(job.work / "kept.jsonl"),
        "work_dir": str(job.work),
        "np": job.workers,
        "process": [
            {
                "document_minhash_deduplicator": {
                    "tokenization": "space",
                    "window_size": NGRAM,
                    "lowercase": True,
                    "num_permutations": BANDS * ROWS,
                    "jaccard_threshold": THRESHOLD,
                    "num_bands": BANDS,
                    "num_rows_per_band": ROWS,
                }
            }
        ],
    }
    recipe = job.work / "recipe.yaml"
    # JSON is YAML.
    recipe.write_text(json.dumps(settings))
    kept = DefaultExecutor(init_configs(["--config", str(recipe)])).run(skip_export=True)
    return missing(job, list(kept["id"])), {}


if __name__ == "__main__":
    main("py-data-juicer", SETTINGS, remove)
