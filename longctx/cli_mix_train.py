"""`longctx mix train`: one small model for every mixture, and the table of what they lost."""

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from longctx.arguments import show, tell
from longctx.cli_mix_files import read_mixture_table
from longctx.errors import RecipeError
from longctx.io import paths
from longctx.location import refuse_lost_place
from longctx.report.format import plural

if TYPE_CHECKING:
    from longctx.mixture.pools import I64, Counted
    from longctx.mixture.proxies import Job, Result
    from longctx.mixture.proxy_data import Found, Reading
    from longctx.mixture.proxy_model import Shape
    from longctx.mixture.proxy_training import Training
    from longctx.mixture.proxy_vocabulary import Vocabulary
    from longctx.mixture.stages_proxy_data import Assembled
    from longctx.mixture.tables import Mixtures


@dataclass(frozen=True)
class _Ready:
    """All that the proxies need, and what is written down about it."""

    shape: "Shape"
    training: "Training"
    targets: tuple[str, ...]
    sources: "dict[str, Assembled]"
    jobs: "list[Job]"
    design: dict[str, Any]


def train(arguments: argparse.Namespace) -> int:
    """Train what is not trained yet, and write the run table."""
    from longctx.engine.cluster import connect
    from longctx.mixture.proxies import run_table
    from longctx.mixture.stages_proxies import device_of, finished, train_all
    from longctx.report.proxy_table import proxy_view

    out = paths.absolute(arguments.out)
    work = paths.absolute(arguments.work) if arguments.work else _beside(out)
    for option, place in (("--out", arguments.out), ("--work", arguments.work)):
        refuse_lost_place(option, place)
    mixtures = read_mixture_table(arguments.mixtures)
    shape, training = _shape(arguments), _training(arguments)
    connect(arguments.cpus)
    device = device_of(arguments.device)
    ready = _prepare(arguments, mixtures, shape, training)
    paths.write_atomic(
        paths.join(work, "design.json"), json.dumps(ready.design, indent=1).encode() + b"\n"
    )
    done = finished(work, ready.jobs)
    open_jobs = [job for job in ready.jobs if job.fingerprint not in done]
    tell(
        f"{len(ready.jobs):,} proxies of {ready.shape.parameters:,} parameters, "
        f"{training.steps:,} steps of {training.batch * training.block:,} tokens each"
        + (f"; {len(done):,} are trained already" if done else "")
    )
    done |= train_all(
        open_jobs,
        ready.shape,
        training,
        ready.sources,
        ready.targets,
        work,
        device=device,
        per_gpu=arguments.per_gpu,
        heard=_Progress(len(open_jobs)).heard,
    )
    results = [done[job.fingerprint] for job in ready.jobs]
    paths.write_atomic(out, run_table(results, ready.targets).encode())
    show(proxy_view(results, ready.targets, ready.design))
    print(arguments.out)
    return 0


def _beside(out: str) -> str:
    folder, _, name = out.rpartition("/")
    return paths.join(folder or "/", f"{PurePosixPath(name).stem}.proxies")


def _shape(arguments: argparse.Namespace) -> "Shape":
    from longctx.mixture.proxy_model import SHAPES

    given = {
        name: value
        for name in ("layers", "width", "heads", "vocabulary")
        if (value := getattr(arguments, name)) is not None
    }
    return replace(SHAPES[arguments.model], **given)


def _training(arguments: argparse.Namespace) -> "Training":
    from longctx.mixture.proxies import training_of
    from longctx.mixture.proxy_model import LEARNING_RATES

    rate = arguments.learning_rate or LEARNING_RATES[arguments.model]
    return training_of(
        arguments.budget_tokens, arguments.block, arguments.batch, rate, arguments.schedule
    )


def _prepare(
    arguments: argparse.Namespace, mixtures: "Mixtures", shape: "Shape", training: "Training"
) -> _Ready:
    """Read the documents, check the mixtures against them, and say what there is to train."""
    from longctx.mixture import pools, proxies
    from longctx.mixture.proxy_vocabulary import build_vocabulary
    from longctx.mixture.stages_proxy_data import assemble_all, read_all, units_of

    targets = tuple(dict.fromkeys(arguments.target)) or mixtures.sources
    reading = _reading(arguments, mixtures, training, targets)
    units = units_of(arguments.data, _fields(arguments), arguments.tokenizer)
    tell(f"reading {arguments.data}, {plural(len(units), 'part')}")
    found, pieces = read_all(units, reading)
    if found.bad:
        tell(f"{found.bad:,} rows cannot be read and are left out; `longctx run` says why")
    proxies.check_sources(mixtures, targets, found.counted, arguments.data)
    blocks = proxies.blocks_table(mixtures, training)
    pool = {name: found.counted[name] for name in mixtures.sources}
    _check_epochs(mixtures, training, blocks, pool, arguments.max_epochs)
    for line in (*pools.thin(pool), *proxies.remarks(mixtures, training, found.counted)):
        tell(line)
    vocabulary = build_vocabulary(found.ids, found.highest + 1, shape.vocabulary)
    shape = replace(shape, vocabulary=vocabulary.size)
    sources = assemble_all(pieces, vocabulary, reading)
    held = {name: sources[name].held.tokens for name in targets}
    proxies.check_held_out(targets, held, training.block)
    decided = _decided(shape, training, sources, targets)
    design = {
        **decided,
        "place": arguments.data,
        "reading": vars(reading),
        "parameters": shape.parameters,
        "parameters_without_embedding": shape.without_embedding,
        "tokens": training.tokens,
        "target_tokens": arguments.target_tokens,
        "vocabulary": vocabulary.fingerprint,
        "sources": _sources(found, sources, vocabulary),
    }
    jobs = proxies.jobs_of(mixtures, blocks, *_seeds(arguments), decided)
    return _Ready(shape, training, targets, sources, jobs, design)


def _decided(
    shape: "Shape", training: "Training", sources: "dict[str, Assembled]", targets: tuple[str, ...]
) -> dict[str, Any]:
    """What decides the losses of all proxies alike."""
    import torch

    from longctx.mixture.proxies import decided

    data = "\n".join(f"{name} {one.digest}" for name, one in sorted(sources.items()))
    return decided(shape, training, data, targets, torch.__version__)


def _seeds(arguments: argparse.Namespace) -> tuple[range, range]:
    """Seeds of every mixture, and of the one that shows the noise."""
    first = arguments.first_seed
    return range(first, first + arguments.seeds), range(first, first + arguments.noise_seeds)


def _reading(
    arguments: argparse.Namespace,
    mixtures: "Mixtures",
    training: "Training",
    targets: tuple[str, ...],
) -> "Reading":
    from longctx.mixture.pools import pool_factor
    from longctx.mixture.proxy_data import Reading

    factor = 1.0
    if arguments.target_tokens:
        factor = pool_factor(training.tokens, arguments.target_tokens)
    if factor > 1:
        raise RecipeError(
            f"a proxy of {training.tokens:,} tokens is larger than the run of "
            f"{arguments.target_tokens:,.0f} that it stands for",
            where="--target-tokens",
            remedy="give the tokens of the whole training run, or a smaller --budget-tokens",
        )
    return Reading(
        sources=tuple(sorted({*mixtures.sources, *targets})),
        seed=arguments.seed,
        factor=factor,
        holdout=arguments.holdout_fraction,
        evaluated=int(arguments.eval_tokens),
        block=training.block,
    )


def _fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fields of files that were given."""
    asked = {"text": "text_field", "source_field": "source_field", "id": "id_field"}
    return {
        field: value
        for field, option in asked.items()
        if (value := getattr(arguments, option)) is not None
    }


def _check_epochs(
    mixtures: "Mixtures",
    training: "Training",
    blocks: "I64",
    pool: "dict[str, Counted]",
    max_epochs: float,
) -> None:
    import numpy as np

    from longctx.mixture.pools import check_epochs, epochs

    sizes = np.array([pool[name].pool_tokens + pool[name].pool_docs for name in mixtures.sources])
    passes = epochs(blocks, training.block, sizes)
    check_epochs(mixtures.ids, mixtures.sources, passes, max_epochs, pool)


def _sources(
    found: "Found", sources: "dict[str, Assembled]", vocabulary: "Vocabulary"
) -> dict[str, Any]:
    """What is written down about each source."""
    from longctx.mixture.proxy_vocabulary import coverage

    return {
        name: {
            **vars(found.counted[name]),
            "held_tokens_measured": one.held.blocks.shape[0] * (one.held.blocks.shape[1] - 1),
            "coverage": coverage(vocabulary, found.ids[name]),
            "surcharge": one.held.surcharge,
        }
        for name, one in sorted(sources.items())
    }


class _Progress:
    """Lines as proxies are finished, with the time that is left."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._begun = total, 0, time.monotonic()

    def heard(self, result: "Result") -> None:
        """Tell of a finished proxy."""
        self._done += 1
        losses = [loss for loss in result.losses.values() if loss is not None]
        said = f"mean loss {sum(losses) / len(losses):.4f}" if losses else result.reason
        left = (time.monotonic() - self._begun) / self._done * (self._total - self._done)
        tell(
            f"{self._done:,} of {self._total:,}: {result.mixture_id}, seed {result.seed}, {said}"
            + (f"; about {left / 60:.0f} min left" if left >= 60 else "")
        )
