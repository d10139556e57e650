"""Which texts of an evaluation set are looked for, and what is said of files that are none."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard
from pydantic import ValidationError

from longctx.errors import RecipeError, RunError
from longctx.filter.evaluation import Value, parse_path, rows_of, values_of
from longctx.filter.stages_evaluation import Against, build_index, read_sets

LONGBENCH = {
    "input": "Who moved the lamp?",
    "context": "A very long story about a harbour. " * 80,
    "answers": ["the keeper", "her son"],
    "length": 900,
}


def values(rows: list[dict[str, Any]], *fields: str) -> list[tuple[int, str, str]]:
    numbered = [(n, row) for n, row in enumerate(rows, start=1)]
    return [tuple(v) for v in values_of(numbered, list(fields) or None, "set.jsonl")]


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("question", ("question",)),
        ("choices[*].text", ("choices", None, "text")),
        ("a.b[2][*]", ("a", "b", 2, None)),
    ],
)
def test_paths_lead_through_objects_and_lists(path: str, steps: tuple[Any, ...]) -> None:
    assert parse_path(path) == steps


@pytest.mark.parametrize("path", ["", "a..b", "a[", "[*]", "a[x]", ".a", "a[*]b"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no path to a field"):
        parse_path(path)
    with pytest.raises(ValidationError, match="no path to a field"):
        Against(path="x", fields=[path])


def test_named_fields_give_every_string_and_number_below_them() -> None:
    row = {"q": "how many", "choices": [{"text": "two", "label": "A"}, {"text": "three"}], "n": 42}
    assert values([row], "choices[*].text") == [
        (0, "choices[*].text", "two"),
        (0, "choices[*].text", "three"),
    ]
    assert values([row], "choices") == [(0, "choices", t) for t in ("two", "A", "three")]
    assert values([row], "choices[1]", "n") == [(0, "choices[1]", "three"), (0, "n", "42")]
    assert values([{**row, "n": None}, row], "n") == [(1, "n", "42")]


def test_without_fields_questions_and_answers_are_taken_and_contexts_are_not() -> None:
    fields = {field for _, field, _ in values([LONGBENCH])}
    assert fields == {"input", "answers"}
    helmet = {"question": "who", "answers": ["a"], "ctxs": [{"text": "long"}], "id": 3}
    assert {f for _, f, _ in values([helmet])} == {"question", "answers"}


def test_half_a_character_does_not_end_the_reading() -> None:
    assert values([{"question": "a\ud800b"}]) == [(0, "question", "a?b")]


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        ([], (), "has no rows"),
        ([{"passage": "x", "id": 1}], (), "no row has a field with a usual name.*id, passage"),
        ([{"question": "x"}], ("qestion",), "`qestion`; did you mean 'question'.*question"),
        ([{"a": [1]}], ("a[3]",), r"no row has a value at `a\[3\]`"),
    ],
)
def test_fields_that_are_nowhere_are_an_error_with_those_that_are(
    rows: list[dict[str, Any]], fields: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as told:
        values(rows, *fields)
    assert told.value.where == "set.jsonl"
    assert told.value.remedy


def test_jsonl_lists_and_paragraphs_are_rows() -> None:
    lines = '\ufeff{"q": 1}\n\n{"q": 2}\n'.encode()
    assert rows_of(lines, "a.jsonl", "a") == [(1, {"q": 1}), (3, {"q": 2})]
    assert rows_of(b'[{"q": 1},\n {"q": 2}]', "a.json", "a") == [(1, {"q": 1}), (1, {"q": 2})]
    assert rows_of(b'{"q": 1}\n{"q": 2}', "a.json", "a") == [(1, {"q": 1}), (2, {"q": 2})]
    text = rows_of("one\nline\n \n\n二\0".encode(), "a.txt", "a")
    assert text == [(1, {"text": "one\nline"}), (1, {"text": "二\0"})]
    assert rows_of(b" \n\n", "a.txt", "a") == []


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b'{"q": 1}\n{"q": \n', "a.jsonl", r"^a:2: .*not JSON \(Expecting value\)"),
        (b'{"q": 1}\n[1]', "a.jsonl", "^a:2: .*a row is a JSON object, found list"),
        (b'[{"q": 1},\n oops]', "a.json", "^a:2: .*not JSON"),
        (b"[1]", "a.json", "^a:1: .*found int"),
        (b'{"q": "x"}\n{"q": "\xff"}', "a.jsonl", "^a:2: .*not UTF-8"),
        (b"[" * 100_000, "a.jsonl", "^a:1: .*not JSON"),
    ],
)
def test_a_malformed_file_is_an_error_with_its_line(data: bytes, name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        rows_of(data, name, "a")


def write(folder: Path, name: str, *rows: dict[str, Any]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if name.endswith(".gz"):
        data = gzip.compress(data)
    if name.endswith(".zst"):
        data = zstandard.compress(data)
    (folder / name).write_bytes(data)
    return folder / name


def test_every_file_is_a_set_unless_they_have_one_name(tmp_path: Path) -> None:
    write(tmp_path, "b.jsonl.gz", {"question": "b"})
    write(tmp_path, "a.JSONL", {"question": "a0"}, {"question": "a1"})
    write(tmp_path, "c.jsonl.zst", {"question": "c"})
    write(tmp_path, "notes.csv", {"question": "d"})
    sets = Against(path=str(tmp_path)).values("here")
    assert {name: [v.text for _, v in found] for name, found in sets.items()} == {
        "a": ["a0", "a1"],
        "b": ["b"],
        "c": ["c"],
    }
    together = Against(path=str(tmp_path), name="all").values("here")
    assert {name: [v.row for _, v in found] for name, found in together.items()} == {
        "all": [0, 1, 2, 3]
    }


def test_a_text_file_is_looked_for_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first\n\nsecond")
    expected = {"a": [(True, Value(0, "text", "first")), (True, Value(1, "text", "second"))]}
    assert Against(path=str(tmp_path / "a.txt")).values("x") == expected
    assert Against(path=str(tmp_path / "a.txt"), fields=["text"]).values("x") == expected


def test_files_that_cannot_be_read_are_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^here\.path: no file matches .*none\.jsonl"):
        Against(path=str(tmp_path / "none.jsonl")).files("here")
    write(tmp_path, "notes.csv", {})
    with pytest.raises(RecipeError, match=r"cannot tell the format of .*notes\.csv"):
        Against(path=str(tmp_path / "notes.csv")).files("here")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(RecipeError, match=r"cut\.jsonl\.gz: .*stream breaks off"):
        Against(path=str(tmp_path / "cut.jsonl.gz")).values("here")


def test_a_set_is_known_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    first = write(tmp_path, "a.jsonl", {"question": "x"})
    (tmp_path / "moved").mkdir()
    moved = write(tmp_path / "moved", "a.jsonl", {"question": "x"})
    known = Against(path=str(first)).identity("x")
    assert Against(path=str(moved)).identity("x") == known
    assert Against(path=str(moved), fields=["question"]).identity("x") != known
    assert Against(path=str(moved), name="b").identity("x") != known
    write(tmp_path / "moved", "a.jsonl", {"question": "another"})
    assert Against(path=str(moved)).identity("x") != known


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path, "a.jsonl", {"question": "x"})
    again = [Against(path=str(one)), Against(path=str(one), fields=["question"])]
    with pytest.raises(RecipeError, match=r"against\.1: two evaluation sets have the name a"):
        read_sets(again, "03-x")


def test_the_index_counts_what_is_looked_for_too_short_or_a_context(tmp_path: Path) -> None:
    words = [f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(600)]
    row = {"question": " ".join(words[:20]), "input": " ".join(words), "answer": "yes"}
    whole = write(tmp_path, "whole.jsonl", row, {"question": " ".join(words[30:40])})
    short = write(tmp_path, "short.jsonl", {"question": "too few words"})
    against = [Against(path=str(p)) for p in (whole, short)]
    files = build_index(against, 13, 8, "03-x")
    metadata = files["grams.parquet"].schema.metadata or {}
    stats = json.loads(metadata[b"longctx.stats"])
    assert stats["sets"]["whole"] == {"looked_for": 2, "too_short": 1, "contexts": 1}
    assert stats["sets"]["short"] == {"looked_for": 0, "too_short": 1}
    assert list(stats["warnings"]) == [
        "nothing of the evaluation set short is long enough to look for"
    ]
    assert files["grams.parquet"].column("width").to_pylist().count(13) == 8
    assert files["grams.parquet"].column("width").to_pylist().count(10) == 1
    assert files["items.parquet"].column("row").to_pylist() == [0, 1]
    named = build_index([Against(path=str(whole), fields=["input"])], 13, 8, "03-x")
    assert named["grams.parquet"].num_rows == 588
    with pytest.raises(RunError, match="no evaluation set has a text of at least 8 tokens"):
        build_index(against[1:], 13, 8, "03-x")
