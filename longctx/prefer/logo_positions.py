"""Positions of a short context as if it stood in a long window: what LOGO trains long models with.

LOGO (arXiv 2410.18533): about 8k real tokens get position indices that are spread over the whole
window, so every training row costs as much as a short one and over many rows each index is seen.
The window behind the prefix is divided into as many slots as there are chunks; a chunk lies
anywhere in its slot (`continuous`), or its tokens stand apart in it (`sparse`).

What we changed. The paper's formula draws a shift for each token alone, so indices would not even
increase, and the last ones are never reached; the released code counts slots from a range that
lacks the last one where the window divides evenly, and its answers reach index K. Ours are the two
forms that the text describes, and `spread`, where chunks stand in any distance and the borders of
slots are no seam. Linear in the tokens. Lost: nothing; which distances occur is what differs.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

Mode = Literal["continuous", "sparse", "spread"]
MODES: tuple[str, ...] = get_args(Mode)
I64 = npt.NDArray[np.int64]


class Positions(NamedTuple):
    """Indices of the tokens in front of the question, int64, and where the question begins."""

    prefix: I64
    chunks: list[I64]
    question: int

    @property
    def context(self) -> I64:
        """Indices of prefix and chunks in one array."""
        return np.concatenate([self.prefix, *self.chunks])


def slots(n: int, S: int, Q: int, K: int) -> I64:
    """Borders of n slots of the window between S and K - Q, int64[n + 1]."""
    return S + np.arange(n + 1, dtype=np.int64) * (K - S - Q) // n


def positions(
    lens: Sequence[int],
    S: int,
    Q: int,
    K: int,
    mode: Mode = "continuous",
    offsets: Sequence[int] | None = None,
    rng: np.random.Generator | None = None,
) -> Positions:
    """Indices for S tokens of prefix and chunks of `lens` tokens; the question begins at K - Q.

    `continuous`: chunk c begins `offsets[c]` behind the beginning of its slot. `spread`: chunks one
    behind the other, chunk c moved by `offsets[c]`, which never fall. `sparse`: distinct indices of
    the slot, ascending. What is not given is drawn from `rng`, uniformly.

    Raises ValueError where a chunk does not fit, an offset leaves its range, or both are missing.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is none of {', '.join(MODES)}")
    if not lens or min(lens) < 1:
        raise ValueError(f"chunks of {list(lens)} tokens: one chunk at least, none of them empty")
    if offsets is None and rng is None:
        raise ValueError("offsets or rng: one of the two has to say where chunks stand")
    if offsets is not None and (mode == "sparse" or len(offsets) != len(lens)):
        raise ValueError(f"{len(offsets)} offsets for {len(lens)} chunks in mode {mode}")
    prefix = np.arange(S, dtype=np.int64)
    place = {"continuous": _continuous, "sparse": _sparse, "spread": _spread}[mode]
    return Positions(prefix, place(lens, S, Q, K, offsets, rng), K - Q)


def _continuous(
    lens: Sequence[int],
    S: int,
    Q: int,
    K: int,
    offsets: Sequence[int] | None,
    rng: np.random.Generator | None,
) -> list[I64]:
    borders = slots(len(lens), S, Q, K)
    room = _room(lens, borders)
    moved = _drawn(room, rng) if offsets is None else np.asarray(offsets, dtype=np.int64)
    for c, (offset, most) in enumerate(zip(moved.tolist(), room.tolist(), strict=True)):
        if not 0 <= offset <= most:
            raise ValueError(f"offset {offset} of chunk {c} is not one of 0 to {most}")
    return [
        np.arange(start, start + n) for start, n in zip(borders[:-1] + moved, lens, strict=True)
    ]


def _sparse(
    lens: Sequence[int],
    S: int,
    Q: int,
    K: int,
    offsets: Sequence[int] | None,
    rng: np.random.Generator | None,
) -> list[I64]:
    assert rng is not None
    borders = slots(len(lens), S, Q, K)
    _room(lens, borders)
    sizes = np.diff(borders)
    return [
        start + np.sort(rng.choice(size, n, replace=False)).astype(np.int64)
        for start, size, n in zip(borders[:-1], sizes, lens, strict=True)
    ]


def _spread(
    lens: Sequence[int],
    S: int,
    Q: int,
    K: int,
    offsets: Sequence[int] | None,
    rng: np.random.Generator | None,
) -> list[I64]:
    most = K - S - Q - sum(lens)
    if most < 0:
        raise ValueError(f"{sum(lens)} tokens of chunks do not fit into {K - S - Q}")
    if offsets is None:
        moved = np.sort(_drawn(np.full(len(lens), most, dtype=np.int64), rng))
    else:
        moved = np.asarray(offsets, dtype=np.int64)
    if moved[0] < 0 or moved[-1] > most or (np.diff(moved) < 0).any():
        raise ValueError(f"offsets {moved.tolist()} must rise within 0 to {most}")
    before = np.append(0, np.cumsum(lens)[:-1])
    return [np.arange(start, start + n) for start, n in zip(S + before + moved, lens, strict=True)]


def _room(lens: Sequence[int], borders: I64) -> I64:
    """How far each chunk can move in its slot."""
    room = np.diff(borders) - np.asarray(lens, dtype=np.int64)
    if (room < 0).any():
        c = int(np.argmin(room))
        raise ValueError(
            f"chunk {c} of {lens[c]} tokens does not fit into its slot of {np.diff(borders)[c]}"
        )
    return room


def _drawn(most: I64, rng: np.random.Generator | None) -> I64:
    assert rng is not None
    return rng.integers(0, most, endpoint=True, dtype=np.int64)


def coverage(context: Sequence[I64], S: int, Q: int, K: int) -> float:
    """Share of the indices from S to K - Q that rows reach, given the indices of each."""
    seen = np.zeros(K, dtype=bool)
    for row in context:
        seen[row] = True
    return float(seen[S : K - Q].mean())


def expected_coverage(rows: Sequence[Sequence[int]], S: int, Q: int, K: int) -> float:
    """Mean of `coverage` of rows of `continuous` chunks, given the lengths of each row's chunks.

    In a slot of m indices a chunk of n covers index p with (number of starts that reach p) / (m - n
    + 1); rows are drawn independently. Linear in rows and K.
    """
    missed = np.ones(K, dtype=np.float64)
    for lens in rows:
        for n, a, b in zip(lens, *_bounds(len(lens), S, Q, K), strict=True):
            p, starts = np.arange(b - a), b - a - n + 1
            reach = np.minimum(p, starts - 1) - np.maximum(p - n + 1, 0) + 1
            missed[a:b] *= 1 - reach / starts
    return float(1 - missed[S : K - Q].mean())


def _bounds(n: int, S: int, Q: int, K: int) -> tuple[list[int], list[int]]:
    borders = slots(n, S, Q, K).tolist()
    return borders[:-1], borders[1:]
