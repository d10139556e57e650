"""Cells of a CSV or Parquet table with the place of each, for messages."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longctx.errors import RecipeError

_PARQUET = b"PAR1"


@dataclass(frozen=True)
class Raw:
    """A table whose cells are not yet understood: `cells[column][row]`, and each row's line."""

    name: str
    columns: tuple[str, ...]
    cells: Mapping[str, Sequence[object]]
    lines: Sequence[int]
    unit: str

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.lines)

    def text(self, row: int, column: str) -> str:
        """A cell as text without outer white space; empty for null."""
        value = self.cells[column][row]
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        return "" if value is None else str(value).strip()

    def place(self, row: int, column: str = "") -> str:
        """Where a row stands, and in which column."""
        at = f"{self.name}, {self.unit} {self.lines[row]}"
        return f"{at}, column {column}" if column else at


def read_raw(data: bytes, name: str) -> Raw:
    """Cells of a CSV file with a header, or of a Parquet file.

    Raises RecipeError for files that are neither, without rows, or with ragged lines.
    """
    raw = _parquet(data, name) if data.startswith(_PARQUET) else _csv(data, name)
    if not raw.rows:
        raise RecipeError("the table has no rows", where=name, remedy="give a table with rows")
    return raw


def number(
    raw: Raw, row: int, column: str, expected: str, *, least: float, most: float = math.inf
) -> float:
    """A finite number within bounds. Raises RecipeError with `expected` and what stands there."""
    text = raw.text(row, column)
    value = raw.cells[column][row]
    try:
        found = float(value) if isinstance(value, float) else float(text)
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and least <= found <= most):
        raise RecipeError(
            f"{expected}, found {repr(text) if text else 'nothing'}",
            where=raw.place(row, column),
            remedy="correct the cell",
        )
    return found


def _csv(data: bytes, name: str) -> Raw:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"byte {error.start} is not UTF-8 text",
            where=name,
            remedy="give a CSV file in UTF-8, or a Parquet file",
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = tuple(c.strip() for c in next(reader, []))
        rows, lines = [], []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise RecipeError(
                    f"{len(row)} cells, expected {len(header)} as in the header",
                    where=f"{name}, line {reader.line_num}",
                    remedy="give every line a cell for every column",
                )
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise RecipeError(
            f"not a CSV table: {error}", where=name, remedy="give a CSV or a Parquet file"
        ) from None
    _distinct(header, name)
    cells = {c: [row[j] for row in rows] for j, c in enumerate(header)}
    return Raw(name, header, cells, lines, "line")


def _parquet(data: bytes, name: str) -> Raw:
    import pyarrow as pa

    from longctx.io.parquet_files import parquet_file

    try:
        table = parquet_file(io.BytesIO(data)).read()
    except (pa.ArrowException, OSError) as error:
        raise RecipeError(
            f"not a readable Parquet table: {error}", where=name, remedy="write the file again"
        ) from None
    columns = tuple(table.column_names)
    _distinct(columns, name)
    cells = {c: table.column(c).to_pylist() for c in columns}
    return Raw(name, columns, cells, range(1, table.num_rows + 1), "row")


def _distinct(columns: Sequence[str], name: str) -> None:
    for i, column in enumerate(columns):
        if column in columns[:i] or not column:
            raise RecipeError(
                f"column {i + 1} is called {column!r}, expected a name of its own",
                where=name,
                remedy="give every column its own name in the header",
            )
