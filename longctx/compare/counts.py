"""What can be counted in packed windows: fill, cuts, documents, sources, repeated documents.

Fill and cuts as in "Fewer Truncations" (2404.10830). Only what a file says is counted: where
segments carry no document ids, pieces of one document cannot be recognised, so cuts are None.
O(segments log segments).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from longctx.compare.windows import EMPTY, Packed
from longctx.pack.frame import I64


@dataclass(frozen=True)
class Counts:
    """Figures over all windows of a run; shares in 0..1, None where the file cannot tell.

    `split` is the share of documents with pieces in different places, `split_short` the same among
    documents that would fit into one window (None without one). `documents` are distinct ids, or
    distinct contents where there are no ids. `repeats` is the share of windows that hold some
    content twice.
    """

    windows: int
    tokens: int
    documents: int
    fill: float
    split: float | None
    split_short: float | None
    docs_mean: float
    docs_median: float
    one_document: float
    sources_mean: float | None
    repeats: float


def count(packed: Packed, length: int) -> Counts:
    """Counts of a run with at least one window of at most `length` tokens."""
    windows = len(packed.borders) - 1
    tokens = int(packed.tokens.sum())
    document = packed.content if packed.document is None else packed.document
    in_window = _distinct(packed.window, document, windows)
    split, short = _cuts(packed, length)
    sources = packed.source
    return Counts(
        windows=windows,
        tokens=tokens,
        documents=len(np.unique(document)),
        fill=tokens / (windows * length),
        split=split,
        split_short=short,
        docs_mean=float(in_window.mean()),
        docs_median=float(np.median(in_window)),
        one_document=float((in_window == 1).mean()),
        sources_mean=None
        if sources is None
        else float(_distinct(packed.window, sources, windows).mean()),
        repeats=float(repeated(packed).mean()),
    )


def repeated(packed: Packed) -> npt.NDArray[np.bool_]:
    """Whether a window holds the same content twice, or the same place of a document; bool[w]."""
    windows = len(packed.borders) - 1
    some = packed.content != EMPTY
    found = _twice(packed.window[some], (packed.content[some],), windows)
    if packed.document is not None and packed.doc_start is not None:
        found |= _twice(packed.window, (packed.document, packed.doc_start), windows)
    return found


def _cuts(packed: Packed, length: int) -> tuple[float | None, float | None]:
    """Share of documents in several pieces: of all, and of those that fit into one window.

    A piece is known by where it begins in its document, else by its content: a document that was
    repeated whole is not split.
    """
    if packed.document is None:
        return None, None
    place: npt.NDArray[Any] = packed.content if packed.doc_start is None else packed.doc_start
    order = np.lexsort((place, packed.document))
    document, place = packed.document[order], place[order]
    new_document = np.concatenate([[True], document[1:] != document[:-1]])[: len(document)]
    new_piece = new_document.copy()
    new_piece[1:] |= place[1:] != place[:-1]
    number = np.cumsum(new_document) - 1
    pieces = np.bincount(number[new_piece])
    held = np.bincount(number[new_piece], weights=packed.tokens[order][new_piece])
    split, fits = pieces > 1, held <= length
    return _mean(split), _mean(split[fits])


def _mean(flags: npt.NDArray[np.bool_]) -> float | None:
    return float(flags.mean()) if len(flags) else None


def _distinct(window: I64, key: npt.NDArray[Any], windows: int) -> I64:
    """Number of distinct keys in each window, int64[windows]."""
    order = np.lexsort((key, window))
    window, key = window[order], key[order]
    new = np.ones(len(window), dtype=bool)
    new[1:] = (window[1:] != window[:-1]) | (key[1:] != key[:-1])
    return np.bincount(window[new], minlength=windows)


def _twice(window: I64, keys: tuple[npt.NDArray[Any], ...], windows: int) -> npt.NDArray[np.bool_]:
    """Whether a window holds two segments that agree in all keys, bool[windows]."""
    order = np.lexsort((*keys, window))
    same = window[order][1:] == window[order][:-1]
    for key in keys:
        same &= key[order][1:] == key[order][:-1]
    found = np.zeros(windows, dtype=bool)
    found[window[order][1:][same]] = True
    return found
