import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.errors import RunError
from longctx.ids import mix64
from longctx.pack.concat import pack_concat
from longctx.pack.frame import Placement
from longctx.pack.window import pack_window
from longctx.pack.windows import (
    FramedDocuments,
    assemble,
    shuffle_key,
    shuffle_windows,
    window_id,
)
from longctx.schema import WINDOWS
from tests.pack.reference import documents, one_tour, steady

LENGTHS = [6, 5, 3, 12, 2, 4, 1]


def concat_windows(**options) -> pa.Table:
    plan = pack_concat(np.array(LENGTHS), one_tour(7), 10)
    return assemble(plan.placement, documents(LENGTHS), length=10, **options)


def test_window_id_of_the_specification():
    assert window_id([("d1", 0, 5), ("d2", 0, 3)]) == "d08e7bbeeb58ac4bf53db86577bf2f94"


def test_window_id_escapes_what_would_make_two_windows_look_alike():
    def plain(text: str) -> str:
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    assert window_id([("a\tb", 0, 1)]) == plain("a\\tb\t0\t1")
    assert window_id([("a\nb", 0, 1)]) == plain("a\\nb\t0\t1")
    assert window_id([("a\\b", 0, 1)]) == plain("a\\\\b\t0\t1")
    assert window_id([("문서 é", 2, 1)]) == plain("문서 é\t2\t1")


def test_rows_have_the_schema_and_the_tokens_of_their_segments():
    table = concat_windows()
    assert table.schema == WINDOWS
    assert table["n_tokens"].to_pylist() == [10, 10, 10, 3]
    row = table.slice(1, 1).to_pylist()[0]
    assert row["input_ids"] == [1004, 2000, 2001, 2002, *range(3000, 3006)]
    assert [s["doc_id"] for s in row["segments"]] == ["d1", "d2", "d3"]
    assert [(s["start"], s["end"]) for s in row["segments"]] == [(0, 1), (1, 4), (4, 10)]
    assert [s["doc_start"] for s in row["segments"]] == [4, 0, 0]
    assert [s["source"] for s in row["segments"]] == ["code", "books", "web"]
    assert [s["license"] for s in row["segments"]] == [None, "mit", None]
    assert row["window_id"] == window_id([("d1", 4, 1), ("d2", 0, 3), ("d3", 0, 6)])
    assert row["tour_id"] == "t0"


def test_next_token_is_the_token_after_a_cut_and_null_at_a_framedend():
    assert concat_windows()["next_token"].to_pylist() == [1004, 3006, 5002, None]


def test_next_token_of_a_dropped_separator_is_the_separator():
    docs = documents([10], separator=[99])
    plan = pack_window(np.array([11]), one_tour(1), 10, separator=1)
    table = assemble(plan.placement, docs, length=10)
    assert table["next_token"].to_pylist() == [99]
    assert table["n_tokens"].to_pylist() == [10]


def test_stats_count_distinct_framedsources_and_tours():
    placement = Placement(
        *np.array([[0, 0, 0, 0, 1], [3, 0, 3, 1, 4], [0, 0, 8, 0, 0], [4, 2, 9, 1, 2]])
    )
    docs = documents(LENGTHS, tours=["a", "b", "b", "b", "c", "c", "c"])
    table = assemble(placement, docs, length=10)
    stats = table["stats"].to_pylist()
    assert (stats[0]["n_docs"], stats[0]["n_sources"], stats[0]["n_tours"]) == (3, 2, 2)
    assert [s["fill"] for s in stats] == pytest.approx([0.8, 0.2])
    assert stats[0]["coherence"] is stats[0]["adjacent"] is None
    assert table["tour_id"].to_pylist() == ["b", "c"]


def test_coherence_and_adjacency_of_the_specification():
    angles = np.deg2rad([0, 60, 90, 0, 0, 30])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    lengths = [6, 3, 1, 10, 5, 5]
    placement = Placement(
        window=np.array([0, 0, 0, 1, 2, 2]),
        document=np.arange(6),
        start=np.zeros(6, np.int64),
        end=np.array(lengths),
    )
    table = assemble(placement, documents(lengths), length=10, embeddings=vectors)
    stats = table["stats"].to_pylist()
    assert stats[0]["coherence"] == pytest.approx(0.429558, abs=1e-6)
    assert stats[0]["adjacent"] == pytest.approx((0.5 + np.sqrt(0.75)) / 2, abs=1e-6)
    assert stats[1]["coherence"] is stats[1]["adjacent"] is None
    assert stats[2]["coherence"] == pytest.approx(np.sqrt(0.75), abs=1e-6)


def test_a_span_level_row_counts_doc_start_from_the_framedstart():
    docs = documents([4, 3])
    spans = FramedDocuments(
        docs.doc_id, docs.source, docs.license, docs.tokens, docs.offsets,
        origin=np.array([700, 20]),
    )  # fmt: skip
    plan = pack_concat(np.array([4, 3]), one_tour(2), 5)
    table = assemble(plan.placement, spans, length=5)
    found = [[s["doc_start"] for s in row] for row in table["segments"].to_pylist()]
    assert found == [[700, 20], [21]]
    assert table["stats"][0]["n_tours"].as_py() is None


def test_a_long_document_may_come_as_the_span_that_the_windows_need():
    whole = documents([50])
    plan = pack_concat(np.array([50]), one_tour(1), 10).placement
    some = Placement(plan.window[2:4], plan.document[2:4], plan.start[2:4], plan.end[2:4])

    def part(stop: int) -> FramedDocuments:
        return FramedDocuments(
            whole.doc_id,
            whole.source,
            whole.license,
            tokens=whole.tokens[20:stop],
            offsets=np.array([0, stop - 20]),
            tour_id=whole.tour_id,
            base=np.array([20]),
            length=np.array([50]),
        )

    assert assemble(some, part(41), length=10).equals(assemble(some, whole, length=10))
    with pytest.raises(RunError, match=r"tokens 40\.\.41 of document 'd0' for window 3"):
        assemble(some, part(40), length=10)
    with pytest.raises(RunError, match=r"tokens 30\.\.40 of document 'd0'"):
        assemble(some, part(39), length=10)


def test_no_windows_give_an_empty_table():
    plan = pack_concat(np.zeros(0, np.int64), one_tour(0), 10)
    table = assemble(plan.placement, documents([]), length=10)
    assert table.schema == WINDOWS
    assert len(table) == 0


def test_shuffle_sorts_by_the_mixed_head_of_the_window_id():
    table = concat_windows()
    ids = table["window_id"].to_pylist()
    heads = np.array([int(i[:16], 16) for i in ids], np.uint64)
    key = mix64(heads ^ np.uint64(17))
    assert shuffle_key(ids, 17).tolist() == key.tolist()
    assert shuffle_windows(table, 17)["window_id"].to_pylist() == [ids[i] for i in np.argsort(key)]
    reversed_rows = table.take(pa.array([3, 2, 1, 0]))
    assert shuffle_windows(reversed_rows, 17).equals(shuffle_windows(table, 17))


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_shards_filled_apart_are_slices_of_the_whole(workers):
    lengths = np.random.default_rng(4).integers(1, 40, 120)
    docs = documents(lengths, separator=[9, 8])
    p = pack_window(lengths + 2, one_tour(120), 25, separator=2, fill_policy="split").placement
    whole = assemble(p, docs, length=25)
    shards = []
    for windows in np.array_split(np.arange(len(whole)), workers):
        rows = np.isin(p.window, windows)
        shard = Placement(p.window[rows], p.document[rows], p.start[rows], p.end[rows])
        shards.append(assemble(shard, docs, length=25))
    assert pa.concat_tables(shards).equals(whole)


@steady
@given(
    st.lists(st.integers(0, 40), max_size=15),
    st.integers(1, 20),
    st.integers(0, 2),
    st.sampled_from(["concat", "none", "split"]),
)
def test_every_token_of_a_row_can_be_traced_to_its_document(lengths, length, separator, how):
    docs = documents(lengths, separator=[90_000 + i for i in range(separator)])
    framed = np.diff(docs.offsets)
    if how == "concat":
        plan = pack_concat(framed, one_tour(len(framed)), length)
    else:
        plan = pack_window(
            framed, one_tour(len(framed)), length, separator=separator, fill_policy=how
        )
    for row in assemble(plan.placement, docs, length=length).to_pylist():
        at = 0
        for segment in row["segments"]:
            assert segment["start"] == at
            first = int(docs.offsets[int(segment["doc_id"][1:])]) + segment["doc_start"]
            at = segment["end"]
            size = at - segment["start"]
            assert row["input_ids"][segment["start"] : at] == (
                docs.tokens[first : first + size].tolist()
            )
        assert at == row["n_tokens"] == len(row["input_ids"]) <= length


def test_ids_wider_than_int32_are_refused_before_they_wrap():
    docs = documents([3])
    with pytest.raises(ValueError, match="int32, got int64"):
        FramedDocuments(
            docs.doc_id, docs.source, docs.license, docs.tokens.astype(np.int64), docs.offsets
        )


def test_several_spans_of_one_document_count_as_one_document():
    names = pa.array(["a", "b", "a"])
    framed = FramedDocuments(
        names, names, names, np.arange(9, dtype=np.int32), np.array([0, 3, 6, 9])
    )
    zero = np.zeros(3, np.int64)
    placement = Placement(zero, np.arange(3), zero, np.full(3, 3))
    assert assemble(placement, framed, length=10)["stats"][0]["n_docs"].as_py() == 2
