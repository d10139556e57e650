"""Map stages on a part: aligned sidecars, rows that raise go alone, every row is counted once."""

import io
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.engine.corpus import ROW, Corpus, Sidecar
from longctx.engine.mapwork import MapWork, guarded, with_reasons, write_quarantine
from longctx.engine.op import DROP_REASON, Map, Model, RowsFailedError, Setting
from longctx.engine.stored import restored
from longctx.engine.summary import Stats
from longctx.engine.units import Sink
from longctx.errors import RunError
from longctx.io import paths
from tests.engine.parts import GROUPS, ROWS, beside, corpus, reasons

steady = settings(derandomize=True, deadline=None)
TOKENS = pa.large_list(pa.int32())
VECTOR = pa.list_(pa.float32(), 2)
WINDOWS = pa.list_(pa.struct([("start", pa.int64()), ("name", pa.string())]))


class Probe(Map):
    """Writes one column of every kind that the ops use; raises for the rows named in `bad`."""

    op: Literal["probe"] = "probe"
    bad: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    message: str = "cannot"

    summary: ClassVar[str] = "for tests"
    reads: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[tuple[str, ...]] = ("tokens", "vector", "windows", "n_tokens", "n_chars")

    def batch(self, table: pa.Table, setting: Setting) -> pa.Table:
        ids = table.column("doc_id").to_pylist()
        if set(ids) & set(self.bad):
            raise KeyError(self.message)
        sizes = [len(t) for t in table.column("text").to_pylist()]
        columns = {
            "tokens": pa.array([[n] * 3 for n in sizes], TOKENS),
            "vector": pa.array([[n, -n] for n in sizes], VECTOR),
            "windows": pa.array([[{"start": n, "name": None}] for n in sizes], WINDOWS),
            "n_tokens": pa.array(sizes, pa.int64()),
            "n_chars": pa.array(sizes, pa.int64()),
        }
        if self.drop:
            found = ["short" if i in self.drop else None for i in ids]
            columns[DROP_REASON] = pa.array(found, pa.string())
        return pa.table(columns)


def setting(run_dir: str, stage: str = "01-probe") -> Setting:
    return Setting(seed=0, tokenizer="", stage=stage, run_dir=run_dir, output="")


def work(run_dir: str, op: Map | Model, batch_bytes: int = 1 << 20) -> MapWork:
    return MapWork(op, setting(run_dir), list(op.reads), [], batch_bytes, "stages/01-probe")


def run(found: Corpus, op: Map, batch_bytes: int = 1 << 20) -> tuple[dict[str, Any], Sink]:
    sink = Sink(found.run_dir)
    return work(found.run_dir, op, batch_bytes)(found.part(0), sink), sink


def sidecar(found: Corpus, sink: Sink) -> pq.ParquetFile:
    return pq.ParquetFile(paths.join(found.run_dir, sink.files[0].name))


def quarantine(found: Corpus) -> list[dict[str, Any]]:
    data = paths.read_bytes(paths.join(found.run_dir, "quarantine/01-probe/s-0000.parquet"))
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return rows


def test_sidecar_has_the_rows_and_row_groups_of_the_documents(tmp_path: Path) -> None:
    found = corpus(str(tmp_path))
    stats, sink = run(found, Probe())
    file = sidecar(found, sink)
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == list(GROUPS)
    sizes = [len(f"text of d{i}") for i in range(ROWS)]
    table = restored(file.read())
    assert table.column("n_tokens").to_pylist() == sizes
    assert table.column("tokens").to_pylist() == [[n] * 3 for n in sizes]
    assert table.column("vector").type == VECTOR
    assert (stats["rows_in"], stats["rows_out"], stats["tokens"]) == (ROWS, ROWS, sum(sizes))
    assert sink.files[0].rows == ROWS
    assert len(sink.files) == 1


def test_dead_rows_are_not_seen_and_are_null(tmp_path: Path) -> None:
    found = beside(corpus(str(tmp_path)), "00-x", True, drop_reason=reasons(short=[0, 3, 5]))
    stats, sink = run(found, Probe(bad=("d0", "d3")))
    table = sidecar(found, sink).read()
    for name in ("tokens", "vector", "windows", "n_tokens"):
        assert [i for i, v in enumerate(table.column(name).to_pylist()) if v is None] == [0, 3, 5]
    assert (stats["rows_in"], stats["rows_out"], stats["quarantined"]) == (5, 5, 0)
    assert table.column(DROP_REASON).null_count == ROWS


def test_part_without_living_rows_has_a_sidecar_all_the_same(tmp_path: Path) -> None:
    everything = reasons(short=list(range(ROWS)))
    found = beside(corpus(str(tmp_path)), "00-x", True, drop_reason=everything)
    stats, sink = run(found, Probe())
    table = sidecar(found, sink).read()
    assert table.num_rows == ROWS
    assert table.column("vector").null_count == ROWS
    assert stats["rows_in"] == stats["rows_out"] == 0


def test_rows_that_raise_go_to_quarantine_alone(tmp_path: Path) -> None:
    found = corpus(str(tmp_path))
    stats, sink = run(found, Probe(bad=("d1", "d6")))
    table = sidecar(found, sink).read()
    expected = ["quarantined:KeyError" if i in (1, 6) else None for i in range(ROWS)]
    assert table.column(DROP_REASON).to_pylist() == expected
    assert table.column("n_tokens").null_count == 2
    assert stats["quarantine"] == {"KeyError": 2}
    assert (stats["rows_in"], stats["rows_out"]) == (ROWS, ROWS - 2)
    held = quarantine(found)
    assert [r["doc_id"] for r in held] == ["d1", "d6"]
    assert {r["stage"] for r in held} == {"01-probe"}
    assert all("raise KeyError" in r["detail"] for r in held)
    assert [f.rows for f in sink.files] == [ROWS, 2]


def test_result_does_not_depend_on_the_batches(tmp_path: Path) -> None:
    op = Probe(bad=("d2",), drop=("d4",))
    outcomes = []
    for name, limit in (("a", 1), ("b", 25), ("c", 1 << 20)):
        found = corpus(str(tmp_path / name))
        stats, sink = run(found, op, limit)
        content = paths.read_bytes(paths.join(found.run_dir, sink.files[0].name))
        outcomes.append((stats, content))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_batches_are_bounded_and_a_large_row_stands_alone(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    class Watching(Probe):
        def batch(self, table: pa.Table, setting: Setting) -> pa.Table:
            if table.num_rows:
                seen.append([len(t) for t in table.column("text").to_pylist()])
            return super().batch(table, setting)

    found = beside(
        corpus(str(tmp_path), groups=(6,)),
        "00-x",
        groups=(6,),
        text=pa.array(["x" * n for n in (4, 4, 4, 100, 1, 1)], pa.large_string()),
    )
    run(found, Watching(), 8)
    assert seen == [[4, 4], [4], [100], [1, 1]]


def test_drops_of_the_op_and_quarantine_are_told_apart(tmp_path: Path) -> None:
    found = corpus(str(tmp_path))
    stats, sink = run(found, Probe(bad=("d1",), drop=("d0", "d5")))
    assert stats["dropped"] == {"short": 2}
    assert stats["quarantine"] == {"KeyError": 1}
    assert stats["rows_out"] == ROWS - 3
    after = found.with_sidecar(Sidecar("01", Probe.writes, True, (sink.files[0],)))
    assert after.part(0).table(["n_tokens"]).column(ROW).to_pylist() == [2, 3, 4, 6, 7]


def test_lengths_of_an_earlier_stage_are_counted(tmp_path: Path) -> None:
    class Silent(Map):
        op: Literal["silent"] = "silent"

        def batch(self, table: pa.Table, setting: Setting) -> pa.Table:
            return pa.table({"x": pa.array([1] * table.num_rows, pa.int64())})

    found = corpus(str(tmp_path))
    _, sink = run(found, Probe(bad=("d7",)))
    after = found.with_sidecar(Sidecar("01", Probe.writes, True, (sink.files[0],)))
    later = MapWork(
        Silent(), setting(found.run_dir, "02-s"), [], ["n_tokens", "n_chars"], 100, "stages/02-s"
    )
    stats = later(after.part(0), Sink(found.run_dir))
    assert stats["rows_in"] == ROWS - 1
    assert stats["tokens"] == stats["chars"] == sum(len(f"text of d{i}") for i in range(ROWS - 1))


def test_counters_that_an_op_attaches_are_summed_over_batches_and_groups(tmp_path: Path) -> None:
    class Counting(Map):
        op: Literal["counting"] = "counting"
        reads: ClassVar[tuple[str, ...]] = ("text",)

        def batch(self, table: pa.Table, setting: Setting) -> pa.Table:
            if "d3" in table.column("doc_id").to_pylist():
                raise KeyError("cannot")
            counted = {"rows": table.num_rows, "by": {"s": table.num_rows}}
            column = pa.table({"x": pa.array([1] * table.num_rows, pa.int64())})
            return Stats.attach(column, counted)

    found = corpus(str(tmp_path))
    stats, sink = run(found, Counting(), 12)
    assert stats["stats"] == {"rows": ROWS - 1, "by": {"s": ROWS - 1}}
    assert Stats.KEY not in (sidecar(found, sink).schema_arrow.metadata or {})


@steady
@given(
    groups=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    dead=st.sets(st.integers(0, 23)),
    bad=st.sets(st.integers(0, 23)),
    drop=st.sets(st.integers(0, 23)),
    limit=st.integers(1, 60),
)
def test_every_row_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[int],
    dead: set[int],
    bad: set[int],
    drop: set[int],
    limit: int,
) -> None:
    rows = sum(groups)
    gone = reasons(rows, gone=[r for r in dead if r < rows])
    found = corpus(str(tmp_path_factory.mktemp("run")), groups=groups)
    found = beside(found, "00-x", True, groups, drop_reason=gone)
    op = Probe(bad=tuple(f"d{i}" for i in bad), drop=(*(f"d{i}" for i in drop), "-"))
    stats, sink = run(found, op, limit)
    living = set(range(rows)) - dead
    assert stats["rows_in"] == len(living)
    assert stats["quarantined"] == len(living & bad)
    assert sum(stats["dropped"].values()) == len(living & drop - bad)
    assert stats["rows_out"] == len(living - bad - drop)
    table = sidecar(found, sink).read()
    assert table.num_rows == rows
    assert table.column("tokens").null_count == rows - len(living - bad)
    for i in living - bad:
        assert table.column("n_chars")[i].as_py() == len(f"text of d{i}")


class TestQuarantine:
    def test_what_an_exception_says_is_bounded_and_storable(self, tmp_path: Path) -> None:
        found = corpus(str(tmp_path))
        run(found, Probe(bad=("d0",), message="\ud800" + "x" * 10**6))
        (held,) = quarantine(found)
        assert "\\ud800" in held["detail"]
        assert len(held["detail"]) < 20_000

    def test_second_run_without_bad_rows_removes_the_first_ones(self, tmp_path: Path) -> None:
        found = corpus(str(tmp_path))
        run(found, Probe(bad=("d0",)))
        assert len(quarantine(found)) == 1
        run(found, Probe())
        with pytest.raises(FileNotFoundError):
            quarantine(found)

    def test_rows_of_any_stage_can_be_written(self, tmp_path: Path) -> None:
        row = {
            "stage": "00-read",
            "doc_id": None,
            "location": "a\udcff.jsonl:3",
            "reason": "encoding",
            "detail": None,
            "payload": b"\xff",
        }
        write_quarantine(Sink(str(tmp_path)), "01-probe", "s-0000", [row])
        (held,) = quarantine(Corpus(str(tmp_path), ()))
        assert held == {**row, "location": "a\\udcff.jsonl:3"}


class TestGuarded:
    TABLE = pa.table({"doc_id": ["a", "b", "c", "d", "e"], ROW: pa.array(range(5), pa.int32())})

    def test_only_the_halves_with_a_bad_row_are_tried_again(self) -> None:
        calls: list[int] = []

        def rule(table: pa.Table) -> pa.Table:
            calls.append(table.num_rows)
            if "e" in table.column("doc_id").to_pylist():
                raise ValueError("e")
            return table

        bad: list[dict[str, Any]] = []
        kept = list(guarded(rule, self.TABLE, "s", bad))
        assert [t.column("doc_id").to_pylist() for t, _ in kept] == [["a", "b"], ["c"], ["d"]]
        assert [(b["doc_id"], b["row"], b["reason"]) for b in bad] == [("e", 4, "ValueError")]
        assert calls == [5, 2, 3, 1, 2, 1, 1]

    def test_rows_that_an_op_names_go_alone_and_nothing_is_tried_again(self) -> None:
        calls: list[int] = []

        def rule(table: pa.Table) -> pa.Table:
            calls.append(table.num_rows)
            output = Stats.attach(pa.table({"x": list(range(5))}), {"seen": 5})
            raise RowsFailedError(output, {3: KeyError("k"), 1: ValueError("v")})

        bad: list[dict[str, Any]] = []
        ((rows, output),) = guarded(rule, self.TABLE, "s", bad)
        assert rows.column("doc_id").to_pylist() == ["a", "c", "e"]
        assert output.column("x").to_pylist() == [0, 2, 4]
        assert Stats.detach(output)[1] == {"seen": 5}
        assert [(b["row"], b["reason"]) for b in bad] == [(1, "ValueError"), (3, "KeyError")]
        assert "ValueError: v" in bad[0]["detail"]
        assert calls == [5]

    @pytest.mark.parametrize("error", [RunError("storage"), MemoryError(), KeyboardInterrupt()])
    def test_what_is_no_fault_of_a_row_ends_the_unit(self, error: BaseException) -> None:
        def rule(table: pa.Table) -> pa.Table:
            raise error

        bad: list[dict[str, Any]] = []
        with pytest.raises(type(error)):
            list(guarded(rule, self.TABLE, "s", bad))
        assert bad == []

    def test_op_that_loses_rows_is_a_fault_not_a_quarantine(self) -> None:
        bad: list[dict[str, Any]] = []
        with pytest.raises(ValueError, match="one row for each row: got 4 for 5"):
            list(guarded(lambda t: t.slice(1), self.TABLE, "s", bad))
        assert bad == []


class TestWithReasons:
    def test_column_is_added_and_filled(self) -> None:
        table = with_reasons(pa.table({"x": [1, 2, 3]}), {1: "quarantined:x"})
        assert table.column(DROP_REASON).to_pylist() == [None, "quarantined:x", None]
        assert table.schema.field(DROP_REASON).type == pa.string()

    def test_reasons_of_the_op_stay(self) -> None:
        column = pa.array(["short", None, None])
        table = with_reasons(pa.table({DROP_REASON: column, "x": [1, 2, 3]}), {2: "quarantined:x"})
        assert table.column_names == [DROP_REASON, "x"]
        assert table.column(DROP_REASON).to_pylist() == ["short", None, "quarantined:x"]

    def test_no_rows(self) -> None:
        empty = pa.table({"x": pa.array([], pa.int64())})
        assert with_reasons(empty, {}).schema.field(DROP_REASON).type == pa.string()


def test_model_is_loaded_once_and_given_to_every_batch(tmp_path: Path) -> None:
    loads: list[str] = []

    class Loaded(Model):
        op: Literal["loaded"] = "loaded"
        reads: ClassVar[tuple[str, ...]] = ("text",)

        def load(self, setting: Setting) -> Any:
            loads.append(setting.stage)
            return 42

        def batch(self, table: pa.Table, setting: Setting, model: Any) -> pa.Table:
            return pa.table({"x": pa.array([model] * table.num_rows, pa.int64())})

    found = corpus(str(tmp_path))
    loaded = work(found.run_dir, Loaded(), 10).load()
    sink = Sink(found.run_dir)
    loaded(found.part(0), sink)
    assert loads == ["01-probe"]
    assert set(sidecar(found, sink).read().column("x").to_pylist()) == {42}
