"""Files on any fsspec URL: atomic writes, checksums, listings and clear errors.

A local file is written under a temporary name, flushed to disk and renamed; an object appears when
its upload completes. Either way a reader sees the whole file or none.
"""

import contextlib
import hashlib
import os
import re
import uuid
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

import fsspec
from fsspec.utils import glob_translate

from longctx.credentials import REMEDY, found_in
from longctx.errors import RecipeError, RunError
from longctx.io.store_errors import clear_errors as clear_errors
from longctx.io.store_errors import is_local as is_local
from longctx.io.store_errors import is_taken, lacks_bucket, no_bucket, options, persistently

TEMPORARY = ".tmp-"
_WILDCARDS = "*?["


@dataclass(frozen=True)
class FileState:
    """What a listing tells of a file: its URL, its size in bytes and a stamp that changes with it.

    The stamp is the modification time in nanoseconds or the object's ETag. `below` is the file's
    path below the folder that was listed, or below the fixed part of the glob.
    """

    url: str
    size: int
    stamp: str
    below: str = ""


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path inside it.

    Listings are never cached: another process may have written since. Raises RecipeError for a URL
    with credentials in it, which would be written down with every file's name.
    """
    if kind := found_in(url):
        raise RecipeError(f"the URL holds {kind}", where=url, remedy=REMEDY)
    with clear_errors(url):
        protocol = url.split("://", 1)[0] if "://" in url else "file"
        try:
            fs = fsspec.filesystem(protocol, **options(protocol))
        except ValueError:
            raise RunError(
                f"there is no file system for {protocol}://",
                where=url,
                remedy="use a path of this machine, or a URL such as s3://bucket/folder",
            ) from None
        return fs, fs._strip_protocol(url)


def join(base: str, *names: str) -> str:
    """Append path elements to a URL; a name that begins with `/` still goes below the base."""
    below = "/".join(stripped for n in names if (stripped := n.strip("/")))
    if not base or base.endswith("://"):
        return base + below
    return f"{base.rstrip('/')}/{below}" if below else base


def inside(base: str, name: str) -> str:
    """A file below a folder by a name that stands in some file: a manifest, a list of prefixes.

    Raises RunError for a name that leads out of the folder: such files may come from anybody.
    """
    if "://" in name or name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise RunError(
            f"a file in this folder names {name!r}, which is outside of it",
            where=base,
            remedy="do not use this folder: longctx writes names below it only",
        )
    return join(base, name)


def absolute(url: str) -> str:
    """Local paths made absolute, so that workers with another working directory find them."""
    if not is_local(url):
        return url
    return os.path.abspath(os.path.expanduser(url.removeprefix("file://").removeprefix("local://")))


def read_bytes(url: str) -> bytes:
    """The whole content of a file."""
    fs, path = filesystem(url)
    return persistently(url, lambda: bytes(fs.cat_file(path)))


def open_ranged(url: str) -> str | BinaryIO:
    """A file to read pieces of: a local path, or an object whose reads fetch just what they ask."""
    if is_local(url):
        return url
    fs, path = filesystem(url)
    opened: BinaryIO = fs.open(path, "rb", cache_type="none")
    return opened


def copy_to_local(url: str, path: str) -> None:
    """Copy a file to a path of this machine, where it appears whole."""
    fs, source = filesystem(url)
    temporary = f"{path}{TEMPORARY}{uuid.uuid4().hex}"
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    try:
        persistently(url, lambda: fs.get_file(source, temporary))
        with clear_errors(path):
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def read_if_exists(url: str) -> bytes | None:
    """The content of a file, or None when there is no such file."""
    try:
        return read_bytes(url)
    except FileNotFoundError:
        return None


def write_atomic(url: str, data: bytes | memoryview) -> None:
    """Write a file so that it exists whole or not at all, replacing an earlier one.

    A view of bytes is copied where the file is an object of a store, whose drivers want bytes.
    """
    fs, path = filesystem(url)
    if not is_local(url):
        persistently(url, lambda: fs.pipe_file(path, bytes(data)))
        return
    with clear_errors(url):
        folder, name = os.path.split(path)
        _make_folder(folder)
        temporary = os.path.join(folder, f"{TEMPORARY}{uuid.uuid4().hex}-{name}")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _make_folder(folder: str) -> None:
    """Make a local folder. RunError where the system has no place for one, as below /proc."""
    try:
        os.makedirs(folder, exist_ok=True)
    except FileNotFoundError as error:
        raise RunError(
            "no folder can be made here", where=folder, remedy="choose another path"
        ) from error


def create_exclusive(url: str, data: bytes) -> bool:
    """Create a file only if there is none; whether this call created it.

    No two callers may bring the same `data`: a request whose answer was lost is sent again, and
    then only the content tells whose file it is that stands in the way.
    """
    fs, path = filesystem(url)
    if is_local(url):
        with clear_errors(url):
            return _create_local(path, data)

    def create() -> bool:
        try:
            fs.pipe_file(path, data, mode="create")
        except OSError as error:
            if not is_taken(error):
                raise
            return read_if_exists(url) == data
        return True

    return persistently(url, create)


def _create_local(path: str, data: bytes) -> bool:
    # A hard link publishes the finished file and fails if the name is taken: no half-written lock.
    _make_folder(os.path.dirname(path))
    temporary = f"{os.path.dirname(path)}/{TEMPORARY}{uuid.uuid4().hex}"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    return True


def remove(url: str) -> None:
    """Remove a file if it exists."""
    fs, path = filesystem(url)
    with contextlib.suppress(FileNotFoundError):
        persistently(url, lambda: fs.rm_file(path))


def list_files(
    folder: str, *, recursive: bool = False, temporary: bool = False
) -> dict[str, FileState]:
    """Files of a folder by their path relative to it; empty when there is no folder.

    What a killed writer left under a temporary name is listed only with `temporary`.
    """
    fs, path = filesystem(folder)
    root = path.rstrip("/")
    read = partial(_local_files, root) if is_local(folder) else partial(_stored_files, fs, root)
    found = persistently(folder, lambda: read(recursive))
    return {
        name: state for name, state in sorted(found.items()) if temporary or TEMPORARY not in name
    }


def _stored_files(fs: Any, root: str, recursive: bool) -> dict[str, FileState]:
    """Objects below a folder. With a depth `fs.find` takes a listing that failed for an empty one.

    So one level is listed by `fs.ls`.
    """
    try:
        found = fs.find(root, detail=True).values() if recursive else fs.ls(root, detail=True)
    except FileNotFoundError:
        return {}
    return {
        name[len(root) + 1 :]: _state(fs, name, info)
        for info in found
        if info["type"] == "file" and not (name := info["name"]).endswith("/") and name != root
    }


def _local_files(root: str, recursive: bool) -> dict[str, FileState]:
    """Files below a folder. A file that somebody removes meanwhile is left out, not its folder."""
    found: dict[str, FileState] = {}
    for folder, inner, names in os.walk(root, onerror=_raise):
        if not recursive:
            inner.clear()
        for name in names:
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):
                state = os.stat(path)
                found[path[len(root) + 1 :]] = FileState(
                    path, state.st_size, str(state.st_mtime_ns)
                )
    return found


def expand(pattern: str) -> list[FileState]:
    """Files that a path, folder or glob names, in ascending order of their path.

    A folder, also one that a glob matches, stands for all files below it. Links are followed.
    Hidden and temporary files, files in hidden folders, names that begin with an underscore and
    empty directory markers are left out, except a file that the pattern names in full.
    """
    return persistently(pattern, lambda: _expand(pattern))


def _expand(pattern: str) -> list[FileState]:
    fs, path = filesystem(pattern)
    kind, info = _look(fs, path)
    if kind == "file":
        return [replace(_state(fs, path, info), below=path.rpartition("/")[2])]
    wild = any(c in path for c in _WILDCARDS) and kind != "directory"
    matched = _glob(fs, path) if wild else {path: {"type": "directory"}}
    found: dict[str, FileState] = {}
    for name, info in matched.items():
        if info["type"] == "file":
            found[name] = _state(fs, name, info)
        else:
            found |= _below(fs, name)
    if not found and lacks_bucket(pattern):
        raise no_bucket(pattern)
    root = len(path if path in matched else _fixed_part(path)) + 1
    named = {name[root:]: found[name] for name in sorted(found)}
    return [replace(state, below=name) for name, state in named.items() if not _hidden(name)]


def _look(fs: Any, path: str) -> tuple[str, dict[str, Any]]:
    """What stands at a path: `file`, `directory` or nothing, and what a listing tells of it.

    Not `fs.isfile`, which takes a question that failed for a no.
    """
    if "file" in fs.protocol:
        kind = "file" if os.path.isfile(path) else "directory" if os.path.isdir(path) else ""
        return kind, {}
    try:
        info = fs.info(path)
    except FileNotFoundError:
        return "", {}
    return info["type"], info


def _glob(fs: Any, pattern: str) -> dict[str, dict[str, Any]]:
    """What a glob names, level by level, with what the listings tell.

    In stores not `fs.glob`, which takes a folder that could not be listed for an empty one.
    """
    if "file" in fs.protocol:
        return dict(fs.glob(pattern, detail=True))
    fixed = _fixed_part(pattern)
    matches = re.compile(glob_translate(pattern)).match
    levels = pattern[len(fixed) :].count("/")
    found: dict[str, dict[str, Any]] = {}
    folders = [fixed]
    while folders and (levels > 0 or "**" in pattern):
        listed = {e["name"].rstrip("/"): e for f in folders for e in _entries(fs, f)}
        found |= {name: info for name, info in listed.items() if matches(name)}
        folders = [name for name, info in listed.items() if info["type"] == "directory"]
        levels -= 1
    return found


def _entries(fs: Any, folder: str) -> list[dict[str, Any]]:
    try:
        entries: list[dict[str, Any]] = fs.ls(folder, detail=True)
    except FileNotFoundError:
        return []
    return [e for e in entries if e["name"].rstrip("/") != folder]


def _fixed_part(path: str) -> str:
    """The folder below which the matches of a glob lie."""
    wild = [path.index(c) for c in _WILDCARDS if c in path]
    return path[: min(wild, default=len(path))].rpartition("/")[0]


def printable(url: str) -> str:
    """A URL that can be shown and encoded; file names need not be UTF-8."""
    return url.encode("utf-8", "backslashreplace").decode()


def _hidden(below: str) -> bool:
    return any(element.startswith((".", "_")) for element in below.split("/"))


def _below(fs: Any, root: str) -> dict[str, FileState]:
    """All files below a folder (or behind a link), by path; a broken link is no file."""
    if "file" not in fs.protocol:
        try:
            found = fs.find(root, detail=True).items()
        except FileNotFoundError:
            return {}
        entries = {n: i for n, i in found if i["type"] == "file" and not n.endswith("/")}
        return {name: _state(fs, name, info) for name, info in entries.items()}
    if os.path.isfile(root):
        return {root: _state(fs, root, {})}
    files: dict[str, FileState] = {}
    entered = {os.path.realpath(root)}
    for folder, folders, names in os.walk(root, followlinks=True, onerror=_raise):
        below = {f: os.path.join(folder, f) for f in folders}
        folders.clear()
        # Each folder once, links last: a link back to a folder that was entered would never end.
        for name in sorted(below, key=lambda n: (os.path.islink(below[n]), n)):
            if (real := os.path.realpath(below[name])) not in entered:
                entered.add(real)
                folders.append(name)
        places = (os.path.join(folder, n) for n in names)
        files |= {p: _state(fs, p, {}) for p in places if os.path.isfile(p)}
    return files


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _state(fs: Any, name: str, info: dict[str, Any]) -> FileState:
    if "file" in fs.protocol:
        found = os.stat(name)
        return FileState(name, found.st_size, str(found.st_mtime_ns))
    stamps = ("ETag", "etag", "LastModified", "last_modified", "updated", "mtime", "created")
    stamp = next((info[s] for s in stamps if info.get(s)), None)
    return FileState(fs.unstrip_protocol(name), int(info["size"] or 0), str(stamp).strip('"'))


def checksum(data: bytes | memoryview) -> str:
    """BLAKE2b-128 of a file's bytes, 32 hex digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
