"""The runs of a comparison as they are read: once whole, then some windows with their text."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from longctx.compare import windows
from longctx.compare.layout import Layout, Options
from longctx.compare.windows import Batch, Packed
from longctx.errors import RecipeError
from longctx.pack.frame import I64
from longctx.report.compare_sources import ASSUMED_TOKENIZER, Source
from longctx.text.tokenize import Tokenizer, load_tokenizer

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """One run read for the first time."""

    source: Source
    options: Options
    tokenizer: Tokenizer
    layout: Layout
    packed: Packed
    length: int
    length_known: bool

    def again(self, picked: I64) -> Iterator[tuple[I64, Batch]]:
        """These windows with their text, some at a time: their numbers, and what they hold."""
        is_picked = np.zeros(len(self.packed.borders) - 1, dtype=bool)
        is_picked[picked] = True
        first, left = 0, len(picked)
        for where, layout, table in self.source.tables(self.options):
            if not left:
                return
            rows = np.flatnonzero(is_picked[first : first + table.num_rows])
            if len(rows):
                left -= len(rows)
                batch = windows.read(table.take(rows), layout, self.tokenizer, where)
                yield rows + first, batch
            first += table.num_rows


def read_run(source: Source, options: Options, length: int | None, say: Say) -> Run:
    """Everything of a run but its text. Raises RecipeError for what cannot be read as windows."""
    say(f"reading {source.name}")
    tokenizer = load_tokenizer(source.tokenizer or ASSUMED_TOKENIZER)
    layouts: list[Layout] = []

    def batches() -> Iterator[Batch]:
        for where, layout, table in source.tables(options):
            layouts.append(layout)
            yield windows.read(table, layout, tokenizer, where)

    packed = windows.gather(batches())
    longest = int(packed.n_tokens.max(initial=0))
    if longest == 0:
        raise RecipeError(
            "these windows hold no tokens",
            where=source.place,
            remedy="name the column of token ids with --ids, or that of texts with --text",
        )
    target = length or source.length
    if target is not None and target < longest:
        raise RecipeError(
            f"the longest window of {source.name} has {longest:,} tokens, "
            f"more than a length of {target:,}",
            where=source.place,
            remedy=f"give --length {longest} or more, or leave it out",
        )
    known = target is not None
    return Run(source, options, tokenizer, layouts[0], packed, target or longest, known)
