"""Reading windows: which documents stand in one, how similar neighbours are, the text at the seams.

Works on finished windows alone (Parquet with `input_ids` and `segments`): the text is decoded from
the tokens that a trainer will see, and similarities are those of that text under the encoder of the
run, or the packaged static one where the run folder is gone.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from longctx.engine.corpus import open_source
from longctx.errors import RecipeError
from longctx.io import paths
from longctx.io.parquet_files import parquet_file
from longctx.location import expand
from longctx.registry import did_you_mean
from longctx.report.format import count, one_line, percent, plural
from longctx.report.run_links import output_of, read_json, refuse_documents, run_of
from longctx.text.tokenize import Tokenizer, load_tokenizer

_SEAM_CHARS = 160
# Windows of several lengths lie in a folder for each.
_OF_LENGTH = re.compile(r"length-\d+/part-\d+\.parquet")
_COMPARED = 10_000
_LISTED = ["window_id", "n_tokens", "segments", "tour_id", "stats", "pass"]


@dataclass(frozen=True)
class _Source:
    """Where windows lie (all files of the folder, or `only` one) and how they were made."""

    folder: str
    only: str | None
    tokenizer: str | None
    encoder: dict[str, Any]


def inspect_view(
    folder: str,
    *,
    window: str | None = None,
    seam: int | None = None,
    chars: int | None = None,
    limit: int = 20,
    tokenizer: str | None = None,
) -> RenderableType:
    """A table of windows, or one window with its documents and seams.

    `chars` are shown on each side of a seam: by default 160, and all of them for one `seam`.
    Raises RecipeError for a window or seam that is not there, and for a folder without any.
    """
    source = _source(folder, tokenizer)
    if window is None:
        if seam is not None:
            raise RecipeError("--seam needs --window", remedy="name the window whose seam to read")
        return _listing(source, limit)
    row = _find(source, window)
    return _window(source, row, seam, chars)


def _source(folder: str, tokenizer: str | None) -> _Source:
    root, only = paths.absolute(folder), None
    if root.endswith(".parquet"):
        root, _, only = root.rpartition("/")
    run = read_json(root, "run.json")
    if run is not None:
        root = output_of(run, root)
    refuse_documents(root)
    manifest = read_json(root, "manifest.json") or {}
    return _Source(root, only, tokenizer or manifest.get("tokenizer"), _encoder(run_of(root)))


def _encoder(run: dict[str, Any] | None) -> dict[str, Any]:
    """Settings of the run's `embed` stage, or none where the run folder is gone."""
    stages = run["stages"] if run else []
    return next((s["settings"] for s in stages if s["op"] == "embed"), {})


def _files(source: _Source) -> list[str]:
    names = [n for n in paths.list_files(source.folder) if n.endswith(".parquet")]
    if not names:
        below = paths.list_files(source.folder, recursive=True)
        names = [n for n in below if _OF_LENGTH.fullmatch(n)]
    names = [n for n in names if source.only in (None, n)]
    if not names:
        raise RecipeError(
            "there are no windows here",
            where=source.folder,
            remedy="give the output folder of a run (part-*.parquet), or its run folder",
        )
    return [paths.join(source.folder, n) for n in names]


def _tables(source: _Source, columns: list[str]) -> Iterator[tuple[str, pa.Table]]:
    for url in _files(source):
        try:
            file = parquet_file(open_source(url))
        except pa.ArrowInvalid as error:
            raise RecipeError(
                f"this is not a Parquet file that can be read: {error}",
                where=url,
                remedy="remove it from the folder, or give the output folder of a run",
            ) from None
        missing = {"window_id", "input_ids", "segments"} - set(file.schema_arrow.names)
        if missing:
            raise RecipeError(
                f"these are not windows: the column `{min(missing)}` is missing",
                where=url,
                remedy="give the output folder of a run",
            )
        yield url, file.read(columns=[c for c in columns if c in file.schema_arrow.names])


def _listing(source: _Source, limit: int) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    table.add_column("window", no_wrap=True, min_width=12)
    for name, width in (("tokens", 6), ("fill", 6), ("docs", 4), ("cosine", 6)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    total, rows = 0, list[dict[str, Any]]()
    for _, windows in _tables(source, _LISTED):
        total += windows.num_rows
        rows += windows.slice(0, max(0, limit - len(rows))).to_pylist()
    copied = any(_pass(row) is not None for row in rows)
    if copied:
        table.add_column("pass", justify="right", no_wrap=True, min_width=4)
    table.add_column("longest document", overflow="ellipsis", no_wrap=True, ratio=1)
    for row in rows:
        *cells, longest = _cells(row)
        passed = [count(_pass(row))] if copied else []
        table.add_row(*(Text(cell) for cell in (*cells, *passed, longest)))
    note = f"{len(rows)} of {count(total)} windows in {source.folder}"
    help_text = "cosine: mean similarity of neighbouring documents; --window ID reads one window"
    of_pass = "pass: pass k holds copy k of the documents that a mixture copies, counted from 0"
    said = [help_text, *([of_pass] if copied else [])]
    return Group(table, *(Text(line, style="dim") for line in (note, *said)))


def _pass(row: dict[str, Any]) -> int | None:
    """The pass of a window; a column of that name in somebody's file may hold anything."""
    found = row.get("pass")
    return found if isinstance(found, int) else None


def _cells(row: dict[str, Any]) -> list[str]:
    """One window in the list; of windows that were made elsewhere less is known."""
    stats = row.get("stats") or {}
    adjacent = stats.get("adjacent")
    longest = max(row["segments"], key=lambda s: s["end"] - s["start"], default={"doc_id": "-"})
    return [
        one_line(row["window_id"], 80)[:12],
        count(row.get("n_tokens")),
        percent(stats.get("fill")),
        count(stats.get("n_docs", len(row["segments"]))),
        "-" if adjacent is None else f"{adjacent:.2f}",
        one_line(longest["doc_id"], 80),
    ]


def _find(source: _Source, prefix: str) -> dict[str, Any]:
    hits: list[tuple[str, int, str]] = []
    known: list[str] = []
    for url, table in _tables(source, ["window_id"]):
        ids = table.column("window_id")
        known += ids.to_pylist()
        places = np.flatnonzero(pc.starts_with(ids, prefix).to_numpy())
        hits += [(url, int(i), ids[int(i)].as_py()) for i in places]
    if not hits:
        near = sorted({k[: len(prefix)] for k in known[:_COMPARED]})
        raise RecipeError(
            f"no window begins with '{prefix}'{did_you_mean(prefix, near)}",
            where=source.folder,
            remedy="`longctx inspect` without --window lists them",
        )
    exact = [hit for hit in hits if hit[2] == prefix]
    if len(hits) > 1 and len(exact) != 1:
        named = ", ".join(hit[2][: len(prefix) + 8] for hit in hits[:3])
        raise RecipeError(
            f"{len(hits):,} windows begin with '{prefix}': {named}{', ...' * (len(hits) > 3)}",
            where=source.folder,
            remedy="give more of the id",
        )
    url, place, _ = (exact or hits)[0]
    table = parquet_file(open_source(url)).read()
    found: dict[str, Any] = table.slice(place, 1).to_pylist()[0]
    return found


def _window(
    source: _Source, row: dict[str, Any], seam: int | None, chars: int | None
) -> RenderableType:
    if source.tokenizer is None:
        raise RecipeError(
            "the tokenizer of these windows is not known",
            where=source.folder,
            remedy="name it with --tokenizer",
        )
    tokenizer = load_tokenizer(source.tokenizer)
    segments = row["segments"]
    texts = [_text(tokenizer, row["input_ids"][s["start"] : s["end"]]) for s in segments]
    if seam is not None:
        if not 1 <= seam < len(segments):
            raise RecipeError(
                f"this window has {len(segments) - 1} seams, got {seam}",
                remedy=f"give a number from 1 to {len(segments) - 1}"
                if len(segments) > 1
                else "this window holds one document",
            )
        return Group(*_seam(seam, segments, texts, chars or max(map(len, texts))))
    similar = _similarities(source, texts)
    parts: list[RenderableType] = [_head(row), _documents(segments, similar)]
    for number in range(1, len(segments)):
        parts += _seam(number, segments, texts, chars or _SEAM_CHARS)
    return Group(*parts)


def _text(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Text of a segment without the separator that ends its document."""
    return tokenizer.decode([i for i in ids if i not in (tokenizer.eos_id, tokenizer.bos_id)])


def _similarities(source: _Source, texts: list[str]) -> list[float | None]:
    """Cosine of each document to the one before it; none where either has no vector."""
    from longctx.embed.encoders import load_encoder

    settings = {k: source.encoder[k] for k in ("chunk_tokens", "max_chunks") if k in source.encoder}
    encoder = load_encoder(_model(source.encoder), fetch=False, **settings)
    vectors, _ = encoder.encode(texts)
    return [None, *(float(a @ b) if a.any() and b.any() else None for a, b in pairwise(vectors))]


def _model(encoder: dict[str, Any]) -> str:
    """The run's encoder: a packaged one, a folder, or a name in the local cache.

    A record may come from anybody, so variables of the environment may only lead to a folder here,
    and nothing that a record names is fetched.
    """
    named = str(encoder.get("model", "static"))
    if "${" not in named:
        return named
    try:
        folder = expand(named)
    except ValueError:
        return "static"
    return folder if Path(folder).is_dir() else "static"


def _head(row: dict[str, Any]) -> Text:
    stats = row.get("stats") or {}
    tour = f", tour {row['tour_id']}" if row.get("tour_id") else ""
    fill = f", {percent(stats['fill'])} full" if stats.get("fill") is not None else ""
    docs = plural(len(row["segments"]), "document")
    passed = "" if _pass(row) is None else f", pass {count(_pass(row))}"
    return Text.assemble(
        ("window ", "dim"),
        (one_line(row["window_id"], 200), "bold"),
        (
            f"\n{count(len(row['input_ids']))} tokens{fill}, {docs}{tour}{passed}\n",
            "",
        ),
    )


def _documents(segments: list[dict[str, Any]], similar: list[float | None]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("cosine", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("from", justify="right", no_wrap=True)
    table.add_column("source", overflow="fold")
    table.add_column("document", overflow="fold")
    for number, (segment, cosine) in enumerate(zip(segments, similar, strict=True), start=1):
        table.add_row(
            str(number),
            "" if number == 1 else "-" if cosine is None else f"{cosine:.2f}",
            count(segment["end"] - segment["start"]),
            count(segment["doc_start"]) if segment.get("doc_start") else "start",
            Text(one_line(segment.get("source") or "-", 40)),
            Text(one_line(segment["doc_id"], 200)),
        )
    return table


def _seam(
    number: int, segments: list[dict[str, Any]], texts: list[str], chars: int
) -> list[RenderableType]:
    """The end of one document and the beginning of the next."""
    left, right = texts[number - 1][-chars:], texts[number][:chars]
    before, after = segments[number - 1]["doc_id"], segments[number]["doc_id"]
    return [
        Text.assemble(
            (f"seam {number}  ", "bold"),
            (f"{one_line(before, 60)}  ->  {one_line(after, 60)}", "dim"),
        ),
        Padding(Text(_visible(left)), (0, 0, 0, 2)),
        Text("  " + "-" * 20, style="dim"),
        Padding(Text(_visible(right)), (0, 0, 1, 2)),
    ]


def _visible(text: str) -> str:
    """Printable text: control characters other than line ends are shown as escapes."""
    return "".join(c if _printable(c) else repr(c)[1:-1] for c in text.strip("\n"))


def _printable(c: str) -> bool:
    # Wide and fixed spaces are not "printable" to Python, but a terminal shows them.
    return c in "\n\t" or c.isprintable() or unicodedata.category(c) == "Zs"
