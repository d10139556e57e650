"""The commands that read finished windows: `inspect` and `compare`."""

import argparse
import json
from typing import TYPE_CHECKING

from longctx.arguments import positive, show, tell, token_id
from longctx.cli_gain import asked, compare_documents, gain_arguments

if TYPE_CHECKING:
    from longctx.report.compare_gain import Asked

_PAGE = "compare.html"


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `longctx inspect`."""
    parser.add_argument(
        "windows", help="folder of windows (the output of a run), one file, or a run folder"
    )
    parser.add_argument(
        "--window", metavar="ID", help="window to read; a unique beginning is enough"
    )
    parser.add_argument(
        "--seam",
        type=positive,
        metavar="N",
        help="with --window: the whole text on both sides of seam N (counted from 1)",
    )
    parser.add_argument(
        "--chars",
        type=positive,
        metavar="N",
        help="characters shown on each side of a seam (default 160; with --seam all)",
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", default=20, help="windows listed (default 20)"
    )
    parser.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="tokenizer of the windows (default: the one in manifest.json)",
    )


def inspect(arguments: argparse.Namespace) -> int:
    """List windows, or show one."""
    from longctx.report.inspect import inspect_view

    view = inspect_view(
        arguments.windows,
        window=arguments.window,
        seam=arguments.seam,
        chars=arguments.chars,
        limit=arguments.limit,
        tokenizer=arguments.tokenizer,
    )
    show(view)
    return 0


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `longctx compare`."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="[NAME=]RUN",
        help="run folder, output folder, or Parquet files of anybody (a file, a folder, a glob)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures as JSON")
    parser.add_argument(
        "--report",
        metavar="FILE",
        default=_PAGE,
        help=f"page to write (default {_PAGE} in the working directory)",
    )
    parser.add_argument(
        "--windows",
        type=positive,
        metavar="N",
        default=2000,
        help="windows of each run whose similarity is measured (default 2000)",
    )
    parser.add_argument(
        "--model",
        default="static",
        help="encoder for all runs, as of `embed` (default static)",
    )
    parser.add_argument(
        "--length",
        type=positive,
        metavar="N",
        help="tokens of a full window (default: what manifest.json says, else the longest window)",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="[NAME=]PATH",
        action="append",
        default=[],
        help="tokenizer of the run NAME, or of all that name none (default embedded; may be "
        "repeated)",
    )
    foreign = parser.add_argument_group(
        "windows that longctx did not write (columns with the usual names are found)"
    )
    foreign.add_argument("--ids", metavar="COLUMN", help="token ids of a window (input_ids, ...)")
    foreign.add_argument(
        "--text", metavar="COLUMN", help="list of texts, or one text with --boundaries"
    )
    foreign.add_argument(
        "--boundaries",
        metavar="COLUMN",
        help="where documents end: segments, seq_lengths, cu_seqlens, position_ids, or any column "
        "of such numbers; character offsets with --text",
    )
    foreign.add_argument(
        "--eos",
        type=token_id,
        metavar="ID",
        help="token that ends a document (default: the tokenizer's, where no column tells)",
    )
    foreign.add_argument(
        "--pad", type=token_id, metavar="ID", help="token that fills up windows (not counted)"
    )
    gain_arguments(parser)


def compare(arguments: argparse.Namespace) -> int:
    """Measure finished windows of several runs and say which are better for what."""
    from longctx.io import paths

    wanted = asked(arguments)
    if wanted and arguments.gain_of == "documents":
        written = compare_documents(arguments, wanted, _say)
    else:
        written = _compare_windows(arguments, wanted)
    for place, content in written:
        url = paths.absolute(place)
        paths.write_atomic(url, content.encode())
        print(url)
    return 0


def _compare_windows(
    arguments: argparse.Namespace, wanted: "Asked | None"
) -> list[tuple[str, str]]:
    """Show the comparison; the files to write with their content."""
    from longctx.compare.layout import Options
    from longctx.report.compare import compare as measure
    from longctx.report.compare_page import render
    from longctx.report.compare_table import compare_view

    found = measure(
        arguments.runs,
        options=Options(
            ids=arguments.ids,
            text=arguments.text,
            boundaries=arguments.boundaries,
            eos=arguments.eos,
            pad=arguments.pad,
        ),
        tokenizers=arguments.tokenizer,
        length=arguments.length,
        model=arguments.model,
        most_windows=arguments.windows,
        gain=wanted,
        say=_say,
    )
    show(compare_view(found))
    written = [(arguments.report, render(found))]
    if arguments.json:
        written.append((arguments.json, json.dumps(found.as_dict(), indent=1) + "\n"))
    return written


def _say(line: str) -> None:
    tell(f"{line} ...")
