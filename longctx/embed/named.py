"""Embedders of passages by their names: words counted by hash, or an encoder.

`hash` needs no model and knows every language: counts of content words, and of pairs of characters
where words have no blanks, hashed to 1,024 places (feature hashing, arXiv 0902.2206, without
signs). Any other name is an encoder of `longctx.embed.encoders`. Linear in the text. Lost with
`hash`: what says the same in other words, and what collisions of hashes add.
"""

import functools
import os
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


def hash_vectors(texts: Sequence[str]) -> F64:
    """Hashed counts of content words, L2-normalised: float64[len(texts), 1024]."""
    found = np.zeros((len(texts), DIMENSIONS), dtype=np.float64)
    for row, text in zip(found, texts, strict=True):
        for word, count in Counter(content_tokens(text)).items():
            row[h64(word.encode("utf-8", "replace")) % DIMENSIONS] += count
    norms = np.sqrt((found * found).sum(axis=1, keepdims=True))
    return np.divide(found, norms, out=found, where=norms > 0)


def prepare(name: str) -> None:
    """Builds the files of an embedder that every worker loads, where they are not there yet."""
    if name == "static":
        from longctx.embed.static import static_folder

        static_folder()


@functools.lru_cache(maxsize=2)
def embedder_of(name: str) -> Embedder:
    """The embedder of a name; an encoder is loaded once a process.

    Raises `RunError` where an encoder cannot be loaded.
    """
    if name == HASH:
        return hash_vectors
    from longctx.embed.encoders import load_encoder

    # Tokenizers would take every core of the machine in each worker.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    encoder = load_encoder(name, device="auto", threads=1)
    return lambda texts: encoder.encode(list(texts))[0]
