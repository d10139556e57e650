"""Reading Parquet: string types, text that is not UTF-8, damage, and rows that keep their place."""

import datetime
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.ids import doc_id_for
from tests.io.reading import bad, items, notes, reasons, rows, steady


def parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def not_utf8(kind: pa.DataType, *values: bytes) -> pa.Array:
    """A string column that holds these bytes, as a careless writer leaves them."""
    binary = pa.array(values, pa.large_binary() if kind == pa.large_string() else pa.binary())
    return pa.Array.from_buffers(kind, len(values), binary.buffers())


class TestParquet:
    def table(self, count: int = 10, **columns: Any) -> pa.Table:
        return pa.table({"text": [f"text {i}" for i in range(count)], **columns})

    @pytest.mark.parametrize("groups", [1, 3, 10])
    def test_rows_keep_their_place_whatever_the_row_groups(self, groups: int) -> None:
        found = rows(items(parquet(self.table(), row_group_size=groups), "a.parquet"))
        assert [r.text for r in found] == [f"text {i}" for i in range(10)]
        assert [r.doc_id for r in found] == [doc_id_for("s/a.parquet", i) for i in range(10)]

    @pytest.mark.parametrize(
        "kind",
        [
            pa.string(),
            pa.large_string(),
            pa.binary(),
            pa.large_binary(),
            pa.dictionary(pa.int32(), pa.string()),
        ],
    )
    def test_text_of_every_string_type(self, kind: pa.DataType) -> None:
        column = pa.array(["a", "é", None, "a"], pa.string()).cast(kind)
        found = items(parquet(pa.table({"text": column})), "a.parquet")
        assert [r.text for r in rows(found)] == ["a", "é", "a"]
        assert [(b.reason, b.location) for b in bad(found)] == [
            ("missing_text", "memory://read/a.parquet#row=2")
        ]

    @pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
    def test_invalid_utf8_costs_its_row_only(self, kind: pa.DataType) -> None:
        column = not_utf8(kind, b"a", b"b\xff", "ü".encode())
        table = pa.table({"text": column, "id": ["1", "2", "3"]})
        found = items(parquet(table), "a.parquet", id="id")
        assert [(r.doc_id, r.text) for r in rows(found)] == [("1", "a"), ("3", "ü")]
        (broken,) = bad(found)
        assert (broken.reason, broken.payload) == ("encoding", b"b\xff")

    def test_invalid_utf8_in_other_columns(self) -> None:
        table = pa.table(
            {
                "text": ["a", "b"],
                "id": not_utf8(pa.string(), b"1", b"\xff"),
                "language": not_utf8(pa.string(), b"\xff", b"de"),
            }
        )
        found = items(parquet(table), "a.parquet", id="id")
        assert [r.doc_id for r in rows(found)] == ["1"]
        assert notes(found) == {"no_string_in_language": 1}
        assert reasons(found) == ["id_type"]

    def test_invalid_utf8_in_a_dictionary(self) -> None:
        values = not_utf8(pa.string(), b"good", b"\xff")
        column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), values)
        found = items(parquet(pa.table({"text": column})), "a.parquet")
        assert [r.text for r in rows(found)] == ["good", "good"]
        assert reasons(found) == ["encoding"]

    def test_meta_of_every_kind_is_json(self) -> None:
        day = datetime.datetime(2024, 1, 2)
        table = pa.table(
            {
                "text": ["a"],
                "when": pa.array([1704153600_000_000_001], pa.timestamp("ns")),
                "day": [day],
                "raw": [b"\xff"],
                "nested": [{"x": [1, None]}],
                "number": [2.5],
            }
        )
        names = ["when", "day", "raw", "nested", "number"]
        (found,) = rows(items(parquet(table), "a.parquet", meta=names))
        assert found.meta is not None
        meta = json.loads(found.meta)
        assert meta["nested"] == {"x": [1, None]}
        assert meta["number"] == 2.5
        assert meta["when"].startswith("2024-01-02 00:00:00")
        assert meta["day"].startswith("2024-01-02 00:00:00")

    def test_meta_that_cannot_be_read_costs_its_row_only(self) -> None:
        inner = pa.ListArray.from_arrays([0, 1, 2], not_utf8(pa.string(), b"ok", b"\xff"))
        table = pa.table({"text": ["a", "b"], "tags": inner})
        found = items(parquet(table), "a.parquet", meta=["tags"])
        assert [r.meta for r in rows(found)] == ['{"tags": ["ok"]}']
        assert reasons(found) == ["meta_type"]

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [(pa.float64(), "id_type"), (pa.bool_(), "id_type"), (pa.int64(), None)],
    )
    def test_ids_of_numbers(self, kind: pa.DataType, reason: str | None) -> None:
        table = self.table(1, id=pa.array([1], pa.int64()).cast(kind))
        found = items(parquet(table), "a.parquet", id="id")
        assert reasons(found) == ([reason] if reason else [])
        assert [r.doc_id for r in rows(found)] == ([] if reason else ["1"])

    def test_missing_text_column_counts_all_rows(self) -> None:
        (found,) = bad(items(parquet(self.table(7).rename_columns(["body"])), "a.parquet"))
        assert (found.reason, found.rows) == ("missing_text", 7)
        assert found.detail == "no column `text`; columns: body"

    def test_two_columns_of_one_name_count_all_rows(self) -> None:
        table = pa.Table.from_arrays([pa.array(["a", "b"]), pa.array(["c", "d"])], ["text", "text"])
        (found,) = bad(items(parquet(table), "a.parquet"))
        assert (found.reason, found.rows) == ("ambiguous_column", 2)

    @pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all", b"\x00" * 100])
    def test_not_a_parquet_file(self, data: bytes) -> None:
        (found,) = bad(items(data, "a.parquet"))
        assert (found.reason, found.rows) == ("unreadable_file", 1)

    def test_no_rows(self) -> None:
        assert items(parquet(self.table(0)), "a.parquet") == []

    def damaged(self, group: int) -> bytes:
        data = bytearray(
            parquet(
                self.table(300),
                row_group_size=100,
                compression="none",
                use_dictionary=False,
                write_page_checksum=True,
            )
        )
        # One letter: only the page's checksum can tell.
        place = data.index(f"text {group * 100 + 50}".encode())
        data[place] = ord("T")
        return bytes(data)

    @pytest.mark.parametrize("group", [0, 1, 2])
    def test_damage_in_the_middle_costs_its_row_group_only(self, group: int) -> None:
        found = items(self.damaged(group), "a.parquet")
        (broken,) = bad(found)
        assert (broken.reason, broken.rows) == ("unreadable_file", 100)
        assert broken.location == f"memory://read/a.parquet#row={group * 100}"
        whole = rows(items(parquet(self.table(300)), "a.parquet"))
        assert rows(found) == [r for i, r in enumerate(whole) if i // 100 != group]

    @steady
    @given(st.data())
    def test_no_damage_raises_or_invents_rows(self, data: st.DataObject) -> None:
        content = bytearray(parquet(self.table(20), row_group_size=10, compression="zstd"))
        place = data.draw(st.integers(4, len(content) - 1))
        length = data.draw(st.integers(1, 40))
        content[place : place + length] = data.draw(st.binary(min_size=length, max_size=length))
        found = items(bytes(content), "a.parquet")
        assert len(rows(found)) <= 20
        assert found

    def test_large_rows_are_read_in_small_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[int] = []
        real = pq.ParquetFile.iter_batches

        def spy(self: Any, batch_size: int, **options: Any) -> Any:
            asked.append(batch_size)
            return real(self, batch_size, **options)

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
        table = pa.table({"text": [f"{i}" * (4 << 20) for i in range(6)]})
        data = parquet(table, compression="none", use_dictionary=False)
        assert len(rows(items(data, "a.parquet"))) == 6
        assert max(asked) <= 2
