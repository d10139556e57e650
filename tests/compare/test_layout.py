"""Columns are recognised by name and type, and what is not is explained."""

import pyarrow as pa
import pytest

from longctx.compare.layout import Options, layout_of
from longctx.errors import RecipeError
from longctx.schema import WINDOWS

IDS = pa.list_(pa.int32())


def test_our_own_windows_carry_names():
    found = layout_of(WINDOWS, Options(), "x")
    assert (found.values, found.form, found.boundaries) == ("input_ids", "segments", "segments")
    assert (found.doc_id, found.doc_start, found.source) == (True, True, True)
    assert found.columns == ["input_ids", "segments"]


@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        ({"input_ids": IDS, "seq_lengths": IDS}, {}, ("input_ids", "lengths", "seq_lengths")),
        ({"tokens": IDS, "cu_seqlens": IDS}, {}, ("tokens", "ends", "cu_seqlens")),
        ({"input_ids": IDS, "position_ids": IDS}, {}, ("input_ids", "positions", "position_ids")),
        ({"input_ids": IDS}, {}, ("input_ids", "eos", None)),
        ({"input_ids": IDS, "seq_lengths": IDS}, {"eos": 3}, ("input_ids", "eos", None)),
        ({"x": IDS, "b": IDS}, {"ids": "x", "boundaries": "b"}, ("x", "numbers", "b")),
        ({"input_ids": IDS, "segments": IDS}, {}, ("input_ids", "numbers", "segments")),
        ({"docs": pa.list_(pa.string()), "n": pa.int64()}, {}, ("docs", "texts", None)),
        (
            {"text": pa.large_string(), "cuts": IDS, "input_ids": IDS},
            {"text": "text", "boundaries": "cuts"},
            ("text", "characters", "cuts"),
        ),
    ],
)
def test_foreign_columns_are_recognised(columns, options, expected):
    found = layout_of(pa.schema(list(columns.items())), Options(**options), "x")
    assert (found.values, found.form, found.boundaries) == expected


@pytest.mark.parametrize(
    ("columns", "options", "message", "remedy"),
    [
        ({"a": pa.int64()}, {}, "no column of windows was recognised; the columns are: a", "--ids"),
        ({}, {}, "the columns are: none", "--ids"),
        ({"text": pa.string()}, {}, "no column of windows was recognised", "--text"),
        ({"text": pa.string()}, {"text": "text"}, "documents in `text` end", "--boundaries"),
        ({"input_ids": IDS}, {"ids": "input_id"}, "did you mean 'input_ids'?", "--ids"),
        ({"input_ids": IDS}, {"boundaries": "cuts"}, "no column `cuts`", "--boundaries"),
        ({"ids": pa.int64()}, {"ids": "ids"}, "holds int64, expected a list", "--ids"),
        ({"n": pa.int64()}, {"text": "n"}, "holds int64, expected text", "--text"),
        (
            {"input_ids": IDS, "b": pa.string()},
            {"boundaries": "b"},
            "holds string, expected a list of whole numbers",
            "--boundaries",
        ),
        ({"t": pa.string(), "b": pa.string()}, {"text": "t", "boundaries": "b"}, "offsets", "--b"),
        ({"t": pa.string()}, {"text": "t", "boundaries": "b"}, "no column `b`", "--boundaries"),
        ({"a": IDS}, {"ids": "a", "text": "a"}, "exclude each other", "name one"),
    ],
)
def test_what_is_not_recognised_is_explained(columns, options, message, remedy):
    with pytest.raises(RecipeError) as raised:
        layout_of(pa.schema(list(columns.items())), Options(**options), "file.parquet")
    assert message in raised.value.message
    assert remedy in raised.value.remedy
    assert raised.value.where in ("", "file.parquet")
