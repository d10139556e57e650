"""Which chunks of a context may support a statement: the nearest by cosine, in their order.

LongReward (arXiv 2410.21252) takes the five nearest chunks of 128 tokens by a vendor's embedder.
Here the embedder is named: `hash` needs no model and knows every language (counts of content words,
and of pairs of characters where words have no blanks, hashed to 1,024 places), any other name is an
encoder of the room `embed`. Vectors of a context are made once for all its candidates. Linear in
the text; 4 kB a chunk while a unit works. Lost with `hash`: chunks that say the same in other
words, and what collisions of hashes add.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from longctx.ids import h64
from longctx.text.answers import content_tokens

F64 = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.floating[Any]]
# Texts in, unit vectors float[n, d] out; a text of which nothing is left has a row of zeros.
Embedder = Callable[[Sequence[str]], Vectors]

HASH = "hash"
DIMENSIONS = 1_024
# Decimals to which similarities are rounded, so that no sum's order decides.
_DECIMALS = 9


def hash_vectors(texts: Sequence[str]) -> F64:
    """Hashed counts of content words, L2-normalised: float64[len(texts), 1024]."""
    found = np.zeros((len(texts), DIMENSIONS), dtype=np.float64)
    for row, text in zip(found, texts, strict=True):
        for word, count in Counter(content_tokens(text)).items():
            row[h64(word.encode("utf-8", "replace")) % DIMENSIONS] += count
    norms = np.sqrt((found * found).sum(axis=1, keepdims=True))
    return np.divide(found, norms, out=found, where=norms > 0)


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
