"""What only some ops leave in the steps of their stage, as far as a page shows it.

Matches with evaluation sets come with their texts. Pairs of `dedup.containment` are read from at
most 16 of the files that hold them, texts of the eight largest pairs. Of a cut the figures of all
groups are read, and the documents next to its borders. To find a document by the number of its part
the list of parts is read, some hundred bytes a part.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from longctx.engine import commit
from longctx.errors import DamagedFileError
from longctx.io import paths
from longctx.report.scores.common import common_passage
from longctx.report.scores.data import Match, Matches, Pair, Pairs
from longctx.report.scores.passages import Place, around, masked
from longctx.report.scores.reading import Address, group_sizes, opened, read_group, rows_at
from longctx.report.scores.sample import Sample, spaced

_MATCHES, _MATCH = 60, 400
_FILES, _PAIRS = 16, 8
Stage = dict[str, Any]


def matches(run_dir: str, stage: Stage) -> Matches | None:
    """What `filter.decontaminate` found: of each set in numbers, and a sample to read."""
    sample = table_of(run_dir, f"stages/{stage['stage']}/sample/sample.parquet", _SAMPLE)
    if sample is None:
        return None
    shown = [
        Match(
            str(row["set"]),
            int(row["row"] or 0),
            str(row["field"]),
            str(row["doc_id"]),
            str(row["source"]),
            masked(row["text"] or "", _MATCH),
            masked(row["item_text"] or "", _MATCH),
        )
        for row in sample.slice(0, _MATCHES).to_pylist()
    ]
    shown.sort(key=lambda match: match.name)
    return Matches(_sets(stage), shown)


_SAMPLE = ["doc_id", "source", "set", "row", "field", "text", "item_text"]


def _sets(stage: Stage) -> dict[str, tuple[int, int]]:
    """Documents and places by evaluation set, as the record of the run has them."""
    found = stage["steps"].get("", {}).get("sets")
    return {
        name: (_count(counts.get("documents")), _count(counts.get("spans")))
        for name, counts in (found.items() if isinstance(found, dict) else ())
        if isinstance(counts, dict)
    }


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def pairs(sample: Sample, stage: Stage) -> Pairs | None:
    """The pairs of `dedup.containment` of which one holds most of the other."""
    folder = f"stages/{stage['stage']}/pairs"
    names = [
        n for n in paths.list_files(paths.join(sample.run_dir, folder)) if n.endswith(".parquet")
    ]
    chosen = [sorted(names)[i] for i in spaced(len(names), _FILES)]
    found = [pair for name in chosen for pair in _largest(sample.run_dir, f"{folder}/{name}")]
    if not found:
        return None
    found.sort(key=lambda p: (-p["cov_share"], -p["words"], p["doc_id"], p["other_id"]))
    parts = part_names(sample.run_dir)
    shown = [_pair(sample.run_dir, sample.texts, parts, row) for row in found[:_PAIRS]]
    return Pairs(shown, len(chosen), len(names))


_PAIR = ["doc_id", "other_id", "cov_share", "words", "part", "row"]


def _largest(run_dir: str, name: str) -> Iterator[dict[str, Any]]:
    """The largest pairs of a file, with the number of the file: the part of the other document."""
    table = table_of(run_dir, name, _PAIR)
    number = name.rpartition("-")[2].removesuffix(".parquet")
    if table is None or not number.isdecimal():
        return
    order = [("cov_share", "descending"), ("words", "descending"), ("doc_id", "ascending")]
    for row in table.sort_by(order).slice(0, _PAIRS).to_pylist():
        yield {**row, "other_part": int(number)}


def _pair(run_dir: str, texts: str, parts: Sequence[str], row: dict[str, Any]) -> Pair:
    plain = Pair(row["doc_id"], row["other_id"], float(row["cov_share"]), int(row["words"]), 0)
    if max(row["part"], row["other_part"]) >= len(parts):
        return plain
    own = Address(parts[row["part"]], row["row"])
    other = _address(run_dir, parts[row["other_part"]], row["other_id"])
    both = [own, *([other] if other else [])]
    read = {
        place: values["text"] or "" for place, values in rows_at(run_dir, texts, ["text"], both)
    }
    first, second = read.get(own, ""), read.get(other, "") if other else ""
    shared = common_passage(first, second)
    if shared is None:
        return plain
    return Pair(
        plain.doc_id,
        plain.other_id,
        plain.share,
        plain.words,
        shared.words,
        around(first, Place(*shared.first, "")),
        around(second, Place(*shared.second, "")),
    )


def _address(run_dir: str, part: str, doc_id: str) -> Address | None:
    """Where in a part a document stands."""
    name = f"documents/{part}.parquet"
    file = opened(run_dir, name)
    first = 0
    for group, size in enumerate(group_sizes(file)):
        ids = read_group(run_dir, name, file, group, ["doc_id"]).column("doc_id").to_pylist()
        if doc_id in ids:
            return Address(part, first + ids.index(doc_id))
        first += size
    return None


def part_names(run_dir: str) -> list[str]:
    """Names of the parts in the order in which stages number them."""
    commits = commit.load(paths.join(run_dir, "stages", "00-read", "groups"))
    files = (f.name for c in commits.values() for f in c.files)
    return [
        n.removeprefix("documents/").removesuffix(".parquet")
        for n in files
        if n.startswith("documents/")
    ]


def table_of(run_dir: str, name: str, columns: list[str]) -> pa.Table | None:
    """Columns of the first row group of a file; None where there is no such file."""
    try:
        file = opened(run_dir, name)
    except DamagedFileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    return read_group(run_dir, name, file, 0, columns) if group_sizes(file) else None
