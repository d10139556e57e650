"""From a record of an input file to a document, or to the reason why it is none.

The same checks for every format, in one order, so that a reason means the same everywhere. What is
kept of a bad record is bounded: the first 64 KiB of its content and a short detail.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from longctx.ids import doc_id_for
from longctx.recipe import Input

PAYLOAD_LIMIT = 64 << 10
UNREADABLE = object()
_DETAIL_LIMIT = 500


@dataclass(frozen=True)
class Row:
    """One document as read, not yet checked for duplicate ids."""

    doc_id: str
    text: str
    source: str
    language: str | None = None
    license: str | None = None
    meta: str | None = None


@dataclass(frozen=True)
class Bad:
    """A row that cannot become a document: where it stands, why, and what it held.

    `rows` is the number of input rows it stands for: 1, or more when a whole file is unusable.
    """

    location: str
    reason: str
    detail: str
    payload: bytes = b""
    doc_id: str | None = None
    rows: int = 1


@dataclass(frozen=True)
class Note:
    """Something that was handled and is worth counting, such as a byte order mark."""

    name: str


Item = Row | Bad | Note


@dataclass(frozen=True)
class Content:
    """What a record held: its beginning, as far as it is kept of bad ones, and its length."""

    head: bytes | str
    length: int

    @classmethod
    def of(cls, whole: bytes | str) -> "Content":
        """The content of a record, which need not be kept for it."""
        return cls(whole[:PAYLOAD_LIMIT], len(whole))


NOTHING = Content(b"", 0)


class RowError(Exception):
    """Why a record is no document; never leaves the readers."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail


def decoded(data: bytes, spec: Input) -> str:
    """Text in the input's encoding. Raises RowError where it is not."""
    try:
        return data.decode(spec.encoding)
    except UnicodeError as error:
        where = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise RowError("encoding", f"not {spec.encoding}{where}") from None


def rows_of(
    record: dict[str, Any], place: str, key: str, number: int, spec: Input, content: Content
) -> list[Item]:
    """Check one record's fields. The order of the checks decides the reason that is counted.

    The row, if it is one, is the last item.
    """
    try:
        text = _text_of(record, spec)
        source = _source_of(record, spec)
        doc_id = _identity(record, key, number, spec, source)
        meta = _meta(record, spec.meta)
    except RowError as error:
        return [bad(place, error.reason, error.detail, content)]
    found: list[Item] = []
    language, license_ = _optional(record, spec.language), _optional(record, spec.license)
    for name, value in ((spec.language, language), (spec.license, license_)):
        if value is None and name and record.get(name) not in (None, ""):
            found.append(Note(f"no_string_in_{name}"))
    language = language or spec.constants.get("language")
    license_ = license_ or spec.constants.get("license")
    return [*found, Row(doc_id, text, source, language, license_, meta)]


def released(items: list[Item]) -> Iterator[Item]:
    """The items one by one; none is kept here while it is used, for it may be a large document."""
    items.reverse()
    while items:
        yield items.pop()


def _text_of(record: dict[str, Any], spec: Input) -> str:
    text = record.get(spec.text)
    if text is None:
        have = ", ".join(sorted(record)[:12])
        what = "is null" if spec.text in record else "is missing"
        raise RowError("missing_text", f"field `{spec.text}` {what}; fields: {have}")
    if isinstance(text, bytes):
        text = decoded(text, spec)
    if isinstance(text, list):
        text = _said(text)
    if not isinstance(text, str):
        detail = f"field `{spec.text}` is {type(text).__name__}, expected a string"
        raise RowError("text_type", detail)
    if not _encodable(text):
        raise RowError("encoding", f"field `{spec.text}` holds a lone surrogate")
    return text


def _said(messages: list[Any]) -> str | list[Any]:
    """What the messages of a chat say, with blank lines between; a list that is no chat stays."""
    contents = [m.get("content") if isinstance(m, dict) and "role" in m else None for m in messages]
    said = [c for c in contents if isinstance(c, str)]
    return "\n\n".join(said) if said and len(said) == len(messages) else messages


def _source_of(record: dict[str, Any], spec: Input) -> str:
    source = spec.source if spec.source_field is None else record.get(spec.source_field)
    if not isinstance(source, str) or not source.strip():
        raise RowError("missing_source", f"field `{spec.source_field}` gives no source")
    if not _encodable(source):
        raise RowError("encoding", f"field `{spec.source_field}` holds a lone surrogate")
    return source


def _identity(record: dict[str, Any], key: str, number: int, spec: Input, source: str) -> str:
    if spec.id is None:
        return doc_id_for(f"{source}/{key}", number)
    value = record.get(spec.id)
    if value is None:
        raise RowError("missing_id", f"field `{spec.id}` is missing or null")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        kind = type(value).__name__
        raise RowError("id_type", f"field `{spec.id}` is {kind}, expected string or integer")
    text = str(value)
    if not text.strip():
        raise RowError("empty_id", f"field `{spec.id}` is empty")
    if not _encodable(text):
        raise RowError("encoding", f"field `{spec.id}` holds a lone surrogate")
    return text


def bad(place: str, reason: str, detail: str, content: Content = NOTHING, rows: int = 1) -> Bad:
    """A Bad with the row's content, cut to the payload limit; the detail says what was cut."""
    detail = storable(detail, _DETAIL_LIMIT)
    head = content.head
    kept = head.encode("utf-8", "replace")[:PAYLOAD_LIMIT] if isinstance(head, str) else head
    if content.length > PAYLOAD_LIMIT:
        unit = "characters" if isinstance(head, str) else "bytes"
        detail += f"; the first {len(kept):,} bytes of {content.length:,} {unit} are kept"
    return Bad(place, reason, detail, kept, rows=rows)


def storable(text: str, limit: int) -> str:
    """A text for a report: any lone surrogate escaped, and no longer than the limit."""
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text):,} characters)"
    return text.encode("utf-8", "backslashreplace").decode()


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _optional(record: dict[str, Any], name: str | None) -> str | None:
    value = record.get(name) if name else None
    return value if isinstance(value, str) and value and _encodable(value) else None


def _meta(record: dict[str, Any], names: list[str]) -> str | None:
    if not names:
        return None
    kept = {name: record[name] for name in names if name in record}
    try:
        return json.dumps(kept, ensure_ascii=True, sort_keys=True, default=_as_text)
    except (RecursionError, ValueError, TypeError) as error:
        raise RowError("meta_type", f"the `meta` fields are not JSON: {error}") from None


def _as_text(value: Any) -> str:
    """Dates, decimals and bytes of Parquet columns, which JSON does not know."""
    if value is UNREADABLE:
        raise ValueError("a value cannot be read")
    return str(value)
