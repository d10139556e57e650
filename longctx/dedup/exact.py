"""Exact duplicates: one key per normalised text, one survivor per key.

No paper: a 128-bit hash and a group-by. A Bloom filter, the usual shortcut, cannot name the copy it
keeps and answers by thread order; a group-by gives the same survivor whatever the order of rows.
Lengths travel with the keys and must agree inside a group, so a collision raises and never drops.

Cost: one hash of the text, 40 bytes per document in the group-by.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from longctx.errors import RunError
from longctx.text.normalise import Profile, norm_dedup, norm_exact, pieces

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Norm = Literal["exact", "raw", "dedup"]

_BLANK_LINES = re.compile(r"\n\s*\n")
MIN_PARAGRAPH = 200  # characters; shorter paragraphs repeat by nature


def exact_key(text: str, norm: Norm = "exact", profile: Profile = "text") -> tuple[str, int]:
    """H128 (32 hex digits) of the normalised text, and its length in characters.

    `norm` "exact" squeezes white space after NFC, "raw" changes nothing, "dedup" applies
    `norm_dedup` with `profile`. ValueError on another value. Memory: the text and some megabytes.
    """
    if norm not in ("exact", "raw", "dedup"):
        raise ValueError(f"unknown norm {norm!r}; expected one of exact, raw, dedup")
    key, length = hashlib.blake2b(digest_size=16), 0
    for piece in _normal(text, norm, profile):
        key.update(piece.encode())
        length += len(piece)
    return key.hexdigest(), length


def _normal(text: str, norm: Norm, profile: Profile) -> Iterator[str]:
    """Consecutive pieces of the normal form, so that a long text is never normalised as a whole."""
    if norm == "raw":
        yield from pieces(text)
        return
    begun = False
    for piece in pieces(text):
        normal = norm_exact(piece) if norm == "exact" else norm_dedup(piece, profile)
        if normal:
            yield f" {normal}" if begun else normal
            begun = True


def choose_exact(
    keys: Sequence[str],
    doc_ids: Sequence[str],
    qualities: Sequence[float | None] | None = None,
    lengths: Sequence[int] | None = None,
    scopes: Sequence[str] | None = None,
) -> tuple[I64, I64]:
    """Copies of each document (itself included) and the row that is kept for it.

    Two int64 arrays aligned with the rows; `kept[i] == i` means that row i survives. Rows are
    copies when scope and key agree. The highest quality survives (None last), then the smallest
    doc_id. A document of length 0 is nobody's copy. RunError where equal keys have unequal lengths.
    """
    n = len(keys)
    group = _group_numbers(keys, scopes)
    if lengths is not None:
        sizes = np.asarray(lengths, dtype=np.int64)
        empty = np.flatnonzero(sizes == 0)
        group[empty] = n + np.arange(empty.size)
        _check_lengths(group, sizes, keys)
    quality = np.full(n, -np.inf)
    if qualities is not None:
        quality[:] = [-np.inf if q is None else q for q in qualities]
    by_id = np.argsort(np.asarray(list(doc_ids), dtype=object), kind="stable")
    id_rank = np.empty(n, dtype=np.int64)
    id_rank[by_id] = np.arange(n)
    order = np.lexsort((id_rank, -quality, group))
    _, start, member, size = np.unique(
        group[order], return_index=True, return_inverse=True, return_counts=True
    )
    count, kept = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    count[order], kept[order] = size[member], order[start[member]]
    return count, kept


def _group_numbers(keys: Sequence[str], scopes: Sequence[str] | None) -> I64:
    _, group = np.unique(np.asarray(list(keys), dtype=np.str_), return_inverse=True)
    if scopes is None:
        return group.astype(np.int64)
    _, scope = np.unique(np.asarray(scopes, dtype=np.str_), return_inverse=True)
    _, group = np.unique(scope * len(keys) + group, return_inverse=True)
    return group.astype(np.int64)


def _check_lengths(group: I64, lengths: I64, keys: Sequence[str]) -> None:
    order = np.argsort(group, kind="stable")
    same = np.diff(group[order]) == 0
    clash = np.flatnonzero(same & (np.diff(lengths[order]) != 0))
    if clash.size:
        raise RunError(
            f"hash collision: texts of different length share the key {keys[order[clash[0]]]}",
            remedy="use norm: raw for this source, or report the two documents",
        )


def paragraph_keys(text: str, norm: Norm = "exact") -> list[tuple[str, int]]:
    """Key and length in characters of each paragraph (split at blank lines) of 200 or more."""
    blocks = (block.strip() for block in _BLANK_LINES.split(text))
    return [(exact_key(b, norm)[0], len(b)) for b in blocks if len(b) >= MIN_PARAGRAPH]


def paragraph_share(doc: I64, keys: Sequence[str], n_chars: I64, doc_chars: I64) -> F64:
    """Share of each document's characters in paragraphs whose key another document has too.

    Rows (doc[i], keys[i], n_chars[i]) of all paragraphs, doc an index into doc_chars (characters
    of each document). float64 of doc_chars' shape; 0 for an empty document.
    """
    _, key = np.unique(np.asarray(keys, dtype=np.str_), return_inverse=True)
    pairs = np.unique(np.stack([key, doc]), axis=1)
    n_docs = np.bincount(pairs[0], minlength=key.max(initial=-1) + 1)
    shared = n_docs[key] > 1
    chars = np.bincount(doc[shared], weights=n_chars[shared], minlength=doc_chars.size)
    return chars / np.maximum(doc_chars, 1)
