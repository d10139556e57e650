"""Arrays that a step hands to later steps as files which every worker of a machine shares.

A matrix of vectors is by far the largest thing that an order needs. It is written once, as a `.npy`
file, and never read whole: workers map it into memory, so that all processes of a machine share one
copy, in the page cache. A file in an object store is first copied to the machine's temporary
folder, once for all workers there.
"""

import io
import os
import tempfile
import time
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from longctx.engine.commit import FileRef
from longctx.engine.steps import StepRef
from longctx.errors import DamagedFileError, RunError
from longctx.io import paths

# Copies that no worker has opened for a day belong to runs that are over.
_FORGOTTEN_AFTER = 86_400


class Matrix:
    """A float32 matrix of known width that becomes the content of a `.npy` file without a copy.

    `rows` float32[n, d] is filled by the caller; `content(m)` is the file of its first m rows.
    """

    def __init__(self, n: int, d: int) -> None:
        header = _header(n, d)
        self._begin = len(header)
        self._buffer = np.empty(len(header) + 4 * n * d, dtype=np.uint8)
        self.rows = self._buffer[len(header) :].view(np.float32).reshape(n, d)

    def content(self, m: int) -> memoryview:
        """The bytes of the file, a view of the matrix."""
        header = _header(m, self.rows.shape[1])
        if len(header) != self._begin:  # the format pads it so that this does not happen
            raise ValueError("the header of a .npy file changed its length")
        self._buffer[: self._begin] = np.frombuffer(header, dtype=np.uint8)
        return self._buffer[: self._begin + self.rows[:m].nbytes].data


def _header(n: int, d: int) -> bytes:
    buffer = io.BytesIO()
    described = {"descr": "<f4", "fortran_order": False, "shape": (n, d)}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    """An array as the bytes of a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def mapped(step: StepRef, name: str) -> npt.NDArray[Any]:
    """The array in a step's `.npy` file with this base name: read-only, mapped into memory."""
    ref = next(f for f in step.files if f.name.rsplit("/", 1)[-1] == name)
    url = paths.inside(step.run_dir, ref.name)
    path = paths.absolute(url) if paths.is_local(url) else _copied(url, ref)
    try:
        if os.path.getsize(path) != ref.size:
            raise ValueError(f"{os.path.getsize(path)} bytes instead of {ref.size}")
        if not _as_committed(path, ref.checksum, _stamp(url)):
            raise ValueError("its checksum is another")
        # A plain array: what is computed from a memmap would be one, too.
        return np.asarray(np.load(path, mmap_mode="r"))
    except (OSError, ValueError) as error:
        if path != paths.absolute(url):
            paths.remove(path)
        raise DamagedFileError(str(error), file=url) from error


def _stamp(url: str) -> int:
    """What changes when a file is written again; a copy of an object never is."""
    return os.stat(paths.absolute(url)).st_mtime_ns if paths.is_local(url) else 0


@lru_cache(maxsize=256)
def _as_committed(path: str, checksum: str, stamp: int) -> bool:
    """Whether a file has its checksum: read once by every process, at about 1 GB/s."""
    found = paths.checksum(np.memmap(path, mode="r").data)
    return found == checksum


def _copied(url: str, ref: FileRef) -> str:
    """Where this machine keeps a copy of a committed object, made at the first call."""
    folder = os.path.join(tempfile.gettempdir(), f"longctx-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.lstat(folder).st_uid != os.getuid():
        raise RunError(
            "this folder for copies belongs to another user",
            where=folder,
            remedy="remove it, or set TMPDIR to a folder of your own on every node",
        )
    path = os.path.join(folder, f"{ref.checksum}.npy")
    if os.path.exists(path) and os.path.getsize(path) == ref.size:
        os.utime(path)
        return path
    _forget(folder)
    paths.copy_to_local(url, path)
    return path


def _forget(folder: str) -> None:
    """Remove copies that nobody has opened lately; those still mapped stay readable."""
    for name, state in paths.list_files(folder, temporary=True).items():
        path = os.path.join(folder, name)
        if time.time() - int(state.stamp) / 1e9 > _FORGOTTEN_AFTER:
            paths.remove(path)
