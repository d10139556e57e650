"""The table of output formats beside the canonical Parquet: one module each.

A format is a module with five functions, bytes in and out. `shard` writes the files of one shard
where the shard is assembled, `merge` what spans all shards (an index) at the end, `describe` the
entry of `manifest.json`; `read` and `expected` are for `pack.verify`, which reads some windows back
and compares them with the canonical rows. A new format is its module, its line in FORMATS and its
name in `recipe.Output`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from longctx.io import ds, jsonl_windows, mds, megatron, trl, webdataset
from longctx.io.window_files import Found, ShardFile, Target

Notes = Sequence[dict[str, Any]]


class Format(Protocol):
    """What a module of a format offers; NAMES matches its files below the format's folder."""

    NAMES: str

    def shard(self, windows: pa.Table, number: str, target: Target) -> Iterator[ShardFile]:
        """Files of one shard of `schema.WINDOWS`; `number` is the shard's, in digits."""

    def merge(self, notes: Notes, target: Target) -> dict[str, bytes]:
        """Files over all shards, by name, from the notes of all files in order."""

    def describe(self, notes: Notes, target: Target) -> dict[str, Any]:
        """Plain values for the manifest, among them `windows`."""

    def read(self, files: Mapping[str, bytes], target: Target) -> Found:
        """The windows of a shard, from its files in the order they were written."""

    def expected(self, row: Mapping[str, Any], target: Target) -> dict[str, Any]:
        """What `read` must return for a canonical row."""


FORMATS: dict[str, Format] = {
    "ds": ds,
    "jsonl": jsonl_windows,
    "mds": mds,
    "megatron": megatron,
    "trl": trl,
    "webdataset": webdataset,
}


def chosen(names: Iterable[str]) -> dict[str, Format]:
    """The formats that a recipe names, in the order of the table; `parquet` is always written."""
    wanted = set(names)
    return {name: module for name, module in FORMATS.items() if name in wanted}


def is_ours(name: str) -> bool:
    """Whether a path below the output folder is one that some format writes."""
    folder, _, below = name.partition("/")
    return folder in FORMATS and re.fullmatch(FORMATS[folder].NAMES, below) is not None
