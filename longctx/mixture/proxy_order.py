"""The tokens of a proxy run, in the order in which it reads them.

A source is read in passes. For each its documents get an order of their own, an end token after
each, and are cut into blocks of L + 1 tokens that overlap in one (L are predicted; what is left at
the end of a pass is not read in it). A run takes as many blocks of each source as the share asks
for, whole passes first, then blocks drawn from all over the last one: the beginning of a pass would
be a handful of documents where they are long. It reads them all shuffled. So shares are kept to a
block, no text is read twice before nearly all is read once, and nothing depends on who else is
running: all orders come from (seed, mixture, source, pass).

Nothing of a pass is written out; a block is looked up in its running lengths. Costs 16 bytes a
document and 8 a block for each pass, and a copy of each token.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from longctx.ids import rng_for
from longctx.mixture.proxy_vocabulary import END

I64 = npt.NDArray[np.int64]
Classes = npt.NDArray[np.uint16 | np.int32]

_DOCUMENTS, _BLOCKS = "mixture.proxy.documents", "mixture.proxy.blocks"


@dataclass(frozen=True)
class Documents:
    """Documents of a source one after another: classes [tokens], and where each begins and the
    last one ends, int64 [n + 1]."""

    classes: Classes
    starts: I64

    @property
    def stream(self) -> int:
        """Tokens of one pass, with an end token for each document."""
        return len(self.classes) + len(self.starts) - 1


@dataclass
class _Stream:
    """The endless stream of one source in one run."""

    documents: Documents
    seed: int
    name: str
    length: int
    passes: dict[int, tuple[I64, I64, I64]] = field(default_factory=dict)

    def block(self, number: int) -> I64:
        """Block `number` of the endless stream, int64 [length + 1]."""
        found = np.empty(self.length + 1, dtype=np.int64)
        turn, at = divmod(number, self._blocks)
        place, filled = int(self._pass(turn)[2][at]) * self.length, 0
        while filled < len(found):
            # A source that is shorter than a block goes on with the next pass.
            later, offset = divmod(place + filled, self.documents.stream)
            filled += self._copy(turn + later, offset, found[filled:])
        return found

    @property
    def _blocks(self) -> int:
        """Blocks in a pass."""
        return max(1, (self.documents.stream - 1) // self.length)

    def _copy(self, turn: int, offset: int, into: I64) -> int:
        """Fill `into` from a place in a pass to the end of its document at most; how many."""
        order, ends, _ = self._pass(turn)
        at = int(np.searchsorted(ends, offset, side="right"))
        document = int(order[at])
        first, last = self.documents.starts[document : document + 2].tolist()
        begin = offset - (int(ends[at]) - (last - first + 1))
        taken = self.documents.classes[first + begin : min(last, first + begin + len(into))]
        into[: len(taken)] = taken
        if len(taken) == len(into):
            return len(taken)
        into[len(taken)] = END
        return len(taken) + 1

    def _pass(self, turn: int) -> tuple[I64, I64, I64]:
        """Documents of a pass in its order, where each ends (end token included), and its blocks
        in the order in which they are taken."""
        if turn not in self.passes:
            rng = rng_for(self.seed, _DOCUMENTS, f"{self.name}|{turn}")
            sizes = np.diff(self.documents.starts) + 1
            order = rng.permutation(len(sizes))
            self.passes[turn] = order, np.cumsum(sizes[order]), rng.permutation(self._blocks)
        return self.passes[turn]


def batches(
    documents: Mapping[str, Documents],
    blocks: Mapping[str, int],
    *,
    mixture_id: str,
    seed: int,
    length: int,
    batch: int,
) -> Iterator[I64]:
    """Batches of a run, int64 [batch, length + 1]; `blocks` is how many of each source.

    Their sum is a multiple of `batch`; sources are taken in ascending order of their names.
    """
    sources = sorted(name for name, count in blocks.items() if count)
    streams = [_Stream(documents[s], seed, f"{mixture_id}|{s}", length) for s in sources]
    of = np.repeat(np.arange(len(sources)), [blocks[s] for s in sources])
    number = np.concatenate([np.arange(blocks[s]) for s in sources])
    order = rng_for(seed, _BLOCKS, mixture_id).permutation(len(of))
    for at in order.reshape(-1, batch):
        yield np.stack([streams[of[i]].block(int(number[i])) for i in at])
