"""Units of kNN-Pretraining: the sentences of a document, neither tiny nor long, in token offsets.

Levine et al. (arXiv 2110.04541) retrieve sentences. A sentence shorter than `min_unit` tokens says
too little to be related to anything, so it is joined to what follows; one longer than `max_unit`
would fill a context alone, so it is cut. The bounds are ours. What the paper leaves open: the last
short sentence of a document joins the one before it, pieces of a cut unit are equally long (to one
token), and a document shorter than `min_unit` has no unit. Linear in the sentences.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from longctx.ids import U64, mix64
from longctx.text.offsets import I64, span_token_ends, token_ends
from longctx.text.sentences import sentence_spans

if TYPE_CHECKING:
    from longctx.text.slices import Ids
    from longctx.text.tokenize import Tokenizer

MIN_UNIT, MAX_UNIT = 16, 128


def document_units(
    tokenizer: "Tokenizer",
    ids: "Ids",
    text: str,
    min_unit: int = MIN_UNIT,
    max_unit: int = MAX_UNIT,
) -> tuple[I64, I64]:
    """Units of one document: their token spans and their character spans, int64[u, 2] each.

    `ids` are the tokens of `text`. Token spans are half-open, ascending and disjoint.
    """
    ends = token_ends(tokenizer, ids, text)
    spans = unit_spans(span_token_ends(ends, text, sentence_spans(text)), min_unit, max_unit)
    return spans, np.append(0, ends)[spans]


def unit_spans(
    sentence_ends: Sequence[int] | I64, min_unit: int = MIN_UNIT, max_unit: int = MAX_UNIT
) -> I64:
    """Units of a document whose sentences end after these numbers of tokens: int64[u, 2].

    `sentence_ends` never decrease. A sentence shorter than `min_unit` is joined to the next until
    there are that many tokens (the last one to those before), then what is longer than `max_unit`
    is cut into as few equal pieces as it takes. Raises ValueError unless 1 <= min_unit <= max_unit.
    """
    if not 1 <= min_unit <= max_unit:
        raise ValueError(f"min_unit {min_unit} and max_unit {max_unit} are not 1 <= min <= max")
    borders = [0]
    last = 0
    for end in np.asarray(sentence_ends, dtype=np.int64).tolist():
        last = end
        if end - borders[-1] >= min_unit:
            borders.append(end)
    if len(borders) == 1:
        return np.zeros((0, 2), dtype=np.int64)
    borders[-1] = last
    begins, sizes = np.array(borders[:-1], dtype=np.int64), np.diff(borders).astype(np.int64)
    pieces = -(-sizes // max_unit)
    whole = np.repeat(np.arange(len(sizes)), pieces)
    piece = np.arange(len(whole)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    cuts = np.stack([piece, piece + 1], axis=1) * sizes[whole, None] // pieces[whole, None]
    return begins[whole, None] + cuts


def evenly_chosen(n: int, most: int | None) -> npt.NDArray[np.int64]:
    """Numbers of at most `most` of `n` units, evenly spaced from the first to the last."""
    if most is None or n <= most:
        return np.arange(n, dtype=np.int64)
    if most == 1:
        return np.zeros(1, dtype=np.int64)
    return np.arange(most, dtype=np.int64) * (n - 1) // (most - 1)


def unit_keys(doc_keys: U64, unit: I64) -> U64:
    """Key of each unit from the key of its document and its number there, uint64[n]."""
    return mix64(doc_keys ^ mix64(unit.astype(np.uint64) + np.uint64(1)))
