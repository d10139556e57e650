"""What a proxy run takes of the documents: the pool of each source, held-out excerpts, counts.

Rows of a part become pieces, one for each source; pieces of a source, in the order of the ids of
their documents, become what a model is trained on. So neither the number of parts nor their order
changes a token. The held-out set of a source is cut off first: documents in the order of their
numbers (`chance.u01`), a sixteenth of the wanted tokens of each (more where they are few), then
whole blocks.
"""

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.errors import RecipeError
from longctx.mixture.chance import HOLDOUT, u01
from longctx.mixture.pools import Counted, excerpt, fair_length, roles
from longctx.mixture.proxy_order import Documents
from longctx.mixture.proxy_vocabulary import END, Vocabulary

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_EXCERPTS = 16


class Rows(NamedTuple):
    """Some documents: ids, keys of what is held out together, sources, tokens int32 [n] each."""

    ids: list[str]
    keys: list[str]
    sources: list[str]
    tokens: list[I32]


@dataclass(frozen=True)
class Reading:
    """What is taken of each document: `factor` and `holdout` as in `pools.roles`.

    Of every source at most `evaluated` held-out tokens are needed, in blocks of `block`.
    """

    sources: tuple[str, ...]
    seed: int
    factor: float
    holdout: float
    evaluated: int
    block: int

    @property
    def excerpt(self) -> int:
        """Tokens of one held-out document, where there are documents enough: no long one is all."""
        return max(self.block + 1, self.evaluated // _EXCERPTS)


@dataclass
class Found:
    """What a part holds: counts of each source, and of each id in its pool.

    `ids` maps a source to its ids and how often each occurs; `highest` is the largest id of all.
    """

    counted: dict[str, Counted] = field(default_factory=dict)
    ids: dict[str, tuple[I64, I64]] = field(default_factory=dict)
    highest: int = 0
    bad: int = 0


Held = tuple[float, str, I32]


@dataclass(frozen=True)
class Piece:
    """Documents of one source in one part: those of the pool, tokens one after another int32 and
    sizes int64 [n], and held-out documents (number, id, tokens)."""

    names: list[str]
    tokens: I32
    sizes: I64
    held: list[Held]


@dataclass
class _Kept:
    """A piece while it is read."""

    names: list[str] = field(default_factory=list)
    tokens: list[I32] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)

    def hold_out(self, reading: Reading, key: str, name: str, tokens: I32) -> None:
        """Keep a held-out document, unless those with smaller numbers are enough already."""
        self.held.append((u01(reading.seed, key, HOLDOUT), name, tokens.copy()))
        if len(self.held) > 4 * _EXCERPTS:
            self.held = _wanted(self.held, reading)

    def piece(self) -> Piece:
        sizes = np.array([len(t) for t in self.tokens], dtype=np.int64)
        tokens = np.concatenate([np.zeros(0, np.int32), *self.tokens])
        return Piece(self.names, tokens, sizes, self.held)


@dataclass(frozen=True)
class HeldOut:
    """Held-out text of a target: blocks [n, block + 1], and the mean surcharge of its tokens."""

    blocks: npt.NDArray[Any]
    surcharge: float
    docs: int
    tokens: int


def take(rows: Iterable[Rows], reading: Reading) -> tuple[Found, dict[str, Piece]]:
    """What documents hold, and a piece for each source of `reading`."""
    found = Found()
    kept = {name: _Kept() for name in reading.sources}
    for ids, keys, sources, tokens in rows:
        pool, held = roles(reading.seed, ids, keys, reading.factor, reading.holdout)
        for i, source in enumerate(sources):
            own, size = tokens[i], len(tokens[i])
            one = Counted(1, size, int(pool[i]), size * int(pool[i]), int(held[i]))
            found.counted[source] = found.counted.get(source, Counted()) + one
            if source not in kept or not size:
                continue
            found.highest = max(found.highest, int(own.max()))
            if pool[i]:
                kept[source].names.append(ids[i])
                kept[source].tokens.append(own.copy())
            elif held[i]:
                kept[source].hold_out(reading, keys[i], ids[i], own)
    pieces = {source: one.piece() for source, one in kept.items()}
    for source, piece in pieces.items():
        own, often = np.unique(piece.tokens, return_counts=True)
        found.ids[source] = own.astype(np.int64), often.astype(np.int64)
    return found, pieces


def assemble(
    vocabulary: Vocabulary, reading: Reading, *pieces: Piece
) -> tuple[Documents, HeldOut, str]:
    """A source from its pieces: documents in the order of their ids, held-out blocks, a digest."""
    order = sorted((name, i, j) for i, p in enumerate(pieces) for j, name in enumerate(p.names))
    names = [name for name, _, _ in order]
    twice = next((a for a, b in itertools.pairwise(names) if a == b), None)
    if twice is not None:
        raise RecipeError(
            f"the id '{twice}' occurs twice",
            where="--data",
            remedy="give files whose ids are unique (--id-field), or a run folder",
        )
    within = [_starts(p.sizes) for p in pieces]
    starts = _starts(np.array([pieces[i].sizes[j] for _, i, j in order], dtype=np.int64))
    classes = np.empty(int(starts[-1]), dtype=vocabulary.dtype)
    for place, (_, i, j) in enumerate(order):
        own = pieces[i].tokens[within[i][j] : within[i][j + 1]]
        classes[starts[place] : starts[place + 1]] = vocabulary.classes[own]
    documents = Documents(classes, starts)
    held = _held_out([one for p in pieces for one in p.held], vocabulary, reading)
    digest = hashlib.sha256("\n".join(names).encode())
    for array in (documents.starts, classes, held.blocks, np.float64(held.surcharge)):
        digest.update(array.tobytes())
    return documents, held, digest.hexdigest()[:32]


def _starts(sizes: I64) -> I64:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _held_out(held: list[Held], vocabulary: Vocabulary, reading: Reading) -> HeldOut:
    chosen = _wanted(held, reading)
    most = fair_length([len(t) for _, _, t in chosen], reading.evaluated, reading.excerpt)
    excerpts = [t[slice(*excerpt(reading.seed, name, len(t), most))] for _, name, t in chosen]
    ended = [np.append(vocabulary.classes[t], END) for t in excerpts]
    priced = [np.append(vocabulary.surcharge[t], 0.0) for t in excerpts]
    stream = np.concatenate([np.zeros(0, np.int32), *ended])
    prices = np.concatenate([np.zeros(0), *priced])
    length = reading.block
    count = max(0, (len(stream) - 1) // length)
    at = np.arange(count)[:, None] * length + np.arange(length + 1)
    surcharge = float(prices[at[:, 1:]].mean()) if count else 0.0
    return HeldOut(stream[at].astype(vocabulary.dtype), surcharge, len(excerpts), len(stream))


def _wanted(held: list[Held], reading: Reading) -> list[Held]:
    """Documents in the order of their numbers until excerpts of them are enough tokens."""
    kept, size = [], 0
    for one in sorted(held, key=lambda h: h[:2]):
        if size >= reading.evaluated:
            break
        kept.append(one)
        size += min(len(one[2]), reading.excerpt)
    return kept
