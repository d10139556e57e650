"""Reading lines and texts: what stands in a file becomes rows and bad rows; only storage raises."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from longctx.errors import RunError
from longctx.ids import doc_id_for
from longctx.io.read import Bad, Row, format_of, read
from longctx.io.records import PAYLOAD_LIMIT, storable
from tests.io.reading import BOM, bad, items, lines, notes, reasons, rows, spec, steady


class TestFormat:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("a.jsonl", "jsonl"),
            ("a.ndjson.gz", "jsonl"),
            ("A.JSONL.ZST", "jsonl"),
            ("a.json.zstd", "jsonl"),
            ("a.parquet", "parquet"),
            ("a.md", "text"),
            ("a.txt.gz", "text"),
            ("a.gz", None),
            ("a", None),
            ("a.jsonl.bz2", None),
        ],
    )
    def test_is_told_from_the_name(self, name: str, kind: str | None) -> None:
        assert format_of(name, "auto") == kind

    def test_declared_format_wins(self) -> None:
        assert format_of("a.txt", "jsonl") == "jsonl"


class TestFields:
    def test_names_are_configurable(self) -> None:
        record = {"body": "t", "key": 7, "origin": "o", "lang": "en", "terms": "MIT", "year": 1999}
        found = items(
            lines(record),
            text="body",
            id="key",
            source_field="origin",
            language="lang",
            license="terms",
            meta=["year", "absent"],
        )
        assert found == [Row("7", "t", "o", "en", "MIT", '{"year": 1999}')]

    def test_derived_id_comes_from_source_key_and_row(self) -> None:
        found = rows(items(lines({"text": "a"}, {"text": "a"}), "sub/a.jsonl"))
        assert [r.doc_id for r in found] == [doc_id_for("s/sub/a.jsonl", n) for n in (0, 1)]

    def test_constants_fill_what_is_absent(self) -> None:
        fields = {"constants": {"license": "MIT", "language": "en"}}
        found = rows(items(lines({"text": "a", "license": "GPL"}, {"text": "b"}), **fields))
        assert [(r.language, r.license) for r in found] == [("en", "GPL"), ("en", "MIT")]

    @pytest.mark.parametrize(
        ("record", "reason", "detail"),
        [
            ({"txet": "a"}, "missing_text", "field `text` is missing; fields: id, source, txet"),
            ({"text": None}, "missing_text", "field `text` is null"),
            ({"text": 3}, "text_type", "field `text` is int, expected a string"),
            ({"text": ["a"]}, "text_type", "field `text` is list"),
            ({"text": "a\ud800"}, "encoding", "field `text` holds a lone surrogate"),
            ({"text": "a", "id": None}, "missing_id", "field `id` is missing or null"),
            ({"text": "a", "id": 1.5}, "id_type", "field `id` is float"),
            ({"text": "a", "id": True}, "id_type", "field `id` is bool"),
            ({"text": "a", "id": [1]}, "id_type", "field `id` is list"),
            ({"text": "a", "id": " \t"}, "empty_id", "field `id` is empty"),
            ({"text": "a", "id": ""}, "empty_id", "field `id` is empty"),
            ({"text": "a", "id": "x\udfff"}, "encoding", "field `id` holds a lone surrogate"),
            ({"text": "a", "source": None}, "missing_source", "field `source` gives no source"),
            ({"text": "a", "source": "  "}, "missing_source", "field `source` gives no source"),
            ({"text": "a", "source": 4}, "missing_source", "field `source` gives no source"),
            ({"text": "a", "source": "\ud800"}, "encoding", "field `source` holds a lone"),
        ],
    )
    def test_bad_field_is_quarantined(
        self, record: dict[str, Any], reason: str, detail: str
    ) -> None:
        line = lines({"id": "x", "source": "o", **record})
        (found,) = items(line, id="id", source_field="source")
        assert isinstance(found, Bad)
        assert found.reason == reason
        assert found.detail.startswith(detail)
        assert found.location == "memory://read/a.jsonl:1"
        assert found.payload == line.rstrip(b"\n")

    @pytest.mark.parametrize("value", [0, -5, 2**80])
    def test_integer_ids_are_ids(self, value: int) -> None:
        assert rows(items(lines({"text": "a", "id": value}), id="id"))[0].doc_id == str(value)

    def test_absent_source_field(self) -> None:
        assert reasons(items(lines({"text": "a"}), source_field="origin")) == ["missing_source"]

    @pytest.mark.parametrize("value", [3, ["en"], "\ud800"])
    def test_optional_field_of_a_wrong_type_is_counted(self, value: Any) -> None:
        found = items(lines({"text": "a", "language": value}), constants={"language": "de"})
        assert notes(found) == {"no_string_in_language": 1}
        assert rows(found)[0].language == "de"

    def test_names_that_are_no_unicode_do_not_break_the_report(self) -> None:
        (found,) = bad(items(b'{"\\ud800": 1}\n'))
        assert found.detail == "field `text` is missing; fields: \\ud800"

    def test_long_field_names_are_cut(self) -> None:
        (found,) = bad(items(lines({"x" * 10**6: 1})))
        assert len(found.detail) < 1000

    def test_empty_text_is_a_document(self) -> None:
        assert rows(items(lines({"text": ""})))[0].text == ""

    def test_meta_keeps_surrogates_as_escapes(self) -> None:
        (found,) = rows(items(b'{"text": "a", "m": "\\ud800"}\n', meta=["m"]))
        assert found.meta == '{"m": "\\ud800"}'

    def test_meta_that_cannot_be_written_is_quarantined(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any, **__: Any) -> str:
            raise RecursionError("too deep")

        monkeypatch.setattr("longctx.io.records.json.dumps", refuse)
        assert reasons(items(b'{"text": "a", "m": 1}\n', meta=["m"])) == ["meta_type"]


class TestLines:
    def test_endings_blank_lines_and_mark(self) -> None:
        data = BOM + b'{"text": "a"}\r\n\r\n  \t\n{"text": "b"}\n\n{"text": "c"}'
        found = items(data)
        assert [r.text for r in rows(found)] == ["a", "b", "c"]
        assert notes(found) == {"byte_order_mark": 1, "blank_line": 3}
        assert bad(found) == []
        assert rows(found)[1].doc_id == doc_id_for("s/a.jsonl", 3)

    @pytest.mark.parametrize(
        ("line", "detail"),
        [
            (b'{"text": "a"', "not JSON: Expecting ',' delimiter"),
            (b'{"text": "a"} x', "not JSON: Extra data"),
            (b"3", "a row is a JSON object, got int"),
            (b"null", "a row is a JSON object, got NoneType"),
            (b'["text"]', "a row is a JSON object, got list"),
            (b"\x00", "not JSON"),
            (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "not JSON: Exceeds the limit"),
            (b"[" * 200_000, "not JSON: nested too deeply"),
            (b'{"text":' * 200_000, "not JSON: nested too deeply"),
            (BOM + b'{"text": "a"}', "not JSON"),
        ],
    )
    def test_broken_line_does_not_end_the_file(self, line: bytes, detail: str) -> None:
        found = items(lines({"text": "a"}) + line + b"\n" + lines({"text": "b"}))
        assert [r.text for r in rows(found)] == ["a", "b"]
        (broken,) = bad(found)
        assert (broken.reason, broken.location) == ("broken_line", "memory://read/a.jsonl:2")
        assert broken.detail.startswith(detail)

    def test_invalid_utf8_in_a_line(self) -> None:
        found = items(b'{"text": "a\xff"}\n' + lines({"text": "b"}))
        (broken,) = bad(found)
        assert (broken.reason, broken.detail) == ("encoding", "not utf-8 at byte 11")
        assert broken.payload == b'{"text": "a\xff"}'
        assert len(rows(found)) == 1

    def test_declared_encoding_is_used(self) -> None:
        data = '{"text": "é"}\n'.encode("latin-1")
        assert rows(items(data, encoding="latin-1"))[0].text == "é"
        assert reasons(items(data)) == ["encoding"]

    def test_utf16_file_is_quarantined_not_guessed(self) -> None:
        found = items('{"text": "a"}\n'.encode("utf-16"))
        assert rows(found) == []
        assert set(reasons(found)) <= {"encoding", "broken_line"}

    def test_one_long_line_is_a_document(self) -> None:
        size = 50 << 20
        data = b'{"text": "' + b"x" * size + b'"}\n' + lines({"text": "b"})
        found = rows(items(data))
        assert [len(r.text) for r in found] == [size, 1]

    def test_long_bad_line_keeps_a_bounded_head_and_says_so(self) -> None:
        size = 5 << 20
        (found,) = bad(items(b"x" * size))
        assert found.payload == b"x" * PAYLOAD_LIMIT
        assert found.detail.endswith(f"; the first 65,536 bytes of {size:,} bytes are kept")

    def test_many_bad_rows_hold_a_bounded_total(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("longctx.io.read.PAYLOAD_TOTAL", 1000)
        found = bad(items((b"x" * 300 + b"\n") * 50))
        assert len(found) == 50
        assert sum(len(b.payload) for b in found) == 900
        assert all(b.detail.endswith("; content not kept") for b in found[3:])
        assert not any("not kept" in b.detail for b in found[:3])

    @steady
    @given(st.lists(st.binary(max_size=30)).map(b"\n".join))
    def test_every_line_that_is_not_blank_is_counted_once(self, data: bytes) -> None:
        self.conserves(data)

    @steady
    @given(
        st.lists(
            st.one_of(
                st.sampled_from(
                    [b"", b" ", b"\r", BOM, b"{}", b'{"text": null}', b"\xff", b"\x0b"]
                ),
                st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(
                    lambda t: json.dumps({"text": t}).encode()
                ),
            )
        ).map(b"\n".join)
    )
    def test_lines_that_are_nearly_right_are_counted_once(self, data: bytes) -> None:
        self.conserves(data)

    def conserves(self, data: bytes) -> None:
        found = items(data)
        expected = sum(bool(line.strip()) for line in data.removeprefix(BOM).split(b"\n"))
        assert len(rows(found)) + sum(b.rows for b in bad(found)) == expected

    @steady
    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_text_is_not_changed(self, text: str) -> None:
        assert rows(items(lines({"text": text})))[0].text == text


class TestText:
    def test_one_file_is_one_document(self) -> None:
        (found,) = items(b"one\r\n\ntwo\n", "sub/a.txt", constants={"license": "CC0"})
        expected = doc_id_for("s/sub/a.txt", 0)
        assert found == Row(expected, "one\r\n\ntwo\n", "s", None, "CC0")

    def test_key_is_the_id_where_an_id_is_wanted(self) -> None:
        assert rows(items(b"x", "sub/a.md", id="id"))[0].doc_id == "sub/a.md"

    def test_mark_is_taken_off_and_counted(self) -> None:
        found = items(BOM + b"x", "a.txt")
        assert rows(found)[0].text == "x"
        assert notes(found) == {"byte_order_mark": 1}

    def test_empty_file_is_an_empty_document(self) -> None:
        assert rows(items(b"", "a.txt"))[0].text == ""

    def test_invalid_utf8(self) -> None:
        (found,) = bad(items(b"abc\xff", "a.txt"))
        assert (found.reason, found.detail) == ("encoding", "not utf-8 at byte 3")
        assert found.payload == b"abc\xff"

    def test_utf16_where_it_is_declared(self) -> None:
        data = "héllo".encode("utf-16")
        assert rows(items(data, "a.txt", format="text", encoding="utf-16"))[0].text == "héllo"
        assert reasons(items(data, "a.txt")) == ["encoding"]

    def test_source_cannot_come_from_a_field(self) -> None:
        assert reasons(items(b"x", "a.txt", source_field="source")) == ["missing_source"]


class TestStorage:
    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="no longer there") as caught:
            list(read(str(tmp_path / "a.jsonl"), "a.jsonl", spec()))
        assert caught.value.remedy
        assert caught.value.where.endswith("a.jsonl")

    @pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.txt", "a.jsonl.gz"])
    @pytest.mark.parametrize(
        "error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")]
    )
    def test_storage_that_fails_is_no_bad_row(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: OSError
    ) -> None:
        class Failing(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def seekable(self) -> bool:
                return True

            def seek(self, offset: int, whence: int = 0) -> int:
                return 100

            def readinto(self, buffer: Any) -> int:
                raise error

        monkeypatch.setattr(LocalFileSystem, "open", lambda *_, **__: io.BufferedReader(Failing()))
        with pytest.raises(RunError) as caught:
            list(read(str(tmp_path / name), name, spec()))
        assert caught.value.remedy

    def test_file_on_disk_is_read_from_a_local_path_and_a_file_url(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        file.write_bytes(lines({"text": "a"}))
        plain = list(read(str(file), "a.jsonl", spec()))
        assert plain == list(read(f"file://{file}", "a.jsonl", spec()))
        assert len(rows(plain)) == 1


@steady
@given(st.text(), st.integers(1, 50))
def test_what_is_stored_is_short_and_utf8(text: str, limit: int) -> None:
    kept = storable(text, limit)
    kept.encode()
    assert len(kept) <= 10 * limit + 40
    if len(text) <= limit and not any("\ud800" <= c <= "\udfff" for c in text):
        assert kept == text
