"""The cache of one machine: an SQLite file that several processes may use at once.

With the write-ahead log and `synchronous=NORMAL` a commit is a write without a flush to the disk:
it survives the death of the process at once, and a power cut may take the last ones but never
damages the file. So every result is committed as soon as it is there (those that come together, in
one transaction), which takes some 50 microseconds, and a killed run loses only what was in flight.
Not for network file systems: the log needs shared memory.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path

from longctx.llm.cache import Entry
from longctx.llm.types import LLMJobError

_VERSION = 1
_BUSY_S = 30.0
_ASKED_AT_ONCE = 500
_COLUMNS = ", ".join(f.name for f in fields(Entry))
_PLACES = ", ".join("?" for _ in fields(Entry))
_TABLE = f"""
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, logical TEXT NOT NULL, model TEXT NOT NULL, text TEXT NOT NULL,
    finish_reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    estimated INTEGER NOT NULL, model_reported TEXT, prefill TEXT, created REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_logical ON answers (logical);
PRAGMA user_version = {_VERSION};
"""


class SQLiteCache:
    """Answers in one file. Of two processes that store one key, the first one's answer counts."""

    unflushed = 0

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        # Readers do not wait for writers in this mode, so reading has a connection of its own.
        self._reading, self._writing = threading.Lock(), threading.Lock()
        with self._clear():
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._prepared()
            self._reader = self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _prepared(self) -> sqlite3.Connection:
        connection = self._connect()
        deadline = time.monotonic() + _BUSY_S
        while True:
            # Changing the mode does not wait for a lock as everything else does.
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise LLMJobError("cache_io", f"its format is {version}, not {_VERSION}")
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLE} COMMIT;")
        return connection

    def get(self, keys: Sequence[str]) -> dict[str, Entry]:
        return {e.key: e for e in self._found("key", keys, "")}

    def get_finished(self, logical: Sequence[str]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for entry in self._found("logical", logical, "AND finish_reason = 'stop'"):
            # The longest limit is not stored; the smallest key is a choice that never changes.
            best = found.setdefault(entry.logical, entry)
            if entry.key < best.key:
                found[entry.logical] = entry
        return found

    def _found(self, column: str, values: Sequence[str], more: str) -> Iterator[Entry]:
        for start in range(0, len(values), _ASKED_AT_ONCE):
            some = list(values[start : start + _ASKED_AT_ONCE])
            places = ", ".join("?" for _ in some)
            query = f"SELECT {_COLUMNS} FROM answers WHERE {column} IN ({places}) {more}"
            with self._clear(), self._reading:
                rows = self._reader.execute(query, some).fetchall()
            yield from map(_entry, rows)

    def put(self, entries: Sequence[Entry]) -> dict[str, Entry]:
        rows = [astuple(e) for e in entries]
        statement = f"INSERT OR IGNORE INTO answers ({_COLUMNS}) VALUES ({_PLACES})"
        with self._clear(), self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                stored = self._writer.executemany(statement, rows).rowcount
                self._writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise
        if stored == len(entries):
            return {}
        counting = self.get([e.key for e in entries])
        return {e.key: counting[e.key] for e in entries if counting[e.key] != e}

    def tick(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        with self._clear(), self._reading, self._writing:
            self._reader.close()
            self._writer.close()

    @contextlib.contextmanager
    def _clear(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LLMJobError("cache_io", str(error), where=self.path) from error


def _entry(row: tuple[object, ...]) -> Entry:
    values = dict(zip((f.name for f in fields(Entry)), row, strict=True))
    return Entry(**{**values, "estimated": bool(values["estimated"])})  # type: ignore[arg-type]
