"""Chance of a row: a generator from what the row is, never from who makes it or when.

The rule of `longctx.ids.rng_for` with the stage added, so that two stages of one row draw apart and
another stage in between changes nothing. Orders that must not depend on a generator are made from
hashes of ids.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from longctx.ids import rng_for


def generator(seed: int, system: str, stage: str, row_id: str) -> np.random.Generator:
    """PCG64 of the first 8 bytes (big-endian) of SHA-256 of "seed|system|stage|row_id"."""
    return rng_for(seed, f"{system}|{stage}", row_id)


def hash_order(ids: Iterable[str], seed: int, system: str, stage: str) -> list[str]:
    """The ids in the order of their seeded hashes: a shuffle that every worker makes alike.

    An id keeps its place among the others when more are added.
    """
    return sorted(ids, key=lambda i: (_digest(seed, system, stage, i), i))


def _digest(seed: int, system: str, stage: str, row_id: str) -> bytes:
    return hashlib.sha256(f"{seed}|{system}|{stage}|{row_id}".encode()).digest()
