"""Files on any fsspec URL: atomic writes, checksums, listings and clear errors.

A local file is written under a temporary name, flushed to disk and renamed; an object appears when
its upload completes. Either way a reader sees the whole file or none.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fsspec

from longctx.errors import RunError

TEMPORARY = ".tmp-"


@dataclass(frozen=True)
class FileState:
    """What a listing tells of a file: its URL, its size in bytes and a stamp that changes with it.

    The stamp is the modification time in nanoseconds or the object's ETag.
    """

    url: str
    size: int
    stamp: str


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path inside it.

    Listings are never cached: another process may have written since.
    """
    with clear_errors(url):
        protocol = url.split("://", 1)[0] if "://" in url else "file"
        fs = fsspec.filesystem(protocol, **_options(protocol))
        return fs, fs._strip_protocol(url)


def _options(protocol: str) -> dict[str, Any]:
    if protocol not in ("s3", "s3a"):
        return {"use_listings_cache": False}
    options: dict[str, Any] = {"use_listings_cache": False}
    # s3fs reads AWS_ENDPOINT_URL only through newer botocore profiles; passing it is unambiguous.
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        options["endpoint_url"] = endpoint
    return options


def is_local(url: str) -> bool:
    """Whether a URL names a file of this machine."""
    return "://" not in url or url.startswith(("file://", "local://"))


def join(base: str, *names: str) -> str:
    """Append path elements to a URL."""
    return "/".join([base.rstrip("/"), *[n.strip("/") for n in names if n]])


def absolute(url: str) -> str:
    """Local paths made absolute, so that workers with another working directory find them."""
    return os.path.abspath(url.removeprefix("file://")) if is_local(url) else url


def read_bytes(url: str) -> bytes:
    """The whole content of a file."""
    fs, path = filesystem(url)
    with clear_errors(url):
        return bytes(fs.cat_file(path))


def read_if_exists(url: str) -> bytes | None:
    """The content of a file, or None when there is no such file."""
    fs, path = filesystem(url)
    with clear_errors(url):
        try:
            return bytes(fs.cat_file(path))
        except FileNotFoundError:
            return None


def write_atomic(url: str, data: bytes) -> None:
    """Write a file so that it exists whole or not at all, replacing an earlier one."""
    fs, path = filesystem(url)
    with clear_errors(url):
        if not is_local(url):
            fs.pipe_file(path, data)
            return
        folder, name = os.path.split(path)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f"{TEMPORARY}{uuid.uuid4().hex}-{name}")
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def create_exclusive(url: str, data: bytes) -> bool:
    """Create a file only if there is none; whether this call created it."""
    fs, path = filesystem(url)
    with clear_errors(url):
        if is_local(url):
            return _create_local(path, data)
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True


def _create_local(path: str, data: bytes) -> bool:
    # A hard link publishes the finished file and fails if the name is taken: no half-written lock.
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{os.path.dirname(path)}/{TEMPORARY}{uuid.uuid4().hex}"
    with open(temporary, "wb") as file:
        file.write(data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    return True


def remove(url: str) -> None:
    """Remove a file if it exists."""
    fs, path = filesystem(url)
    with clear_errors(url), contextlib.suppress(FileNotFoundError):
        fs.rm_file(path)


def list_files(folder: str, *, recursive: bool = False) -> dict[str, FileState]:
    """Files of a folder by their path relative to it; empty when there is no folder."""
    fs, path = filesystem(folder)
    root = path.rstrip("/")
    with clear_errors(folder):
        try:
            found = fs.find(root, maxdepth=None if recursive else 1, detail=True)
        except FileNotFoundError:
            return {}
    return {
        name[len(root) + 1 :]: _state(fs, name, info)
        for name, info in sorted(found.items())
        if info["type"] == "file" and not name.endswith("/") and name != root
    }


def expand(pattern: str) -> list[FileState]:
    """Files that a path, folder or glob names, in ascending order of their path.

    Hidden files, temporary files and empty directory markers are left out.
    """
    fs, path = filesystem(pattern)
    with clear_errors(pattern):
        if any(c in path for c in "*?["):
            found = fs.glob(path, detail=True)
        elif fs.isdir(path):
            found = fs.find(path, detail=True)
        elif fs.exists(path):
            found = {path: fs.info(path)}
        else:
            found = {}
    return [
        _state(fs, name, info)
        for name, info in sorted(found.items())
        if info["type"] == "file" and not name.rsplit("/", 1)[-1].startswith((".", "_"))
    ]


def _state(fs: Any, name: str, info: dict[str, Any]) -> FileState:
    stamp = info.get("ETag") or info.get("etag") or info.get("LastModified") or info.get("mtime")
    local = fs.protocol == "file" or "file" in fs.protocol
    url = name if local else fs.unstrip_protocol(name)
    if local and "ETag" not in info:
        stamp = os.stat(name).st_mtime_ns
    return FileState(url, int(info["size"] or 0), str(stamp).strip('"'))


def checksum(data: bytes) -> str:
    """BLAKE2b-128 of a file's bytes, 32 hex digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@contextlib.contextmanager
def clear_errors(url: str) -> Iterator[None]:
    """Turn what storage libraries raise into one error that says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        if "bucket" in str(error).lower() and not is_local(url):
            raise RunError(
                "there is no such bucket", where=url, remedy="create the bucket or correct the URL"
            ) from error
        raise
    except (FileExistsError, RunError):
        raise
    except PermissionError as error:
        raise RunError("access denied", where=url, remedy=_access_remedy(url)) from error
    except ImportError as error:
        raise RunError(
            f"no driver for this kind of URL ({error})",
            where=url,
            remedy="install the fsspec driver it names, e.g. pip install gcsfs",
        ) from error
    except Exception as error:
        if (text := _storage_error(error)) is None:
            raise
        raise RunError(text, where=url, remedy=_connection_remedy()) from error


def _access_remedy(url: str) -> str:
    if is_local(url):
        return "check the owner and mode of the file and its folder"
    return "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy"


def _connection_remedy() -> str:
    return "check AWS_ENDPOINT_URL and the network, then run again: finished parts are kept"


def _storage_error(error: Exception) -> str | None:
    """A one-line description if the exception comes from storage, else None."""
    name, module = type(error).__name__, type(error).__module__
    if name == "NoCredentialsError":
        return "no credentials were found"
    if isinstance(error, OSError) and module == "builtins":
        return f"{error.strerror or error}" if error.errno not in (21,) else None
    if module.startswith(("botocore", "aiohttp", "aiobotocore", "s3fs")) or isinstance(
        error, (TimeoutError, ConnectionError)
    ):
        return f"the object store did not answer ({name}: {str(error)[:200]})"
    return None
