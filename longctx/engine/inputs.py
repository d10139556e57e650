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
from dataclasses import dataclass, replace

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
    would derive the same ids. Files of an unknown format are passed over and counted; so are files
    whose names are not UTF-8, because ids are derived from names.
    """
    ignored: Counter[str] = Counter()
    found: list[tuple[str, InputFile, Input]] = []
    seen: dict[str, int] = {}
    for number, spec in enumerate(inputs):
        for file in _files(spec, number, ignored):
            if file.url in seen:
                first = seen[file.url]
                again = "twice" if first == number else f"by input {first} and again"
                raise RecipeError(
                    f"{file.url} is named {again} by input {number}",
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
        reasons = [_passed_over(m.url, spec) for m in matches]
        ignored.update(r for r in reasons if r)
        readable = [m for m, reason in zip(matches, reasons, strict=True) if not reason]
        if not readable:
            raise RecipeError(
                f"cannot tell the format of {paths.printable(matches[0].url)}",
                where=f"input.{number}.format",
                remedy="set `format` to jsonl, parquet or text",
            )
        files += [InputFile(m.url, m.below, m.size, m.stamp) for m in readable]
    return files


def _passed_over(url: str, spec: Input) -> str:
    """Why a file is not read; empty if it is."""
    name = url.rsplit("/", 1)[-1]
    if paths.printable(url) != url:
        return "file name is not UTF-8"
    if format_of(url, spec.format):
        return ""
    ending = name.partition(".")[2]
    return f"unknown format .{ending}" if ending else "no file ending"


def _check_keys(found: list[tuple[str, InputFile, Input]]) -> None:
    derived = [item for item in found if item[2].id is None]
    for (source, a, _), (other, b, _) in itertools.pairwise(derived):
        if source == other and a.key == b.key:
            raise RecipeError(
                f"{a.url} and {b.url} would get the same document ids: both are `{a.key}` of "
                f"source `{source}`",
                where="input",
                remedy="give them different sources, one path above both, or an `id` field",
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
    return _distinct(groups)


def _distinct(groups: list[Group]) -> list[Group]:
    """Number groups of one name: files of one source and key in inputs that bring their ids."""
    seen: Counter[str] = Counter()
    distinct = []
    for group in groups:
        seen[group.name] += 1
        again = f"-{seen[group.name]}" if seen[group.name] > 1 else ""
        distinct.append(replace(group, name=group.name + again))
    return distinct


def _named(current: tuple[str, Input], files: list[InputFile]) -> Group:
    """A group's name is made from its files' keys: the same files have it in any listing."""
    source, spec = current
    label = re.sub(r"[^\w.-]+", "_", source)[:40].lstrip("._-") or "rows"
    keys = "\n".join([source, *(f.key for f in files)])
    name = f"{label}-{hashlib.sha256(keys.encode()).hexdigest()[:10]}"
    return Group(name, spec, tuple(files))
