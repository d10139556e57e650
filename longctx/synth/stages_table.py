"""Files of rows that a synthesis op is given beside the corpus: questions, instructions.

A file is JSONL, a JSON list or Parquet; what is JSON may be packed (.gz, .zst). It is known by its
content: one that was moved changes nothing, a corrected one has all that depends on it made again.
It is read whole, in every process that needs it: tables of questions, not corpora.
"""

import io
from functools import lru_cache
from typing import Any

import pyarrow as pa

from longctx.errors import RecipeError
from longctx.filter.evaluation import rows_of
from longctx.io import paths
from longctx.io.parquet_files import parquet_file
from longctx.io.read import BROKEN, unpacked

_TEXTS = (".jsonl", ".ndjson", ".json")
_PACKED = (".gz", ".zst", ".zstd")

Records = list[tuple[str, dict[str, Any]]]


def content_of(place: str, what: str, where: str) -> str:
    """The checksum of a file; RecipeError where there is none to read, calling it `what`."""
    return _checksum(*_state(place, what, where))


def records_of(place: str, what: str, where: str) -> Records:
    """The rows of a file, each with its place: `FILE:LINE`, or `FILE#row=N` of Parquet and lists.

    RecipeError names what is no row.
    """
    url, _, _ = _state(place, what, where)
    shown, bare = paths.printable(url), _bare(url)
    if bare.endswith(".parquet"):
        return [(f"{shown}#row={n}", row) for n, row in enumerate(_parquet_rows(url, what))]
    try:
        data = unpacked(io.BytesIO(paths.read_bytes(url)), url).read()
    except BROKEN as error:
        raise _unreadable(url, what, f"the compressed stream breaks off ({error})") from None
    rows = rows_of(data, bare, shown, what)
    is_list = bare.endswith(".json") and data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    if is_list:
        return [(f"{shown}#row={n}", row) for n, (_, row) in enumerate(rows)]
    return [(f"{shown}:{line}", row) for line, row in rows]


def _state(place: str, what: str, where: str) -> tuple[str, int, str]:
    found = paths.expand(paths.absolute(place))
    if len(found) != 1:
        told = "there is no such file" if not found else f"{len(found)} files match"
        raise RecipeError(f"{told}: {place}", where=where, remedy=f"name the file of the {what}")
    (file,) = found
    if not _bare(file.url).endswith((*_TEXTS, ".parquet")):
        raise RecipeError(
            f"cannot tell the format of {paths.printable(file.url)}",
            where=where,
            remedy=f"the {what} is a file .jsonl, .json (a list) or .parquet; JSON may be packed "
            "as .gz or .zst",
        )
    return file.url, file.size, file.stamp


def _bare(url: str) -> str:
    """A name in lower case, without the ending of its compression."""
    lower = url.lower()
    return lower.removesuffix(next((end for end in _PACKED if lower.endswith(end)), ""))


@lru_cache(maxsize=64)
def _checksum(url: str, size: int, stamp: str) -> str:
    """Computed again when size or stamp is another."""
    return paths.checksum(paths.read_bytes(url))


def _parquet_rows(url: str, what: str) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = (
            parquet_file(io.BytesIO(paths.read_bytes(url))).read(use_threads=False).to_pylist()
        )
    except (pa.ArrowException, ValueError, OSError) as error:
        raise _unreadable(url, what, str(error).splitlines()[0][:200]) from None
    return rows


def _unreadable(url: str, what: str, found: str) -> RecipeError:
    return RecipeError(
        f"the {what} cannot be read: {found}",
        where=paths.printable(url),
        remedy="fetch or write the file again",
    )
