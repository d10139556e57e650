"""The yardstick of `longctx compare`: arguments, and the comparison of documents alone."""

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from longctx.arguments import natural, one_of, positive, show
from longctx.errors import RecipeError

if TYPE_CHECKING:
    from longctx.report.compare_gain import Asked

_OF = ("windows", "borders", "documents")
_DTYPES = ("bfloat16", "float32")
# Option -> field of `Asked`; each is for the yardstick alone.
_FIELDS = {
    "gain_of": "of",
    "gain_model": "model",
    "gain_windows": "units",
    "long": "long",
    "short": "short",
    "dtype": "dtype",
    "seed": "seed",
    "threads": "threads",
}


def gain_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the yardstick."""
    gain = parser.add_argument_group("the yardstick: how much far context helps a language model")
    gain.add_argument(
        "--gain", action="store_true", help="read some windows of each run with a language model"
    )
    gain.add_argument(
        "--gain-of",
        type=one_of(*_OF),
        metavar="WHAT",
        help='"windows" (default); "borders": where a document begins inside a window, for orders; '
        '"documents": those of run folders that are left after the last stage, for filters '
        "(nothing else is measured then)",
    )
    gain.add_argument(
        "--gain-model",
        metavar="MODEL",
        help='causal model: "smollm2" (default, packaged), a folder, or a Hugging Face name',
    )
    gain.add_argument(
        "--gain-windows",
        type=positive,
        metavar="N",
        help="windows or documents of each run (default 32, or fewer where a run has fewer)",
    )
    gain.add_argument(
        "--long",
        type=positive,
        metavar="N",
        help="tokens read of each, all at once (default 2048)",
    )
    gain.add_argument(
        "--short",
        type=positive,
        metavar="N",
        help="the short context that this is held against: N to 2N - 1 tokens (default 256)",
    )
    gain.add_argument(
        "--dtype", type=one_of(*_DTYPES), metavar="TYPE", help="bfloat16 (default) or float32"
    )
    gain.add_argument(
        "--seed",
        type=natural,
        metavar="N",
        help="which windows are drawn, and intervals (default 0)",
    )
    gain.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="windows read at once, one core and 0.5 GB each (default: up to 4)",
    )


def asked(arguments: argparse.Namespace) -> "Asked | None":
    """What the yardstick was asked for, None where it was not.

    Raises RecipeError for options of it without it.
    """
    given = {
        field: value
        for option, field in _FIELDS.items()
        if (value := getattr(arguments, option)) is not None
    }
    if not arguments.gain and arguments.gain_of is None:
        if given:
            option = next(o for o, field in _FIELDS.items() if field in given)
            raise RecipeError(
                f"--{option.replace('_', '-')} belongs to the yardstick, which was not asked for",
                remedy="add --gain",
            )
        return None
    from longctx.report.compare_gain import Asked

    return Asked(**given)


def compare_documents(
    arguments: argparse.Namespace, wanted: "Asked", say: Callable[[str], None]
) -> list[tuple[str, str]]:
    """Show the gain of documents; the files to write with their content."""
    from longctx.report.compare_documents import document_pools
    from longctx.report.compare_gain import measure_gain, open_model
    from longctx.report.gain_page import render_gain
    from longctx.report.gain_table import gain_view

    model = open_model(wanted)
    found = measure_gain(document_pools(arguments.runs), model, wanted, say)
    show(gain_view(found))
    written = [(arguments.report, render_gain(found))]
    if arguments.json:
        written.append((arguments.json, json.dumps(found.as_dict(), indent=1) + "\n"))
    return written
