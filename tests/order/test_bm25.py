from collections import Counter
from itertools import pairwise
from math import log1p

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.cluster.knn import merge_lists
from longctx.order.bm25 import (
    FEW,
    Vocabulary,
    build_index,
    count_words,
    document_frequencies,
    search,
    vocabulary,
    word_hashes,
    word_numbers,
)


class Corpus:
    """Texts with their words counted, and the vocabulary of all."""

    def __init__(self, texts: list[str], query_words: int = 512, max_df: float = 1.0) -> None:
        self.counted = [count_words(text, query_words) for text in texts]
        self.lengths = np.array([c.counts.sum() for c in self.counted], dtype=np.int64)
        self.mean = float(self.lengths.mean()) if texts else 0.0
        words, df = document_frequencies([c.words for c in self.counted])
        self.vocabulary = vocabulary(words, df, len(texts), max_df)

    def flat(self, which: range, column: str) -> tuple[np.ndarray, np.ndarray]:
        values = [getattr(self.counted[i], column) for i in which]
        return np.cumsum([0, *map(len, values)]), np.concatenate(values)

    def search(self, queries: range, shard: range, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers in the corpus and scores."""
        bounds, words = self.flat(shard, "words")
        counts = self.flat(shard, "counts")[1]
        lengths = self.lengths[shard.start : shard.stop]
        index = build_index(bounds, words, counts, lengths, self.mean, self.vocabulary)
        bounds, words = self.flat(queries, "words")
        own = np.array([i - shard.start if i in shard else -1 for i in queries])
        asked = self.flat(queries, "asked")[1]
        numbers, scores = search(index, len(shard), bounds, words, asked, own, self.vocabulary, k)
        return np.where(numbers >= 0, numbers + shard.start, -1), scores


def hashes(*words: str) -> list[int]:
    return [int(word_hashes(word)[0]) for word in words]


def test_words_are_runs_of_letters_digits_marks_and_underscores_in_lower_case():
    text = "The CAT's get_name(x1), nai\u0308ve—नमस्ते 3.14"
    expected = hashes("the", "cat", "s", "get_name", "x1", "na\u00efve", "नमस्ते", "3", "14")
    assert word_hashes(text).tolist() == expected
    assert len(set(expected)) == len(expected)


def test_korean_words_stand_between_spaces():
    assert word_hashes("고래는 깊은 바다에").tolist() == hashes("고래는", "깊은", "바다에")


def test_chinese_runs_give_pairs_of_neighbours():
    assert word_hashes("计算机软件").tolist() == hashes("计算", "算机", "机软", "软件")
    assert word_hashes("软件，中 x软件y").tolist() == hashes("软件", "中", "x", "软件", "y")
    assert word_hashes("").size == word_hashes("，。!? \n").size == 0


def test_a_query_is_the_beginning_of_its_document():
    counted = count_words("b a b c a d", 3)
    of = dict(zip(counted.words, zip(counted.counts, counted.asked, strict=True), strict=True))
    a, b, c, d = hashes("a", "b", "c", "d")
    assert of == {a: (2, 1), b: (2, 2), c: (1, 0), d: (1, 0)}
    assert counted.words.tolist() == sorted(of)


def test_a_text_in_pieces_has_the_words_of_the_whole():
    rng = np.random.default_rng(0)
    names = [f"word{i}" for i in range(500)]
    text = " ".join(rng.choice(names, 60_000))  # several pieces
    counted = count_words(text, 40_000)
    words = text.split()
    whole, first = Counter(words), Counter(words[:40_000])
    order = np.argsort(np.array(hashes(*names), dtype=np.uint64))
    assert counted.counts.tolist() == [whole[names[i]] for i in order]
    assert counted.asked.tolist() == [first[names[i]] for i in order]


def test_document_frequencies_do_not_depend_on_how_documents_are_dealt():
    rng = np.random.default_rng(1)
    documents = [np.unique(rng.integers(0, 300, 60)).astype(np.uint64) for _ in range(90)]
    expected = Counter(int(w) for d in documents for w in d)
    for size in (1, 7, 90):
        dealt = [np.concatenate(documents[i : i + size]) for i in range(0, 90, size)]
        words, df = document_frequencies(dealt)
        assert dict(zip(words.tolist(), df.tolist(), strict=True)) == expected
        assert (np.diff(words.astype(np.int64)) > 0).all()
    words, df = document_frequencies([])
    assert len(words) == len(df) == 0


def test_words_of_one_document_and_of_too_many_are_not_asked():
    words = np.arange(5, dtype=np.uint64)
    df = np.array([1, 2, FEW, 600, 700])
    assert vocabulary(words, df, 1000, 0.6).words.tolist() == [1, 2, 3]
    assert vocabulary(words, df, 1000, 0.01).words.tolist() == [1, 2]
    known = vocabulary(words, df, 1000, 1.0)
    assert known.words.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(known.idf, [log1p((1000.5 - d) / (d + 0.5)) for d in df[1:]])


def test_words_that_the_vocabulary_lacks_have_no_number():
    known = Vocabulary(np.array([2, 5, 9], dtype=np.uint64), np.ones(3, dtype=np.float32))
    asked = np.array([0, 2, 3, 9, 10], dtype=np.uint64)
    assert word_numbers(asked, known).tolist() == [-1, 0, -1, 2, -1]
    none = Vocabulary(known.words[:0], known.idf[:0])
    assert word_numbers(asked, none).tolist() == [-1] * 5


def test_scores_are_those_of_the_formula():
    texts = ["sea sea whale", "whale sail sail", "sea sail court", "court court"]
    numbers, scores = Corpus(texts).search(range(4), range(4), 3)
    mean = 11 / 4

    def weight(df: int, times: int, length: int) -> float:
        damping = 1.5 * (0.25 + 0.75 * length / mean)
        return log1p((4.5 - df) / (df + 0.5)) * times * 2.5 / (times + damping)

    # Document 0 asks sea twice and whale once.
    assert numbers[0].tolist() == [2, 1, -1]
    np.testing.assert_allclose(scores[0, :2], [2 * weight(2, 1, 3), weight(2, 1, 3)], rtol=1e-6)
    assert scores[0, 2] == -np.inf
    # Court stands in documents 2 and 3; 2 also shares sea and sail with 0 and 1.
    assert numbers[3].tolist() == [2, -1, -1]
    np.testing.assert_allclose(scores[3, 0], 2 * weight(2, 1, 3), rtol=1e-6)


def test_equal_scores_go_to_the_smaller_number_and_nobody_finds_itself():
    numbers, scores = Corpus(["same words"] * 5).search(range(5), range(5), 3)
    assert numbers.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]
    assert (scores == scores[0, 0]).all()


def test_only_the_beginning_of_a_document_is_asked():
    texts = ["sea wave tide court clause", "court clause judge", "wave tide reef"]
    assert Corpus(texts).search(range(1), range(3), 1)[0].tolist() == [[1]]
    assert Corpus(texts, query_words=3).search(range(1), range(3), 1)[0].tolist() == [[2]]


@pytest.mark.parametrize(
    ("asks", "finds", "other"),
    [
        ("计算机软件保护条例", "关于计算机软件著作权的规定", "大话说天启年间南阳罗郡"),
        ("바다 고래 항해", "고래 잡이 항해 기록", "법원 판결 증거"),
    ],
)
def test_chinese_and_korean_find_what_is_related(asks, finds, other):
    numbers, scores = Corpus([asks, other, finds]).search(range(1), range(3), 2)
    assert numbers.tolist() == [[2, -1]]
    assert scores[0, 0] > 0


def random_texts(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{w}" for w in rng.zipf(1.3, rng.integers(0, 40)) % 60) for _ in range(n)]


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    k=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_shards_of_documents_and_of_queries_change_no_bit(n, cuts, k, seed):
    corpus = Corpus(random_texts(n, seed))
    whole, scores = corpus.search(range(n), range(n), k)
    edges = sorted({0, n, *(c for c in cuts if c < n)})
    shards = [range(a, b) for a, b in pairwise(edges)]
    for queries in shards:
        found = [corpus.search(queries, shard, k) for shard in shards[::-1]]
        merged = found[0]
        for more in found[1:]:
            merged = merge_lists(merged, more, k)
        at = slice(queries.start, queries.stop)
        np.testing.assert_array_equal(merged[0], whole[at])
        np.testing.assert_array_equal(merged[1], scores[at])


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 30), k=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_lists_hold_the_best_of_all_scores(n, k, seed):
    corpus = Corpus(random_texts(n, seed))
    numbers, _ = corpus.search(range(n), range(n), k)
    every, every_score = corpus.search(range(n), range(n), n)
    width = min(k, n)
    np.testing.assert_array_equal(numbers[:, :width], every[:, :width])
    assert (numbers[:, width:] == -1).all()
    known = corpus.vocabulary
    dense = np.zeros((n, len(known.words)))
    asked = np.zeros_like(dense)
    for i, c in enumerate(corpus.counted):
        at = word_numbers(c.words, known)
        damping = 1.5 * (0.25 + 0.75 * corpus.lengths[i] / corpus.mean) if corpus.mean else 1
        dense[i, at[at >= 0]] = (c.counts * 2.5 / (c.counts + damping))[at >= 0]
        asked[i, at[at >= 0]] = c.asked[at >= 0]
    expected = asked @ (dense * known.idf).T
    np.fill_diagonal(expected, 0)
    for i in range(n):
        found = every[i][every[i] >= 0]
        assert set(found) == set(np.flatnonzero(expected[i] > 0))
        np.testing.assert_allclose(every_score[i, : len(found)], expected[i, found], rtol=1e-5)
        pairs = list(zip(-every_score[i, : len(found)], found, strict=True))
        assert pairs == sorted(pairs)
