"""Shares and enlargements of a corpus, so that a job can be measured as its input grows.

A share keeps documents by a hash of their id, so every source keeps its part of the mixture. An
enlargement adds perturbed copies: of each copy three words in ten are replaced by words drawn from
other places of the same document. Lengths, languages and vocabulary stay as they are, and shingles
of five words agree to less than a tenth, so copies are no near-duplicates of one another, while
their vectors stay close.
"""

import hashlib
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = ["id", "text", "source", "license"]
REPLACED = 0.3
# Characters of scripts without spaces stand alone.
_CJK = r"\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")


def make(files: list[Path], target: Path, size: float) -> Path:
    """The corpus of Parquet `files` at `size` times its documents, as Parquet files in `target`.

    Below 1 a share of the documents, above 1 so many copies of each, the first of them verbatim.
    A folder that is already there is taken as it is. Raises ValueError for other sizes above 1 than
    whole numbers.
    """
    if size > 1 and size != int(size):
        raise ValueError(f"an enlargement is a whole number of copies, got {size:g}")
    if target.exists():
        return target
    fresh = target.with_name(f"{target.name}.partial")
    fresh.mkdir(parents=True, exist_ok=True)
    for file in files:
        rows = pq.read_table(file, columns=COLUMNS)
        if size < 1:
            rows = rows.filter(pa.array([_drawn(i) < size for i in rows["id"].to_pylist()]))
        for copy in range(max(1, int(size))):
            pq.write_table(perturbed(rows, copy), fresh / f"{file.stem}-{copy:03d}.parquet")
    fresh.rename(target)
    return target


def perturbed(rows: pa.Table, copy: int) -> pa.Table:
    """Copy number `copy` of all documents, with ids of its own; number 0 is verbatim."""
    if copy == 0:
        return rows
    ids, texts = rows["id"].to_pylist(), rows["text"].to_pylist()
    made = [perturb(text, _seed(f"{i}#{copy}")) for i, text in zip(ids, texts, strict=True)]
    table = rows.set_column(0, "id", pa.array([f"{i}#{copy}" for i in ids], pa.string()))
    return table.set_column(1, "text", pa.array(made, rows.schema.field("text").type))


def perturb(text: str, seed: int) -> str:
    """The text with three words in ten replaced by others of its own; spaces stay."""
    rng = np.random.default_rng(seed)
    spans = [m.span() for m in _WORD.finditer(text)]
    new = rng.random(len(spans)) < REPLACED
    drawn = rng.integers(0, max(1, len(spans)), len(spans))
    pieces, at = [], 0
    for i in np.flatnonzero(new):
        start, end = spans[i]
        source = spans[drawn[i]]
        pieces += [text[at:start], text[source[0] : source[1]]]
        at = end
    return "".join([*pieces, text[at:]])


def _seed(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _drawn(name: str) -> float:
    """A number in [0, 1) that depends on the id alone."""
    return _seed(name) / 2**64
