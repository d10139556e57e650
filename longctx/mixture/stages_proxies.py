"""Proxy models trained on Ray: one task each, its result committed when it is finished.

A task has one thread, or its part of a GPU. It writes its result under the proxy's fingerprint, so
a command that was killed trains none of them again. Models are small: runs are not stored half-way.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from longctx.engine.cluster import cluster_total
from longctx.errors import RecipeError
from longctx.io import paths
from longctx.mixture.proxies import Job, Result, result_of
from longctx.mixture.proxy_data import HeldOut
from longctx.mixture.proxy_model import Shape
from longctx.mixture.proxy_order import Documents, batches
from longctx.mixture.proxy_training import Training, evaluate, train
from longctx.mixture.stages_proxy_data import RETRIES, Assembled, worker_errors


def finished(folder: str, jobs: Sequence[Job]) -> dict[str, Result]:
    """Results that an earlier command left, by fingerprint."""
    there = paths.list_files(folder)
    found = {}
    for job in jobs:
        if _file(job.fingerprint) in there:
            data = paths.read_if_exists(paths.join(folder, _file(job.fingerprint)))
            if data and (result := Result.from_json(data, job.fingerprint)):
                found[job.fingerprint] = result
    return found


def _file(fingerprint: str) -> str:
    return f"{fingerprint}.json"


def device_of(wanted: str) -> str:
    """`cuda` or `cpu`; `auto` takes GPUs where the cluster has some. RecipeError without any."""
    if wanted == "cpu":
        return wanted
    if cluster_total("GPU"):
        return "cuda"
    if wanted == "cuda":
        raise RecipeError(
            "the cluster has no GPU", where="--device", remedy="use --device cpu, or auto"
        )
    return "cpu"


def train_all(
    jobs: Sequence[Job],
    shape: Shape,
    training: Training,
    sources: Mapping[str, Assembled],
    targets: Sequence[str],
    folder: str,
    *,
    device: str,
    per_gpu: int,
    heard: Callable[[Result], None],
) -> dict[str, Result]:
    """Train proxies, one Ray task each; `heard` is told of each as it is finished."""
    import ray

    task = ray.remote(
        num_cpus=1, num_gpus=1 / per_gpu if device == "cuda" else 0, max_retries=RETRIES
    )(train_one)
    held: Any = ray.put({name: sources[name].held for name in targets})
    names = sorted(sources)
    documents = [sources[name].documents for name in names]
    begin = partial(task.remote, shape, training, folder, device, names, held)
    pending = [begin(job, *documents) for job in jobs]
    found = {}
    try:
        with worker_errors():
            while pending:
                (ready, *_), pending = ray.wait(pending)
                result: Result = ray.get(ready)
                found[result.fingerprint] = result
                heard(result)
    finally:
        for ref in pending:
            ray.cancel(ref, force=True)
    return found


def train_one(
    shape: Shape,
    training: Training,
    folder: str,
    device: str,
    names: Sequence[str],
    held: Mapping[str, HeldOut],
    job: Job,
    *documents: Documents,
) -> Result:
    """Train and evaluate one proxy, and commit its result."""
    import torch

    torch.set_num_threads(1)
    rows = batches(
        dict(zip(names, documents, strict=True)),
        job.blocks,
        mixture_id=job.mixture_id,
        seed=job.seed,
        length=training.block,
        batch=training.batch,
    )
    weights, reason = train(shape, training, rows, job.seed, device)
    losses = {
        name: float("nan")
        if reason
        else evaluate(weights, shape, one.blocks, device) + one.surcharge
        for name, one in held.items()
    }
    result = result_of(job, shape, training, losses, reason)
    paths.write_atomic(paths.join(folder, _file(job.fingerprint)), result.as_json())
    return result
