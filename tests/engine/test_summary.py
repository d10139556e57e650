"""Summaries: counters that add up within a part, and merge by plain addition over parts."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.engine.summary import LENGTH_BINS, is_quarantine, merge, reasons_of, summarise

steady = settings(derandomize=True, deadline=None)
REASONS = st.sampled_from([None, None, "short", "copy", "quarantined:KeyError", "quarantined:x"])
ROW = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from(["MIT", None]),
    st.none() | st.integers(0, 2**40),
    REASONS,
)


def table(rows: list[tuple[Any, ...]]) -> tuple[pa.Table, pa.ChunkedArray]:
    columns = list(zip(*rows, strict=True)) or [[], [], [], []]
    before = pa.table(
        {
            "source": pa.array(columns[0], pa.string()),
            "license": pa.array(columns[1], pa.string()),
            "n_tokens": pa.array(columns[2], pa.int64()),
            "n_chars": pa.array(columns[2], pa.int64()),
        }
    )
    return before, pa.chunked_array([pa.array(columns[3], pa.string())])


def test_worked_example() -> None:
    before, reasons = table(
        [
            ("a", "MIT", 1, None),
            ("a", None, 1024, None),
            ("b", "MIT", 1023, None),
            ("b", None, 5, "short"),
            ("a", None, None, "quarantined:KeyError"),
        ]
    )
    found = summarise(before, reasons)
    lengths = found.pop("lengths")
    assert found == {
        "rows_in": 5,
        "rows_out": 3,
        "dropped": {"short": 1},
        "quarantined": 1,
        "quarantine": {"KeyError": 1},
        "removed_by_source": {"a": [1, 0], "b": [1, 0]},
        "by_source": {"a": [2, 1025], "b": [1, 1023]},
        "by_license": {"MIT": [2, 1024], "unknown": [1, 1024]},
        "tokens": 2048,
        "chars": 2048,
    }
    assert {i: n for i, n in enumerate(lengths) if n} == {0: 1, 9: 1, 10: 1}
    assert len(lengths) == LENGTH_BINS


def test_columns_that_are_not_there_are_not_zero() -> None:
    before, _ = table([("a", None, 3, None)])
    found = summarise(before.select(["source", "license"]), None)
    assert (found["tokens"], found["chars"], found["lengths"]) == (None, None, [])
    assert found["by_source"] == {"a": [1, 0]}
    assert (found["rows_in"], found["rows_out"], found["dropped"]) == (1, 1, {})


@pytest.mark.parametrize(
    ("tokens", "bin_number"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (2**31, 31), (2**40, 31)]
)
def test_length_bins_are_powers_of_two(tokens: int, bin_number: int) -> None:
    before, _ = table([("a", None, tokens, None)])
    assert summarise(before, None)["lengths"].index(1) == bin_number


@steady
@given(st.lists(ROW, max_size=30))
def test_rows_are_conserved(rows: list[tuple[Any, ...]]) -> None:
    found = summarise(*table(rows))
    gone = sum(found["dropped"].values()) + sum(found["quarantine"].values())
    assert found["rows_in"] == len(rows) == found["rows_out"] + gone
    assert found["quarantined"] == sum(found["quarantine"].values())
    assert sum(n for n, _ in found["by_source"].values()) == found["rows_out"]
    assert sum(n for n, _ in found["by_license"].values()) == found["rows_out"]
    assert sum(n for n, _ in found["removed_by_source"].values()) == gone
    assert sum(t for _, t in found["by_source"].values()) == found["tokens"]
    assert sum(found["lengths"]) == found["rows_out"]


@steady
@given(st.lists(ROW, max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_parts_merge_to_the_whole(rows: list[tuple[Any, ...]], one: int, two: int) -> None:
    first, second = sorted((one, two))
    cut = [rows[:first], rows[first:second], rows[second:]]
    parts = [summarise(*table(c)) for c in cut]
    whole = merge([summarise(*table(rows))])
    assert merge(parts) == whole
    assert merge(reversed(parts)) == whole
    assert merge([merge(parts[:1]), merge(parts[1:])]) == whole
    assert list(merge(parts)) == list(whole)


class TestMerge:
    def test_nothing_is_nothing(self) -> None:
        assert merge([]) == {}

    def test_does_not_change_what_it_adds(self) -> None:
        one: dict[str, Any] = {"n": 1, "d": {"x": [1, 2]}}
        merge([one, one])
        assert one == {"n": 1, "d": {"x": [1, 2]}}

    def test_absent_is_not_zero(self) -> None:
        assert merge([{"a": None}, {"a": 2}, {"b": 1}]) == {"a": 2, "b": 1}
        assert merge([{"a": None}, {"a": None}]) == {"a": None}
        assert merge([{"a": []}, {"a": [1, 2]}]) == {"a": [1, 2]}

    def test_lists_that_do_not_match_are_refused(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            merge([{"a": [1, 2]}, {"a": [1]}])


def test_reasons_of_a_sidecar() -> None:
    assert reasons_of(pa.table({"x": [1]})) is None
    found = reasons_of(pa.table({"drop_reason": ["short"]}))
    assert found is not None
    assert found.to_pylist() == ["short"]


def test_quarantine_is_told_from_a_drop() -> None:
    assert is_quarantine("quarantined:duplicate_id")
    assert not is_quarantine("short")
