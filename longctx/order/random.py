"""The floor of every table: documents at random, and at random inside their source.

The standard order of pre-training ("example packing" in the papers is this plus concatenation).
"Random" is the smallest priority, so the row order of the input never matters. Cost: one sort.
"""

from collections.abc import Sequence

import numpy as np

from longctx.cluster.similarity import I64
from longctx.ids import U64


def random_order(priority: U64) -> I64:
    """Document numbers int64[n] by (priority, number); `priority` uint64[n]."""
    return np.argsort(priority, kind="stable").astype(np.int64)


def source_order(sources: Sequence[str], priority: U64) -> tuple[I64, I64]:
    """Sources by name, inside each by (priority, number); the order and where each source starts.

    Names are compared by code point, which is their order as UTF-8 bytes. int64[n], int64[sources].
    """
    names = sorted(set(sources))
    rank = {name: i for i, name in enumerate(names)}
    source = np.fromiter((rank[s] for s in sources), dtype=np.int64, count=len(sources))
    order = np.lexsort((priority, source)).astype(np.int64)
    return order, np.searchsorted(source[order], np.arange(len(names))).astype(np.int64)
