"""Arguments of `longctx mix train`."""

import argparse

from longctx.arguments import amount, natural, one_of, positive
from longctx.cli_mix_arguments import share

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
