"""Terms with their meanings, and lists of sentences, below the tables of the terminal."""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text


def legend(terms: Iterable[tuple[str, str]]) -> Table:
    """Each term with what it means beside it."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(style="dim")
    for term, meaning in terms:
        grid.add_row(term, meaning)
    return grid


def listed(sentences: Sequence[str]) -> Table:
    """Sentences with a dash before each."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for sentence in sentences:
        grid.add_row(Text("-"), Text(sentence))
    return grid
