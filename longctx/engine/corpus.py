"""The corpus as later stages see it: documents in parts, and sidecars aligned with them.

A sidecar part has the rows, the row order and the row groups of its documents part, so reading
columns side by side is a zip of row groups: no joins, no copies of text, bounded memory. Rows that
an earlier stage removed keep their place and are skipped by a mask.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from longctx.engine.commit import FileRef, fingerprint
from longctx.engine.compression import compressions, is_bytes
from longctx.engine.op import DROP_REASON
from longctx.engine.stored import packed, restored
from longctx.errors import DamagedFileError
from longctx.io import paths
from longctx.io.parquet_files import parquet_file
from longctx.schema import DOCUMENTS

ROW = "row"
QUARANTINED = "quarantined"
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sidecar:
    """Columns that one step wrote beside the documents: one file per part, same rows."""

    label: str
    columns: tuple[str, ...]
    removes: bool
    files: tuple[FileRef, ...]


@dataclass(frozen=True)
class Part:
    """One documents part and everything written beside it, as a worker needs it."""

    run_dir: str
    index: int
    name: str
    rows: int
    documents: FileRef
    sidecars: tuple[tuple[tuple[str, ...], bool, FileRef], ...]

    def columns(self) -> set[str]:
        """All columns that can be read."""
        return set(DOCUMENTS.names).union(*(c for c, _, _ in self.sidecars)) - {DROP_REASON}

    def groups(self, columns: list[str]) -> Iterator[pa.Table]:
        """Living rows with these columns and `row` (int32, place in the part), group by group."""
        files, removers = self._open(columns)
        start = 0
        for group in range(next(iter(files.values()))[0].num_row_groups):
            table, size = self._group(files, group)
            alive = self._alive(removers, group, size)
            table = table.append_column(
                ROW, pa.array(np.arange(start, start + size, dtype=np.int32))
            )
            if not alive.all():
                table = table.filter(pa.array(alive))
            # Nothing is kept here: a group may be a document that fills half the memory.
            held = [table]
            del table
            yield held.pop()
            start += size

    def table(self, columns: list[str]) -> pa.Table:
        """All living rows at once; for columns that are small."""
        return pa.concat_tables(list(self.groups(columns)))

    def group_sizes(self) -> list[int]:
        """Rows in each row group, dead rows included."""
        meta = open_parquet(self.run_dir, self.documents).metadata
        return [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]

    def alive(self) -> BoolArray:
        """Mask over all rows of the part."""
        _, removers = self._open(["doc_id"])
        sizes = self.group_sizes()
        masks = [self._alive(removers, i, n) for i, n in enumerate(sizes)]
        return np.concatenate(masks) if masks else np.zeros(0, dtype=bool)

    def _open(
        self, columns: list[str]
    ) -> tuple[dict[str, tuple[pq.ParquetFile, list[str]]], dict[str, pq.ParquetFile]]:
        """Files by name with the columns to take from each (the newest writer of a column wins).

        The second are those that say which rows were removed.
        """
        taken: dict[str, tuple[FileRef, list[str]]] = {}
        for column in columns:
            ref = self._newest(column)
            taken.setdefault(ref.name, (ref, []))[1].append(column)
        if not taken:
            taken[self.documents.name] = (self.documents, [])
        files = {n: (open_parquet(self.run_dir, r), c) for n, (r, c) in taken.items()}
        removers = {
            ref.name: open_parquet(self.run_dir, ref)
            for _, removes, ref in self.sidecars
            if removes
        }
        return files, removers

    def _newest(self, column: str) -> FileRef:
        """The file that a column is read from. Raises LookupError if none has it."""
        writers = [ref for names, _, ref in self.sidecars if column in names]
        if not writers and column not in DOCUMENTS.names:
            known = ", ".join(sorted(self.columns()))
            raise LookupError(f"no column `{column}` in part {self.name}; columns: {known}")
        return writers[-1] if writers else self.documents

    def _group(
        self, files: dict[str, tuple[pq.ParquetFile, list[str]]], group: int
    ) -> tuple[pa.Table, int]:
        table: pa.Table | None = None
        size = 0
        for name, (file, columns) in files.items():
            size = file.metadata.row_group(group).num_rows
            with intact(paths.join(self.run_dir, name)):
                read = restored(file.read_row_group(group, columns=columns, use_threads=False))
            if table is None:
                table = read
            else:
                for column in read.column_names:
                    table = table.append_column(column, read.column(column))
        assert table is not None
        return table, size

    def _alive(self, removers: dict[str, pq.ParquetFile], group: int, size: int) -> BoolArray:
        alive = np.ones(size, dtype=bool)
        for name, file in removers.items():
            with intact(paths.join(self.run_dir, name)):
                reasons = file.read_row_group(group, columns=[DROP_REASON], use_threads=False)
            alive &= reasons.column(0).is_null().to_numpy()
        return alive


def open_source(url: str) -> io.BytesIO | str:
    """Something pyarrow reads efficiently: a local path, or the object's bytes in memory.

    Parts are small by contract, so one GET beats many ranged reads of an object.
    """
    return url if paths.is_local(url) else io.BytesIO(paths.read_bytes(url))


def open_parquet(run_dir: str, ref: FileRef) -> pq.ParquetFile:
    """A committed Parquet file. Pages are checked against their checksums when they are read."""
    url = paths.inside(run_dir, ref.name)
    with intact(url):
        source = url if paths.is_local(url) else io.BytesIO(committed_bytes(run_dir, ref))
        return parquet_file(source, pre_buffer=False)


def committed_bytes(run_dir: str, ref: FileRef) -> bytes:
    """The content of a committed file, checked where its checksum is known."""
    url = paths.inside(run_dir, ref.name)
    with intact(url):
        data = paths.read_bytes(url)
    if ref.checksum and paths.checksum(data) != ref.checksum:
        raise DamagedFileError("its checksum is another", file=url)
    return data


@contextlib.contextmanager
def intact(url: str) -> Iterator[None]:
    """Say of a committed file that it was changed or damaged after it was written.

    A resume compares sizes only; flipped bits come out when the page that they are in is read.
    """
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise DamagedFileError(str(error).splitlines()[0][:200], file=url) from error


@dataclass(frozen=True)
class Corpus:
    """All parts of a run with the sidecars written so far; immutable, each stage adds one."""

    run_dir: str
    documents: tuple[FileRef, ...]
    sidecars: tuple[Sidecar, ...] = ()

    def __len__(self) -> int:
        return len(self.documents)

    def with_sidecar(self, sidecar: Sidecar) -> "Corpus":
        """This corpus and one more sidecar."""
        return replace(self, sidecars=(*self.sidecars, sidecar))

    def part(self, index: int) -> Part:
        """One part, light enough to be sent to a worker."""
        ref = self.documents[index]
        beside = tuple((s.columns, s.removes, s.files[index]) for s in self.sidecars)
        name = ref.name.rsplit("/", 1)[-1].removesuffix(".parquet")
        return Part(self.run_dir, index, name, ref.rows, ref, beside)

    def offsets(self) -> list[int]:
        """Number of the first row of each part, counted over all parts."""
        return [0, *np.cumsum([d.rows for d in self.documents]).tolist()][:-1]

    def has(self, column: str) -> bool:
        """Whether some sidecar wrote a column."""
        return any(column in s.columns for s in self.sidecars)

    def states(self, columns: list[str]) -> list[str]:
        """For every part, a fingerprint of what a reader of these columns of it can see.

        Covers the files that the columns come from and those that say which rows live, and nothing
        else: a stage is computed again exactly when a file that it reads has changed. Which files
        these are is the same for all parts, so it is found once. Raises LookupError if no stage
        wrote a column.
        """
        if not self.documents:
            return []
        part = self.part(0)
        beside = {id(ref): number for number, (_, _, ref) in enumerate(part.sidecars)}
        places = {column: beside.get(id(part._newest(column))) for column in columns}
        removers = [s.files for s in self.sidecars if s.removes]
        sources = {
            column: self.documents if place is None else self.sidecars[place].files
            for column, place in places.items()
        }
        return [
            fingerprint(
                [
                    documents.checksum,
                    {column: files[i].checksum for column, files in sources.items()},
                    [files[i].checksum for files in removers],
                ]
            )
            for i, documents in enumerate(self.documents)
        ]


def parquet_groups(
    tables: list[pa.Table], schema: pa.Schema | None = None, *, plain: bool = False
) -> memoryview:
    """Parquet bytes with one row group per table; the same bytes for the same tables.

    `plain` is for readers outside of the run folder: lists of ids stay lists, pages are of the
    first version, which all of them know.
    """
    sink = pa.BufferOutputStream()
    schema = schema or tables[0].schema
    if not plain:
        schema = packed(schema.empty_table()).schema
        tables = [packed(table) for table in tables]
    # Tokens, vectors and their bytes do not repeat: looking for a dictionary costs and finds none.
    # Texts do not either, and dictionary and bounds would hold each of them four more times.
    texts = [f.name for f in schema if _is_large(f.type)]
    repeating = [f.name for f in schema if not (pa.types.is_nested(f.type) or is_bytes(f.type))]
    bounded = [n for n in schema.names if n not in texts] if texts else True
    with pq.ParquetWriter(
        sink,
        schema,
        compression=compressions(tables, schema),
        write_page_checksum=True,
        # The second version is written with one copy of a row less.
        data_page_version="1.0" if plain else "2.0",
        use_dictionary=[n for n in repeating if n not in texts],
        write_statistics=bounded,
    ) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
    return memoryview(sink.getvalue()).cast("B")


def _is_large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_large_binary(kind))


def scatter(table: pa.Table, rows: npt.NDArray[np.int64], size: int) -> pa.Table:
    """Spread rows over `size` places: row i goes to place rows[i], the other places are null."""
    if np.array_equal(rows, np.arange(size)):
        return table
    index = np.full(size, -1, dtype=np.int64)
    index[rows] = np.arange(len(rows))
    return table.take(pa.array(index, mask=index < 0))
