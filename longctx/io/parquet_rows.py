"""Rows of a Parquet file, as far as they can be read.

Row groups stand for themselves: where one is damaged the next is still read. Batches are bounded in
bytes by the row group's mean row, since a row group of books can hold gigabytes of text.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from longctx.io.parquet_files import parquet_file
from longctx.io.records import NOTHING, UNREADABLE, Bad, Content, Item, bad, released, rows_of
from longctx.recipe import Input

_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 1024


def parquet_rows(raw: BinaryIO, url: str, key: str, spec: Input) -> Iterator[Item]:
    """Rows of one file; `url`, `key` and `spec` as for `read`."""
    try:
        # Whole row groups are never read ahead: one of books can hold gigabytes of text.
        file = parquet_file(raw, pre_buffer=False)
        names = file.schema_arrow.names
    except (pa.ArrowException, ValueError, OSError) as error:
        yield _unreadable(url, "not a Parquet file", error)
        return
    total = max(file.metadata.num_rows, 1)
    if spec.text not in names:
        detail = f"no column `{spec.text}`; columns: {', '.join(names[:12])}"
        yield bad(url, "missing_text", detail, rows=total)
        return
    wanted = [spec.text, spec.id, spec.source_field, spec.language, spec.license, *spec.meta]
    columns = [c for c in dict.fromkeys(wanted) if c is not None and c in names]
    if twice := [c for c in columns if names.count(c) > 1]:
        yield bad(url, "ambiguous_column", f"several columns are called `{twice[0]}`", rows=total)
        return
    start = 0
    for group in range(file.metadata.num_row_groups):
        yield from _row_group(file, group, start, columns, url, key, spec)
        start += file.metadata.row_group(group).num_rows


def _row_group(
    file: pq.ParquetFile,
    group: int,
    start: int,
    columns: list[str],
    url: str,
    key: str,
    spec: Input,
) -> Iterator[Item]:
    """Rows of one row group; where it cannot be read the rest of it is one Bad."""
    meta = file.metadata.row_group(group)
    rows = max(1, _BATCH_BYTES * meta.num_rows // max(meta.total_byte_size, 1))
    done, detail = 0, "the row group ends early"
    try:
        for batch in file.iter_batches(min(rows, _BATCH_ROWS), row_groups=[group], columns=columns):
            for record in _records(batch):
                place, number = f"{url}#row={start + done}", start + done
                done += 1
                shown = record[spec.text]
                content = Content.of(shown) if isinstance(shown, str | bytes) else NOTHING
                del shown
                yield from released(rows_of(record, place, key, number, spec, content))
    except (pa.ArrowException, ValueError, OSError) as error:
        detail = _unreadable(url, "stopped reading", error).detail
    if done < meta.num_rows:
        rest = meta.num_rows - done
        yield bad(f"{url}#row={start + done}", "unreadable_file", detail, rows=rest)


def _unreadable(url: str, what: str, error: Exception) -> Bad:
    """A Bad for content that Arrow refuses; what storage raised is raised again.

    Arrow's own OSError is plain and has no number; those of file systems have one or the other.
    """
    if isinstance(error, OSError) and not (type(error) is OSError and error.errno is None):
        raise error
    return bad(url, "unreadable_file", f"{what}: {error}")


def _records(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries; a string that is not UTF-8 stays bytes, so that it can be judged."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for row in range(batch.num_rows):
            values = (_plain(column[row]) for column in batch.columns)
            yield dict(zip(batch.schema.names, values, strict=True))


def _plain(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        held = scalar.value if isinstance(scalar, pa.DictionaryScalar) else scalar
        if hasattr(held, "as_buffer"):
            return held.as_buffer().to_pybytes()
        try:
            return held.cast(pa.string()).as_py()
        except (pa.ArrowException, ValueError):
            return UNREADABLE
