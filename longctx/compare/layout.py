"""Which columns of a Parquet file hold packed windows, and how they tell documents apart.

Packers agree on little: longctx writes `segments`, TRL `seq_lengths`, varlen attention kernels take
`cu_seqlens`, Hugging Face collators restart `position_ids`, many just put an end-of-text token
between documents, and some keep text. `layout_of` finds the form from names and types alone, and
where it cannot it says which option would tell.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from longctx.errors import RecipeError
from longctx.registry import did_you_mean

# How a boundary column is read. `numbers` is a column whose name says nothing: its values decide.
SEGMENTS, LENGTHS, ENDS, POSITIONS = "segments", "lengths", "ends", "positions"
EOS, NUMBERS, TEXTS, CHARACTERS = "eos", "numbers", "texts", "characters"

_IDS = ("input_ids", "token_ids", "tokens")
_BOUNDARIES = {
    "segments": SEGMENTS,
    "seq_lengths": LENGTHS,
    "cu_seqlens": ENDS,
    "position_ids": POSITIONS,
}
_MASK = "attention_mask"


@dataclass(frozen=True)
class Options:
    """What the user said about columns and ids; None where they are to be found.

    `ids`, `text` and `boundaries` are names of columns, `eos` and `pad` token ids.
    """

    ids: str | None = None
    text: str | None = None
    boundaries: str | None = None
    eos: int | None = None
    pad: int | None = None


@dataclass(frozen=True)
class Layout:
    """How one file is read: `values` holds ids or text, `boundaries` separates its documents.

    `form` is one of the constants of this module. `eos` is the separating token of the form `eos`
    where the user named it, else the tokenizer's is meant.
    """

    values: str
    form: str
    boundaries: str | None = None
    mask: str | None = None
    eos: int | None = None
    pad: int | None = None
    doc_id: bool = False
    doc_start: bool = False
    source: bool = False

    @property
    def is_text(self) -> bool:
        return self.form in (TEXTS, CHARACTERS)

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return [c for c in (self.values, self.boundaries, self.mask) if c is not None]

    @property
    def said(self) -> str:
        """How documents are told apart, in a few words for the reader of the result."""
        return {
            SEGMENTS: f"`{self.boundaries}` of each window",
            LENGTHS: f"lengths in `{self.boundaries}`",
            ENDS: f"ends in `{self.boundaries}`",
            POSITIONS: f"zeros in `{self.boundaries}`",
            NUMBERS: f"numbers in `{self.boundaries}`",
            EOS: f"token {self.eos}" if self.eos is not None else "the tokenizer's end-of-text",
            TEXTS: f"texts in `{self.values}`",
            CHARACTERS: f"characters in `{self.boundaries}`",
        }[self.form]


def layout_of(schema: pa.Schema, options: Options, where: str) -> Layout:
    """The layout of a file with these columns.

    Raises RecipeError, naming the file (`where`), the columns found and the option to give.
    """
    if options.text is not None and options.ids is not None:
        raise RecipeError(
            "--ids and --text exclude each other", remedy="windows are token ids or text: name one"
        )
    if options.text is None:
        ids = _ids_column(schema, options, where)
        if ids is not None:
            return _of_ids(schema, ids, options, where)
    return _of_text(schema, options, where)


def _ids_column(schema: pa.Schema, options: Options, where: str) -> str | None:
    if options.ids is not None:
        _require(schema, options.ids, "--ids", where)
        if not _is_list_of(schema.field(options.ids).type, pa.types.is_integer):
            raise _wrong_type(schema, options.ids, "a list of whole numbers", "--ids", where)
        return options.ids
    found = (n for n in _IDS if n in schema.names)
    return next((n for n in found if _is_list_of(schema.field(n).type, pa.types.is_integer)), None)


def _of_ids(schema: pa.Schema, ids: str, options: Options, where: str) -> Layout:
    mask = _MASK if _MASK in schema.names else None
    name = options.boundaries
    if name is not None:
        _require(schema, name, "--boundaries", where)
    elif options.eos is None:
        name = next((n for n in _BOUNDARIES if n in schema.names), None)
    if name is None:
        return Layout(ids, EOS, mask=mask, eos=options.eos, pad=options.pad)
    kind = schema.field(name).type
    fields = _struct_fields(kind)
    if {"start", "end"} <= fields:
        return Layout(
            ids,
            SEGMENTS,
            name,
            mask,
            options.eos,
            options.pad,
            doc_id="doc_id" in fields,
            doc_start="doc_start" in fields,
            source="source" in fields,
        )
    if not _is_list_of(kind, pa.types.is_integer):
        expected = "a list of whole numbers or of (start, end)"
        raise _wrong_type(schema, name, expected, "--boundaries", where)
    form = _BOUNDARIES.get(name, NUMBERS)
    if form == SEGMENTS:
        form = NUMBERS
    return Layout(ids, form, name, mask, options.eos, options.pad)


def _of_text(schema: pa.Schema, options: Options, where: str) -> Layout:
    name = options.text
    if name is None:
        lists = [f.name for f in schema if _is_list_of(f.type, _is_string)]
        if len(lists) != 1:
            raise RecipeError(
                f"no column of windows was recognised; the columns are: {_names(schema)}",
                where=where,
                remedy="name the column of token ids with --ids, or that of texts with --text",
            )
        name = lists[0]
    _require(schema, name, "--text", where)
    kind = schema.field(name).type
    if _is_list_of(kind, _is_string):
        return Layout(name, TEXTS)
    if not _is_string(kind):
        raise _wrong_type(schema, name, "text or a list of texts", "--text", where)
    if options.boundaries is None:
        raise RecipeError(
            f"nothing says where the documents in `{name}` end; the columns are: {_names(schema)}",
            where=where,
            remedy="name a column of character offsets with --boundaries",
        )
    _require(schema, options.boundaries, "--boundaries", where)
    if not _is_list_of(schema.field(options.boundaries).type, pa.types.is_integer):
        expected = "a list of character offsets"
        raise _wrong_type(schema, options.boundaries, expected, "--boundaries", where)
    return Layout(name, CHARACTERS, options.boundaries)


def _require(schema: pa.Schema, name: str, option: str, where: str) -> None:
    if name in schema.names:
        return
    raise RecipeError(
        f"there is no column `{name}`{did_you_mean(name, schema.names)}; "
        f"the columns are: {_names(schema)}",
        where=where,
        remedy=f"name one of them with {option}",
    )


def _wrong_type(
    schema: pa.Schema, name: str, expected: str, option: str, where: str
) -> RecipeError:
    return RecipeError(
        f"the column `{name}` holds {schema.field(name).type}, expected {expected}; "
        f"the columns are: {_names(schema)}",
        where=where,
        remedy=f"name another column with {option}",
    )


def _names(schema: pa.Schema) -> str:
    return ", ".join(schema.names) if schema.names else "none"


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_list_of(kind: pa.DataType, inner: Callable[[pa.DataType], bool]) -> bool:
    return _is_list(kind) and bool(inner(kind.value_type))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _struct_fields(kind: pa.DataType) -> set[str]:
    if not (_is_list(kind) and pa.types.is_struct(kind.value_type)):
        return set()
    return {kind.value_type.field(i).name for i in range(kind.value_type.num_fields)}
