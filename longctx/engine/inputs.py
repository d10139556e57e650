"""From the inputs of a recipe to groups of files, each read by one task.

The listing is put in one canonical order (source, then the file's key), so the order in which a
recipe or a file system names files changes nothing. Small files share a group; a file is never
split, because ids derived from row numbers must not depend on where a cut falls.
"""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from longctx.errors import RecipeError
from longctx.io import paths
from longctx.io.read import format_of
from longctx.recipe import Input

_COMPRESSION = 4


@dataclass(frozen=True)
class InputFile:
    """One file to read: its URL, its stable key below the input's path, size and stamp."""

    url: str
    key: str
    size: int
    stamp: str

    @property
    def text_bytes(self) -> int:
        """Rough size of the text inside, for grouping only."""
        packed = self.url.endswith((".gz", ".zst", ".zstd", ".parquet"))
        return self.size * (_COMPRESSION if packed else 1)


@dataclass(frozen=True)
class Group:
    """Files that one task reads, in order, with the input that describes their rows."""

    name: str
    spec: Input
    files: tuple[InputFile, ...]


@dataclass(frozen=True)
class Listing:
    """All groups in canonical order, and the files that were passed over, by reason."""

    groups: tuple[Group, ...]
    ignored: dict[str, int]


def list_inputs(inputs: Sequence[Input], part_bytes: int) -> Listing:
    """List and group the files of all inputs.

    Raises RecipeError when a path matches nothing, when a file is named twice, or when two files
    would derive the same ids.
    """
    ignored: Counter[str] = Counter()
    found: list[tuple[str, InputFile, Input]] = []
    seen: dict[str, int] = {}
    for number, spec in enumerate(inputs):
        for file in _files(spec, number, ignored):
            if file.url in seen:
                raise RecipeError(
                    f"{file.url} is named by input {seen[file.url]} and again by input {number}",
                    where=f"input.{number}.path",
                    remedy="name each file once",
                )
            seen[file.url] = number
            found.append((spec.source or "", file, spec))
    found.sort(key=lambda item: (item[0], item[1].key, item[1].url))
    _check_keys(found)
    return Listing(tuple(_group(found, part_bytes)), dict(ignored))


def _files(spec: Input, number: int, ignored: Counter[str]) -> list[InputFile]:
    files: list[InputFile] = []
    for pattern in spec.paths:
        pattern = paths.absolute(pattern)
        matches = paths.expand(pattern)
        if not matches:
            raise RecipeError(
                f"no file matches {pattern}",
                where=f"input.{number}.path",
                remedy="check the path; a glob needs quotes in a shell",
            )
        readable = [m for m in matches if format_of(m.url, spec.format)]
        for match in matches:
            if match not in readable:
                ending = match.url.rsplit("/", 1)[-1].partition(".")[2]
                ignored[f"unknown format .{ending}" if ending else "no file ending"] += 1
        if not readable:
            raise RecipeError(
                f"cannot tell the format of {matches[0].url}",
                where=f"input.{number}.format",
                remedy="set `format` to jsonl, parquet or text",
            )
        root = _root(pattern)
        files += [InputFile(m.url, _key(m.url, root), m.size, m.stamp) for m in readable]
    return files


def _root(pattern: str) -> str:
    """The folder below which a pattern's files are named: all before the first wildcard."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    wild = fixed != pattern
    return fixed.rsplit("/", 1)[0] if wild else fixed.rstrip("/")


def _key(url: str, root: str) -> str:
    below = url[len(root) :].strip("/") if url.startswith(root) else ""
    return below or url.rsplit("/", 1)[-1]


def _check_keys(found: list[tuple[str, InputFile, Input]]) -> None:
    for (source, a, spec), (other, b, _) in itertools.pairwise(found):
        if source == other and a.key == b.key and spec.id is None:
            raise RecipeError(
                f"{a.url} and {b.url} would get the same document ids: both are `{a.key}` of "
                f"source `{source}`",
                where="input",
                remedy="give them different sources, or one path above both",
            )


def _group(found: list[tuple[str, InputFile, Input]], part_bytes: int) -> list[Group]:
    groups: list[Group] = []
    pending: list[InputFile] = []
    current: tuple[str, Input] | None = None
    total = 0
    for source, file, spec in found:
        full = total + file.text_bytes > part_bytes
        if pending and current and (full or current != (source, spec)):
            groups.append(_named(current, pending))
            pending, total = [], 0
        current = (source, spec)
        pending.append(file)
        total += file.text_bytes
    if pending and current:
        groups.append(_named(current, pending))
    return groups


def _named(current: tuple[str, Input], files: list[InputFile]) -> Group:
    """A group's name is made from its files' keys, so that adding a file renames no other."""
    source, spec = current
    label = re.sub(r"[^\w.-]+", "_", source)[:40] or "rows"
    keys = "\n".join([source, *(f.key for f in files)])
    name = f"{label}-{hashlib.sha256(keys.encode()).hexdigest()[:10]}"
    return Group(name, spec, tuple(files))
