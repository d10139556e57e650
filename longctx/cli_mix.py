"""`longctx mix`: mixtures for proxy runs, models of what they lost, and the mixture to use.

Each sub-command is a row of `_COMMANDS`: its help, its function, its arguments.
"""

import argparse
import datetime as dt
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longctx.arguments import amount, natural, one_of, positive, show, tell
from longctx.errors import RecipeError
from longctx.registry import did_you_mean

if TYPE_CHECKING:
    from longctx.mixture.evaluate import F64
    from longctx.mixture.predictor import Model
    from longctx.mixture.tables import Runs

_MODELS = ("auto", "law", "lightgbm", "linear")
_BOUNDS = ("observed", "simplex")
_EPILOG = """the way through:
  longctx mix sample --available runs/base --runs 40 --out mixtures.csv
  (train a small model on each, write down its losses)
  longctx mix fit --mixtures mixtures.csv --losses losses.csv --out model.json
  longctx mix optimise --model model.json --available runs/base \\
    --budget-tokens 2e10 --out weights.json

docs/mixture.md walks it with an example
"""


def mix_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=type(parser)
    )
    for name, (help_text, function, add_arguments) in _COMMANDS.items():
        described = f"{help_text[0].upper()}{help_text[1:]}."
        sub = commands.add_parser(name, help=help_text, description=described)
        add_arguments(sub)
        sub.set_defaults(command=function, parser=sub)


def mix(arguments: argparse.Namespace) -> int:
    """What runs without a sub-command: nothing, argparse asks for one before."""
    raise RecipeError("no sub-command was given", remedy="`longctx mix --help` lists them")


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


def _sample_arguments(parser: argparse.ArgumentParser) -> None:
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
        type=_share,
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


def _sample(arguments: argparse.Namespace) -> int:
    import numpy as np

    from longctx.mixture.optimise import caps_from
    from longctx.mixture.regmix import quantise, sample_mixtures
    from longctx.mixture.tables import aligned, mixtures_csv
    from longctx.report.mix_tables import sample_view

    available = _available(arguments)
    amounts = _prior_table(arguments) or available
    if not amounts:
        raise RecipeError(
            "neither --available nor --prior was given",
            remedy="give the tokens of each source (--available), or shares (--prior)",
        )
    sources = tuple(name for name, value in amounts.items() if value > 0)
    prior = np.array([amounts[s] for s in sources])
    prior = prior / prior.sum()
    caps = None
    if available and arguments.budget_tokens:
        tokens = aligned(available, sources, arguments.available)
        caps = caps_from(tokens, arguments.budget_tokens, arguments.max_epochs)
    least = arguments.min_share
    X = sample_mixtures(
        prior,
        arguments.runs,
        arguments.seed,
        max_usage=arguments.max_usage,
        tau=arguments.temperature,
        min_share=min(0.02, 0.5 / len(sources)) if least is None else least,
        caps=caps,
        grid=arguments.grid,
        names=sources,
    )
    ids = [f"m{i:04d}" for i in range(1, len(X) + 1)]
    if not arguments.no_references:
        references = quantise(np.stack([prior, np.full(len(prior), 1 / len(prior))]))
        X = np.concatenate([X, references / references.sum(axis=1, keepdims=True)])
        ids += ["natural" if not arguments.prior else "prior", "uniform"]
    _write(arguments.out, mixtures_csv(ids, sources, X))
    show(sample_view(ids, sources, X, prior))
    print(arguments.out)
    return 0


def _fit_arguments(parser: argparse.ArgumentParser) -> None:
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
        help="other runs to score on, with --test-losses (both may be repeated)",
    )
    parser.add_argument("--test-losses", action="append", default=[], metavar="FILE")
    parser.add_argument(
        "--model-size", type=amount, metavar="N", help="of a run table that holds several"
    )
    parser.add_argument("--tokens", type=amount, metavar="N", help="likewise")
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


def _fit(arguments: argparse.Namespace) -> int:
    from longctx.mixture.one_thread import one_thread
    from longctx.mixture.predictor import better, choose_kind, fit_model
    from longctx.mixture.tables import enough_runs
    from longctx.report.mix_tables import fit_view

    runs = _runs(arguments, arguments.mixtures, arguments.losses, arguments.target)
    if not arguments.force and arguments.model != "lightgbm":
        enough_runs(runs)
    tests = _tests(arguments, runs)
    weights = _target_weights(arguments.weight, runs)
    kinds = choose_kind(runs) if arguments.model == "auto" else (arguments.model,)
    wanted = tuple(dict.fromkeys((*kinds, *_others(runs)))) if arguments.compare else kinds
    models = []
    for kind in wanted:
        tell(f"fitting {kind}, {len(runs.targets)} x (1 + {arguments.holdout}) times")
        with one_thread():
            model = fit_model(
                runs,
                kind,
                weights=weights,
                delta=arguments.delta,
                repeats=arguments.holdout,
                seed=arguments.seed,
                tests=tests,
            )
        models.append(model)
    chosen = better([model for model in models if model.kind in kinds])
    if arguments.json:
        print(json.dumps(_figures(models, chosen), indent=1))
    else:
        show(fit_view(models, chosen))
    if arguments.out:
        _write(arguments.out, json.dumps(chosen.as_dict()) + "\n")
        tell(str(arguments.out))
    return 0


def _others(runs: "Runs") -> tuple[str, ...]:
    """Kinds beside the asked one that these runs suffice for."""
    enough = len(runs.ids) >= 50
    return ("law", "lightgbm", "linear") if enough else ("law", "linear")


def _figures(models: "list[Model]", chosen: "Model") -> dict[str, Any]:
    return {
        "model": chosen.kind,
        "runs": len(chosen.runs.ids),
        "sources": list(chosen.sources),
        "targets": list(chosen.targets),
        "target_weights": chosen.weights.tolist(),
        "missing": list(chosen.runs.missing),
        "notes": list(chosen.runs.notes),
        "models": {
            model.kind: {
                "status": {name: status.words() for name, status in model.status.items()},
                "assessment": model.assessment(),
            }
            for model in models
        },
    }


def _optimise_arguments(parser: argparse.ArgumentParser) -> None:
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


def _optimise(arguments: argparse.Namespace) -> int:
    from longctx.mixture.one_thread import one_thread
    from longctx.mixture.optimise import caps_from, share_bounds
    from longctx.mixture.predictor import model_from
    from longctx.mixture.recommend import recommend
    from longctx.mixture.tables import aligned
    from longctx.report.mix_tables import optimise_view

    model = model_from(_json(arguments.model), arguments.model)
    available = _available(arguments)
    if arguments.budget_tokens and not available:
        raise RecipeError(
            "--budget-tokens bounds nothing without the tokens that there are",
            remedy="add --available with a table or a run folder",
        )
    tokens = aligned(available, model.sources, arguments.available) if available else None
    prior, prior_name = _prior(arguments, model, tokens)
    caps = None
    if tokens is not None and arguments.budget_tokens:
        caps = caps_from(tokens, arguments.budget_tokens, arguments.max_epochs)
    with one_thread():
        found = recommend(
            model,
            prior,
            share_bounds(model.runs.X, arguments.bounds, caps=caps),
            prior_name=prior_name,
            bounds_kind=arguments.bounds,
            lam=arguments.lam,
            tokens=tokens,
            budget=arguments.budget_tokens,
            draws=arguments.draws,
            best=min(100, max(1, arguments.draws // 100)),
            resamples=arguments.bootstrap,
            seed=arguments.seed,
            force=arguments.force,
            tell=tell,
        )
    written = json.dumps(
        found.weights_file(dt.datetime.now(tz=dt.UTC).date().isoformat()), indent=1
    )
    if arguments.json:
        print(written)
    else:
        show(optimise_view(found))
    if arguments.out:
        _write(arguments.out, written + "\n")
        tell(str(arguments.out))
    return 0


def _prior(
    arguments: argparse.Namespace, model: "Model", tokens: "F64 | None"
) -> "tuple[F64, str]":
    """Shares to stay near, and what they are called."""
    from longctx.mixture.tables import aligned

    if table := _prior_table(arguments):
        shares, name = aligned(table, model.sources, arguments.prior), "prior"
    elif tokens is not None:
        shares, name = tokens, "natural"
    else:
        shares, name = model.runs.X.mean(axis=0), "mean of runs"
    return shares / shares.sum(), name


def _runs(arguments: argparse.Namespace, mixtures: str, losses: str, targets: list[str]) -> "Runs":
    from longctx.mixture.tables import join, read_losses, read_mixtures

    measured = read_losses(
        _bytes(losses), losses, model_size=arguments.model_size, tokens=arguments.tokens
    )
    return join(read_mixtures(_bytes(mixtures), mixtures), measured, targets)


def _tests(arguments: argparse.Namespace, runs: "Runs") -> "list[tuple[str, Runs]]":
    from longctx.mixture.tables import join, read_losses, read_mixtures, same_sources

    if len(arguments.test_mixtures) != len(arguments.test_losses):
        raise RecipeError(
            f"{len(arguments.test_mixtures)} --test-mixtures and {len(arguments.test_losses)} "
            "--test-losses are no pairs",
            remedy="give both for every table, in the same order",
        )
    found = []
    for mixtures, losses in zip(arguments.test_mixtures, arguments.test_losses, strict=True):
        rows = same_sources(runs, read_mixtures(_bytes(mixtures), mixtures))
        test = join(rows, read_losses(_bytes(losses), losses), runs.targets)
        found.append((Path(losses).stem, test))
    return found


def _target_weights(given: list[tuple[str, float]], runs: "Runs") -> "F64 | None":
    import numpy as np

    if not given:
        return None
    named = dict(given)
    for name in named:
        if name not in runs.targets:
            raise RecipeError(
                f"there is no target '{name}'{did_you_mean(name, runs.targets)}",
                where="--weight",
                remedy=f"known: {', '.join(runs.targets)}",
            )
    weights = np.array([named.get(t, 0.0) for t in runs.targets])
    if weights.sum() <= 0:
        raise RecipeError("all weights are 0", where="--weight", remedy="give one above 0")
    return weights


def _available(arguments: argparse.Namespace) -> dict[str, float] | None:
    """Tokens of each source, from a table or a run folder; None where neither was given."""
    from longctx.mixture.tables import amounts_of_run, read_amounts

    place = arguments.available
    if not place:
        return None
    if Path(place).is_dir():
        record = f"{place.rstrip('/')}/run.json"
        return amounts_of_run(_json(record), record)
    return read_amounts(_bytes(place), place, "tokens")


def _prior_table(arguments: argparse.Namespace) -> dict[str, float] | None:
    from longctx.mixture.tables import read_amounts

    if not arguments.prior:
        return None
    return read_amounts(_bytes(arguments.prior), arguments.prior, "share")


def _json(place: str) -> Any:
    try:
        return json.loads(_bytes(place))
    except ValueError as error:
        raise RecipeError(
            f"it is no JSON: {error}", where=place, remedy="name another file"
        ) from None


def _bytes(place: str) -> bytes:
    try:
        return Path(place).read_bytes()
    except OSError as error:
        raise RecipeError(
            f"it cannot be read: {error.strerror}",
            where=place,
            remedy="name a file that is there and may be read",
        ) from None


def _write(place: Path, text: str) -> None:
    try:
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"the file cannot be written: {error.strerror}",
            where=str(place),
            remedy="give --out a file in a folder that is there",
        ) from None


def _share(text: str) -> float:
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


Command = tuple[str, Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]
_COMMANDS: dict[str, Command] = {
    "sample": ("draw mixtures for proxy runs", _sample, _sample_arguments),
    "fit": ("fit losses of runs to their shares and judge the fit", _fit, _fit_arguments),
    "optimise": ("find the shares with the lowest predicted loss", _optimise, _optimise_arguments),
}
