"""What the writers of windows share: the target of a pack, a file of a shard, padded rows.

A format is a module of `longctx.io` with the five functions of `pack.formats.Format`; it turns a
table of `schema.WINDOWS` into files, bytes in and out. One copy of a shard's tokens at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.errors import RunError
from longctx.pack.windows import list_values


@dataclass(frozen=True)
class Target:
    """What a format must know of a pack beside the rows.

    `length` is the trainer's context in tokens, `eos_id` ends and pads, `vocab_size` bounds the
    ids, `tokenizer` is its name.
    """

    length: int
    eos_id: int
    vocab_size: int
    tokenizer: str


@dataclass(frozen=True)
class ShardFile:
    """One file of a shard: name below the format's folder, content, windows in it.

    `note` is what merging and describing need of it later (plain JSON values).
    """

    name: str
    data: bytes
    rows: int
    note: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What a shard's files hold: how many windows, and the file and fields of window i."""

    windows: int
    window: Callable[[int], tuple[str, dict[str, Any]]]


def padded(
    windows: pa.Table, length: int, width: int, fill: int, dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    """Token ids as a matrix [windows, width], rows filled up with `fill`.

    Raises RunError for a window of more than `length` tokens.
    """
    tokens, offsets = list_values(windows["input_ids"])
    held = np.diff(offsets)
    if len(held) and held.max() > length:
        row = int(held.argmax())
        raise RunError(
            f"window {windows['window_id'][row].as_py()} holds {held[row]} tokens, more than the "
            f"{length} of the format",
            where="write",
            remedy="export with the length that the windows were packed for",
        )
    out = np.full((len(held), width), fill, dtype=dtype)
    out[np.arange(width) < held[:, None]] = tokens
    return out


def total(notes: Sequence[dict[str, Any]], name: str) -> int:
    """Sum of a counter over the notes of all shards."""
    return sum(int(note[name]) for note in notes)
