"""Where the runs of a comparison lie: run folders, output folders, or any Parquet files.

All reading of a comparison happens here. A run of longctx says itself how it is read; for other
windows the options and the columns do.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from longctx.compare.layout import Layout, Options, layout_of
from longctx.engine.corpus import open_source
from longctx.errors import RecipeError, RunError
from longctx.io import paths
from longctx.io.parquet_files import parquet_file
from longctx.registry import did_you_mean
from longctx.report.run_links import MARKER, output_of, read_json, refuse_documents, run_of

ASSUMED_TOKENIZER = "embedded"
_ROWS = 128  # windows in memory at a time: 64 MB of ids at 128 k tokens each
_BY_LENGTH = re.compile(r"(length-(\d+))/part-\d+\.parquet")
_NAMED = re.compile(r"([^/=]+)=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """The files of one run. `length` and `tokenizer` are None where nothing says them.

    `own` windows were written by longctx, and options about columns do not concern them.
    """

    name: str
    place: str
    files: tuple[str, ...]
    own: bool = False
    length: int | None = None
    tokenizer: str | None = None

    def tables(self, options: Options) -> Iterator[tuple[str, Layout, pa.Table]]:
        """All windows, some rows at a time, with their place for error messages.

        Raises RecipeError for files that are no windows and RunError for damaged ones.
        """
        used = Options() if self.own else options
        for url in self.files:
            try:
                file = parquet_file(open_source(url))
                layout = layout_of(file.schema_arrow, used, url)
                row = 0
                for batch in file.iter_batches(_ROWS, columns=layout.columns):
                    where = f"{url} (rows from {row:,})" if row else url
                    yield where, layout, pa.Table.from_batches([batch])
                    row += batch.num_rows
            except pa.ArrowInvalid as error:
                raise RecipeError(
                    "this is not a Parquet file that can be read: "
                    f"{str(error).splitlines()[0][:200]}",
                    where=url,
                    remedy="give Parquet files, or a folder or glob of them alone",
                ) from None
            except OSError as error:
                raise RunError(
                    f"the file cannot be read: {str(error).splitlines()[0][:200]}",
                    where=url,
                    remedy="write or copy it again",
                ) from error


def sources(runs: Sequence[str], tokenizers: Sequence[str] = ()) -> list[Source]:
    """One source for each `[NAME=]PATH`, several for a run of several lengths; names are unique.

    `tokenizers` are `[NAME=]SPEC`: one without a name is for the runs that name none themselves.
    """
    found = [source for run in runs for source in _of_run(run)]
    return _with_tokenizers(_distinct(found), tokenizers)


def run_folders(runs: Sequence[str]) -> list[tuple[Source, dict[str, Any]]]:
    """Finished runs of longctx, `[NAME=]RUN_DIR` each, as sources without files, and `run.json`."""
    found = []
    for argument in runs:
        label, root = _labelled(argument)
        run = _finished(root)
        if run is None:
            raise RecipeError(
                "this is not a run folder: it has no run.json",
                where=root,
                remedy="give the run_dir of a recipe that was run; of windows alone no documents "
                "are known",
            )
        found.append((Source(label or _name(run), root, ()), run))
    named = _distinct([source for source, _ in found])
    return [(source, run) for source, (_, run) in zip(named, found, strict=True)]


def _labelled(argument: str) -> tuple[str | None, str]:
    """The name that a `[NAME=]PATH` gives, if any, and the absolute path."""
    named = _NAMED.fullmatch(argument)
    label, place = (named[1].strip(), named[2]) if named else (None, argument)
    return label, paths.absolute(place)


def _finished(root: str) -> dict[str, Any] | None:
    """The `run.json` of a folder, None without one. Raises RecipeError for an unfinished run."""
    run = read_json(root, "run.json")
    if run is not None and run.get("status") != "done":
        raise RecipeError(
            f"this run is not finished (status: {run.get('status')})",
            where=root,
            remedy="run it again with the same recipe: it goes on where it stopped",
        )
    return run


def _of_run(argument: str) -> list[Source]:
    label, root = _labelled(argument)
    run = _finished(root)
    if run is not None:
        return _outputs(output_of(run, root), label or _name(run))
    if read_json(root, "manifest.json") is not None or read_json(root, MARKER) is not None:
        refuse_documents(root)
        made_by = run_of(root)
        return _outputs(root, label or (_name(made_by) if made_by else _last(root)))
    files = [f.url for f in paths.expand(root) if f.url.endswith(".parquet")]
    if not files:
        raise _nothing(root)
    return [Source(label or _last(root), root, tuple(files))]


def _outputs(folder: str, name: str) -> list[Source]:
    """The windows of a run of longctx: those of its folder, or one source for each length."""
    listed = paths.list_files(folder, recursive=True)
    found = []
    flat = sorted(n for n in listed if re.fullmatch(r"part-\d+\.parquet", n))
    if flat:
        found.append(_own(folder, name, flat))
    below: dict[int, list[str]] = {}
    for file in sorted(listed):
        if match := _BY_LENGTH.fullmatch(file):
            below.setdefault(int(match[2]), []).append(file.partition("/")[2])
    for length, files in sorted(below.items()):
        found.append(_own(paths.join(folder, f"length-{length}"), f"{name} {length}", files))
    if not found:
        raise _nothing(folder)
    return found


def _own(folder: str, name: str, files: Sequence[str]) -> Source:
    manifest = read_json(folder, "manifest.json") or {}
    return Source(
        name,
        folder,
        tuple(paths.join(folder, f) for f in files),
        own=True,
        length=manifest.get("length"),
        tokenizer=manifest.get("tokenizer"),
    )


def _nothing(place: str) -> RecipeError:
    return RecipeError(
        "there are no windows here",
        where=place,
        remedy="give a run folder, its output folder, or Parquet files, a folder or a glob of them",
    )


def _name(run: Mapping[str, Any]) -> str:
    """The recipe's name, with its order where the name does not tell it."""
    name = str(run["name"])
    order = next((s["op"] for s in run["stages"] if s["op"].startswith("order.")), None)
    if order is None or order.removeprefix("order.") in name.replace("-", "_"):
        return name
    return f"{name} {order}"


def _last(place: str) -> str:
    """What a path is called: its last element without wildcards and suffix."""
    elements = [e for e in place.split("/") if e and not any(c in e for c in "*?[")]
    return (elements or [place])[-1].removesuffix(".parquet")


def _distinct(found: list[Source]) -> list[Source]:
    """Equal names get the folder above them, and a number where that does not help."""
    for rename in (lambda s, n: f"{_last(s.place.rpartition('/')[0])} {s.name}", _numbered):
        names = [s.name for s in found]
        found = [
            replace(s, name=rename(s, names[: i + 1].count(s.name)))
            if names.count(s.name) > 1
            else s
            for i, s in enumerate(found)
        ]
    return found


def _numbered(source: Source, number: int) -> str:
    return f"{source.name} #{number}"


def _with_tokenizers(found: list[Source], given: Sequence[str]) -> list[Source]:
    names = [s.name for s in found]
    by_name: dict[str | None, str] = {}
    for one in given:
        named = _NAMED.fullmatch(one)
        if named and named[1] not in names:
            raise RecipeError(
                f"--tokenizer names the run '{named[1]}'{did_you_mean(named[1], names)}",
                remedy=f"the runs are: {', '.join(names)}",
            )
        by_name[named[1] if named else None] = named[2] if named else one
    rest = by_name.get(None)
    return [replace(s, tokenizer=by_name.get(s.name) or s.tokenizer or rest) for s in found]
