"""Reading raw corpora: JSONL (plain, gzip, zstd), Parquet and text files, row by row.

A row becomes a `Row` or a `Bad`; nothing is dropped in silence and nothing is repaired without
being counted. One broken line never ends a file; a broken file never ends a run; only storage that
cannot be read does. Memory is bounded by one row (JSONL, text) or one record batch (Parquet); of
bad rows the first 64 KiB are kept, and 16 MiB a file.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import zstandard

from longctx.errors import RunError
from longctx.io.parquet_rows import parquet_rows
from longctx.io.paths import clear_errors, filesystem
from longctx.io.records import (
    Bad,
    Content,
    Item,
    Note,
    Row,
    RowError,
    bad,
    decoded,
    released,
    rows_of,
)
from longctx.recipe import Input

__all__ = ["Bad", "Item", "Note", "Row", "format_of", "read"]

PAYLOAD_TOTAL = 16 << 20
BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
_BOM = b"\xef\xbb\xbf"
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


def format_of(url: str, declared: str) -> str | None:
    """The format of a file: as declared, else from its name; None when the name tells nothing."""
    if declared != "auto":
        return declared
    name = url.lower()
    packed = next((end for end in _COMPRESSED if name.endswith(end)), "")
    name = name.removesuffix(packed)
    return next((kind for end, kind in _SUFFIXES.items() if name.endswith(end)), None)


def read(url: str, key: str, spec: Input) -> Iterator[Item]:
    """Rows of one file. `key` is the stable name of the file from which missing ids are derived.

    Raises RunError if storage cannot give the file; nothing that stands in the file raises.
    """
    kind = format_of(url, spec.format)
    fs, path = filesystem(url)
    reader = {"jsonl": _jsonl, "parquet": parquet_rows, "text": _text}[kind or "text"]
    with clear_errors(url):
        try:
            with fs.open(path, "rb") as raw:
                yield from _within_budget(reader(raw, url, key, spec))
        except FileNotFoundError as error:
            raise RunError(
                "the file is no longer there",
                where=url,
                remedy="put it back, or run again with the files that are there now",
            ) from error


def _within_budget(items: Iterator[Item]) -> Iterator[Item]:
    """Pass items on; once a file's bad rows held enough, the next ones come without content."""
    left = PAYLOAD_TOTAL
    for item in items:
        if isinstance(item, Bad) and item.payload:
            if len(item.payload) > left:
                item = replace(item, payload=b"", detail=f"{item.detail}; content not kept")
            left -= len(item.payload)
        held = [item]
        del item
        yield held.pop()


class _ZstdFrames(io.RawIOBase):
    """The content of all frames of a zstd stream, concatenated shards and `--long` ones too.

    The library's own reader ends in silence where the last frame is cut; this one raises EOFError.
    """

    _READ = 4 << 10

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._packed, self._ready = raw, b"", memoryview(b"")
        self._frame: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = self._packed or self._raw.read(self._READ)
            if not packed:
                if self._frame is not None:
                    raise EOFError("the last frame is cut off")
                return 0
            frame = (
                self._frame or zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            )
            self._ready = memoryview(frame.decompress(packed))
            self._packed = frame.unused_data if frame.eof else b""
            self._frame = None if frame.eof else frame
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def _new_frame() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()


def unpacked(raw: BinaryIO, url: str) -> BinaryIO:
    """The content of a file, by the ending of its name; reading it may raise one of BROKEN."""
    name = url.lower()
    if name.endswith(".gz"):
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if name.endswith((".zst", ".zstd")):
        return io.BufferedReader(_ZstdFrames(raw), 1 << 20)
    return raw


def _lines(raw: BinaryIO, url: str) -> Iterator[list[bytes] | Bad]:
    """Lines without their end; a stream that breaks off yields one Bad and ends.

    Each comes in a list from which its reader takes it: what a suspended generator refers to, and
    what `enumerate` handed out last, lives until the next line is there.
    """
    number = 0
    try:
        for line in unpacked(raw, url):
            number += 1
            held = [line.rstrip(b"\r\n")]
            del line
            yield held
    except BROKEN as error:
        detail = f"the compressed stream breaks off after line {number}: {error}"
        yield bad(f"{url}:{number + 1}", "broken_stream", detail)


def _jsonl(raw: BinaryIO, url: str, key: str, spec: Input) -> Iterator[Item]:
    number = 0
    for held in _lines(raw, url):
        number += 1
        if isinstance(held, Bad):
            yield held
            return
        if number == 1 and held[0].startswith(_BOM):
            held[0] = held[0][len(_BOM) :]
            yield Note("byte_order_mark")
        if not held[0].strip():
            yield Note("blank_line")
            continue
        yield from released(_json_row(held, f"{url}:{number}", key, number - 1, spec))


def _json_row(held: list[bytes], place: str, key: str, number: int, spec: Input) -> list[Item]:
    content = Content.of(held[0])
    try:
        line = decoded(held.pop(), spec)
        record = json.loads(line)
        del line
        if not isinstance(record, dict):
            kind = type(record).__name__
            raise RowError("broken_line", f"a row is a JSON object, got {kind}")
    except RowError as error:
        return [bad(place, error.reason, error.detail, content)]
    except ValueError as error:
        return [bad(place, "broken_line", f"not JSON: {error}", content)]
    except RecursionError:
        return [bad(place, "broken_line", "not JSON: nested too deeply", content)]
    return rows_of(record, place, key, number, spec, content)


def _text(raw: BinaryIO, url: str, key: str, spec: Input) -> Iterator[Item]:
    try:
        data = unpacked(raw, url).read()
    except BROKEN as error:
        yield bad(url, "broken_stream", f"the compressed stream breaks off: {error}")
        return
    if data.startswith(_BOM):
        data = data[len(_BOM) :]
        yield Note("byte_order_mark")
    record: dict[str, Any] = {spec.id: key} if spec.id is not None else {}
    record[spec.text] = data
    content = Content.of(data)
    del data
    yield from released(rows_of(record, url, key, 0, spec, content))
