"""What `longctx mix` reads and writes: tables, run folders and stored models."""

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longctx.errors import RecipeError
from longctx.registry import did_you_mean

if TYPE_CHECKING:
    from longctx.mixture.evaluate import F64
    from longctx.mixture.tables import Mixtures, Runs

_NUMBERS = re.compile(r"(?<=\[)\n[\s\d.,eE+-]+(?=\])")
_BREAK = re.compile(r"\n\s*")


def read_runs(
    arguments: argparse.Namespace, mixtures: str, losses: str, targets: list[str]
) -> "Runs":
    """Mixtures joined with their losses."""
    from longctx.mixture.tables import join, read_losses, read_mixtures

    trained = read_mixtures(_bytes(mixtures), mixtures)
    measured = read_losses(
        _bytes(losses), losses, model_size=arguments.model_size, tokens=arguments.tokens
    )
    return join(trained, measured, targets)


def read_tests(arguments: argparse.Namespace, runs: "Runs") -> "list[tuple[str, Runs]]":
    """Other tables of runs to score on, each with the name of its losses' file."""
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


def target_weights(given: list[tuple[str, float]], runs: "Runs") -> "F64 | None":
    """Weights of the targets, float64 [targets]; None where none was given."""
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


def read_mixture_table(place: str) -> "Mixtures":
    """The mixtures to train on."""
    from longctx.mixture.tables import read_mixtures

    return read_mixtures(_bytes(place), place)


def read_available(arguments: argparse.Namespace) -> dict[str, float] | None:
    """Tokens of each source, from a table or a run folder; None where neither was given."""
    from longctx.mixture.amounts import amounts_of_run, read_amounts

    place = arguments.available
    if not place:
        return None
    if Path(place).is_dir():
        record = f"{place.rstrip('/')}/run.json"
        return amounts_of_run(read_json(record), record)
    return read_amounts(_bytes(place), place, "tokens")


def read_prior(arguments: argparse.Namespace) -> dict[str, float] | None:
    """Shares of each source from --prior; None where it was not given."""
    from longctx.mixture.amounts import read_amounts

    if not arguments.prior:
        return None
    return read_amounts(_bytes(arguments.prior), arguments.prior, "share")


def read_json(place: str) -> Any:
    """What a JSON file holds. Raises RecipeError where it is none."""
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


def as_json(value: Any) -> str:
    """JSON with a line per entry, but lists of numbers on one line each."""
    # A string holds no line break of its own in JSON, so none can be mistaken for a list.
    written = json.dumps(value, indent=1)
    return _NUMBERS.sub(lambda found: _BREAK.sub(" ", found[0]).strip(), written)


def write(place: Path, text: str, option: str = "--out") -> None:
    """Write a text file that an option named. Raises RecipeError where that is impossible."""
    try:
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"the file cannot be written: {error.strerror}",
            where=str(place),
            remedy=f"give {option} a file in a folder that is there",
        ) from None
