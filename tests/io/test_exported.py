"""Records of an export: fields in their places, values that JSON lacks, and the files' borders."""

import gzip
import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.io.export_order import borders_of, files_of, shards_of, sort_keys
from longctx.io.exported import Shape, compressed, json_lines, record_table, row_groups

steady = settings(derandomize=True, deadline=None)


def rows(**changes: Any) -> pa.Table:
    """Two documents, the first with everything, the second with as little as there can be."""
    columns: dict[str, Any] = {
        "doc_id": ["a", "ß\n"],
        "text": pa.array(["one\ntwo \U0001f600", ""], pa.large_string()),
        "source": ["web", "book"],
        "language": ["en", None],
        "license": pa.array([None, None], pa.string()),
        "meta": ['{"url": "x/y", "stars": 3, "tags": ["p", null]}', None],
        "lf_score": pa.array([0.1, math.nan], pa.float32()),
        "spans": pa.array([[{"x": 1.5}], [{"x": math.inf}]]),
    }
    return pa.table({**columns, **changes})


def records(table: pa.Table, shape: Shape) -> tuple[list[dict[str, Any]], Counter[str]]:
    shadowed: Counter[str] = Counter()
    lines = list(json_lines(table, shape, shadowed))
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    return [json.loads(line, parse_constant=pytest.fail) for line in lines], shadowed


def test_fields_stand_in_their_places_and_meta_at_the_top():
    found, shadowed = records(rows(), Shape(columns=("lf_score",)))
    assert found == [
        {
            "id": "a",
            "text": "one\ntwo \U0001f600",
            "source": "web",
            "language": "en",
            "license": None,
            "url": "x/y",
            "stars": 3,
            "tags": ["p", None],
            "lf_score": float(np.float32(0.1)),
        },
        {
            "id": "ß\n",
            "text": "",
            "source": "book",
            "language": None,
            "license": None,
            "lf_score": None,
        },
    ]
    assert list(found[0])[:2] == ["id", "text"]
    assert list(found[0])[-1] == "lf_score"
    assert not shadowed


def test_values_inside_lists_that_json_lacks_are_null():
    found, _ = records(rows(), Shape(("id",), ("spans",)))
    assert [r["spans"] for r in found] == [[{"x": 1.5}], [{"x": None}]]


def test_names_are_changed_and_fields_left_out():
    shape = Shape(("text", "id"), ("lf_score",), {"text": "content", "lf_score": "score"})
    found, _ = records(rows(), shape)
    assert list(found[0]) == ["content", "id", "score"]


def test_a_field_of_meta_that_is_called_as_another_is_counted():
    table = rows(meta=['{"id": 7, "score": 1, "url": "u"}', '{"id": 8}'])
    found, shadowed = records(table, Shape(columns=("lf_score",), names={"lf_score": "score"}))
    assert found[0]["id"] == "a"
    assert found[0]["score"] == float(np.float32(0.1))
    assert found[0]["url"] == "u"
    assert shadowed == {"id": 2, "score": 1}
    # Where the record has no such field, that of meta stays.
    found, shadowed = records(table, Shape(("text", "meta"), ()))
    assert (found[0]["id"], shadowed) == (7, {})


def test_a_table_of_records_keeps_types_and_order():
    shape = Shape(("id", "meta"), ("spans", "lf_score"), {"id": "doc"})
    table = record_table(rows(), shape)
    assert table.column_names == ["doc", "meta", "spans", "lf_score"]
    assert table.schema.field("lf_score").type == pa.float32()


@pytest.mark.parametrize(
    ("how", "opened"),
    [
        ("none", lambda data: data),
        ("gz", gzip.decompress),
        ("zst", lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
    ],
)
def test_files_of_lines_are_reproducible(how, opened):
    lines = [b'{"a": %d}\n' % i for i in range(1000)]
    data = compressed(lines, how)
    assert opened(data) == b"".join(lines)
    assert compressed(lines, how) == data
    assert how == "none" or len(data) < 5000


def test_row_groups_hold_little_text_each():
    texts = ["x" * 20_000_000, "y" * 20_000_000, "z", "x" * 40_000_000, ""]
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    assert [len(g) for g in row_groups(table)] == [1, 2, 1, 1]
    assert [len(g) for g in row_groups(table.slice(0, 0))] == [0]


# Which rows lie in which file


@steady
@given(st.lists(st.lists(st.integers(1, 30), max_size=6), max_size=6), st.integers(1, 40))
def test_files_in_order_hold_each_byte_once(parts, limit):
    sizes = [size for part in parts for size in part]
    begins = np.cumsum([0, *sizes])[:-1]
    expected = Counter((begins // limit).tolist())
    found: Counter[int] = Counter()
    for number, group in enumerate(shards_of([sum(p) for p in parts], limit)):
        for index, before in group:
            starts = before + np.cumsum([0, *parts[index]])[:-1]
            found[number] += int((starts // limit == number).sum())
    assert +found == +expected


def test_nulls_come_last_in_both_directions():
    values = np.array([1.0, math.nan, -math.inf, 3.0, math.inf, 0.0, -0.0])
    down, up = (np.argsort(sort_keys(values, d), kind="stable").tolist() for d in (True, False))
    assert down == [4, 3, 0, 5, 6, 2, 1]
    assert up == [2, 5, 6, 0, 3, 4, 1]


@steady
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=40), st.integers(1, 9))
def test_sorted_files_follow_one_another(pairs, files):
    keys = np.array([k for k, _ in pairs], np.uint64)
    ids = [f"{i * 7 % 41:02d}" for i in range(len(pairs))]
    table = pa.table(
        {"key": keys, "doc_id": pa.array(ids, pa.string()), "size": [s for _, s in pairs]}
    )
    borders = borders_of(table, files)
    assert len(borders) < files
    found = files_of(keys, table["doc_id"], borders)
    order = sorted(range(len(pairs)), key=lambda i: (keys[i], ids[i]))
    assert (np.diff(found[order]) >= 0).all()
    assert set(found.tolist()) == set(range(len(borders) + 1)) or not pairs


def test_sorted_files_are_of_about_equal_size():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 5, 2000).astype(np.uint64)
    table = pa.table(
        {"key": keys, "doc_id": [f"{i:04d}" for i in range(2000)], "size": rng.integers(1, 9, 2000)}
    )
    found = files_of(keys, table["doc_id"], borders_of(table, 8))
    held = np.bincount(found, weights=table["size"].to_numpy())
    assert len(held) == 8
    assert held.max() - held.min() < 20
