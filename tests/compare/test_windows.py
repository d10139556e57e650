"""Every form of packed windows is read as the same segments."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.compare.layout import Layout, Options, layout_of
from longctx.compare.windows import Packed, chosen, gather, read
from longctx.errors import RecipeError
from longctx.io.parquet_windows import trl_view
from longctx.pack.boundaries import cu_seqlens, positions
from longctx.text.tokenize import load_tokenizer
from tests.compare.packed import dealt, foreign, topical, written

TOKENIZER = load_tokenizer("embedded")
EOS = TOKENIZER.eos_id
DOCUMENTS = topical(24, seed=3)
TABLE = written(DOCUMENTS, dealt(DOCUMENTS, list(DOCUMENTS), 5))


def packed(table: pa.Table, **options: object) -> Packed:
    layout = layout_of(table.schema, Options(**options), "x")
    return gather([read(table, layout, TOKENIZER, "x")])


def same(a: Packed, b: Packed) -> bool:
    fields = ("borders", "tokens", "content", "priority")
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in fields)


@pytest.mark.parametrize("form", foreign(TABLE, DOCUMENTS))
def test_foreign_forms_hold_the_same_segments(form: str):
    ours, theirs = packed(TABLE), packed(foreign(TABLE, DOCUMENTS)[form])
    assert np.array_equal(ours.borders, theirs.borders)
    assert np.array_equal(ours.tokens, theirs.tokens)
    if form != "texts":  # the content of a text is its text
        assert same(ours, theirs)
    assert ours.document is not None
    assert (theirs.document, theirs.doc_start, theirs.source) == (None, None, None)


def test_our_view_for_trl_holds_the_same_segments():
    assert same(packed(TABLE), packed(trl_view(TABLE)))
    assert same(packed(TABLE.slice(2, 2)), packed(trl_view(TABLE.slice(2, 2))))


@pytest.mark.parametrize("form", ["ends", "positions"])
def test_padded_rows_as_a_trainer_gets_them(form: str):
    """`pack.boundaries` gives the padding a segment of its own; --pad takes it away again."""
    room, pad = 400, 5
    rows = TABLE.to_pylist()
    spans = [np.array([(s["start"], s["end"]) for s in row["segments"]]) for row in rows]
    made = {"ends": ("cu_seqlens", cu_seqlens), "positions": ("position_ids", positions)}
    name, make = made[form]
    table = pa.table(
        {
            "input_ids": [row["input_ids"] + [pad] * (room - row["n_tokens"]) for row in rows],
            name: [make(s, room, "intra").tolist() for s in spans],
        }
    )
    assert same(packed(table, pad=pad), packed(TABLE))
    assert int(packed(table).n_tokens.max()) == room


@settings(derandomize=True, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 6), max_size=5), min_size=1, max_size=6),
    st.integers(0, 4),
)
def test_borders_survive_any_form(lengths: list[list[int]], padding: int):
    ids, place = [], 100
    for row in lengths:
        ids.append([*range(place, place + sum(row)), *[9] * padding])
        place += sum(row) + 1
    stops = [np.cumsum(row).tolist() for row in lengths]
    forms = {
        "seq_lengths": lengths,
        "cu_seqlens": [[0, *row] for row in stops],
        "position_ids": [[*(i for n in row for i in range(n)), *range(padding)] for row in lengths],
        "segments": [
            [{"start": a, "end": b} for a, b in zip([0, *row], row, strict=False)] for row in stops
        ],
    }
    kinds = {"segments": pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())]))}
    for name, column in forms.items():
        table = pa.table(
            {
                "input_ids": pa.array(ids, pa.list_(pa.int64())),
                name: pa.array(column, kinds.get(name, pa.list_(pa.int64()))),
            }
        )
        found = packed(table, pad=9)
        assert found.borders.tolist() == np.cumsum([0, *map(len, lengths)]).tolist(), name
        assert found.tokens.tolist() == [n for row in lengths for n in row], name


@pytest.mark.parametrize(
    ("name", "column"),
    [("a", [[2, 3], [4]]), ("a", [[0, 2, 5], [0, 4]]), ("a", [[0, 1, 0, 1, 2], [0, 1, 2, 3]])],
)
def test_numbers_of_an_unknown_column_are_understood(name: str, column: list[list[int]]):
    table = pa.table({"input_ids": [[1, 2, 3, 4, 5], [6, 7, 8, 9]], name: column})
    assert packed(table, boundaries=name).tokens.tolist() == [2, 3, 4]


def test_a_separator_ends_a_document_and_padding_with_it_is_no_document():
    ids = [[1, 2, EOS, 3, EOS, EOS, EOS], [4, 5], [EOS, 6, 7]]
    table = pa.table({"input_ids": ids})
    assert packed(table, pad=EOS).tokens.tolist() == [3, 2, 2, 1, 2]
    assert packed(table).tokens.tolist() == [3, 2, 1, 1, 2, 1, 2]
    other = pa.table({"input_ids": [[1, 2, 13, 3, 13]]})
    assert packed(other, eos=13).tokens.tolist() == [3, 2]
    # Content has no separators, whichever they are.
    whole = packed(pa.table({"input_ids": [[1, 2, EOS, 3]]}))
    assert np.array_equal(packed(other, eos=13).content, whole.content)


def test_a_segment_without_text_has_no_content():
    found = packed(pa.table({"input_ids": [[EOS, 5, EOS]]}))
    assert found.content[0] == 0
    assert found.content[1] != 0


def test_text_is_cut_at_characters():
    text = "first. second! third?"
    for cuts in ([6, 14], [0, 6, 14, 21], [14, 6]):
        table = pa.table({"page": [text], "cuts": [cuts]})
        layout = layout_of(table.schema, Options(text="page", boundaries="cuts"), "x")
        batch = read(table, layout, TOKENIZER, "x")
        assert [batch.contents.text(i) for i in range(3)] == ["first.", " second!", " third?"]
        counted = [
            len(ids) + 1 for ids in TOKENIZER.encode_batch(["first.", " second!", " third?"])
        ]
        assert batch.tokens.tolist() == counted


def test_the_text_of_a_segment_is_that_of_its_document():
    layout = layout_of(TABLE.schema, Options(), "x")
    batch = read(TABLE, layout, TOKENIZER, "x")
    texts = [batch.contents.text(i) for i in range(len(batch.tokens))]
    assert texts == list(DOCUMENTS.values())


def test_segments_may_leave_room_and_names_may_be_missing():
    table = pa.table(
        {
            "input_ids": [[1, 2, 3, 4, 5, 6]],
            "segments": [[{"start": 1, "end": 3, "doc_id": None}, {"start": 4, "end": 5}]],
        }
    )
    found = packed(table)
    assert found.tokens.tolist() == [2, 1]
    assert found.document is None
    alone = packed(pa.table({"input_ids": [[2, 3], [5]], "seq_lengths": [[2], [1]]}))
    assert np.array_equal(found.content, alone.content)


SPANS = [{"start": 0, "end": 3}]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"seq_lengths": [[2, 2]]}, "has 3 tokens, but `seq_lengths` accounts for 4"),
        ({"seq_lengths": [[2]]}, "accounts for 2"),
        ({"seq_lengths": [[-1, 4]]}, "lengths below 0"),
        ({"cu_seqlens": [[0, 2, 1, 3]]}, "ends that do not rise"),
        ({"cu_seqlens": [[0, 9]]}, "accounts for 9"),
        ({"position_ids": [[0, 1]]}, "another number of entries"),
        ({"attention_mask": [[1, 1]], "cu_seqlens": [[3]]}, "another number of entries"),
        ({"attention_mask": [[0, 1, 1]], "cu_seqlens": [[3]]}, "zeros before ones"),
        ({"segments": [[{"start": 0, "end": 4}]]}, "overlap or leave their window"),
        ({"segments": [[*SPANS, {"start": 2, "end": 3}]]}, "overlap or leave their window"),
        ({"segments": [[{"start": None, "end": 3}]]}, "without start or end"),
        ({}, "nothing separates documents"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(columns, message: str):
    with pytest.raises(RecipeError, match="x: ") as raised:
        packed(pa.table({"input_ids": [[1, 2, 3]], **columns}))
    assert message in raised.value.message


def test_numbers_without_a_meaning_are_refused():
    with pytest.raises(RecipeError, match="neither lengths"):
        packed(pa.table({"input_ids": [[1, 2, 3]], "b": [[7, 1]]}), boundaries="b")


@pytest.mark.parametrize("wrong", [-1, TOKENIZER.vocab_size])
def test_ids_of_another_vocabulary_are_refused(wrong: int):
    with pytest.raises(RecipeError, match="outside the vocabulary") as raised:
        packed(pa.table({"input_ids": [[1, wrong]]}))
    assert "--tokenizer" in raised.value.remedy


def test_characters_beyond_the_text_are_refused():
    table = pa.table({"t": ["abc"], "b": [[4]]})
    with pytest.raises(RecipeError, match="has 3 characters, but `b` names 4"):
        read(table, Layout("t", "characters", "b"), TOKENIZER, "x")


def test_the_choice_of_windows_depends_on_what_they_hold():
    whole = packed(TABLE)
    order = [3, 0, 4, 2, 1]
    turned = packed(TABLE.take(order))
    picked, there = chosen(whole, 3), chosen(turned, 3)
    assert len(picked) == 3
    assert [order[i] for i in there] == picked.tolist()
    assert same(whole.take(picked), turned.take(there))
    assert same(whole.take(np.arange(5)), whole)
    assert chosen(whole, 99).tolist()[:3] == picked.tolist()


def test_windows_without_segments_are_kept():
    found = packed(pa.table({"input_ids": [[], [1, EOS], []]}))
    assert found.borders.tolist() == [0, 0, 1, 1]
    assert found.n_tokens.tolist() == [0, 2, 0]
    empty = gather([])
    assert (len(empty.borders), len(empty.tokens)) == (1, 0)
    assert replace(found).window.tolist() == [1]
