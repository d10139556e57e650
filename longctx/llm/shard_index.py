"""Where the answers of a shard cache lie: a sorted array of key prefixes and their places.

28 bytes a key: the first 16 bytes of each key, the number of its file and its row there. Arrays
alone, so one copy in Ray's object store serves all processes of a node without being copied.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_PREFIX = 16


@dataclass(frozen=True)
class ShardIndex:
    """`prefixes` of dtype S16, ascending and distinct; `file` and `row` of the same length."""

    prefixes: npt.NDArray[np.bytes_]
    file: npt.NDArray[np.int32]
    row: npt.NDArray[np.int64]
    files: tuple[str, ...]

    def places(self, keys: Sequence[str]) -> dict[str, tuple[str, int]]:
        """File and row of each key whose prefix is there; the reader compares the whole key."""
        if not len(self.prefixes) or not keys:
            return {}
        wanted = prefixes_of(keys)
        at = np.minimum(np.searchsorted(self.prefixes, wanted), len(self.prefixes) - 1)
        hits = np.flatnonzero(self.prefixes[at] == wanted).tolist()
        return {keys[i]: (self.files[self.file[at[i]]], int(self.row[at[i]])) for i in hits}


def prefixes_of(keys: Sequence[str]) -> npt.NDArray[np.bytes_]:
    """The first 16 bytes of hexadecimal keys, shape (len(keys),), dtype S16."""
    return np.array([bytes.fromhex(k[: 2 * _PREFIX]) for k in keys], dtype=f"S{_PREFIX}")


def build(files: Sequence[tuple[str, Sequence[str | None]]]) -> ShardIndex:
    """Index of files, each with the keys of its rows (None: not to be found).

    Of several rows with one key the first counts, files taken in ascending order of their names.
    """
    ordered = sorted(files)
    keys = [(k, f, r) for f, (_, ks) in enumerate(ordered) for r, k in enumerate(ks) if k]
    prefixes = prefixes_of([k for k, _, _ in keys])
    prefixes, first = np.unique(prefixes, return_index=True)
    file = np.array([f for _, f, _ in keys], dtype=np.int32)
    row = np.array([r for _, _, r in keys], dtype=np.int64)
    return ShardIndex(prefixes, file[first], row[first], tuple(name for name, _ in ordered))
