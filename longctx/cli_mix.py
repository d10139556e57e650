"""`longctx mix`: mixtures, proxy runs on them, models of their losses, the mixture to use.

Each sub-command is a row of `_COMMANDS`: its help, its function, its arguments.
"""

import argparse
import datetime as dt
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from longctx.arguments import show, tell
from longctx.cli_mix_arguments import fit_arguments, optimise_arguments, sample_arguments
from longctx.cli_mix_files import (
    as_json,
    read_available,
    read_json,
    read_prior,
    read_runs,
    read_tests,
    target_weights,
    write,
)
from longctx.cli_mix_train_arguments import train_arguments
from longctx.errors import RecipeError

if TYPE_CHECKING:
    from longctx.mixture.evaluate import F64
    from longctx.mixture.predictor import Model
    from longctx.mixture.tables import Runs

_EPILOG = """the way through (docs/mixture.md):
  longctx mix sample --available runs/base --out m.csv     mixtures to try
  longctx mix train --mixtures m.csv --data runs/base ...  what each loses
  longctx mix fit --mixtures m.csv --losses l.csv --out model.json  what it says
  longctx mix optimise --model model.json --out weights.json        what to use
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


def _sample(arguments: argparse.Namespace) -> int:
    import numpy as np

    from longctx.mixture.amounts import aligned
    from longctx.mixture.optimise import caps_from
    from longctx.mixture.regmix import sample_mixtures
    from longctx.mixture.tables import mixtures_csv
    from longctx.report.mix_tables import sample_view

    available = read_available(arguments)
    amounts = read_prior(arguments) or available
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
        uniform = np.full(len(prior), 1 / len(prior))
        named = {"prior" if arguments.prior else "natural": prior, "uniform": uniform}
        if caps is not None and (uniform > caps).any():
            tell("the uniform mixture is left out: some sources would be read too often")
            del named["uniform"]
        X, ids = np.concatenate([X, *([shares] for shares in named.values())]), [*ids, *named]
    write(arguments.out, mixtures_csv(ids, sources, X))
    show(sample_view(ids, sources, X, prior))
    print(arguments.out)
    return 0


def _train(arguments: argparse.Namespace) -> int:
    # Reads and writes places of any kind, so it loads what `longctx --help` must not.
    from longctx.cli_mix_train import train

    return train(arguments)


def _fit(arguments: argparse.Namespace) -> int:
    from longctx.mixture.one_thread import one_thread
    from longctx.mixture.predictor import better, choose_kind, fit_model
    from longctx.mixture.tables import enough_runs
    from longctx.report.mix_tables import fit_view

    runs = read_runs(arguments, arguments.mixtures, arguments.losses, arguments.target)
    if not arguments.force and arguments.model != "lightgbm":
        enough_runs(runs)
    tests = read_tests(arguments, runs)
    weights = target_weights(arguments.weight, runs)
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
        write(arguments.out, json.dumps(chosen.as_dict()) + "\n")
        tell(str(arguments.out))
    if arguments.report:
        from longctx.report.mixture.models import render_fit

        write(arguments.report, render_fit(models, chosen), "--report")
        tell(str(arguments.report))
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


def _optimise(arguments: argparse.Namespace) -> int:
    from longctx.mixture.amounts import aligned
    from longctx.mixture.one_thread import one_thread
    from longctx.mixture.optimise import caps_from, share_bounds
    from longctx.mixture.predictor import model_from
    from longctx.mixture.recommend import recommend
    from longctx.report.mix_tables import optimise_view

    model = model_from(read_json(arguments.model), arguments.model)
    available = read_available(arguments)
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
    written = found.weights_file(dt.datetime.now(tz=dt.UTC).date().isoformat())
    if arguments.json:
        print(as_json(written))
    else:
        show(optimise_view(found))
    if arguments.out:
        write(arguments.out, as_json(written) + "\n")
        tell(str(arguments.out))
    if arguments.report:
        from longctx.report.mixture.page import render_optimum

        write(arguments.report, render_optimum(written), "--report")
        tell(str(arguments.report))
    return 0


def _prior(
    arguments: argparse.Namespace, model: "Model", tokens: "F64 | None"
) -> "tuple[F64, str]":
    """Shares to stay near, and what they are called."""
    from longctx.mixture.amounts import aligned

    if table := read_prior(arguments):
        shares, name = aligned(table, model.sources, arguments.prior), "prior"
    elif tokens is not None:
        shares, name = tokens, "natural"
    else:
        shares, name = model.runs.X.mean(axis=0), "mean of runs"
    return shares / shares.sum(), name


Command = tuple[str, Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]
_COMMANDS: dict[str, Command] = {
    "sample": ("draw mixtures for proxy runs", _sample, sample_arguments),
    "train": ("train a small model on every mixture and measure it", _train, train_arguments),
    "fit": ("fit losses of runs to their shares and judge the fit", _fit, fit_arguments),
    "optimise": ("find the shares with the lowest predicted loss", _optimise, optimise_arguments),
}
