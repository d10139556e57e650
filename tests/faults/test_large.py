"""Corpora that are large beside the memory: 200 MB documents in 4 GB, exchanges that do not fit.

Both run the command in processes of its own and look at it from outside.
"""

import json
import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from jobs.bench.watch import watched
from longctx.engine.scaling import memory_here
from tests.conftest import output_bytes
from tests.faults.cluster import local_cluster
from tests.faults.memory_limit import memory_group

pytestmark = pytest.mark.slow_faults

MEGABYTE = 1_000_000
DOCUMENTS, DOCUMENT = 10, 200 * MEGABYTE
LIMIT = 4_000 * MEGABYTE
STORE = 300 * MEGABYTE
MAIN_JOB: list[dict[str, Any]] = [
    {"op": "score.heuristics"},
    {"op": "dedup.exact"},
    {"op": "dedup.minhash"},
    {"op": "embed"},
    {"op": "order.path"},
    {"op": "pack", "length": 131_072},
]


def prose(rng: np.random.Generator, size: int) -> str:
    """About `size` characters of random words; without digits, which MinHash takes as one."""
    known = np.array(
        ["".join(word) for word in product("bdgklmnprst", "aeiou", "bdgklmnprst", "aeiou")]
    )
    drawn = rng.choice(known, (size // 50, 10))
    return "\n".join(" ".join(line) + "." for line in drawn)[:size]


def command(folder: Path, stages: list[dict[str, Any]], **engine: Any) -> list[str]:
    """`longctx run` of a recipe over the corpus in a folder."""
    recipe = {
        "name": "large",
        "input": [{"path": str(folder / "corpus.jsonl"), "source": "large"}],
        "run_dir": str(folder / "run"),
        "stages": stages,
        "engine": engine,
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return [sys.executable, "-m", "longctx.cli", "run", str(file)]


def test_two_gigabytes_of_large_documents_in_four(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    with (tmp_path / "corpus.jsonl").open("w") as file:
        for _ in range(DOCUMENTS):
            file.write(json.dumps({"text": prose(rng, DOCUMENT)}) + "\n")
    # Ray sizes its object store by the machine: here as on one that has no more than the limit.
    small = {"RAY_DEFAULT_OBJECT_STORE_MEMORY_PROPORTION": f"{0.3 * LIMIT / memory_here():.4f}"}
    job = [*command(tmp_path, MAIN_JOB, workers=1, exchange_mb=64), "--cpus", "1"]
    with memory_group(LIMIT) as group:
        taken = watched(group.around(job), env={**os.environ, **small})
        killed = group.killed()
    assert taken.code == 0, taken.errors
    assert killed == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    read, packed = record["stages"][0], record["stages"][-1]
    assert read["rows_out"] == packed["rows_out"] == DOCUMENTS
    assert packed["steps"]["audit"]["tokens"] >= record["stages"][1]["summary"]["tokens"]
    # Pages of mapped files are in these figures, and in the limit only while there is room.
    print(f"{taken.peak / 1e9:.2f} GB in all, {taken.worker / 1e9:.2f} GB the largest worker")


def test_exchanges_larger_than_the_object_store_are_spilled(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    stages = [{"op": "score.heuristics", "windows": False}, {"op": "order.random"}]
    stages.append({"op": "pack", "length": 8192, "shard_tokens": 2**20})
    outputs = []
    for name, store in (("small", STORE), ("large", 4_000 * MEGABYTE)):
        folder = tmp_path / name
        folder.mkdir()
        if not outputs:
            with (folder / "corpus.jsonl").open("w") as file:
                for _ in range(400):
                    file.write(json.dumps({"text": prose(rng, MEGABYTE)}) + "\n")
        else:
            (folder / "corpus.jsonl").hardlink_to(tmp_path / "small" / "corpus.jsonl")
        with local_cluster(1, store) as cluster:
            taken = watched(
                command(folder, stages, part_mb=16, exchange_mb=1024),
                env={**os.environ, **cluster.environment},
            )
            spilled = any("Spilled" in log.read_text("utf-8", "replace") for log in cluster.logs())
        assert taken.code == 0, taken.errors
        assert spilled == (store == STORE)
        outputs.append(output_bytes(folder / "run"))
        # It names the recipe, whose folders are others.
        assert outputs[-1].pop("manifest.json")
    assert outputs[0] == outputs[1]
