"""Reading raw corpora: JSONL (plain, gzip, zstd), Parquet and text files, row by row.

A row becomes a `Row` or a `Bad`; nothing is dropped in silence and nothing is repaired without
being counted. One broken line never ends a file; a broken file never ends a run. Memory is bounded
by one row (JSONL, text) or one record batch (Parquet).
"""

import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from longctx.ids import doc_id_for
from longctx.io.paths import clear_errors, filesystem
from longctx.recipe import Input

PAYLOAD_LIMIT = 1 << 20
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
    ".rst": "text",
}
_COMPRESSED = (".gz", ".zst", ".zstd")


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


def format_of(url: str, declared: str) -> str | None:
    """The format of a file: as declared, else from its name; None when the name tells nothing."""
    if declared != "auto":
        return declared
    name = url.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return next((kind for end, kind in _SUFFIXES.items() if name.endswith(end)), None)


def read(url: str, key: str, spec: Input) -> Iterator[Item]:
    """Rows of one file. `key` is the stable name of the file from which missing ids are derived."""
    kind = format_of(url, spec.format)
    fs, path = filesystem(url)
    reader = {"jsonl": _jsonl, "parquet": _parquet, "text": _text}[kind or "text"]
    with clear_errors(url), fs.open(path, "rb") as raw:
        yield from reader(raw, url, key, spec)


def _stream(raw: BinaryIO, url: str) -> BinaryIO:
    if url.endswith(".gz"):
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if url.endswith((".zst", ".zstd")):
        # Several frames in one file are legal and common (concatenated shards).
        reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        return io.BufferedReader(reader, 1 << 20)
    return raw


def _lines(raw: BinaryIO, url: str) -> Iterator[bytes | Bad]:
    """Lines without their end; a stream that breaks off yields one Bad and ends."""
    number = 0
    try:
        for line in _stream(raw, url):
            number += 1
            yield line.rstrip(b"\r\n")
    except (EOFError, gzip.BadGzipFile, zstandard.ZstdError) as error:
        detail = f"the compressed stream breaks off after line {number}: {error}"
        yield Bad(f"{url}:{number + 1}", "broken_stream", detail)


def _jsonl(raw: BinaryIO, url: str, key: str, spec: Input) -> Iterator[Item]:
    for number, line in enumerate(_lines(raw, url), start=1):
        if isinstance(line, Bad):
            yield line
            return
        if number == 1 and line.startswith(b"\xef\xbb\xbf"):
            line = line[3:]
            yield Note("byte_order_mark")
        if not line.strip():
            yield Note("blank_line")
            continue
        yield _json_row(line, f"{url}:{number}", key, number - 1, spec)


def _json_row(line: bytes, place: str, key: str, number: int, spec: Input) -> Item:
    try:
        record = json.loads(line.decode(spec.encoding))
    except UnicodeDecodeError as error:
        return _bad(place, "encoding", f"not {spec.encoding} at byte {error.start}", line)
    except ValueError as error:
        return _bad(place, "broken_line", f"not JSON: {error}", line)
    except RecursionError:
        return _bad(place, "broken_line", "not JSON: nested too deeply", line)
    if not isinstance(record, dict):
        kind = type(record).__name__
        return _bad(place, "broken_line", f"a row is a JSON object, got {kind}", line)
    return _row(record, place, key, number, spec, line)


def _row(
    record: dict[str, Any], place: str, key: str, number: int, spec: Input, payload: bytes | str
) -> Item:
    """Check one record's fields. The order of the checks decides the reason that is counted."""
    text = record.get(spec.text)
    if text is None:
        have = ", ".join(sorted(record)[:12])
        what = "is null" if spec.text in record else "is missing"
        return _bad(place, "missing_text", f"field `{spec.text}` {what}; fields: {have}", payload)
    if not isinstance(text, str):
        detail = f"field `{spec.text}` is {type(text).__name__}, expected a string"
        return _bad(place, "text_type", detail, payload)
    if not _encodable(text):
        return _bad(place, "encoding", f"field `{spec.text}` holds a lone surrogate", payload)
    source = spec.source if spec.source_field is None else record.get(spec.source_field)
    if not isinstance(source, str) or not source:
        detail = f"field `{spec.source_field}` gives no source"
        return _bad(place, "missing_source", detail, payload)
    doc_id = _identity(record, key, number, spec, source)
    if isinstance(doc_id, tuple):
        return _bad(place, *doc_id, payload)
    return Row(
        doc_id,
        text,
        source,
        _optional(record, spec.language) or spec.constants.get("language"),
        _optional(record, spec.license) or spec.constants.get("license"),
        _meta(record, spec.meta),
    )


def _identity(
    record: dict[str, Any], key: str, number: int, spec: Input, source: str
) -> str | tuple[str, str]:
    if spec.id is None:
        return doc_id_for(f"{source}/{key}", number)
    value = record.get(spec.id)
    if value is None:
        return "missing_id", f"field `{spec.id}` is missing or null"
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return "id_type", f"field `{spec.id}` is {type(value).__name__}, expected string or integer"
    text = str(value)
    if not text.strip():
        return "empty_id", f"field `{spec.id}` is empty"
    return text if _encodable(text) else ("encoding", f"field `{spec.id}` holds a lone surrogate")


def _bad(place: str, reason: str, detail: str, payload: bytes | str) -> Bad:
    """A Bad with the row's content, cut to the payload limit."""
    held = payload[:PAYLOAD_LIMIT]
    return Bad(
        place, reason, detail, held.encode("utf-8", "replace") if isinstance(held, str) else held
    )


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
    return json.dumps(kept, ensure_ascii=True, sort_keys=True, default=str)


def _text(raw: BinaryIO, url: str, key: str, spec: Input) -> Iterator[Item]:
    try:
        data = _stream(raw, url).read()
    except (EOFError, gzip.BadGzipFile, zstandard.ZstdError) as error:
        yield Bad(url, "broken_stream", f"the compressed stream breaks off: {error}")
        return
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
        yield Note("byte_order_mark")
    try:
        text = data.decode(spec.encoding)
    except UnicodeDecodeError as error:
        detail = f"not {spec.encoding} at byte {error.start}"
        yield _bad(url, "encoding", detail, data)
        return
    record = {spec.text: text}
    if spec.id is not None:
        record[spec.id] = key
    yield _row(record, url, key, 0, spec, data)


def _parquet(raw: BinaryIO, url: str, key: str, spec: Input) -> Iterator[Item]:
    try:
        file = pq.ParquetFile(raw)
    except pa.ArrowInvalid as error:
        yield Bad(url, "unreadable_file", f"not a Parquet file: {error}")
        return
    total = file.metadata.num_rows
    if spec.text not in file.schema_arrow.names:
        have = ", ".join(file.schema_arrow.names[:12])
        detail = f"no column `{spec.text}`; columns: {have}"
        yield Bad(url, "missing_text", detail, rows=max(total, 1))
        return
    wanted = [spec.text, spec.id, spec.source_field, spec.language, spec.license, *spec.meta]
    columns = [c for c in dict.fromkeys(wanted) if c in file.schema_arrow.names]
    done = 0
    try:
        # Small batches: a row group of books can hold gigabytes of text.
        for batch in file.iter_batches(batch_size=64, columns=columns):
            for record in _records(batch, spec):
                yield _parquet_row(record, f"{url}#row={done}", key, done, spec)
                done += 1
    except (pa.ArrowInvalid, OSError) as error:
        rest = max(total - done, 1)
        yield Bad(f"{url}#row={done}", "unreadable_file", f"stopped reading: {error}", rows=rest)


def _records(batch: pa.RecordBatch, spec: Input) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries; a text that is not UTF-8 stays bytes, so that it can be quarantined."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        column = batch.column(spec.text).cast(pa.large_binary())
        others = batch.drop_columns([spec.text]).to_pylist()
        for value, other in zip(column.to_pylist(), others, strict=True):
            yield {**other, spec.text: value}


def _parquet_row(record: dict[str, Any], place: str, key: str, number: int, spec: Input) -> Item:
    text = record.get(spec.text)
    if isinstance(text, bytes):
        try:
            record[spec.text] = text.decode(spec.encoding)
        except UnicodeDecodeError as error:
            detail = f"not {spec.encoding} at byte {error.start}"
            return _bad(place, "encoding", detail, text)
    shown = record.get(spec.text)
    return _row(record, place, key, number, spec, shown if isinstance(shown, str) else "")
