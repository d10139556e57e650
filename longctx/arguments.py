"""What the commands share: kinds of arguments, and printing."""

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longctx.registry import did_you_mean
from longctx.report.format import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got '{text}'")
    return int(text)


def natural(text: str) -> int:
    """A whole number from 0 that fits 64 bits, such as a seed, for argparse."""
    if not text.isdigit() or int(text) >= 2**64:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got '{text}'")
    return int(text)


def one_of(*names: str) -> Callable[[str], str]:
    """One of some words, for argparse."""

    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(
                f"expected {', '.join(names[:-1])} or {names[-1]}, got '{text}'"
                f"{did_you_mean(text, names)}"
            )
        return text

    return read


def amount(text: str) -> float:
    """A number above 0 that may be written as 1e9, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"expected a number above 0, such as 1e9, got '{text}'")
    return value


def byte_size(text: str) -> float:
    """Bytes from 256GB, 1.5 TB or a plain number, in decimal units, for argparse."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?(?:e[0-9]+)?) ?([kMGTP]?)B?", text)
    value = float(found[1]) * 1000 ** " kMGTP".index(found[2] or " ") if found else 0
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"expected a size such as 256GB, got '{text}'")
    return value


def token_id(text: str) -> int:
    """A whole number from 0, for argparse."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a token id (a number from 0), got '{text}'")
    return int(text)


def show(view: "RenderableType") -> None:
    """Print a rich view; a closed pipe raises BrokenPipeError, as plain printing does."""
    from rich.console import Console

    console = Console()
    with console.capture() as captured:
        console.print(_Harmless(view))
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def tell(text: str) -> None:
    """Print a line to stderr without what would move or recolour the terminal."""
    print(printable(text), file=sys.stderr)


@dataclass(frozen=True)
class _Harmless:
    """A view whose text cannot steer the terminal; its own styles stay.

    Names and texts of documents, files and sources reach every view, so this is where all pass.
    """

    view: "RenderableType"

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> "Iterator[Segment]":
        from rich.segment import Segment

        for part in console.render(self.view, options):
            yield part if part.control else Segment(printable(part.text), part.style)
