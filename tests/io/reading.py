"""Helpers of the tests that read raw files: content in, rows, bad rows and notes out."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import fsspec
from hypothesis import settings

from longctx.io.read import Bad, Item, Note, Row, read
from longctx.recipe import Input

steady = settings(derandomize=True, deadline=None)
BOM = b"\xef\xbb\xbf"


def spec(**fields: Any) -> Input:
    return Input(**{"path": "in", "source": "s", **fields})


def lines(*records: Any) -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in records)


def items(data: bytes, name: str = "a.jsonl", **fields: Any) -> list[Item]:
    """What reading a file of this content and name gives, by way of a file system in memory."""
    url = f"memory://read/{name}"
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"/read/{name}", data)
    return list(read(url, name, spec(**fields)))


def rows(found: Iterable[Item]) -> list[Row]:
    return [i for i in found if isinstance(i, Row)]


def bad(found: Iterable[Item]) -> list[Bad]:
    return [i for i in found if isinstance(i, Bad)]


def notes(found: Iterable[Item]) -> Counter[str]:
    return Counter(i.name for i in found if isinstance(i, Note))


def reasons(found: Iterable[Item]) -> list[str]:
    return [b.reason for b in bad(found)]
