"""From a rate to copies: one number in [0, 1) of each document, drawn by hash.

    copies = min(max_epochs, max(0, ceil(rate - u)))

is floor(rate), and one more with probability frac(rate). The number u depends on seed, tag and id
alone, so copies do not depend on order, parts, workers or other documents, a higher rate never
takes a copy away, and a document keeps its u in every plan with the same seed. (Ours; Fu et al.,
arXiv 2402.10171, draw from the order of a stream.)

Costs one SHA-256 a document, about a microsecond.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

COPIES, HOLDOUT = "mixture", "mixture.holdout"
_UNIT = 2.0**-53


def u01(seed: int, doc_id: str, tag: str) -> float:
    """The number of a document in [0, 1), a multiple of 2^-53, from SHA-256 of seed, tag, id."""
    digest = hashlib.sha256(f"{seed}|{tag}|{doc_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) * _UNIT


def uniforms(seed: int, ids: Sequence[str], tag: str) -> F64:
    """`u01` of many documents, float64 [n]."""
    return np.fromiter((u01(seed, i, tag) for i in ids), dtype=np.float64, count=len(ids))


def held_out(seed: int, keys: Iterable[str], fraction: float) -> Bool:
    """Which documents are held out, bool [n]: those whose key draws a number below `fraction`.

    Documents with the same key (near-copies of one another) are held out together.
    """
    listed = list(keys)
    if not fraction:
        return np.zeros(len(listed), dtype=np.bool_)
    return np.asarray(uniforms(seed, listed, HOLDOUT) < fraction)


def copies(rate: F64 | float, u: F64 | float, max_epochs: int) -> I32:
    """How often documents are taken: int32 in 0..max_epochs, for rates >= 0 and u in [0, 1)."""
    found = np.ceil(np.asarray(rate, dtype=np.float64) - u)
    return np.clip(found, 0, max_epochs).astype(np.int32)
