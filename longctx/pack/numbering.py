"""The number under which each planned window is written.

Windows are shuffled as whole windows: related documents sit in adjacent windows, and a sequential
reader would get correlated batches.
"""

from itertools import pairwise

import numpy as np
import pyarrow as pa

from longctx.ids import U64
from longctx.pack.frame import I32, I64, Placement
from longctx.pack.similarity import window_borders
from longctx.pack.windows import shuffle_key, window_id

_AT_ONCE = 4096


def window_numbers(
    placement: Placement,
    doc_ids: pa.ChunkedArray,
    seed: int | None,
    origin: I64 | None = None,
    passes: I32 | None = None,
) -> I64:
    """Output number of the window of each row of a placement, int64[rows].

    With a seed by (`shuffle_key`, window_id), without one in the order of packing. `doc_ids` and
    `origin` int64[n] (where a span begins in its document, None: 0) are in the placement's
    numbering; `passes` int32[rows] is the pass of each row (None: 0).
    """
    borders = window_borders(placement.window)
    windows = len(borders) - 1
    if seed is None:
        number = np.arange(windows)
    else:
        ids = _ids(placement, borders, doc_ids, origin, passes)
        order = np.lexsort((np.asarray(ids, dtype=str), shuffle_key(ids, seed)))
        number = np.empty(windows, dtype=np.int64)
        number[order] = np.arange(windows)
    return np.repeat(number, np.diff(borders)).astype(np.int64)


def window_keys(
    placement: Placement,
    doc_ids: pa.ChunkedArray,
    seed: int,
    origin: I64 | None = None,
    passes: I32 | None = None,
) -> U64:
    """The `shuffle_key` of the window of each row of a placement, uint64[rows].

    Windows sorted by it are in the order of `window_numbers`, without all of them being at hand.
    """
    borders = window_borders(placement.window)
    keys = shuffle_key(_ids(placement, borders, doc_ids, origin, passes), seed)
    return np.repeat(keys, np.diff(borders))


def _ids(
    placement: Placement,
    borders: I64,
    doc_ids: pa.ChunkedArray,
    origin: I64 | None,
    passes: I32 | None,
) -> list[str]:
    """The id of each window; some thousand windows at a time, because rows become Python values."""
    start = placement.start if origin is None else placement.start + origin[placement.document]
    size = placement.end - placement.start
    number = np.zeros(len(borders) - 1, np.int32) if passes is None else passes[borders[:-1]]
    ids: list[str] = []
    for at in range(0, len(borders) - 1, _AT_ONCE):
        cut = borders[at : at + _AT_ONCE + 1]
        held = slice(cut[0], cut[-1])
        names = doc_ids.take(pa.array(placement.document[held])).to_pylist()
        rows = list(zip(names, start[held].tolist(), size[held].tolist(), strict=True))
        own = number[at : at + len(cut) - 1].tolist()
        windows = zip(pairwise((cut - cut[0]).tolist()), own, strict=True)
        ids += [window_id(rows[i:j], k) for (i, j), k in windows]
    return ids
