"""The cache of a cluster: Parquet files on any fsspec URL, written by many processes at once.

Each process collects its results and writes them every 256 results or 30 seconds, and at its end,
as one file under a name of its own; a file appears whole or not at all. At the start the keys of
all files are read into one sorted array (`shard_index.py`); texts are read only for hits. Of two
files with one key, the first by name counts.

A flush is one file `URL/<first 8 digits of the model's SHA-256>/new/<uuid>.parquet`: split by the
first digits of the keys, 256 results would be some 160 files of one or two rows. `compact` splits.
"""

import contextlib
import hashlib
import io
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from longctx.errors import LongctxError
from longctx.io.parquet_files import parquet_file
from longctx.io.paths import join, list_files, open_ranged, remove, write_atomic
from longctx.llm.cache import Entry, distinct
from longctx.llm.shard_index import ShardIndex, build
from longctx.llm.types import LLMJobError

FLUSH_ROWS = 256
FLUSH_SECONDS = 30.0
_GROUPS_KEPT = 8
_READERS = 16
_COMPACTED_BYTES = 128 << 20
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("key", "logical", "model", "text", "finish_reason")),
        *((name, pa.int64()) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")),
        ("estimated", pa.bool_()),
        ("model_reported", pa.string()),
        ("prefill", pa.string()),
        ("created", pa.float64()),
    ]
)
Place = tuple[str, int]


class ShardCache:
    """Answers below a URL. `index` saves the listing where somebody has made one already."""

    def __init__(
        self,
        url: str,
        *,
        index: ShardIndex | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self._now = now
        self._lock = threading.Lock()
        self._pending: dict[str, Entry] = {}
        # Of what this process has flushed: by key, and by logical key where it is finished.
        self._flushed: dict[str, Place] = {}
        self._flushed_finished: dict[str, Place] = {}
        self._flushed_at = now()
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._finished: ShardIndex | None = None
        with _clear(url):
            self.index = listed(url) if index is None else index

    @property
    def unflushed(self) -> int:
        return len(self._pending)

    def get(self, keys: Sequence[str]) -> dict[str, Entry]:
        with self._lock:
            found = {k: self._pending[k] for k in keys if k in self._pending}
            places = _placed([k for k in keys if k not in found], self.index, self._flushed)
            with _clear(self.url):
                read = self._read(places.values())
        return found | {k: e for k, p in places.items() if (e := read[p]).key == k}

    def get_finished(self, logical: Sequence[str]) -> dict[str, Entry]:
        with self._lock, _clear(self.url):
            if self._finished is None:
                self._finished = finished(self.url, self.index)
            places = _placed(logical, self._finished, self._flushed_finished)
            read = self._read(places.values())
            mine = {e.logical: e for e in self._pending.values() if e.finish_reason == "stop"}
        found = {k: e for k, p in places.items() if (e := read[p]).logical == k}
        return {k: mine[k] for k in logical if k in mine} | found

    def put(self, entries: Sequence[Entry]) -> dict[str, Entry]:
        with self._lock:
            for entry in entries:
                self._pending.setdefault(entry.key, entry)
        if len(self._pending) >= FLUSH_ROWS:
            self.flush()
        return {}

    def tick(self) -> None:
        if self._pending and self._now() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        # Under the lock: what is being written must neither be lost from sight nor written twice.
        with self._lock, _clear(self.url):
            for model, entries in _by_model(self._pending.values()):
                name = join(self.url, _folder(model), "new", f"{uuid.uuid4().hex}.parquet")
                write_atomic(name, _parquet(entries))
                for row, entry in enumerate(entries):
                    self._flushed[entry.key] = name, row
                    if entry.finish_reason == "stop":
                        self._flushed_finished[entry.logical] = name, row
                    del self._pending[entry.key]
            self._flushed_at = self._now()

    def close(self) -> None:
        self.flush()

    def _read(self, places: Iterable[Place]) -> dict[Place, Entry]:
        """Entries at their places, one row group after the other."""
        found: dict[Place, Entry] = {}
        for file, rows in groupby(sorted(set(places)), key=lambda place: place[0]):
            numbers = [row for _, row in rows]
            for group, wanted in groupby(numbers, key=lambda row: row // FLUSH_ROWS):
                table = self._group(file, group)
                for row in wanted:
                    (values,) = table.slice(row - group * FLUSH_ROWS, 1).to_pylist()
                    found[file, row] = Entry(**values)
        return found

    def _group(self, file: str, number: int) -> pa.Table:
        """A row group; the last few are kept, because neighbours are asked for together."""
        place = file, number
        if place not in self._groups:
            with _opened(file) as parquet:
                self._groups[place] = parquet.read_row_group(number)
            if len(self._groups) > _GROUPS_KEPT:
                self._groups.popitem(last=False)
        self._groups.move_to_end(place)
        return self._groups[place]


def listed(url: str) -> ShardIndex:
    """The index of everything that lies in a shard cache."""
    return _indexed([join(url, name) for name in _files(url)], _keys)


def finished(url: str, index: ShardIndex) -> ShardIndex:
    """An index by logical key of the finished answers in the files of another index."""
    return _indexed(index.files, _finished_keys)


def compact(url: str) -> tuple[int, int]:
    """Merge the small files of a shard cache; returns the number of files before and after.

    Not while a run uses the cache. What is merged is written before anything is removed, and files
    are removed from the last name backwards, so that at any instant the entry that counts is the
    one that counted before.
    """
    with _clear(url):
        before = [join(url, name) for name in _files(url)]
        written = set()
        entries = distinct(e for file in before for e in _entries(file))
        ordered = sorted(entries.values(), key=lambda e: (e.model, e.key))
        for (model, digits), some in groupby(ordered, key=lambda e: (e.model, e.key[:2])):
            for number, chunk in enumerate(_chunks(list(some))):
                data = _parquet(chunk)
                digest = hashlib.sha256(data).hexdigest()[:32]
                name = join(url, _folder(model), digits, f"{number:04d}-{digest}.parquet")
                if name not in before:
                    write_atomic(name, data)
                written.add(name)
        for file in reversed(before):
            if file not in written:
                remove(file)
    return len(before), len(written)


def _placed(keys: Sequence[str], index: ShardIndex, flushed: dict[str, Place]) -> dict[str, Place]:
    """Where keys lie; what lay there before this process counts first."""
    return {k: flushed[k] for k in keys if k in flushed} | index.places(keys)


def _files(url: str) -> list[str]:
    return [n for n in list_files(url, recursive=True) if n.endswith(".parquet")]


def _indexed(
    files: Sequence[str], keys: Callable[[pq.ParquetFile], list[str | None]]
) -> ShardIndex:
    def read(file: str) -> tuple[str, list[str | None]]:
        with _opened(file) as parquet:
            return file, keys(parquet)

    with ThreadPoolExecutor(_READERS) as pool:
        return build(list(pool.map(read, files)))


def _keys(parquet: pq.ParquetFile) -> list[str | None]:
    return list(parquet.read(columns=["key"]).column("key").to_pylist())


def _finished_keys(parquet: pq.ParquetFile) -> list[str | None]:
    table = parquet.read(columns=["logical", "finish_reason"])
    rows = zip(*(table.column(n).to_pylist() for n in table.column_names), strict=True)
    return [logical if reason == "stop" else None for logical, reason in rows]


def _entries(file: str) -> Iterator[Entry]:
    with _opened(file) as parquet:
        for group in range(parquet.num_row_groups):
            yield from (Entry(**row) for row in parquet.read_row_group(group).to_pylist())


def _chunks(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Runs of entries of at most so many bytes of text, or one entry."""
    start = size = 0
    for i, entry in enumerate(entries):
        length = len(entry.text)
        if i > start and size + length > _COMPACTED_BYTES:
            yield entries[start:i]
            start, size = i, 0
        size += length
    if entries:
        yield entries[start:]


def _by_model(entries: Iterable[Entry]) -> list[tuple[str, list[Entry]]]:
    ordered = sorted(entries, key=lambda e: (e.model, e.key))
    return [(model, list(some)) for model, some in groupby(ordered, key=lambda e: e.model)]


def _folder(model: str) -> str:
    return hashlib.sha256(model.encode()).hexdigest()[:8]


def _parquet(entries: Sequence[Entry]) -> bytes:
    table = pa.Table.from_pylist([asdict(e) for e in entries], schema=_SCHEMA)
    data = io.BytesIO()
    pq.write_table(
        table, data, compression="zstd", row_group_size=FLUSH_ROWS, write_page_checksum=True
    )
    return data.getvalue()


@contextlib.contextmanager
def _opened(file: str) -> Iterator[pq.ParquetFile]:
    source = open_ranged(file)
    try:
        parquet = parquet_file(source)
        if parquet.schema_arrow.names != [f.name for f in fields(Entry)]:
            raise LLMJobError("cache_io", "this is no file of the cache", where=file)
        yield parquet
    except pa.ArrowInvalid as error:
        raise LLMJobError("cache_io", str(error), where=file) from error
    finally:
        if not isinstance(source, str):
            source.close()


@contextlib.contextmanager
def _clear(url: str) -> Iterator[None]:
    try:
        yield
    except LLMJobError:
        raise
    except (OSError, LongctxError, pa.ArrowException) as error:
        said = error.message if isinstance(error, LongctxError) else str(error)
        raise LLMJobError("cache_io", said, where=url) from error
