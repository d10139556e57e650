"""Removal lists of near-duplicates judged by pairs of known Jaccard similarity."""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
Pair = tuple[str, str, float]


@dataclass(frozen=True)
class Score:
    """How a removal list does at one level of similarity.

    `recall` is the share of the pairs at or above it of which at most one document was kept,
    `precision` the share of the removed documents that have a partner at or above it, kept or not
    (every tool keeps one of a chain of pairs). 1 where there is nothing to find or to remove.
    """

    level: float
    pairs: int
    recall: float
    precision: float


def read_pairs(file: Path) -> list[Pair]:
    """All pairs of a set with their exact similarity."""
    columns = pq.read_table(file, columns=["id_a", "id_b", "jaccard"]).to_pydict()
    return list(zip(columns["id_a"], columns["id_b"], columns["jaccard"], strict=True))


def scores(
    pairs: Iterable[Pair], removed: Set[str], levels: Iterable[float] = LEVELS
) -> list[Score]:
    """A removal list judged at each level."""
    pairs = list(pairs)
    found = []
    for level in levels:
        alike = [(a, b) for a, b, jaccard in pairs if jaccard >= level]
        partnered = {i for pair in alike for i in pair}
        solved = sum(a in removed or b in removed for a, b in alike)
        right = len(removed & partnered)
        found.append(
            Score(
                level,
                len(alike),
                solved / len(alike) if alike else 1.0,
                right / len(removed) if removed else 1.0,
            )
        )
    return found


def agreement(a: Set[str], b: Set[str]) -> float:
    """Shared part of two removal lists: |a and b| / |a or b|, 1 where both are empty."""
    return len(a & b) / len(a | b) if a or b else 1.0
