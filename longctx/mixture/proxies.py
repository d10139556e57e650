"""Proxy runs as a table: which ones there are, what decides each, and what they lost.

A proxy is one (mixture, seed). Its fingerprint covers all that can change its losses (documents,
held-out blocks, vocabulary, shape, training, blocks of each source, seed, version of torch), so a
finished one is never trained again, and one of other settings is never taken for it. The device is
left out: figures of CPU and GPU agree to rounding.

The run table has the columns that `longctx mix fit` reads and `reason`: why a loss is empty.
"""

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture.count_proxy import count_proxy as count_proxy
from longctx.mixture.evaluate import F64
from longctx.mixture.pools import I64, Counted, blocks_of
from longctx.mixture.pools import pool_factor as pool_factor
from longctx.mixture.proxy_model import Shape
from longctx.mixture.proxy_training import Training
from longctx.mixture.tables import Mixtures
from longctx.registry import did_you_mean

SCHEMA_VERSION = 1
CODE_VERSION = 1
COLUMNS = ("mixture_id", "model_size", "tokens", "seed", "target", "loss", "reason")
NAMED = ("natural", "prior")
FEW_STEPS = 50


@dataclass(frozen=True)
class Job:
    """One proxy to train: blocks of each source, and the fingerprint of all that decides it."""

    mixture_id: str
    seed: int
    blocks: dict[str, int]
    fingerprint: str


@dataclass(frozen=True)
class Result:
    """What a proxy lost on each target, nats per token; None with the reason why."""

    fingerprint: str
    mixture_id: str
    seed: int
    model_size: int
    tokens: int
    losses: dict[str, float | None]
    reason: str

    def as_json(self) -> bytes:
        """The file of a finished proxy."""
        content = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(content, indent=1, sort_keys=True).encode()

    @staticmethod
    def from_json(data: bytes, fingerprint: str) -> "Result | None":
        """The result in a file; None where it holds none, or that of another proxy."""
        try:
            content = json.loads(data)
            if content.pop("schema_version") != SCHEMA_VERSION:
                return None
            found = Result(**content)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return found if found.fingerprint == fingerprint else None


def training_of(
    budget: float, block: int, batch: int, learning_rate: float, schedule: str
) -> Training:
    """How to train on `budget` tokens. RecipeError where they are less than one step."""
    steps = int(budget // (block * batch))
    if not steps:
        raise RecipeError(
            f"{budget:,.0f} tokens are less than one step of {batch:,} blocks of {block:,} tokens",
            where="--budget-tokens",
            remedy="give a larger budget, or a smaller --batch or --block",
        )
    return Training(block, batch, steps, learning_rate, schedule)


def blocks_table(mixtures: Mixtures, training: Training) -> I64:
    """Blocks of each source in each mixture, int64 [n, m]."""
    total = training.steps * training.batch
    return np.stack([blocks_of(row, total) for row in mixtures.shares])


def jobs_of(
    mixtures: Mixtures,
    blocks: I64,
    seeds: Sequence[int],
    noise_seeds: Sequence[int],
    decided: Mapping[str, Any],
) -> list[Job]:
    """All proxies: every mixture with `seeds`, the natural one (or the prior) with `noise_seeds`
    as well. `decided` is what the fingerprints cover beside mixture, blocks and seed."""
    repeated = next((name for name in NAMED if name in mixtures.ids), None)
    jobs = []
    for one, row in zip(mixtures.ids, blocks.tolist(), strict=True):
        own = dict(zip(mixtures.sources, row, strict=True))
        more = noise_seeds if one == repeated else ()
        for seed in dict.fromkeys((*seeds, *more)):
            content = {**decided, "mixture": one, "seed": seed, "blocks": own}
            digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            jobs.append(Job(one, seed, own, digest[:32]))
    return jobs


def decided(
    shape: Shape, training: Training, data: str, targets: Sequence[str], torch_version: str
) -> dict[str, Any]:
    """What decides the losses of all proxies of a table alike."""
    return {
        "version": CODE_VERSION,
        "shape": asdict(shape),
        "training": training.as_dict(),
        "data": data,
        "targets": list(targets),
        "torch": torch_version,
    }


def result_of(
    job: Job, shape: Shape, training: Training, losses: Mapping[str, float], reason: str
) -> Result:
    """The result of a trained proxy; a loss that is no number becomes None with a reason."""
    kept = {name: loss if math.isfinite(loss) else None for name, loss in losses.items()}
    broken = [name for name, loss in kept.items() if loss is None]
    if broken and not reason:
        reason = f"the held-out loss is {losses[broken[0]]} for {broken[0]}"
    return Result(
        job.fingerprint, job.mixture_id, job.seed, shape.parameters, training.tokens, kept, reason
    )


def run_table(results: Iterable[Result], targets: Sequence[str]) -> str:
    """The run table as CSV, a row for every proxy and target; losses as they read back."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in results:
        for target in targets:
            said = "" if (loss := one.losses[target]) is None else repr(loss)
            writer.writerow(
                [one.mixture_id, one.model_size, one.tokens, one.seed, target, said, one.reason]
            )
    return out.getvalue()


def check_sources(
    mixtures: Mixtures, targets: Sequence[str], counted: Mapping[str, Counted], place: str
) -> None:
    """Refuse mixtures and targets that name sources which the data do not have."""
    for where, names in ((mixtures.name, mixtures.sources), ("--target", targets)):
        for name in names:
            if name not in counted:
                raise RecipeError(
                    f"source '{name}' is not in {place}{did_you_mean(name, counted)}",
                    where=where,
                    remedy=f"known: {', '.join(sorted(counted)) or 'none'}",
                )


def check_held_out(targets: Sequence[str], tokens: Mapping[str, int], block: int) -> None:
    """Refuse targets whose held-out documents do not fill a block."""
    for name in targets:
        if tokens[name] <= block:
            raise RecipeError(
                f"{tokens[name]:,} held-out tokens of source '{name}' do not fill a block of "
                f"{block:,}",
                where="--holdout-fraction",
                remedy="hold out a larger fraction, give a shorter --block, or leave the source "
                "out of the targets (--target names those to measure)",
            )


def remarks(mixtures: Mixtures, training: Training, counted: Mapping[str, Counted]) -> list[str]:
    """What a reader should know before the runs: few steps, mixtures twice, sources left out."""
    said = []
    if training.steps < FEW_STEPS:
        said.append(
            f"a proxy takes {training.steps:,} steps only: give a larger budget, or smaller steps "
            "(--batch, --block)"
        )
    said += [
        f"mixtures '{first}' and '{again}' have the same shares; both are trained"
        for first, again in _twins(mixtures)
    ]
    unused = sorted(set(counted) - set(mixtures.sources))
    if unused:
        said.append(f"not in the mixtures, so not trained on: {', '.join(unused)}")
    return said


def _twins(mixtures: Mixtures) -> list[tuple[str, str]]:
    seen: dict[bytes, str] = {}
    found = []
    for one, row in zip(mixtures.ids, mixtures.shares, strict=True):
        first = seen.setdefault(row.tobytes(), one)
        if first != one:
            found.append((first, one))
    return found


def seed_spread(results: Iterable[Result]) -> dict[str, F64]:
    """Mean loss over the targets of each mixture that was trained with several seeds, float64."""
    found: dict[str, list[float]] = {}
    for one in results:
        if losses := [loss for loss in one.losses.values() if loss is not None]:
            found.setdefault(one.mixture_id, []).append(float(np.mean(losses)))
    return {name: np.array(means) for name, means in found.items() if len(means) > 1}
