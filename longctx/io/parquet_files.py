"""The one door through which Parquet files are opened.

A Parquet file may name Arrow extension types, and Ray registers one whose values are pickles: where
Ray is imported, reading such a column runs whatever code the file's author put there. Documents and
windows come from anybody, so a file that names this type is refused before Arrow sees its schema.
The name stands in the footer, inside the Arrow schema, in base64 and so in one of three shifts.
"""

import base64
import os
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

_PICKLED = "ray.data.arrow_pickled_object"
_TAIL = 8  # the footer's length, 4 bytes, and the magic


class UnsafeParquetError(pa.ArrowInvalid):  # type: ignore[misc]
    """A Parquet file that would run code when it is read."""


def parquet_file(source: str | BinaryIO, *, pre_buffer: bool = True) -> pq.ParquetFile:
    """Open a Parquet file: a local path, or an open file. Pages with checksums are checked.

    Raises UnsafeParquetError (a pyarrow.ArrowInvalid) for pickled columns, and what pyarrow raises
    for damaged files.
    """
    if isinstance(source, str):
        with open(source, "rb") as file:
            _check(file)
    else:
        _check(source)
    return pq.ParquetFile(source, pre_buffer=pre_buffer, page_checksum_verification=True)


def _check(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(0, size - _TAIL - length))
    footer = file.read(min(length, size))
    file.seek(0)
    if any(mark in footer for mark in _marks(_PICKLED.encode())):
        raise UnsafeParquetError(
            f"it has a column of pickled objects ({_PICKLED}), which could run code when read"
        )


def _marks(name: bytes) -> list[bytes]:
    """What must be in the base64 of any text that holds a name, for each place it can begin at."""
    found = []
    for shift in range(3):
        whole = base64.b64encode(bytes(shift) + name)
        # Characters at either end also depend on the neighbours of the name.
        end = len(whole) if (shift + len(name)) % 3 == 0 else -4
        found.append(whole[4 if shift else 0 : end])
    return found
