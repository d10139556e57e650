"""What a comparison found, as plain data: one line for each run, ready for JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from longctx import __version__
from longctx.compare.counts import Counts
from longctx.compare.gain import GainLine
from longctx.compare.likeness import Likeness

SCHEMA = 1


@dataclass(frozen=True)
class Line:
    """One run. `length` is the window that fill is measured by.

    `boundaries` says in words how documents were told apart; `tokenizer_known` and `length_known`
    are false where they were assumed: the embedded tokenizer, the longest window.
    """

    name: str
    place: str
    files: int
    boundaries: str
    tokenizer: str
    tokenizer_known: bool
    length: int
    length_known: bool
    counts: Counts
    likeness: Likeness


@dataclass(frozen=True)
class Gain:
    """What far context brings in each run: the first line is what the others are compared with.

    `of` is "windows", "borders" (places in windows where a document begins) or "documents",
    `wanted` how many of each run were to be read; `long` and `short` are the two contexts in tokens
    of `model`.
    """

    of: str
    wanted: int
    model: str
    dtype: str
    long: int
    short: int
    seed: int
    lines: list[GainLine]

    @property
    def unit(self) -> str:
        """What one was drawn of: "window" or "document"."""
        return unit_of(self.of)

    def as_dict(self) -> dict[str, Any]:
        """The gain alone as JSON holds it."""
        return {"schema": SCHEMA, "longctx": __version__, "gain": asdict(self)}


@dataclass(frozen=True)
class Comparison:
    """All runs under one encoder; coherence was measured in contexts of `sizes` tokens."""

    lines: list[Line]
    sizes: list[int]
    encoder: str
    most_windows: int
    gain: Gain | None = None

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON holds it."""
        return {"schema": SCHEMA, "longctx": __version__, **asdict(self)}


def context_sizes(length: int) -> list[int]:
    """An eighth, a quarter, a half and all of `length` tokens; fewer where these coincide."""
    return sorted({max(1, length // part) for part in (8, 4, 2, 1)})


def unit_of(of: str) -> str:
    """What is drawn where a gain is asked `of` something."""
    return "document" if of == "documents" else "window"
