"""Windows for the tests of writers: 200 of every awkward shape, and the two of the examples."""

import numpy as np
import pyarrow as pa

from longctx.pack.frame import Placement
from longctx.pack.windows import FramedDocuments, assemble

LENGTH = 2_048
VOCABULARY = 151_936


def two_windows() -> pa.Table:
    """Windows 1..8 of segments (0, 5), (5, 8) from web, and 9 10 11 12 13 300 from code."""
    placement = Placement(*np.array([[0, 0, 1], [0, 1, 2], [0, 0, 0], [5, 3, 6]]))
    documents = FramedDocuments(
        doc_id=pa.array(["a", "b", "c"]),
        source=pa.array(["web", "code", "code"]),
        license=pa.array([None] * 3, pa.string()),
        tokens=np.array([*range(1, 14), 300], np.int32),
        offsets=np.array([0, 5, 8, 14]),
    )
    return assemble(placement, documents, length=8)


def packed_windows(vocabulary: int = VOCABULARY) -> pa.Table:
    """Windows of 1 token, of LENGTH tokens, of 1 and 300 segments; ids up to the vocabulary's."""
    g = np.random.default_rng(23)
    sizes = [np.array([1]), np.array([LENGTH]), g.integers(1, 7, 300), np.ones(255, int)]
    sizes += [np.ones(256, int), np.array([255]), np.array([256])]
    while len(sizes) < 200:
        sizes.append(g.integers(1, LENGTH // 12, g.integers(1, 13)))
    size = np.concatenate(sizes)
    n = len(size)
    cut = g.integers(0, 2, n)
    held = size + cut
    tokens = g.integers(0, vocabulary, held.sum()).astype(np.int32)
    tokens[:3] = [vocabulary - 1, 0, vocabulary - 1]
    placement = Placement(
        window=np.repeat(np.arange(200), [len(s) for s in sizes]),
        document=np.arange(n),
        start=np.zeros(n, np.int64),
        end=size.astype(np.int64),
    )
    documents = FramedDocuments(
        doc_id=pa.array([f"문서\t{i}" if i % 7 == 0 else f"d{i}" for i in range(n)]),
        source=pa.array([("web", "code", "책")[i % 3] for i in range(n)]),
        license=pa.array([None if i % 5 else "CC-BY-4.0" for i in range(n)], pa.string()),
        tokens=tokens,
        offsets=np.concatenate([[0], np.cumsum(held)]),
        tour_id=pa.array([f"t{i // 400:08d}" for i in range(n)]),
    )
    return assemble(placement, documents, length=LENGTH)
