"""Texts as hashed counts of words: an embedder without a model, for tests and for any language.

The hashing trick (Weinberger et al. 2009, arXiv 0902.2206) without signs: each word counts in one
of `dims` places, a character of Han, kana or Hangul being a word; rows are of length 1. The same
bytes everywhere, linear in the texts. Lost: everything but shared words, so cosines of a sentence
with a passage are low (0.2 to 0.4 where the passage holds the sentence) and need a bound of their
own.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from longctx.ids import h64
from longctx.synth.checks import answer_tokens

DIMS = 1_024


def hashed(texts: Sequence[str], dims: int = DIMS) -> npt.NDArray[np.float32]:
    """Unit rows, float32 [n, dims]; a text without words is a row of zeros."""
    rows = np.zeros((len(texts), dims), dtype=np.float64)
    for row, text in zip(rows, texts, strict=True):
        for word, count in Counter(answer_tokens(text)).items():
            row[h64(word.encode("utf-8", "replace")) % dims] += count
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
