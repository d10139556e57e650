"""The corpus: sidecars stay aligned over row groups, dead rows are skipped, states are exact."""

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.engine.commit import FileRef
from longctx.engine.corpus import ROW, Corpus, Sidecar, parquet_groups, scatter
from longctx.engine.op import DROP_REASON
from longctx.engine.stored import restored
from tests.engine.parts import GROUPS, ROWS, beside, corpus, documents, put, reasons

steady = settings(derandomize=True, deadline=None)


@pytest.fixture(params=["local", "memory"])
def run_dir(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


class TestPart:
    def test_columns_of_several_files_are_read_side_by_side(self, run_dir: str) -> None:
        found = beside(corpus(run_dir), "01-a", a=list(range(ROWS)))
        found = beside(found, "02-b", b=[i * i for i in range(ROWS)], c=["x"] * ROWS)
        groups = list(found.part(0).groups(["b", "doc_id", "a"]))
        assert [g.num_rows for g in groups] == list(GROUPS)
        whole = found.part(0).table(["b", "doc_id", "a"])
        assert set(whole.column_names) == {"b", "doc_id", "a", ROW}
        assert whole.column("doc_id").to_pylist() == [f"d{i}" for i in range(ROWS)]
        assert whole.column("a").to_pylist() == list(range(ROWS))
        assert whole.column("b").to_pylist() == [i * i for i in range(ROWS)]
        assert whole.column(ROW).to_pylist() == list(range(ROWS))
        assert whole.schema.field(ROW).type == pa.int32()

    def test_dead_rows_are_skipped_and_keep_their_place(self, run_dir: str) -> None:
        found = beside(corpus(run_dir), "01-x", True, drop_reason=reasons(short=[0, 3]))
        found = beside(found, "02-a", a=list(range(ROWS)))
        found = beside(found, "03-y", True, drop_reason=reasons(copy=[7]), b=[1.0] * ROWS)
        part = found.part(0)
        living = [1, 2, 4, 5, 6]
        assert part.table(["a"]).column("a").to_pylist() == living
        assert part.table(["text"]).column(ROW).to_pylist() == living
        assert [g.num_rows for g in part.groups(["a"])] == [2, 0, 3]
        assert np.flatnonzero(part.alive()).tolist() == living
        assert part.group_sizes() == list(GROUPS)

    def test_no_column_still_counts_the_living(self, run_dir: str) -> None:
        found = beside(corpus(run_dir), "01-x", True, drop_reason=reasons(short=[0]))
        assert found.part(0).table([]).column(ROW).to_pylist() == list(range(1, ROWS))

    def test_reasons_of_a_stage_that_does_not_remove_are_ignored(self, run_dir: str) -> None:
        found = beside(corpus(run_dir), "01-x", False, drop_reason=reasons(short=[0]), a=[0] * ROWS)
        assert found.part(0).table(["a"]).num_rows == ROWS

    def test_newest_writer_of_a_column_wins(self, run_dir: str) -> None:
        found = beside(corpus(run_dir), "01-x", a=[1] * ROWS, b=[1] * ROWS)
        found = beside(found, "02-y", a=[2] * ROWS)
        table = found.part(0).table(["a", "b"])
        assert set(table.column("a").to_pylist()) == {2}
        assert set(table.column("b").to_pylist()) == {1}

    def test_sidecar_may_replace_a_column_of_the_documents(self, run_dir: str) -> None:
        found = beside(corpus(run_dir), "01-x", language=["de"] * ROWS)
        assert set(found.part(0).table(["language"]).column(0).to_pylist()) == {"de"}

    def test_column_that_nobody_wrote_is_named(self, run_dir: str) -> None:
        found = beside(corpus(run_dir), "01-x", n_tokens=[1] * ROWS)
        with pytest.raises(
            LookupError, match=r"no column `n_token` in part s-0000; columns: .*n_tok"
        ):
            found.part(0).table(["n_token"])
        with pytest.raises(LookupError, match="no column `n_token`"):
            found.states(["n_token"])[0]

    def test_sidecar_that_is_not_aligned_is_no_silent_pairing(self, run_dir: str) -> None:
        found = corpus(run_dir)
        wrong = put(run_dir, "stages/x.parquet", pa.table({"a": list(range(ROWS))}), (4, 1, 3))
        found = found.with_sidecar(Sidecar("01-x", ("a",), False, (wrong,)))
        with pytest.raises((pa.ArrowInvalid, ValueError)):
            found.part(0).table(["doc_id", "a"])

    def test_columns_are_listed_without_the_reasons(self, run_dir: str) -> None:
        found = beside(corpus(run_dir), "01-x", True, drop_reason=reasons(), a=[1] * ROWS)
        assert found.part(0).columns() == {*documents(0).column_names, "a"}

    @steady
    @given(
        groups=st.lists(st.integers(1, 5), min_size=1, max_size=5),
        dead=st.sets(st.integers(0, 24)),
        later=st.sets(st.integers(0, 24)),
    )
    def test_mask_and_rows_agree(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        groups: list[int],
        dead: set[int],
        later: set[int],
    ) -> None:
        rows = sum(groups)
        found = corpus(str(tmp_path_factory.mktemp("run")), groups=groups)
        for label, gone in (("01-x", dead), ("02-y", later)):
            column = reasons(rows, out=[r for r in gone if r < rows])
            found = beside(found, label, True, groups, drop_reason=column)
        part = found.part(0)
        expected = [i for i in range(rows) if i not in dead | later]
        assert np.flatnonzero(part.alive()).tolist() == expected
        ids = part.table(["doc_id"]).column("doc_id").to_pylist()
        assert ids == [f"d{i}" for i in expected]


class TestCorpus:
    def test_parts_and_their_offsets(self, tmp_path: Path) -> None:
        found = corpus(str(tmp_path), parts=3)
        assert len(found) == 3
        assert found.offsets() == [0, ROWS, 2 * ROWS]
        assert found.part(1).name == "s-0001"
        assert found.part(1).table(["doc_id"]).column("doc_id")[0].as_py() == "p1-0"
        assert not found.has("a")
        assert beside(found, "01-x", a=[1] * ROWS).has("a")

    def test_adding_a_sidecar_leaves_the_old_corpus_alone(self, tmp_path: Path) -> None:
        found = corpus(str(tmp_path))
        beside(found, "01-x", a=[1] * ROWS)
        assert found.sidecars == ()


COLUMNS = ("text", "source", "a", "b", "c")


@st.composite
def corpora(draw: st.DrawFn) -> Corpus:
    """Corpora without files: states are made from checksums alone."""
    sidecars = []
    for i in range(draw(st.integers(0, 4))):
        columns = tuple(draw(st.sets(st.sampled_from(COLUMNS))))
        ref = FileRef(f"{i}.parquet", 1, f"checksum {i}", 1)
        sidecars.append(Sidecar(f"{i}", columns, draw(st.booleans()), (ref,)))
    documents_ref = FileRef("documents/d.parquet", 1, "checksum", 1)
    return Corpus("run", (documents_ref,), tuple(sidecars))


class TestState:
    def readable(self, found: Corpus, columns: list[str]) -> set[int]:
        """Sidecars that a reader of these columns opens, by number."""
        newest = {c: i for i, s in enumerate(found.sidecars) for c in s.columns}
        removers = {i for i, s in enumerate(found.sidecars) if s.removes}
        return removers | {newest[c] for c in columns if c in newest}

    @steady
    @given(corpora(), st.data())
    def test_changes_exactly_when_a_readable_file_changes(
        self, found: Corpus, data: st.DataObject
    ) -> None:
        written = {c for s in found.sidecars for c in s.columns} | {"text", "source"}
        columns = data.draw(st.lists(st.sampled_from(sorted(written)), unique=True))
        before = found.states(columns)[0]
        for i, sidecar in enumerate(found.sidecars):
            ref = replace(sidecar.files[0], checksum="other")
            changed = list(found.sidecars)
            changed[i] = replace(sidecar, files=(ref,))
            after = replace(found, sidecars=tuple(changed)).states(columns)[0]
            assert (after != before) == (i in self.readable(found, columns))
        ref = replace(found.documents[0], checksum="other")
        assert replace(found, documents=(ref,)).states(columns)[0] != before

    @steady
    @given(corpora(), st.booleans())
    def test_a_new_sidecar_counts_if_it_removes_or_writes_what_is_read(
        self, found: Corpus, removes: bool
    ) -> None:
        new = FileRef("new.parquet", 1, "new", 1)
        unread = found.with_sidecar(Sidecar("new", ("unread",), removes, (new,)))
        assert (unread.states(["text"])[0] != found.states(["text"])[0]) == removes
        read = found.with_sidecar(Sidecar("new", ("text",), removes, (new,)))
        assert read.states(["text"])[0] != found.states(["text"])[0]

    def test_names_of_files_and_of_the_run_folder_do_not_count(self, tmp_path: Path) -> None:
        here = beside(corpus(str(tmp_path / "here")), "01-x", a=[1] * ROWS)
        there = beside(corpus(str(tmp_path / "there")), "02-x", a=[1] * ROWS)
        assert here.states(["text", "a"])[0] == there.states(["text", "a"])[0]

    def test_order_of_the_columns_does_not_count(self, tmp_path: Path) -> None:
        found = beside(corpus(str(tmp_path)), "01-x", a=[1] * ROWS)
        assert found.states(["text", "a"])[0] == found.states(["a", "text"])[0]


STRUCT = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))])
VALUES: list[tuple[pa.DataType, list[Any]]] = [
    (pa.int64(), [1, 2, 3]),
    (pa.float32(), [1.5, None, 2.5]),
    (pa.bool_(), [True, False, True]),
    (pa.string(), ["a", "", "ü"]),
    (pa.large_string(), ["a", None, "ü" * 1000]),
    (pa.large_binary(), [b"a", b"", b"\xff"]),
    (pa.large_list(pa.int32()), [[1, 2], [], [3]]),
    (pa.list_(pa.float32(), 2), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
    (pa.list_(STRUCT), [[{"a": 1, "b": ["x"]}], [], [{"a": 2, "b": []}, {"a": 3, "b": ["y"]}]]),
    (pa.large_list(STRUCT), [[{"a": 1, "b": ["x"]}], [], [{"a": 2, "b": []}]]),
    (STRUCT, [{"a": 1, "b": ["x"]}, {"a": 2, "b": []}, {"a": 3, "b": ["y", "z"]}]),
    (pa.dictionary(pa.int32(), pa.string()), ["a", "b", "a"]),
    (pa.timestamp("us"), [1, 2, 3]),
    (pa.null(), [None, None, None]),
]


@pytest.mark.parametrize(("kind", "values"), VALUES, ids=[str(k)[:40] for k, _ in VALUES])
class TestScatter:
    def test_rows_go_to_their_places_and_the_rest_is_null(
        self, kind: pa.DataType, values: list[Any]
    ) -> None:
        table = pa.table({"x": pa.array(values, kind)})
        held = table.column("x").to_pylist()
        spread = scatter(table, np.array([4, 0, 2]), 6)
        assert spread.schema == table.schema
        assert spread.column("x").to_pylist() == [held[1], None, held[2], None, held[0], None]

    def test_of_no_rows_is_all_null(self, kind: pa.DataType, values: list[Any]) -> None:
        spread = scatter(pa.table({"x": pa.array([], kind)}), np.zeros(0, np.int64), 3)
        assert spread.column("x").to_pylist() == [None] * 3
        assert spread.schema.field("x").type == kind

    def test_survives_the_file(self, kind: pa.DataType, values: list[Any], tmp_path: Path) -> None:
        spread = scatter(pa.table({"x": pa.array(values, kind)}), np.array([1, 2, 5]), 6)
        ref = put(str(tmp_path), "x.parquet", spread, (3, 3))
        file = pq.ParquetFile(tmp_path / ref.name)
        assert file.num_row_groups == 2
        assert restored(file.read()).column("x").to_pylist() == spread.column("x").to_pylist()


@steady
@given(st.data())
def test_scatter_then_take_is_the_same_rows(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 30))
    places = data.draw(st.permutations(range(size)))[: data.draw(st.integers(0, size))]
    table = pa.table({"x": pa.array([[i] * i for i in range(len(places))], pa.list_(pa.int32()))})
    spread = scatter(table, np.array(places, dtype=np.int64), size)
    assert spread.num_rows == size
    assert spread.column("x").null_count == size - len(places)
    taken = spread.take(pa.array(places, pa.int64()))
    assert taken.column("x").to_pylist() == table.column("x").to_pylist()


class TestParquetGroups:
    def test_one_row_group_for_each_table(self) -> None:
        tables = [
            pa.table({"x": list(range(n))}, pa.schema([("x", pa.int64())])) for n in (2, 0, 5)
        ]
        meta = pq.ParquetFile(pa.BufferReader(parquet_groups(tables))).metadata
        assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [2, 0, 5]

    def test_same_tables_give_the_same_bytes(self) -> None:
        tables = [documents(5), documents(3)]
        again = [documents(5), documents(3)]
        assert parquet_groups(tables) == parquet_groups(again)

    def test_a_plain_file_is_as_any_reader_expects(self) -> None:
        table = pa.table({"ids": pa.array([[1], [2, 3]], pa.large_list(pa.int32()))})
        data = parquet_groups([table], plain=True)
        assert pq.read_table(pa.BufferReader(data)).equals(table)

    def test_nothing_is_a_file_with_a_schema(self) -> None:
        schema = pa.schema([(DROP_REASON, pa.string())])
        file = pq.ParquetFile(pa.BufferReader(parquet_groups([], schema)))
        assert (file.metadata.num_rows, file.schema_arrow) == (0, schema)
