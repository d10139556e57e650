"""Arguments of `longctx mix sample`, `fit` and `optimise`."""

import argparse
import math
from pathlib import Path

from longctx.arguments import amount, natural, one_of, positive

_MODELS = ("auto", "law", "lightgbm", "linear")
_BOUNDS = ("observed", "simplex")


def _corpus_arguments(parser: argparse.ArgumentParser, prior_help: str) -> None:
    corpus = parser.add_argument_group("what the corpus holds")
    corpus.add_argument(
        "--available",
        metavar="PLACE",
        help="tokens of each source: a table with the columns source and tokens, or a run folder",
    )
    corpus.add_argument("--prior", metavar="FILE", help=prior_help)
    corpus.add_argument(
        "--budget-tokens",
        type=amount,
        metavar="N",
        help="tokens of the training set, such as 2e10; with --available it bounds the shares",
    )
    corpus.add_argument(
        "--max-epochs",
        type=amount,
        metavar="N",
        default=4,
        help="most passes over a source (default 4)",
    )


def sample_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `longctx mix sample`."""
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV to write")
    parser.add_argument(
        "--runs", type=positive, metavar="N", default=40, help="mixtures to draw (default 40)"
    )
    _corpus_arguments(
        parser, "table with the columns source and share (default: natural, from --available)"
    )
    how = parser.add_argument_group("how they are drawn")
    how.add_argument(
        "--min-share",
        type=share,
        metavar="SHARE",
        help="least share of every source (default: .02, or 0.5 / sources where that is less; "
        "0 for trees)",
    )
    how.add_argument(
        "--max-usage",
        type=amount,
        metavar="FACTOR",
        default=15,
        help="most that a share may exceed its prior by (default 15)",
    )
    how.add_argument(
        "--temperature",
        type=amount,
        metavar="TAU",
        default=2,
        help="flattens the prior: the exponent is 1/TAU (default 2)",
    )
    how.add_argument(
        "--grid", type=positive, metavar="N", default=5000, help="shares are n/N (default 5000)"
    )
    how.add_argument("--seed", type=natural, metavar="N", default=0, help="default 0")
    how.add_argument(
        "--no-references",
        action="store_true",
        help="leave out the natural and the uniform mixture, which are else added as runs",
    )


def fit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `longctx mix fit`."""
    parser.add_argument(
        "--mixtures",
        required=True,
        metavar="FILE",
        help="mixture_id and a column of shares per source (CSV or Parquet)",
    )
    parser.add_argument(
        "--losses",
        required=True,
        metavar="FILE",
        help="mixture_id, target, loss (also model_size, tokens, seed), or a column per target",
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="COLUMN",
        help="target to fit (may be repeated; default: all)",
    )
    parser.add_argument(
        "--weight",
        action="append",
        default=[],
        type=_weight,
        metavar="TARGET=W",
        help="weight of a target in the sum (default: all alike; targets not named: 0)",
    )
    parser.add_argument(
        "--model",
        type=one_of(*_MODELS),
        default="auto",
        metavar="KIND",
        help="law, lightgbm, linear, or auto: a law below 100 runs, else the better of law and "
        "lightgbm on held-out runs",
    )
    parser.add_argument(
        "--compare", action="store_true", help="show all kinds that can be fitted side by side"
    )
    parser.add_argument(
        "--test-mixtures",
        action="append",
        default=[],
        metavar="FILE",
        help="other runs to score on (may be repeated)",
    )
    parser.add_argument(
        "--test-losses",
        action="append",
        default=[],
        metavar="FILE",
        help="losses of --test-mixtures, in the same order",
    )
    parser.add_argument(
        "--model-size", type=amount, metavar="N", help="of a run table that holds several"
    )
    parser.add_argument(
        "--tokens", type=amount, metavar="N", help="of a run table with several lengths"
    )
    parser.add_argument(
        "--delta",
        type=amount,
        metavar="NATS",
        help="where a law's errors stop counting squared (default .02; .05 where losses spread "
        "over more than 1 nat)",
    )
    parser.add_argument(
        "--holdout", type=positive, metavar="N", default=20, help="held-out splits (default 20)"
    )
    parser.add_argument("--seed", type=natural, metavar="N", default=0, help="default 0")
    parser.add_argument(
        "--force", action="store_true", help="fit with fewer runs than unknowns, for a look"
    )
    parser.add_argument("--json", action="store_true", help="the same figures as JSON")
    parser.add_argument("--out", type=Path, metavar="FILE", help="store the model as JSON")
    parser.add_argument("--report", type=Path, metavar="FILE", help="HTML page to write")


def optimise_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `longctx mix optimise`."""
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="model that `longctx mix fit` stored"
    )
    _corpus_arguments(
        parser,
        "table with the columns source and share to stay near (default: natural, from "
        "--available, else the mean of the runs)",
    )
    parser.add_argument(
        "--lambda",
        dest="lam",
        type=_from_zero,
        metavar="L",
        default=0.05,
        help="price of leaving the prior, in nats of loss per nat of KL (default .05)",
    )
    parser.add_argument(
        "--bounds",
        type=one_of(*_BOUNDS),
        default="observed",
        metavar="KIND",
        help="observed: shares between the least and largest of the runs (default); simplex: any",
    )
    parser.add_argument(
        "--draws",
        type=positive,
        metavar="N",
        default=100_000,
        help="mixtures to search where the model is no law (default 100000)",
    )
    parser.add_argument(
        "--bootstrap",
        type=positive,
        metavar="N",
        default=50,
        help="resamples of the runs that say how sure the gain is (default 50)",
    )
    parser.add_argument("--seed", type=natural, metavar="N", default=0, help="default 0")
    parser.add_argument(
        "--force", action="store_true", help="solve with a refused model, for a look"
    )
    parser.add_argument("--json", action="store_true", help="the weights file on the terminal")
    parser.add_argument("--out", type=Path, metavar="FILE", help="weights for the op mix.weights")
    parser.add_argument("--report", type=Path, metavar="FILE", help="HTML page to write")


def share(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    return _bounded(text, 1, "a share from 0 to 1")


def _from_zero(text: str) -> float:
    return _bounded(text, math.inf, "a number from 0")


def _bounded(text: str, most: float, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 <= value <= most and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"expected {expected}, got '{text}'")
    return value


def _weight(text: str) -> tuple[str, float]:
    name, found, value = text.rpartition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"expected TARGET=W, such as arxiv=0.5, got '{text}'")
    return name, _bounded(value, math.inf, "a weight from 0")
