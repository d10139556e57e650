"""Packed windows of any supported form brought into one: segments with tokens, content and names.

A segment is what one document has in one window. Its content is its tokens without begin- and
end-of-text (or its text), so the same document has the same content in every run that uses the
same tokenizer, whatever marks its borders; content is known by a 64-bit hash. What lies outside the
segments, and a trailing run of padding, is room that no document fills.

Text is counted in tokens of the run's tokenizer, one more for each document: the separator that a
trainer will put there, and that windows of ids have in them.

O(tokens) without a Python step per token; one copy of the ids of a table.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.compare.borders import Spans, spans_of, without_padding
from longctx.compare.layout import CHARACTERS, SEGMENTS, Layout
from longctx.errors import RecipeError
from longctx.ids import U64, doc_keys, h64, mix64
from longctx.pack.frame import I64
from longctx.pack.windows import flatten_lists
from longctx.text.tokenize import Tokenizer

EMPTY = np.uint64(0)  # the content of a segment that holds no text
_NAMES: dict[str, type[np.generic]] = {
    "document": np.uint64,
    "doc_start": np.int64,
    "source": np.uint64,
}


class Contents(Protocol):
    """What the segments of a table say."""

    def keys(self) -> U64:
        """Hash of each content, uint64[segments]; EMPTY where there is none."""

    def text(self, segment: int) -> str:
        """The text of one segment."""


@dataclass(frozen=True)
class Batch:
    """Some windows: window w has the segments borders[w]..borders[w + 1] - 1.

    `borders` int64[windows + 1], `tokens` int64[segments]; `document` and `source` are keys of
    names, uint64[segments], `doc_start` int64[segments], each None where the file has none.
    """

    borders: I64
    tokens: I64
    contents: Contents
    document: U64 | None = None
    doc_start: I64 | None = None
    source: U64 | None = None


@dataclass(frozen=True)
class Packed:
    """All windows of a run without their text; columns as in `Batch`.

    `content` uint64[segments]; `priority` uint64[windows] comes from what a window holds, so a
    choice of windows by it does not depend on files, their order, or the form of the borders.
    """

    borders: I64
    tokens: I64
    content: U64
    priority: U64
    document: U64 | None
    doc_start: I64 | None
    source: U64 | None

    @property
    def window(self) -> I64:
        """The window of each segment, int64[segments]."""
        return np.repeat(np.arange(len(self.borders) - 1), np.diff(self.borders))

    @property
    def n_tokens(self) -> I64:
        """Tokens of each window, int64[windows]."""
        return np.diff(np.concatenate([[0], np.cumsum(self.tokens)])[self.borders])

    def take(self, windows: I64) -> "Packed":
        """These windows alone, in the order given."""
        size = np.diff(self.borders)[windows]
        borders = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
        first = np.repeat(self.borders[windows] - borders[:-1], size)
        rows = first + np.arange(borders[-1])
        return Packed(
            borders,
            self.tokens[rows],
            self.content[rows],
            self.priority[windows],
            None if self.document is None else self.document[rows],
            None if self.doc_start is None else self.doc_start[rows],
            None if self.source is None else self.source[rows],
        )


def read(table: pa.Table, layout: Layout, tokenizer: Tokenizer, where: str) -> Batch:
    """The windows of a table. Raises RecipeError for columns that contradict each other."""
    if layout.is_text:
        return _read_text(table, layout, tokenizer, where)
    return _read_ids(table, layout, tokenizer, where)


def gather(batches: Iterable[Batch]) -> Packed:
    """All windows without their text. A name that one batch lacks is given up for all."""
    size, tokens, content = [], [], []
    names: dict[str, list[Any]] = {name: [] for name in _NAMES}
    for batch in batches:
        size.append(np.diff(batch.borders))
        tokens.append(batch.tokens)
        content.append(batch.contents.keys())
        for name, columns in names.items():
            columns.append(getattr(batch, name))
    borders = np.concatenate([np.zeros(1, np.int64), *size]).cumsum().astype(np.int64)
    every_token = _joined(tokens, np.int64)
    every_content = _joined(content, np.uint64)
    return Packed(
        borders,
        every_token,
        every_content,
        _priorities(borders, every_content, every_token),
        **{
            name: _joined(columns, _NAMES[name]) if all(c is not None for c in columns) else None
            for name, columns in names.items()
        },
    )


def chosen(packed: Packed, most: int) -> I64:
    """At most `most` windows, those of smallest priority in its order; int64."""
    return np.argsort(packed.priority, kind="stable")[:most].astype(np.int64)


def _joined(columns: list[Any], kind: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *columns]).astype(kind)


def _priorities(borders: I64, content: U64, tokens: I64) -> U64:
    marked = np.stack([content, tokens.astype(np.uint64)], axis=1)
    hashes = (h64(marked[a:b].tobytes()) for a, b in pairwise(borders.tolist()))
    return mix64(np.fromiter(hashes, np.uint64, len(borders) - 1))


@dataclass(frozen=True)
class _IdContents:
    """Ids of all segments end to end, without special ones; segment i is ids[at[i]:at[i + 1]]."""

    ids: npt.NDArray[np.int32]
    at: I64
    tokenizer: Tokenizer

    def keys(self) -> U64:
        spans = pairwise(self.at.tolist())
        return _keys(self.ids[a:b].tobytes() for a, b in spans)

    def text(self, segment: int) -> str:
        return self.tokenizer.decode(self.ids[self.at[segment] : self.at[segment + 1]])


@dataclass(frozen=True)
class _TextContents:
    texts: list[str]

    def keys(self) -> U64:
        return _keys(text.encode("utf-8", "surrogatepass") for text in self.texts)

    def text(self, segment: int) -> str:
        return self.texts[segment]


def _keys(contents: Iterable[bytes]) -> U64:
    return np.array([h64(c) if c else EMPTY for c in contents], dtype=np.uint64)


def _read_ids(table: pa.Table, layout: Layout, tokenizer: Tokenizer, where: str) -> Batch:
    flat, offsets = flatten_lists(table[layout.values])
    ids = flat.to_numpy(zero_copy_only=False)
    _check_ids(ids, tokenizer, where)
    eos = tokenizer.eos_id if layout.eos is None else layout.eos
    room = without_padding(table, layout, ids, offsets, eos, where)
    spans = spans_of(table, layout, ids, offsets, room, eos, where)
    names: dict[str, Any] = {}
    if layout.form == SEGMENTS and layout.boundaries is not None:
        names = _names(table[layout.boundaries], layout, spans)
    return Batch(
        spans.borders, spans.end - spans.start, _contents(ids, spans, eos, tokenizer), **names
    )


def _contents(ids: npt.NDArray[Any], spans: Spans, eos: int, tokenizer: Tokenizer) -> _IdContents:
    special = np.isin(ids, [i for i in (eos, tokenizer.eos_id, tokenizer.bos_id) if i is not None])
    before = np.concatenate([[0], np.cumsum(~special)])
    # Segments need not touch, so what lies between them is left out too.
    inside = np.zeros(len(ids) + 1, np.int64)
    np.add.at(inside, spans.start, 1)
    np.add.at(inside, spans.end, -1)
    kept = ids[~special & (np.cumsum(inside)[:-1] > 0)].astype(np.int32)
    sizes = before[spans.end] - before[spans.start]
    return _IdContents(kept, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), tokenizer)


def _check_ids(ids: npt.NDArray[Any], tokenizer: Tokenizer, where: str) -> None:
    if len(ids) == 0 or (ids.min() >= 0 and ids.max() < tokenizer.vocab_size):
        return
    wrong = ids.min() if ids.min() < 0 else ids.max()
    raise RecipeError(
        f"token id {int(wrong)} is outside the vocabulary of {tokenizer.name} "
        f"(0..{tokenizer.vocab_size - 1})",
        where=where,
        remedy="name the tokenizer that these windows were made with: --tokenizer [RUN=]PATH",
    )


def _names(column: pa.ChunkedArray, layout: Layout, spans: Spans) -> dict[str, Any]:
    """Keys of the documents and sources of all segments that the spans kept."""
    structs, _ = flatten_lists(column)
    structs = structs.take(pa.array(spans.row))
    found: dict[str, Any] = {}
    if layout.doc_id:
        doc_id = pc.struct_field(structs, "doc_id").cast(pa.string())
        found["document"] = None if doc_id.null_count else _name_keys(doc_id)
    if layout.doc_start:
        start = pc.struct_field(structs, "doc_start").cast(pa.int64())
        found["doc_start"] = None if start.null_count else start.to_numpy()
    if layout.source:
        source = pc.struct_field(structs, "source").cast(pa.string())
        found["source"] = _name_keys(pc.fill_null(source, ""))
    return found


def _name_keys(names: pa.Array) -> U64:
    encoded = names.dictionary_encode()
    keys = doc_keys(encoded.dictionary.to_pylist())
    return keys[encoded.indices.to_numpy()]


def _read_text(table: pa.Table, layout: Layout, tokenizer: Tokenizer, where: str) -> Batch:
    if layout.form == CHARACTERS:
        cut = _cut(table, layout, where)
    else:
        cut = [row or [] for row in table[layout.values].to_pylist()]
    texts = [text or "" for row in cut for text in row]
    borders = np.concatenate([[0], np.cumsum([len(row) for row in cut])]).astype(np.int64)
    counted = [len(ids) + 1 for ids in tokenizer.encode_batch(texts)] if texts else []
    return Batch(borders, np.array(counted, dtype=np.int64), _TextContents(texts))


def _cut(table: pa.Table, layout: Layout, where: str) -> list[list[str]]:
    """Each window's text cut at its boundaries, which may or may not name both of its ends."""
    cut = []
    columns = (table[layout.values].to_pylist(), table[layout.boundaries].to_pylist())
    for row, (text, places) in enumerate(zip(*columns, strict=True)):
        text, places = text or "", places or []
        if any(not 0 <= p <= len(text) for p in places):
            raise RecipeError(
                f"row {row} has {len(text):,} characters, but `{layout.boundaries}` names "
                f"{max(places, key=abs):,}",
                where=where,
                remedy="give offsets in characters (not in bytes or tokens) with --boundaries",
            )
        ends = sorted({0, len(text), *places})
        cut.append([text[a:b] for a, b in pairwise(ends)])
    return cut
