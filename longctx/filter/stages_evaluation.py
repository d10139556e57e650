"""Evaluation sets of a recipe: their files listed, known by their content, read and indexed.

A set is known by the checksum of its files and not by their place: a file that was moved changes
nothing, one that was corrected has all that depends on it computed again.
"""

import functools
import io
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, field_validator

from longctx.engine.commit import fingerprint
from longctx.engine.steps import Stats, StepRef, read_table
from longctx.errors import RecipeError, RunError
from longctx.filter.evaluation import LONGEST, Value, parse_path, rows_of, values_of
from longctx.io import paths
from longctx.io.read import BROKEN, unpacked
from longctx.location import Location

if TYPE_CHECKING:
    from longctx.filter.decontaminate import Index

SNIPPET = 400  # characters of an item that are kept for people to read
_ITEMS = pa.schema(
    [("set", pa.string()), ("row", pa.int64()), ("field", pa.string()), ("text", pa.large_string())]
)
_TEXTS = (".txt", ".md")
_ENDINGS = (".jsonl", ".ndjson", ".json", *_TEXTS)
_PACKED = (".gz", ".zst", ".zstd")


class Against(BaseModel):
    """One evaluation set, or a folder or glob of them, and which of its fields are looked for.

    Without `name` every file is a set of its own, named after it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Location
    name: str | None = Field(None, min_length=1)
    fields: list[str] | None = Field(None, min_length=1)

    @field_validator("fields")
    @classmethod
    def _are_paths(cls, fields: list[str] | None) -> list[str] | None:
        for field in fields or []:
            parse_path(field)
        return fields

    def files(self, where: str) -> list[paths.FileState]:
        """The files, in the order of their names. RecipeError where there are none to read."""
        pattern = paths.absolute(self.path)
        found = paths.expand(pattern)
        if not found:
            raise RecipeError(
                f"no file matches {pattern}",
                where=f"{where}.path",
                remedy="check the path; a glob needs quotes in a shell",
            )
        readable = [f for f in found if _bare(f.url).endswith(_ENDINGS)]
        if not readable:
            raise RecipeError(
                f"cannot tell the format of {paths.printable(found[0].url)}",
                where=f"{where}.path",
                remedy="an evaluation set is a file .jsonl, .json or .txt, or one of them as .gz "
                "or .zst",
            )
        return readable

    def identity(self, where: str) -> dict[str, object]:
        """What decides the n-grams: names, fields and the content of the files."""
        content = [
            (self._set_of(file), _checksum(file.url, file.size, file.stamp))
            for file in self.files(where)
        ]
        return {"fields": self.fields, "content": fingerprint(content)}

    def values(self, where: str) -> dict[str, list[tuple[bool, Value]]]:
        """The texts of every set by its name, and whether their field was named.

        RecipeError for a file that cannot be read, with its line.
        """
        sets: dict[str, list[tuple[bool, Value]]] = {}
        for file in self.files(where):
            place, name = paths.printable(file.url), _bare(file.url)
            fields = self.fields or (["text"] if name.endswith(_TEXTS) else None)
            rows = rows_of(_content(file.url), name, place)
            known = sets.setdefault(self._set_of(file), [])
            # Rows of a set in several files are numbered through.
            first = 1 + max((value.row for _, value in known), default=-1)
            for value in values_of(rows, fields, place):
                known.append((fields is not None, value._replace(row=value.row + first)))
        return sets

    def _set_of(self, file: paths.FileState) -> str:
        return self.name or _bare(file.url).rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _bare(url: str) -> str:
    """A name without the ending of its compression, in lower case where the format is told."""
    packed = next((end for end in _PACKED if url.lower().endswith(end)), "")
    bare = url[: len(url) - len(packed)]
    stem, dot, ending = bare.rpartition(".")
    return f"{stem}{dot}{ending.lower()}"


@functools.lru_cache(maxsize=1024)
def _checksum(url: str, size: int, stamp: str) -> str:
    """Checksum of a file, computed again when its size or stamp is another."""
    return paths.checksum(paths.read_bytes(url))


def _content(url: str) -> bytes:
    try:
        return unpacked(io.BytesIO(paths.read_bytes(url)), url).read()
    except BROKEN as error:
        raise RecipeError(
            f"the evaluation set cannot be read: the compressed stream breaks off ({error})",
            where=paths.printable(url),
            remedy="fetch the file again",
        ) from None


def read_sets(against: Sequence[Against], where: str) -> dict[str, list[tuple[bool, Value]]]:
    """The texts of all sets. RecipeError for a file that cannot be read and for two of one name."""
    found: dict[str, list[tuple[bool, Value]]] = {}
    for number, one in enumerate(against):
        place = f"{where}: against.{number}"
        for name, values in one.values(place).items():
            if name in found:
                raise RecipeError(
                    f"two evaluation sets have the name {name}",
                    where=place,
                    remedy="give each entry of `against` a `name` of its own",
                )
            found[name] = values
    return found


def build_index(
    against: Sequence[Against], ngram: int, min_tokens: int, where: str
) -> dict[str, pa.Table]:
    """The n-grams of all sets and the items that they are of, as files of a step.

    Counters tell for every set how many texts are looked for, are too short, or are contexts.
    RunError where nothing is left to look for.
    """
    from longctx.filter.decontaminate import grams_of, item_grams

    items: list[dict[str, Any]] = []
    found, sets = [], []
    counted: dict[str, dict[str, int]] = {}
    for number, (name, values) in enumerate(read_sets(against, where).items()):
        counts: Counter[str] = Counter(looked_for=0)
        for named, (row, field, text) in values:
            tokens, grams = item_grams(text, ngram, min_tokens)
            reason = "too_short" if not grams.size else "looked_for"
            if not named and tokens > LONGEST:
                reason = "contexts"
            counts[reason] += 1
            if reason == "looked_for":
                found.append((len(items), min(ngram, tokens), grams))
                sets.append(number)
                items.append({"set": name, "row": row, "field": field, "text": text[:SNIPPET]})
        counted[name] = dict(counts)
    if not items:
        raise RunError(
            f"no evaluation set has a text of at least {min_tokens} tokens to look for",
            where=where,
            remedy="name other fields of them in `against`, or lower min_tokens",
        )
    idle = [name for name, counts in counted.items() if not counts["looked_for"]]
    warnings = {
        f"nothing of the evaluation set {name} is long enough to look for": 1 for name in idle
    }
    table = pa.table(grams_of(found, sets)._asdict())
    return {
        "grams.parquet": Stats.attach(table, {"sets": counted, "warnings": warnings}),
        "items.parquet": pa.Table.from_pylist(items, schema=_ITEMS),
    }


@functools.lru_cache(maxsize=2)
def load_index(step: StepRef) -> tuple["Index", list[dict[str, Any]]]:
    """The lookup, and its items (set, row, field, text), of the step `index`; once per process."""
    from longctx.filter.decontaminate import Grams, Index

    files = {f.name.rsplit("/", 1)[-1]: f for f in step.files}
    grams = read_table(step.run_dir, files["grams.parquet"])
    items = read_table(step.run_dir, files["items.parquet"])
    columns = (grams.column(name).to_numpy() for name in Grams._fields)
    return Index(Grams(*columns)), items.to_pylist()
