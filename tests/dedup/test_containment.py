"""Samples of chunks and who covers whom, against sets and dictionaries and on planted copies."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.dedup.chunk_samples import (
    Samples,
    chunk_samples,
    chunks_of,
    in_places,
    run_sums,
    spread,
)
from longctx.dedup.chunking import Grid, Sampling
from longctx.dedup.containment import (
    Coverage,
    address,
    containment,
    coverage,
    distinct_samples,
    evaluated,
    meetings,
    part_of,
    row_of,
    self_covered,
)
from longctx.dedup.kernel import SLICE
from tests.dedup.plain_containment import cut, plain_scores

DEFAULT, DEFAULT_GRID = Sampling(), Grid()
# Every shingle counts, so that small documents say what the rules do.
ALL = Sampling(ngram=1, one_in=1, chunk=5, min_last=3)
ALL_GRID = Grid(chunk=5, min_last=3, min_samples=1, tau=0.6)
Spans = tuple[int, int]


def word(number: int) -> str:
    """A word of letters of its own for each number: digits would all count as one."""
    return "".join(chr(97 + number // 26**i % 26) for i in range(5))


def words(*spans: Spans) -> str:
    return " ".join(word(i) for a, b in spans for i in range(a, b))


def document_samples(held: Samples, sampling: Sampling) -> np.ndarray:
    return run_sums(held.sizes, chunks_of(held.words, sampling.chunk, sampling.min_last))


def covered(
    texts: Sequence[str], sampling: Sampling, grid: Grid, max_df: int, parts: int
) -> list[tuple[np.ndarray, Coverage]]:
    """Document numbers and coverage of every part; the documents are dealt to the parts.

    Addresses in the result are turned into document numbers.
    """
    dealt = [np.arange(p, len(texts), parts) for p in range(parts)]
    held = [chunk_samples([texts[i] for i in d], sampling) for d in dealt]
    own = [address(p, np.arange(len(d), dtype=np.int32)) for p, d in enumerate(dealt)]
    rows = [
        distinct_samples(h.hashes, np.repeat(o, document_samples(h, sampling)), max_df + 1)
        for h, o in zip(held, own, strict=True)
    ]
    met = meetings(*(np.concatenate(c) for c in zip(*rows, strict=True)), max_df)
    found = []
    for p in range(parts):
        chosen = np.flatnonzero(met.parts == p)
        mine = met._replace(
            shingles=met.shingles[chosen],
            parts=met.parts[chosen],
            counts=met.counts[chosen],
            documents=spread(met.documents, met.counts, chosen),
        )
        cover = coverage(held[p], own[p], mine, grid)
        number = part_of(cover.other) + parts * row_of(cover.other)
        found.append((dealt[p], cover._replace(other=number.astype(np.int64))))
    return found


def shares(texts: Sequence[str]) -> dict[tuple[int, int], float]:
    """(document, other) -> coverage with the defaults."""
    held, found = containment(texts, DEFAULT, DEFAULT_GRID)
    rows = zip(found.document.tolist(), found.other.tolist(), found.words.tolist(), strict=True)
    return {(a, b): w / held.words[a] for a, b, w in rows}


@pytest.mark.parametrize(
    ("n_words", "chunks"),
    [(0, 0), (1, 1), (511, 1), (1024, 1), (1535, 1), (1536, 2), (2048, 2), (2559, 2), (2560, 3)],
)
def test_a_short_last_piece_joins_the_chunk_before_it(n_words: int, chunks: int) -> None:
    assert chunks_of(np.array([n_words]), 1024, 512).tolist() == [chunks]
    assert len(cut(words((0, n_words)), DEFAULT)) == chunks


def test_the_example_of_the_specification() -> None:
    a = words((1, 21))
    b = words((11, 21), (100, 130))
    c = words((200, 202), (11, 21), (202, 210))
    _, found = containment([a, b, c], ALL, ALL_GRID)
    rows = zip(found.document.tolist(), found.other.tolist(), found.words.tolist(), strict=True)
    assert {(x, y): w for x, y, w in rows} == {
        (0, 1): 10, (0, 2): 10, (1, 0): 10, (1, 2): 10, (2, 0): 10, (2, 1): 10,
    }  # fmt: skip
    assert found.any_words.tolist() == [10, 10, 10]
    assert found.common_words.tolist() == [0, 0, 0]
    assert found.chunks.tolist() == [2] * 6


TOKENS = ("a", "b", "c", "d", "e", "f", "g", "h", "ΟΔΟΣ", "東京", "7,5", "—", ",")
small_texts = st.lists(st.sampled_from(TOKENS), max_size=40)
samplings = st.builds(
    Sampling,
    ngram=st.integers(1, 4),
    one_in=st.integers(1, 3),
    chunk=st.integers(3, 9),
    min_last=st.integers(1, 3),
)


@given(st.lists(small_texts.map(" ".join), max_size=5), samplings)
@settings(deadline=None)
def test_samples_are_those_of_the_definition(texts: list[str], sampling: Sampling) -> None:
    for profile in ("text", "code"):
        found = chunk_samples(texts, sampling, profile)
        expected = [cut(t, sampling, profile) for t in texts]
        assert found.words.tolist() == [sum(c.words for c in chunks) for chunks in expected]
        samples = [sorted(c.samples) for chunks in expected for c in chunks]
        assert found.sizes.tolist() == [len(s) for s in samples]
        assert found.hashes.tolist() == [v for s in samples for v in s]


@pytest.mark.parametrize("n_tokens", [SLICE - 1, SLICE, SLICE + 1, SLICE + 700, 3 * SLICE + 5])
def test_samples_do_not_see_the_slices(n_tokens: int) -> None:
    text = words((0, n_tokens))
    found = chunk_samples(["one two", text], DEFAULT)
    expected = cut("one two", DEFAULT) + cut(text, DEFAULT)
    assert found.words.tolist() == [2, n_tokens]
    assert found.hashes.tolist() == [v for c in expected for v in sorted(c.samples)]


def test_one_repeated_line_has_a_handful_of_samples_and_costs_no_more() -> None:
    text = "all work and no play makes jack a dull boy\n" * 120_000
    found = chunk_samples([text], DEFAULT._replace(one_in=1))
    assert found.words.tolist() == [1_200_000]
    assert found.sizes.max() == 10
    assert len(np.unique(found.hashes)) == 10
    assert self_covered(found, DEFAULT_GRID).tolist() == [1_200_000 - 1024]


@pytest.mark.parametrize(
    "sampling",
    [Sampling(ngram=0), Sampling(ngram=SLICE), Sampling(one_in=0), Sampling(min_last=1025)],
)
def test_impossible_cuts_are_refused(sampling: Sampling) -> None:
    with pytest.raises(ValueError, match=r"ngram|expected"):
        chunk_samples(["a"], sampling)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=12), st.randoms())
def test_runs_go_where_they_are_told(runs: list[Spans], chance: object) -> None:
    counts = np.array([n for n, _ in runs], dtype=np.int64)
    values = np.array([v for n, v in runs for _ in range(n)], dtype=np.int64)
    order = np.random.default_rng(len(runs)).integers(0, max(1, len(runs)), len(runs))
    order = order.astype(np.int64)
    expected = [runs[i][1] for i in order for _ in range(runs[i][0])]
    assert spread(values, counts, order).tolist() == expected
    assert run_sums(values, counts).tolist() == [n * v for n, v in runs]


def test_documents_are_put_in_their_places() -> None:
    texts = [words((10 * i, 10 * i + 7 * i)) for i in range(6)]
    whole = chunk_samples(texts, ALL)
    pieces = [
        (np.array(rows), chunk_samples([texts[i] for i in rows], ALL))
        for rows in ([5, 0, 2], [4, 1, 3])
    ]
    found = in_places(pieces, ALL)
    assert all((a == b).all() for a, b in zip(found, whole, strict=True))
    assert [len(x) for x in in_places([], ALL)] == [0, 0, 0]


near_texts = st.lists(st.sampled_from("abcdef"), max_size=30).map(" ".join)


@given(st.lists(near_texts, max_size=7), samplings, st.integers(1, 4), st.integers(1, 3))
@settings(deadline=None, max_examples=300)
def test_coverage_is_that_of_the_definition(
    texts: list[str], sampling: Sampling, max_df: int, parts: int
) -> None:
    grid = Grid(
        sampling.chunk, sampling.min_last, 1 + max_df % 2, (0.34, 0.5, 0.6, 1.0)[max_df - 1]
    )
    plain = plain_scores({str(i): t for i, t in enumerate(texts)}, sampling, grid, max_df)
    for numbers, found in covered(texts, sampling, grid, max_df, parts):
        held = chunk_samples([texts[i] for i in numbers], sampling)
        own, judged = self_covered(held, grid), evaluated(held, grid)
        for d, number in enumerate(numbers.tolist()):
            expected = plain[str(number)]
            mine = np.flatnonzero(found.document == d)
            rows = zip(found.words[mine], found.chunks[mine], strict=True)
            covers = dict(zip(map(str, found.other[mine].tolist()), rows, strict=True))
            assert covers == expected["covers"]
            if expected["status"] != "ok":
                continue
            assert judged[d] > 0
            sums = (found.any_words[d], own[d], found.common_words[d])
            names = ("any_share", "self_share", "common_share")
            assert [s / held.words[d] for s in sums] == [expected[n] for n in names]


def test_what_is_common_stays_so_when_a_part_holds_back_the_rest() -> None:
    shingle, document = np.full(50, 7, dtype=np.uint64), np.arange(50)
    assert len(distinct_samples(shingle, document, 4)[0]) == 4
    rows = [distinct_samples(shingle, address(p, document), 4) for p in range(2)]
    met = meetings(*(np.concatenate(c) for c in zip(*rows, strict=True)), 3)
    assert (met.parts.tolist(), met.counts.tolist(), met.documents.size) == ([0, 1], [0, 0], 0)


def test_whom_a_shingle_joins_is_told_to_each_part_once() -> None:
    documents = np.array([address(1, 5), address(0, 3), address(1, 2), address(0, 9)])
    met = meetings(np.array([8, 8, 8, 4], dtype=np.uint64), documents, 3)
    assert met.shingles.tolist() == [8, 8]
    assert met.parts.tolist() == [0, 1]
    assert met.counts.tolist() == [3, 3]
    assert met.documents.tolist() == sorted(documents[:3].tolist()) * 2


def test_part_and_row_of_the_last_possible_document() -> None:
    last = address(2**31 - 1, np.array([0, 2**31 - 1], dtype=np.int32))
    assert part_of(last).tolist() == [2**31 - 1] * 2
    assert row_of(last).tolist() == [0, 2**31 - 1]
    assert (last > 0).all()


def test_a_chapter_of_a_book_is_found_at_any_offset() -> None:
    rng = np.random.default_rng(5)
    book = words((0, 60_000))
    for offset in rng.integers(0, 48_000, 3).tolist():
        start = int(rng.integers(0, 5000))
        chapter = words(
            (100_000, 100_000 + start), (offset, offset + 12_000), (200_000, 205_000 - start)
        )
        found = shares([book, chapter, words((300_000, 320_000))])
        assert set(found) == {(0, 1), (1, 0)}
        assert abs(found[1, 0] - 12 / 17) <= 2 * 1024 / 17_000
        assert abs(found[0, 1] - 0.2) <= 2 * 1024 / 60_000


@pytest.mark.parametrize(("changed", "least", "most"), [(0.05, 0.95, 1.0), (0.1, 0.2, 0.8)])
def test_copies_with_words_changed(changed: float, least: float, most: float) -> None:
    rng = np.random.default_rng(3)
    numbers = np.arange(30_000)
    where = rng.random(30_000) < changed
    numbers[where] += 100_000
    copy = " ".join(map(word, numbers.tolist()))
    assert least <= shares([words((0, 60_000)), copy])[1, 0] <= most


def test_a_licence_in_a_thousand_documents_joins_none_of_them() -> None:
    licence = words((9_000_000, 9_001_124))
    texts = [f"{licence} {words((600 * i, 600 * i + 600))}" for i in range(1000)]
    for parts in (1, 3):
        found = covered(texts, DEFAULT, DEFAULT_GRID, 100, parts)
        assert all(f.document.size == 0 for _, f in found)
        # Of two chunks the first is nothing but licence.
        assert all((f.common_words == 1024).all() for _, f in found)
    _, few = containment(texts[:100], DEFAULT, DEFAULT_GRID)
    assert few.document.size == 100 * 99
    assert (few.common_words == 0).all()


def test_a_document_that_repeats_itself_says_so() -> None:
    once, twice = words((0, 5120)), words((0, 5120), (0, 5120))
    shifted = words((0, 5120), (900_000, 900_300), (0, 5120))
    held = chunk_samples([once, twice, shifted], DEFAULT)
    found = self_covered(held, DEFAULT_GRID)
    assert found[:2].tolist() == [0, 5120]
    assert 4096 <= found[2] <= 5420
