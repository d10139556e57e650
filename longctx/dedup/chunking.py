"""How `dedup.containment` cuts and judges documents, as plain numbers without heavy imports."""

from typing import NamedTuple


class Sampling(NamedTuple):
    """Tokens of a shingle, one sample of how many, tokens of a chunk and of a last one at least."""

    ngram: int = 5
    one_in: int = 32
    chunk: int = 1024
    min_last: int = 512


class Grid(NamedTuple):
    """The chunks of `Sampling`; samples that a chunk needs, and the share that covers it."""

    chunk: int = 1024
    min_last: int = 512
    min_samples: int = 4
    tau: float = 0.6
