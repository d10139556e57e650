"""The tokens of a proxy run, in the order in which it reads them.

Every source is one endless stream: its documents in an order drawn for each pass, an end token
after each, cut into blocks of L + 1 tokens that overlap in one (L are predicted). A run takes the
first blocks of each stream, as many as the share asks for, to a block, and reads them all shuffled.
So shares are kept exactly, every document of a source is read once before any is read again, and
nothing depends on who else is running: all orders come from (seed, mixture, source, pass).

Nothing of a stream is written out; a block is looked up in the running lengths of its pass. Costs
16 bytes a document and pass, and a copy of each token.
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
    passes: dict[int, tuple[I64, I64]] = field(default_factory=dict)

    def block(self, number: int, length: int) -> I64:
        """Block `number` of `length` predicted tokens, int64 [length + 1]."""
        found = np.empty(length + 1, dtype=np.int64)
        place, filled = number * length, 0
        while filled < len(found):
            turn, offset = divmod(place + filled, self.documents.stream)
            filled += self._copy(turn, offset, found[filled:])
        return found

    def _copy(self, turn: int, offset: int, into: I64) -> int:
        """Fill `into` from a place in a pass to the end of its document at most; how many."""
        order, ends = self._pass(turn)
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

    def _pass(self, turn: int) -> tuple[I64, I64]:
        """The order of documents in a pass, and where each ends in it (end token included)."""
        if turn not in self.passes:
            sizes = np.diff(self.documents.starts) + 1
            order = rng_for(self.seed, _DOCUMENTS, f"{self.name}|{turn}").permutation(len(sizes))
            self.passes[turn] = order, np.cumsum(sizes[order])
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
    streams = [_Stream(documents[s], seed, f"{mixture_id}|{s}") for s in sources]
    of = np.repeat(np.arange(len(sources)), [blocks[s] for s in sources])
    number = np.concatenate([np.arange(blocks[s]) for s in sources])
    order = rng_for(seed, _BLOCKS, mixture_id).permutation(len(of))
    for at in order.reshape(-1, batch):
        yield np.stack([streams[of[i]].block(int(number[i]), length) for i in at])
