"""Commits: what a finished unit of work leaves behind, and when it may be trusted again.

The unit of work is (step, unit). Its files are written first, each atomically; then one small
commit file names them with rows and checksums. A commit is valid for a fingerprint that covers the
op's configuration and the checksums of everything the unit read, so resume is a comparison.
"""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from longctx.io import paths

_SUFFIX = ".commit.json"
_MANIFEST = "manifest.json"
_READERS = 32
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class FileRef:
    """A committed file: its name relative to the run folder, and what it must contain."""

    name: str
    size: int
    checksum: str
    rows: int

    def plain(self) -> list[Any]:
        """The fields in their order, for what travels as JSON: `FileRef(*plain)` reads them."""
        return [self.name, self.size, self.checksum, self.rows]


@dataclass(frozen=True)
class Commit:
    """One finished unit: the fingerprint it was made for, its files and its counters."""

    unit: str
    fingerprint: str
    files: tuple[FileRef, ...]
    stats: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {
            "unit": self.unit,
            "fingerprint": self.fingerprint,
            "files": [vars(f) for f in self.files],
            "stats": self.stats,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Commit":
        """Inverse of `to_json`."""
        files = tuple(FileRef(**f) for f in value["files"])
        return Commit(value["unit"], value["fingerprint"], files, value["stats"])

    @property
    def digest(self) -> str:
        """Checksum over the unit's files: what a later unit that reads them depends on."""
        return fingerprint([f.checksum for f in self.files])


def fingerprint(content: Any) -> str:
    """SHA-256 of canonical JSON, 32 hex digits."""
    return hashlib.sha256(_CANONICAL.encode(content).encode()).hexdigest()[:32]


def write(folder: str, commit: Commit) -> None:
    """Publish a finished unit."""
    data = json.dumps(commit.to_json(), sort_keys=True).encode()
    paths.write_atomic(paths.join(folder, commit.unit + _SUFFIX), data)


def revoke(folder: str, unit: str) -> None:
    """Withdraw a unit's commit before its files are written again.

    Otherwise a crash between the new file and the new commit would leave an old commit beside a
    file that it does not describe.
    """
    paths.remove(paths.join(folder, unit + _SUFFIX))


def load(folder: str) -> dict[str, Commit]:
    """All commits of a step, from its manifest if the step was finished, else one by one.

    Many are read at once: an object store answers each after tens of milliseconds. A commit that
    cannot be understood counts as none: its unit is simply done again.
    """
    data = paths.read_if_exists(paths.join(folder, _MANIFEST))
    commits = _parsed(data) if data is not None else None
    if commits is None:
        names = [n for n in paths.list_files(folder) if n.endswith(_SUFFIX)]
        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(paths.read_if_exists, (paths.join(folder, n) for n in names))
            commits = [c for d in found if d is not None for c in _parsed(d) or []]
    return {c.unit: c for c in commits}


def _parsed(data: bytes) -> list[Commit] | None:
    """The commits of a manifest or of a commit file; None when it is neither."""
    try:
        content = json.loads(data)
        return [Commit.from_json(c) for c in content.get("commits", [content])]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def is_ours(name: str) -> bool:
    """Whether a file's name is that of a commit or of a step's manifest."""
    return name.endswith(_SUFFIX) or name.rpartition("/")[2] == _MANIFEST


def url_of(run_dir: str, name: str) -> str:
    """Where a committed file lies: named relative to the run folder, or by a full URL."""
    return name if "://" in name or name.startswith("/") else paths.join(run_dir, name)


def reopen(folder: str) -> None:
    """Remove a step's manifest: some of its units are about to change."""
    paths.remove(paths.join(folder, _MANIFEST))


def finish(folder: str, commits: Iterable[Commit]) -> None:
    """Write a finished step's manifest: every unit with its rows, checksums and counters."""
    content = {"commits": [c.to_json() for c in commits]}
    paths.write_atomic(paths.join(folder, _MANIFEST), json.dumps(content, indent=1).encode())


def sizes(run_dir: str, folder: str) -> dict[str, int]:
    """Sizes of the files below a step's folder, by name relative to the run folder."""
    prefix = folder[len(run_dir) :].strip("/")
    return {f"{prefix}/{n}": s.size for n, s in paths.list_files(folder, recursive=True).items()}


def is_valid(commit: Commit | None, expected: str, present: dict[str, int]) -> bool:
    """Whether a commit was made for this fingerprint and its files are there, whole."""
    return (
        commit is not None
        and commit.fingerprint == expected
        and all(present.get(f.name) == f.size for f in commit.files)
    )
