"""The `longctx` command.

Exit codes: 0 done, 1 the run failed, 2 the recipe or the arguments are wrong. Heavy imports happen
inside the commands, so that help and validation answer at once.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from longctx import __version__
from longctx.arguments import positive, show, tell
from longctx.cli_mix import mix, mix_arguments
from longctx.cli_scale import asks_for_scale, plan_scale, scale_arguments
from longctx.cli_windows import compare, compare_arguments, inspect, inspect_arguments
from longctx.errors import LongctxError, RecipeError, RunError
from longctx.last_words import last_words
from longctx.location import refuse_lost_place
from longctx.registry import did_you_mean

if TYPE_CHECKING:
    from longctx.recipe import Recipe

_EPILOG = """examples:
  longctx sample-corpus corpus          text of this machine, to try things on
  longctx plan recipe.yaml              what a run would read, do and skip
  longctx run recipe.yaml --set stages.2.threshold=0.8
  longctx inspect runs/demo             the windows; --window ID reads one
  longctx compare runs/a runs/b         which holds more related context

exit codes: 0 done, 1 the run failed, 2 the recipe or the arguments are wrong
"""


class _Parser(argparse.ArgumentParser):
    """Argument errors in the form of all others: message, remedy, exit code 2."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice" in message:
            name = message.split("'")[1]
            commands = self._commands()
            known = ", ".join(commands)
            message = f"there is no command '{name}'{did_you_mean(name, commands)}; known: {known}"
        raise RecipeError(message, remedy=f"`{self.prog} --help` shows the arguments")

    def _commands(self) -> list[str]:
        """Commands of this parser; `longctx mix` has some of its own."""
        return [name for action in self._actions for name in action.choices or ()]

    def refuse(self, unknown: str) -> NoReturn:
        """Raise RecipeError for an argument that the command does not have."""
        name = unknown.partition("=")[0]
        options = [o for action in self._actions for o in action.option_strings]
        self.error(f"{self.prog} has no argument '{name}'{did_you_mean(name, options)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names in the data may hold what the terminal's encoding does not.
        sys.stdout.reconfigure(errors="replace")
    try:
        arguments, unknown = _parser().parse_known_args(argv)
        if unknown:
            arguments.parser.refuse(unknown[0])
        command: Callable[[argparse.Namespace], int] = arguments.command
        code = command(arguments)
        sys.stdout.flush()
        return code
    except LongctxError as error:
        _print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nstopped; finished parts are kept, run again to go on", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _print_error(error: LongctxError) -> None:
    tell(_worded(error))


def _worded(error: LongctxError) -> str:
    kind = "the recipe or the arguments are wrong" if error.exit_code == 2 else "the run failed"
    text = str(error).replace("\n", "\n  ").replace("\n    remedy:", "\n  remedy:")
    return f"longctx: {kind}\n  {text}"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="longctx",
        description="Turns raw corpora into packed long-context training data.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"longctx {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_Parser
    )
    for name, (help_text, function, add_arguments) in COMMANDS.items():
        described = f"{help_text[0].upper()}{help_text[1:]}."
        sub = commands.add_parser(name, help=help_text, description=described)
        add_arguments(sub)
        sub.set_defaults(command=function, parser=sub)
    return parser


def _recipe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="recipe file (YAML)")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        dest="overrides",
        action="append",
        default=[],
        help="override a value for this call; list items are counted from 0, e.g. "
        "stages.3.threshold=0.7 (may be repeated)",
    )


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _recipe_arguments(parser)
    parser.add_argument(
        "--cpus",
        type=positive,
        metavar="N",
        help="CPUs of the local Ray (default: all), or what a cluster is asked to grow to",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the closing table")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare every finished file with its checksum first, and make damaged ones again",
    )
    parser.add_argument(
        "--metrics-file",
        metavar="FILE",
        help="keep the run's metrics in a file in Prometheus' text format, too",
    )


def _run(arguments: argparse.Namespace) -> int:
    from longctx.engine.api import run
    from longctx.engine.metrics import metered
    from longctx.engine.progress import reporter
    from longctx.report.collect import collect
    from longctx.report.terminal import closing_table

    recipe = _load(arguments)
    refuse_lost_place("run_dir", recipe.body.run_dir)
    refuse_lost_place("output.path", recipe.body.output.path)
    told = metered(reporter(arguments.quiet), recipe.body.name, arguments.metrics_file)
    with last_words(_worded(_ended_from_outside())):
        record = run(recipe, reporter=told, num_cpus=arguments.cpus, verify=arguments.verify)
    show(closing_table(collect(record.run_dir)))
    return 0


def _ended_from_outside() -> RunError:
    address = os.environ.get("RAY_ADDRESS")
    return RunError(
        "its process was ended from outside"
        + (", or the head of its Ray cluster is gone" if address else ""),
        where=f"RAY_ADDRESS={address}" if address else "this machine",
        remedy="see dmesg whether memory ran out"
        + (" and `ray status` whether the cluster lives" if address else "")
        + ", then run again: it goes on where it stopped",
    )


def _load(arguments: argparse.Namespace) -> "Recipe":
    from longctx.recipe import load

    return load(arguments.recipe, arguments.overrides)


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    _recipe_arguments(parser)
    parser.add_argument(
        "--cores",
        type=positive,
        metavar="N",
        help="cores to estimate the time for (default: those of this machine)",
    )
    scale_arguments(parser)


def _plan(arguments: argparse.Namespace) -> int:
    from longctx.engine.api import plan
    from longctx.report.plan import plan_view

    recipe = _load(arguments)
    if asks_for_scale(arguments):
        return plan_scale(arguments, recipe)
    cores = arguments.cores or os.cpu_count() or 1
    show(plan_view(plan(recipe), cores))
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    recipe = _load(arguments)
    stages = len(recipe.ops)
    print(
        f"{arguments.recipe}: valid, {stages} stage{'s' if stages != 1 else ''}, "
        f"fingerprint {recipe.fingerprint}"
    )
    return 0


def _ops_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", help="show one op: what it does, fields, defaults, cost, source"
    )


def _ops(arguments: argparse.Namespace) -> int:
    from longctx.report.ops import op_view, ops_view

    show(op_view(arguments.name) if arguments.name else ops_view())
    return 0


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", help="run folder")


def _report(arguments: argparse.Namespace) -> int:
    from longctx.report.collect import write_report

    for page in write_report(arguments.run_dir):
        print(page)
    return 0


def _sample_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="folder to write (created; must be empty)")
    parser.add_argument(
        "--min-mb",
        type=float,
        metavar="MB",
        default=30,
        help="least text to accept, in megabytes (default 30)",
    )
    parser.add_argument(
        "--max-mb",
        type=float,
        metavar="MB",
        default=45,
        help="most text to take, shared fairly by the packages (default 45)",
    )


def _sample(arguments: argparse.Namespace) -> int:
    from longctx.report.sample import sample_summary
    from longctx.sample_corpus import build

    out: Path = arguments.out
    if arguments.min_mb > arguments.max_mb:
        raise RecipeError(
            f"--min-mb {arguments.min_mb:g} is above --max-mb {arguments.max_mb:g}",
            remedy="lower --min-mb or raise --max-mb; nothing was written",
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RecipeError(
            f"{out} is not an empty folder", remedy="name a new folder; nothing was written"
        )
    print(sample_summary(out, build(out, min_mb=arguments.min_mb, max_mb=arguments.max_mb)))
    return 0


def _schema_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write to a file instead of the terminal"
    )


def _schema(arguments: argparse.Namespace) -> int:
    from longctx.recipe import json_schema

    text = json.dumps(json_schema(), indent=2)
    if not arguments.out:
        print(text)
        return 0
    try:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"the file cannot be written: {error.strerror}",
            where=str(arguments.out),
            remedy="give --out a file in a folder that is there",
        ) from None
    print(arguments.out)
    return 0


Command = tuple[str, Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]
COMMANDS: dict[str, Command] = {
    "run": ("run a recipe, going on where an earlier run stopped", _run, _run_arguments),
    "plan": ("show what a run would read, do, cost and skip", _plan, _plan_arguments),
    "validate": ("check a recipe without touching its data", _validate, _recipe_arguments),
    "ops": ("list the ops, or show one with its fields", _ops, _ops_arguments),
    "inspect": ("list packed windows, or read one at its seams", inspect, inspect_arguments),
    "compare": ("measure packed windows of several runs and compare", compare, compare_arguments),
    "mix": ("find the mixture of sources from proxy runs", mix, mix_arguments),
    "report": ("write report.html and the pages about scores again", _report, _report_arguments),
    "sample-corpus": ("build a corpus of real text from this machine", _sample, _sample_arguments),
    "schema": ("print the JSON Schema of recipes, for editors", _schema, _schema_arguments),
}

if __name__ == "__main__":
    sys.exit(main())
