import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.pack.frame import SentenceEnds, frame, framed_lengths, pack_blocks, pieces, streams
from tests.pack.reference import steady


def spans(lengths, length, **options):
    parts, counts = pieces(np.array(lengths), length, **options)
    rows = zip(parts.document, parts.start, parts.end, strict=True)
    return [tuple(int(x) for x in row) for row in rows], counts


def test_frame_adds_prefix_and_separator_and_skips_documents_without_text():
    tokens, offsets = frame(np.array([7, 8, 9], np.int32), np.array([0, 2, 2, 3]), (1,), (2, 3))
    assert tokens.tolist() == [1, 7, 8, 2, 3, 1, 9, 2, 3]
    assert tokens.dtype == np.int32
    assert offsets.tolist() == [0, 5, 5, 9]
    assert framed_lengths(np.array([2, 0, 1]), 1, 2).tolist() == [5, 0, 4]


def test_an_empty_document_is_counted_and_has_no_piece():
    got, counts = spans([0, 3], 10)
    assert got == [(1, 0, 3)]
    assert counts["empty_documents"] == 1


@pytest.mark.parametrize(
    ("framed", "separator", "sizes", "dropped"),
    [(12, 0, [10, 2], 0), (11, 1, [10], 1), (10, 1, [10], 0), (12, 1, [10, 2], 0)],
)
def test_pieces_of_the_specification(framed, separator, sizes, dropped):
    got, counts = spans([framed], 10, separator=separator)
    assert [e - s for _, s, e in got] == sizes
    assert counts["separators_dropped"] == counts["dropped_separator"] == dropped


def test_every_trailing_piece_of_separator_tokens_alone_is_dropped():
    got, counts = spans([6], 2, separator=5)
    assert got == [(0, 0, 2)]
    assert (counts["dropped_separator"], counts["separators_dropped"]) == (4, 1)


def test_a_separator_is_never_dropped_from_a_document_that_fits():
    assert spans([2], 2, separator=2)[0] == [(0, 0, 2)]


def test_min_tail_drops_a_short_last_piece_but_never_a_whole_document():
    got, counts = spans([12, 2, 13], 10, min_tail=3)
    assert got == [(0, 0, 10), (1, 0, 2), (2, 0, 10), (2, 10, 13)]
    assert counts["dropped_min_tail"] == 2


def test_long_documents_are_truncated_or_dropped_with_their_tokens_counted():
    got, counts = spans([12, 4], 10, long_documents="truncate")
    assert got == [(0, 0, 10), (1, 0, 4)]
    assert counts["dropped_truncated"] == 2
    got, counts = spans([12, 4], 10, long_documents="drop")
    assert got == [(1, 0, 4)]
    assert (counts["dropped_long"], counts["documents_dropped"]) == (12, 1)


@pytest.mark.parametrize("options", [{"length": 0}, {"length": 4, "long_documents": "cut"}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=r"length|long_documents"):
        pieces(np.array([3]), **options)


def ends_of(*documents) -> SentenceEnds:
    sizes = [len(d) for d in documents]
    values = [e for d in documents for e in d]
    return SentenceEnds(np.cumsum([0, *sizes]), np.array(values, np.int64))


def test_a_cut_moves_back_to_the_last_sentence_end_in_the_last_tenth():
    sentences = ends_of([10, 17, 18, 37, 50], [5], [19, 21])
    got, _ = spans([50, 20, 45], 20, ends=sentences)
    assert got == [
        (0, 0, 18), (0, 18, 37), (0, 37, 50),
        (1, 0, 20),
        (2, 0, 19), (2, 19, 39), (2, 39, 45),
    ]  # fmt: skip


def test_a_sentence_that_ends_where_the_window_does_moves_nothing():
    assert spans([30], 20, ends=ends_of([19, 20, 21]))[0] == [(0, 0, 20), (0, 20, 30)]


def test_separators_and_tails_are_dropped_behind_sentences_too():
    got, counts = spans([41, 23], 20, separator=3, min_tail=4, ends=ends_of([19, 38], [19]))
    assert got == [(0, 0, 19), (0, 19, 38), (1, 0, 19), (1, 19, 23)]
    assert (counts["dropped_separator"], counts["separators_dropped"]) == (3, 1)
    got, counts = spans([43], 20, min_tail=6, ends=ends_of([19, 38]))
    assert got == [(0, 0, 19), (0, 19, 38)]
    assert counts["dropped_min_tail"] == 5


def test_ends_of_some_documents_are_renumbered():
    part = ends_of([1, 2], [3], [], [4, 5]).of(slice(1, 4))
    assert (part.offsets.tolist(), part.values.tolist()) == ([0, 1, 1, 3], [3, 4, 5])


@steady
@given(st.lists(st.integers(0, 90), max_size=8), st.integers(1, 30), st.data())
def test_sentence_pieces_cover_documents_and_end_within_a_tenth(lengths, length, data):
    marks = [sorted(data.draw(st.sets(st.integers(1, 90), max_size=9))) for _ in lengths]
    marks = [[m for m in own if m <= n] for own, n in zip(marks, lengths, strict=True)]
    got, counts = spans(lengths, length, ends=ends_of(*marks))
    at = [0] * len(lengths)
    for doc, start, end in got:
        assert start == at[doc]
        at[doc] = end
        if end < lengths[doc]:
            late = [m for m in marks[doc] if start + length - length // 10 <= m <= start + length]
            assert end == (late[-1] if late else start + length)
        else:
            assert end - start <= length
    assert at == lengths
    assert counts["dropped_separator"] == 0
    assert (
        spans(lengths, length, ends=ends_of(*([] for _ in lengths)))[0] == spans(lengths, length)[0]
    )


@steady
@given(
    st.lists(st.integers(0, 60), max_size=12),
    st.integers(1, 12),
    st.integers(0, 3),
    st.integers(1, 5),
    st.sampled_from(["split", "truncate", "drop"]),
)
def test_pieces_of_a_document_are_its_first_tokens_and_the_rest_is_counted(
    lengths, length, separator, min_tail, long_documents
):
    got, counts = spans(
        lengths, length, separator=separator, min_tail=min_tail, long_documents=long_documents
    )
    at = [0] * len(lengths)
    for doc, start, end in got:
        assert start == at[doc]
        assert 1 <= end - start <= length
        at[doc] = end
    dropped = sum(n for key, n in counts.items() if key.startswith("dropped_"))
    assert sum(lengths) == counts["tokens_in"] == sum(at) + dropped


def test_streams_are_the_tours_unless_windows_may_cross_them():
    tour = np.array([0, 0, 3, 5, 5], np.int32)
    assert streams(tour, cross_tours=True).tolist() == [0, 5]
    assert streams(tour, cross_tours=False).tolist() == [0, 2, 3, 5]


def test_pack_blocks_follow_token_positions_and_not_the_slices():
    lengths = np.array([4, 6, 10, 1, 25, 3])
    whole = pack_blocks(lengths, 2, block_tokens=10)
    assert whole.tolist() == [0, 0, 1, 2, 2, 4]
    tail = pack_blocks(lengths[3:], 2, first_token=20, block_tokens=10)
    assert tail.tolist() == whole[3:].tolist()


def test_a_pack_block_holds_512_windows_and_at_least_64_mi_tokens():
    lengths = np.array([2**26 - 1, 1, 1, 512 * 2**18])
    assert pack_blocks(lengths, 8_192).tolist() == [0, 0, 1, 1]
    assert pack_blocks(np.array([512 * 2**18, 1]), 2**18).tolist() == [0, 1]
