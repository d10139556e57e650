"""What is packed, in the order of the tours: rows, their lengths, and what a mixture says of them.

A mixture (`mixture.md`, sections 0.4 and 0.7) speaks to the packer through three columns of the
documents, all optional: `mix_copies` (how often a document is packed, absent or null: once),
`mix_max_piece` and `mix_window` (how it is cut: `pack.mixed`). They come with the rows, so that one
process and blocks see the same, and so do the columns that a cut adds.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    from longctx.pack.frame import SentenceEnds

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

COPIES, MAX_PIECE, ALONE = "mix_copies", "mix_max_piece", "mix_window"
MIXTURE = (COPIES, MAX_PIECE, ALONE)
# Of rows that fill windows alone: where they begin in their framed document, its framed length, the
# tokens behind its last row, and the index of the window length that they go to.
SHIFT, FRAMED, TAIL, TARGET = "shift", "framed", "tail", "target"


class Stream(NamedTuple):
    """What is packed, in the order of the tours.

    `rows` of `pack.rows`, framed `lengths` int64[n], `tour` numbers int32[n]; sentence `ends` and
    `vectors` float32[n, d] where they are looked at.
    """

    rows: pa.Table
    lengths: I64
    tour: I32
    ends: "SentenceEnds | None"
    vectors: F32 | None

    def of(self, at: I64) -> "Stream":
        """Some rows of the stream, in its order."""
        ends = None if self.ends is None else self.ends.take(at)
        known = None if self.vectors is None else self.vectors[at]
        return Stream(self.rows.take(pa.array(at)), self.lengths[at], self.tour[at], ends, known)

    def numbers(self, name: str, absent: int) -> I64:
        """A column of the rows, int64[n]; `absent` where it is null or there is no such column."""
        if name not in self.rows.column_names:
            return np.full(len(self.lengths), absent, dtype=np.int64)
        column = self.rows.column(name).cast(pa.int64()).fill_null(absent)
        return np.asarray(column, dtype=np.int64)

    @property
    def framed(self) -> I64:
        """Framed length of the document of each row, int64[n]: its own but for `stand_alone`."""
        return self.numbers(FRAMED, 0) if FRAMED in self.rows.column_names else self.lengths
