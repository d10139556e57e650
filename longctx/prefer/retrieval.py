"""Which chunks of a context may support a statement: the nearest by cosine, in their order.

LongReward (arXiv 2410.21252) takes the five nearest chunks of 128 tokens by a vendor's embedder.
Here the embedder is named (`longctx.embed.named`, whose names are to be had here, too), `hash` by
default. Vectors of a context are made once for all its candidates. Linear in the text; 4 kB a chunk
while a unit works.
"""

import numpy as np

from longctx.embed.named import HASH as HASH
from longctx.embed.named import Embedder as Embedder
from longctx.embed.named import Vectors as Vectors
from longctx.embed.named import hash_vectors as hash_vectors

# Decimals to which similarities are rounded, so that no sum's order decides.
_DECIMALS = 9


def nearest(statements: Vectors, chunks: Vectors, top_k: int) -> list[list[int]]:
    """For each statement the `top_k` chunks of highest cosine, in the order of the text.

    Both float[n, d] of unit vectors. Of equal ones the earlier chunk is taken. Fewer chunks than
    `top_k` are all taken.
    """
    if not len(chunks):
        return [[] for _ in range(len(statements))]
    near = np.round(statements.astype(np.float64) @ chunks.astype(np.float64).T, _DECIMALS)
    first = np.argsort(-near, axis=1, kind="stable")[:, :top_k]
    return [sorted(row) for row in first.tolist()]
