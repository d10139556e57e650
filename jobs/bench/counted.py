"""Which stage of a run tokenises, counted in Ray's workers.

Ray calls `watch` in every worker that it starts. There every call of a tokenizer's `encode_batch`
leaves a line with its characters and the step whose unit was being worked on.
"""

import functools
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FOLDER = "LONGCTX_BENCH_COUNTED"
# Workers import this module before they know the driver's path.
_ROOT = Path(__file__).parents[2]


def start(folder: Path, num_cpus: int = 2) -> None:
    """A local Ray whose workers count; `longctx.engine.cluster.connect` then joins it."""
    import ray

    folder.mkdir(parents=True, exist_ok=True)
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={
            "worker_process_setup_hook": watch,
            "env_vars": {FOLDER: str(folder), "PYTHONPATH": str(_ROOT)},
        },
    )


def watch() -> None:
    """Count in this process from now on."""
    from longctx.engine import steps, units
    from longctx.text.embedded import EmbeddedTokenizer
    from longctx.text.tokenizer_json import JsonTokenizer

    where = {"step": ""}
    execute = units.execute

    @functools.wraps(execute)
    def noted(run_dir: str, folder: str, *args: Any, **more: Any) -> str:
        where["step"] = folder[len(run_dir) :].strip("/").removeprefix("stages/")
        return execute(run_dir, folder, *args, **more)

    # Both modules call it by the name that they know it by.
    units.execute = noted
    steps.execute = noted  # type: ignore[attr-defined]
    for kind in (EmbeddedTokenizer, JsonTokenizer):
        kind.encode_batch = _counting(kind.encode_batch, where)  # type: ignore[method-assign]


def _counting(encode: Any, where: dict[str, str]) -> Any:
    file = Path(os.environ[FOLDER]) / f"{os.getpid()}.jsonl"

    def counting(self: Any, texts: Iterable[str]) -> Any:
        texts = list(texts)
        with file.open("a") as out:
            print(json.dumps([where["step"], sum(map(len, texts))]), file=out)
        return encode(self, texts)

    return counting


def characters(folder: Path) -> dict[str, int]:
    """Characters that were encoded, by step."""
    total: Counter[str] = Counter()
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            step, count = json.loads(line)
            total[step] += count
    return dict(sorted(total.items()))
