"""What the commands share: kinds of arguments, and printing."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got '{text}'")
    return int(text)


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
        console.print(view)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))
