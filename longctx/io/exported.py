"""Documents as records: the input's fields back in their places, with columns of the stages.

JSON lines for everything that reads them; a record has its id, text, source, language and licence,
the fields that the input kept as `meta` at its top level, then the columns. NaN and infinities,
which JSON does not know, are null; float32 is written with all digits, so it reads back equal. In
Parquet, whose rows have one schema, `meta` stays a JSON string. Nothing depends on time or worker,
so equal rows give equal bytes. One shard of text at a time, and its lines.
"""

import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import zstandard

FIELDS: dict[str, str] = {
    "id": "doc_id",
    "text": "text",
    "source": "source",
    "language": "language",
    "license": "license",
    "meta": "meta",
}
Compression = Literal["none", "gz", "zst"]
_LEVELS = {"gz": 6, "zst": 3}
_ROWS_AT_ONCE = 64
_GROUP_BYTES = 32_000_000


@dataclass(frozen=True)
class Shape:
    """Which of FIELDS a record has, which columns beside them, and what they are called there."""

    fields: tuple[str, ...] = tuple(FIELDS)
    columns: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def reads(self) -> list[str]:
        """The columns of the corpus that it is made of."""
        return [*(FIELDS[f] for f in self.fields), *self.columns]

    def called(self, name: str) -> str:
        """What a field or column is called in the record."""
        return self.names.get(name, name)


def record_table(rows: pa.Table, shape: Shape) -> pa.Table:
    """Rows of a corpus as a table of records; `meta` as JSON text."""
    known = {FIELDS.get(n, n): n for n in (*shape.fields, *shape.columns)}
    table = rows.select(list(known))
    return table.rename_columns([shape.called(n) for n in known.values()])


def row_groups(rows: pa.Table) -> list[pa.Table]:
    """Consecutive rows in tables of at most 32 MB of text; a longer text stands alone."""
    if "text" not in rows.column_names or not len(rows):
        return [rows]
    sizes = pc.binary_length(rows.column("text")).to_pylist()
    starts, held = [0], 0
    for i, size in enumerate(sizes):
        if i > starts[-1] and held + size > _GROUP_BYTES:
            starts.append(i)
            held = 0
        held += size
    ends = [*starts[1:], len(rows)]
    return [rows.slice(a, b - a) for a, b in zip(starts, ends, strict=True)]


def json_lines(rows: pa.Table, shape: Shape, shadowed: Counter[str]) -> Iterator[bytes]:
    """One line for each row, with its line end.

    A field of `meta` that is called as one of the others is left out, and counted in `shadowed`.
    """
    others = [n for n in (*shape.fields, *shape.columns) if n != "meta"]
    taken = {shape.called(n) for n in others}
    place = shape.fields.index("meta") if "meta" in shape.fields else None
    table = rows.select(shape.reads())
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        for row in batch.to_pylist():
            record = {shape.called(n): row[FIELDS.get(n, n)] for n in others}
            if place is not None and row["meta"]:
                meta = json.loads(row["meta"])
                shadowed.update(taken & meta.keys())
                items = list(record.items())
                kept = {n: v for n, v in meta.items() if n not in taken}
                record = dict([*items[:place], *kept.items(), *items[place:]])
            yield _line(record)


def _line(record: dict[str, Any]) -> bytes:
    try:
        text = _dumped(record)
    except ValueError:
        text = _dumped(_without_nan(record))
    return text.encode() + b"\n"


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    return [_without_nan(v) for v in value] if isinstance(value, list) else value


def compressed(lines: Iterable[bytes], how: Compression) -> bytes:
    """The content of a file of lines; no name and no time in its header."""
    if how == "none":
        return b"".join(lines)
    packer: Any
    if how == "gz":
        packer = zlib.compressobj(_LEVELS["gz"], zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    else:
        packer = zstandard.ZstdCompressor(level=_LEVELS["zst"]).compressobj()
    return b"".join([*map(packer.compress, lines), packer.flush()])
