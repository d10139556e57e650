"""`score.heuristics` and `decide` on small tables, without Ray."""

from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from longctx.engine.op import Setting
from longctx.errors import RunError
from longctx.filter.stages import ScoreHeuristics
from longctx.filter.stages_decide import Decide
from longctx.text.tokenize import load_tokenizer

SETTING = Setting(seed=1, tokenizer="embedded", stage="01-x", run_dir="", output="")


def scored(texts: list[str], **fields: Any) -> pa.Table:
    op = ScoreHeuristics(op="score.heuristics", **fields)
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    return op.batch(table, SETTING)


def reasons(table: pa.Table, **fields: Any) -> list[str | None]:
    found: list[str | None] = Decide(op="decide", **fields).judge(table).tolist()
    assert len(found) == table.num_rows
    return found


def numbers(values: list[Any], sources: str = "", kind: pa.DataType | None = None) -> pa.Table:
    names = list(sources) or ["s"] * len(values)
    return pa.table({"source": names, "x": pa.array(values, kind)})


def test_scores_have_the_declared_columns_for_every_text():
    table = scored(["one two three.", "", " \n\t ", "x"])
    assert tuple(table.column_names) == ScoreHeuristics.writes
    assert table.num_rows == 4
    assert table.column("n_chars").to_pylist() == [14, 0, 4, 1]
    assert table.column("n_words").to_pylist() == [3, 0, 0, 1]
    assert table.column("n_tokens").to_pylist()[1] == 0
    lengths = [len(ids) for ids in table.column("tokens").to_pylist()]
    assert table.column("n_tokens").to_pylist() == lengths


def test_an_empty_text_has_no_mean_word_length_and_no_words():
    row = scored(["", "  "]).to_pylist()
    assert [r["h_mean_word_len"] for r in row] == [None, None]
    assert all(w["h_n_words"] == 0 for r in row for w in r["h_windows"])


def test_tokens_are_those_of_the_tokenizer():
    text = "naïve 漢字 tokens <|endoftext|>"
    table = scored([text])
    ids = table.column("tokens")[0].as_py()
    tokenizer = load_tokenizer("embedded")
    assert ids == tokenizer.encode_batch([text])[0].tolist()
    assert tokenizer.eos_id not in ids


def test_windows_of_a_long_document_tile_it():
    text = "word " * 4_500
    windows = scored([text]).to_pylist()[0]["h_windows"]
    assert len(windows) > 1
    assert windows[0]["start_char"] == 0
    assert windows[-1]["end_char"] == len(text)
    joined = [w["start_char"] for w in windows[1:]]
    assert joined == [w["end_char"] for w in windows[:-1]]


def test_without_windows_there_are_none():
    table = scored(["some words here", "more"], windows=False)
    assert table.column("h_windows").to_pylist() == [None, None]


def test_an_empty_batch_keeps_the_columns():
    table = scored([])
    assert table.num_rows == 0
    assert tuple(table.column_names) == ScoreHeuristics.writes


def test_bounds_are_inclusive_and_name_the_side():
    table = numbers([1, 2, 3, 4])
    found = reasons(table, rules={"x": {"min": 2, "max": 3}})
    assert found == ["x < 2", None, None, "x > 3"]


def test_the_first_failing_rule_is_the_reason():
    table = numbers([1, 9]).append_column("y", pa.array([1, 9]))
    found = reasons(table, rules={"x": {"min": 5}, "y": {"min": 5}})
    assert found == ["x < 5", None]


def test_a_source_replaces_a_bound_and_inherits_the_others():
    table = numbers([1, 1, 9, 9], "abab").append_column("y", pa.array([0, 0, 0, 7]))
    rules = {"x": {"min": 5}, "y": {"max": 5}}
    found = reasons(table, rules=rules, per_source={"b": {"x": {"max": 5}}})
    assert found == ["x < 5", None, None, "x > 5"]
    only_b = reasons(table, per_source={"b": {"y": {"max": 5}}})
    assert only_b == [None, None, None, "y > 5"]


@pytest.mark.parametrize("value", [None, float("nan")])
def test_nulls_are_dropped_or_kept(value):
    table = numbers([1.0, value], kind=pa.float64())
    rules = {"x": {"min": 0}}
    assert reasons(table, rules=rules) == [None, "x is null"]
    assert reasons(table, rules=rules, nulls="keep") == [None, None]


def test_a_null_is_not_below_a_bound():
    assert reasons(numbers([None, 1], kind=pa.int64()), rules={"x": {"min": 5}}) == [
        "x is null",
        "x < 5",
    ]


def test_large_whole_numbers_have_bounds_too():
    assert reasons(numbers([2**53 + 1, 3]), rules={"x": {"max": 2**53}}) == [None, None]


def test_truth_values_have_bounds():
    assert reasons(numbers([True, False]), rules={"x": {"max": 0}}) == ["x > 0", None]


def test_a_column_of_words_is_refused_by_name():
    with pytest.raises(RunError, match=r"column `x` is string.*\n.*n_tokens"):
        reasons(numbers(["a", "b"]), rules={"x": {"min": 1}})


def test_an_empty_table_has_no_reasons():
    assert reasons(numbers([], kind=pa.int64()), rules={"x": {"min": 1}}) == []


def judged(texts: list[str], sources: list[str], **fields: Any) -> list[str | None]:
    table = scored(texts)
    table = table.append_column("source", pa.array(sources))
    table = table.append_column("language", pa.nulls(len(texts), pa.string()))
    op = Decide(op="decide", **fields)
    return reasons(table.select([*op.reads_columns(), "source"]), **fields)


PROSE = "\n\n".join(
    f"The {a} keeper of the {b} house went down to the harbour with a {c} in her hand, and she "
    f"told us that number {i} had been seen near the {b} {c} again."
    for i, (a, b, c) in enumerate(
        (a, b, c)
        for a in ("old", "young", "quiet", "tall")
        for b in ("light", "glass", "stone")
        for c in ("lamp", "rope", "letter")
    )
)


def test_a_profile_names_its_rule():
    found = judged([PROSE, "short"], ["a", "a"], profile="short_doc")
    assert found[1] == "too_short"
    assert judged([PROSE], ["a"], profile="long_doc") == ["min_bytes"]
    assert judged([PROSE], ["a"], profile="none", rules={"h_n_words": {"min": 3}}) == [None]


def test_profiles_by_source_win_over_the_profile():
    found = judged(["short"] * 2, ["a", "b"], profile="short_doc", profiles={"b": "none"})
    assert found == ["too_short", None]


def test_bounds_move_a_rule_of_the_profile():
    assert judged(["{ brace } " * 30], ["a"], profile="long_doc", bounds={"min_bytes": 10}) != [
        "min_bytes"
    ]


def test_a_rule_outranks_the_profile():
    found = judged(["short"], ["a"], profile="short_doc", rules={"h_n_words": {"min": 9}})
    assert found == ["h_n_words < 9"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "at least one of rules"),
        ({"rules": {"x": {}}}, "`min`, `max` or both"),
        ({"rules": {"x": {"min": 3, "max": 2}}}, "min 3 is above max 2"),
        ({"profile": "long_doc", "bounds": {"min_byte": 3}}, "did you mean 'min_bytes'"),
        ({"rules": {"x": {"min": 1}}, "bounds": {"min_bytes": 3}}, "for lack of a profile"),
        ({"profile": "longdoc"}, "long_doc"),
        ({"rules": {"x": {"minimum": 3}}}, "minimum"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Decide(op="decide", **fields)


def test_reads_only_what_it_names():
    op = Decide(op="decide", rules={"b": {"min": 1}}, per_source={"s": {"a": {"max": 2}}})
    assert op.reads_columns() == ("a", "b")
    assert "h_windows" in Decide(op="decide", profiles={"s": "code"}).reads_columns()
