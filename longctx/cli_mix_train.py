"""`longctx mix train`: one small model for every mixture, and the table of what they lost."""

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from longctx.arguments import amount, natural, one_of, positive, show, tell
from longctx.cli_mix_arguments import share
from longctx.cli_mix_files import read_mixture_table
from longctx.errors import RecipeError
from longctx.io import paths
from longctx.location import refuse_lost_place
from longctx.report.format import plural

if TYPE_CHECKING:
    from longctx.mixture.pools import I64
    from longctx.mixture.proxies import Job, Result
    from longctx.mixture.proxy_data import Reading
    from longctx.mixture.proxy_model import Shape
    from longctx.mixture.proxy_training import Training
    from longctx.mixture.proxy_vocabulary import Vocabulary
    from longctx.mixture.stages_proxy_data import Assembled
    from longctx.mixture.tables import Mixtures

_MODELS = ("1m", "15m", "60m")
_SCHEDULES = ("cosine", "constant")
_DEVICES = ("auto", "cpu", "cuda")


def train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `longctx mix train`."""
    parser.add_argument(
        "--mixtures", required=True, metavar="FILE", help="mixtures, as `mix sample` writes them"
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="PLACE",
        help="run folder with tokens (score.heuristics), or JSONL or Parquet files",
    )
    parser.add_argument(
        "--budget-tokens", type=amount, required=True, metavar="N", help="tokens of one proxy"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="run table to write, for `mix fit`"
    )
    parser.add_argument(
        "--work",
        metavar="PLACE",
        help="folder of finished proxies, from which a killed command goes on (default: the name "
        "of --out with .proxies)",
    )
    _data_arguments(parser)
    _model_arguments(parser)
    where = parser.add_argument_group("where")
    where.add_argument("--cpus", type=positive, metavar="N", help="CPUs: proxies at once")
    where.add_argument(
        "--device",
        type=one_of(*_DEVICES),
        default="auto",
        metavar="KIND",
        help="auto (default: GPUs where the cluster has some), cpu or cuda",
    )
    where.add_argument(
        "--per-gpu",
        type=positive,
        default=4,
        metavar="N",
        help="proxies that share a GPU (default 4)",
    )


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("what is read")
    data.add_argument(
        "--target-tokens",
        type=amount,
        metavar="N",
        help="tokens of the run that the proxies stand for: their pool is so small that they see "
        "each source as often as it will (default: all documents)",
    )
    data.add_argument(
        "--max-epochs",
        type=amount,
        metavar="N",
        default=4,
        help="most passes over a source (default 4)",
    )
    data.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="SOURCE",
        help="source to measure on (may be repeated; default: all of the mixtures)",
    )
    data.add_argument(
        "--holdout-fraction",
        type=share,
        default=0.05,
        metavar="SHARE",
        help="documents of every source that nothing is trained on (default .05)",
    )
    data.add_argument(
        "--eval-tokens",
        type=amount,
        default=65_536,
        metavar="N",
        help="most held-out tokens of a target that are measured (default 65536)",
    )
    data.add_argument(
        "--seed",
        type=natural,
        default=0,
        metavar="N",
        help="which documents are held out and in the pool (default 0)",
    )
    for option, what, default in (
        ("text-field", "text", "text"),
        ("source-field", "source", "source"),
        ("id-field", "document's id", None),
    ):
        said = f"default {default}" if default else "default: from its place"
        data.add_argument(
            f"--{option}",
            metavar="NAME",
            help=f"of files: field of the {what} ({said})",
        )
    data.add_argument(
        "--tokenizer",
        metavar="NAME",
        help='of files: "embedded" (default), a tokenizer.json, or a Hugging Face name',
    )


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("the model and its training")
    model.add_argument(
        "--model",
        type=one_of(*_MODELS),
        default="1m",
        metavar="SIZE",
        help="1m (default), 15m or 60m parameters, the shared embedding included",
    )
    for name in ("layers", "width", "heads"):
        model.add_argument(
            f"--{name}", type=positive, metavar="N", help=f"other {name} than the size's own"
        )
    model.add_argument(
        "--vocabulary",
        type=positive,
        metavar="N",
        help="classes: the most frequent tokens have one each (default: the size's own)",
    )
    model.add_argument(
        "--block", type=positive, default=512, metavar="N", help="context (default 512 tokens)"
    )
    model.add_argument(
        "--batch", type=positive, default=16, metavar="N", help="blocks a step (default 16)"
    )
    model.add_argument(
        "--learning-rate", type=amount, metavar="RATE", help="highest (default: the size's own)"
    )
    model.add_argument(
        "--schedule",
        type=one_of(*_SCHEDULES),
        default="cosine",
        metavar="KIND",
        help="cosine (default) or constant, after a warm-up over a tenth of the steps",
    )
    model.add_argument(
        "--seeds", type=positive, default=1, metavar="N", help="runs of each mixture (default 1)"
    )
    model.add_argument(
        "--first-seed", type=natural, default=0, metavar="N", help="of those (default 0)"
    )
    model.add_argument(
        "--noise-seeds",
        type=natural,
        default=3,
        metavar="N",
        help="runs of the natural mixture (or the prior), for the noise (default 3)",
    )


@dataclass(frozen=True)
class _Ready:
    """All that the proxies need, and what is written down about it."""

    mixtures: "Mixtures"
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
    import torch

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
    _check_epochs(arguments, mixtures, training, blocks, pool)
    for line in (*pools.thin(pool), *proxies.remarks(mixtures, training, found.counted)):
        tell(line)
    vocabulary = build_vocabulary(found.ids, found.highest + 1, shape.vocabulary)
    shape = replace(shape, vocabulary=vocabulary.size)
    sources = assemble_all(pieces, vocabulary, reading)
    proxies.check_held_out(
        targets, {name: sources[name].held.tokens for name in targets}, training.block
    )
    digest = "\n".join(f"{name} {one.digest}" for name, one in sorted(sources.items()))
    decided = proxies.decided(shape, training, digest, targets, torch.__version__)
    first = arguments.first_seed
    jobs = proxies.jobs_of(
        mixtures,
        blocks,
        range(first, first + arguments.seeds),
        range(first, first + arguments.noise_seeds),
        decided,
    )
    design = {
        **decided,
        "place": arguments.data,
        "reading": vars(reading),
        "parameters": shape.parameters,
        "parameters_without_embedding": shape.without_embedding,
        "tokens": training.tokens,
        "target_tokens": arguments.target_tokens,
        "vocabulary": vocabulary.fingerprint,
        "sources": _sources(found.ids, found.counted, sources, vocabulary),
    }
    return _Ready(mixtures, shape, training, targets, sources, jobs, design)


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
    arguments: argparse.Namespace,
    mixtures: "Mixtures",
    training: "Training",
    blocks: "I64",
    pool: dict[str, Any],
) -> None:
    import numpy as np

    from longctx.mixture.pools import check_epochs, epochs

    sizes = np.array([pool[name].pool_tokens + pool[name].pool_docs for name in mixtures.sources])
    passes = epochs(blocks, training.block, sizes)
    check_epochs(mixtures.ids, mixtures.sources, passes, arguments.max_epochs, pool)


def _sources(
    ids: dict[str, Any],
    counted: dict[str, Any],
    sources: "dict[str, Assembled]",
    vocabulary: "Vocabulary",
) -> dict[str, Any]:
    from longctx.mixture.proxy_vocabulary import coverage

    return {
        name: {
            **vars(counted[name]),
            "held_tokens_measured": one.held.blocks.shape[0] * (one.held.blocks.shape[1] - 1),
            "coverage": coverage(vocabulary, ids[name]),
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
