"""LongMIT's graph work: the examples of the specification and what must hold of any graph."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.synth.longmit import (
    SingleQA,
    build_chain,
    chunk_spans,
    cross_neighbours,
    distinct_questions,
    intra_neighbours,
    link_bounds,
    links,
    n_chunks,
    prefix_jaccard,
    quality_score,
    start_questions,
    traverse,
    without_near_duplicates,
)
from longctx.synth.tokens import TokenCounter

UPPER = {
    (0, 1): 0.95,
    (0, 2): 0.80,
    (0, 3): 0.85,
    (0, 4): 0.60,
    (0, 5): 0.40,
    (1, 2): 0.55,
    (1, 3): 0.52,
    (1, 4): 0.70,
    (1, 5): 0.75,
    (2, 3): 0.90,
    (2, 4): 0.65,
    (2, 5): 0.88,
    (3, 4): 0.58,
    (3, 5): 0.61,
    (4, 5): 0.91,
}
S = np.eye(6)
for (a, b), value in UPPER.items():
    S[a, b] = S[b, a] = value
DOC = list("AABBCD")


def test_paths_of_the_example() -> None:
    graph = {0: [0, 2, 4], 1: [1, 0, 3], 2: [2, 0, 3], 3: [3, 2, 1], 4: [4, 5, 0], 5: [5, 4, 3]}
    assert traverse(graph, range(6), max_docs=3) == [[0, 2, 3], [1], [4, 5]]
    shuffled = {i: [j for j in near if j != i] + [i] for i, near in graph.items()}
    assert traverse(shuffled, range(6), max_docs=3) == [[0, 2, 3], [1], [4, 5]]
    with pytest.raises(ValueError, match="max_docs=0"):
        traverse(graph, [0], 0)


@given(
    st.lists(st.lists(st.integers(0, 11), max_size=5), min_size=12, max_size=12), st.integers(1, 6)
)
def test_every_document_is_in_one_path(graph: list[list[int]], most: int) -> None:
    paths = traverse(graph, range(12), most)
    assert sorted(d for path in paths for d in path) == list(range(12))
    assert all(len(path) <= most for path in paths)
    assert all(b in graph[a] for path in paths for a, b in pairwise(path))


def test_beginnings_are_compared() -> None:
    assert prefix_jaccard("abcdef", "abcdeg") == pytest.approx(0.6)
    assert prefix_jaccard("x" * 100 + "one", "x" * 100 + "two") == 1
    assert prefix_jaccard("ab", "cd") == 0
    assert prefix_jaccard("", "") == 1
    texts = ["the storm of 1911", "a calm year", "a calm year!", "the storm of 1911"]
    assert without_near_duplicates([0, 1, 2, 3], texts.__getitem__) == ([0, 1, 3], [2])
    clusters = ["a", None, None, "a"]
    found = without_near_duplicates([0, 1, 2, 3], texts.__getitem__, clusters=clusters)
    assert found == ([0, 1], [2, 3])


def test_chunks_are_equal_and_end_with_sentences() -> None:
    assert [n_chunks(n) for n in (0, 1, 2048, 2049, 5000)] == [0, 1, 1, 2, 3]
    text = " ".join(f"Sentence {i} has some words here." for i in range(100))
    spans = chunk_spans(text, TokenCounter(), 205)
    assert "".join(text[a:b] for a, b in spans) == text
    pieces = [text[a:b] for a, b in spans]
    assert len(pieces) == 3
    assert all(piece.rstrip().endswith(".") for piece in pieces)
    assert all(abs(len(piece.split()) - 200) <= 6 for piece in pieces)
    blob = "word " * 100
    assert [len(blob[a:b].split()) for a, b in chunk_spans(blob, TokenCounter(), 30)] == [25] * 4
    assert chunk_spans("One.", TokenCounter()) == [(0, 4)]
    assert chunk_spans("", TokenCounter()) == []


@given(st.text(alphabet="ab. \n。", max_size=300), st.integers(1, 20))
def test_chunks_join_to_the_text(text: str, size: int) -> None:
    assert "".join(text[a:b] for a, b in chunk_spans(text, TokenCounter(), size)) == text


def test_links_and_chains_of_the_example() -> None:
    assert cross_neighbours(0, S, DOC) == [3, 4]
    assert cross_neighbours(3, S, DOC) == [0, 5, 4]
    assert intra_neighbours(0, S, DOC) == []
    assert intra_neighbours(2, S, DOC) == [3]
    assert build_chain(0, S, DOC, "walk") == [0, 3, 5, 4]
    assert build_chain(0, S, DOC, "star") == [0, 3, 4]
    assert build_chain(2, S, DOC, "intra") == [2, 3]
    assert build_chain(0, S, DOC, "walk", max_hop=2) == [0, 3]
    assert build_chain(0, S, DOC, "star", max_hop=2) == [0, 3]
    assert cross_neighbours(4, S, DOC, k=1) == [5]
    with pytest.raises(ValueError, match="mode='line'"):
        build_chain(0, S, DOC, "line")  # type: ignore[arg-type]


def test_links_tell_where_each_element_came_from() -> None:
    assert links([0, 3, 5], S) == [(None, None), (0, 0.85), (1, 0.61)]
    assert links([0, 3, 4], S, "star") == [(None, None), (0, 0.85), (0, 0.60)]
    assert links([2], S) == [(None, None)]


@given(st.integers(0, 10_000), st.integers(2, 14), st.sampled_from(["walk", "star", "intra"]))
def test_chains_keep_their_bounds(seed: int, n: int, mode: str) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.random((n, n)).round(2)
    similar = (raw + raw.T) / 2
    doc = rng.integers(0, 5, n).tolist()
    chain = build_chain(0, similar, doc, mode)  # type: ignore[arg-type]
    docs = [doc[i] for i in chain]
    assert len(set(chain)) == len(chain) <= 4
    assert len(set(docs)) == (1 if mode == "intra" else len(chain))
    for link in links(chain, similar, mode)[1:]:  # type: ignore[arg-type]
        assert link.sim is not None
        assert 0.50 <= link.sim <= 0.92


def test_the_last_question_has_neighbours_too() -> None:
    """The reference looks at later questions alone, so the last has none."""
    assert cross_neighbours(5, S, DOC) == [4, 2, 1]


def test_bounds_are_percentiles_across_documents() -> None:
    across = [v for (a, b), v in UPPER.items() if DOC[a] != DOC[b]]
    lo, hi = link_bounds(S, DOC)
    assert (lo, hi) == pytest.approx(tuple(np.percentile(across, [60, 99.5])))
    with pytest.raises(ValueError, match="there are none"):
        link_bounds(S, ["A"] * 6)


def test_starts_are_drawn_once_each() -> None:
    starts = start_questions(40, 1, "p")
    assert len(set(starts)) == 10
    assert starts == start_questions(40, 1, "p")
    assert starts != start_questions(40, 1, "q")
    assert sorted(start_questions(4, 1, "p")) == [0, 1, 2, 3]
    assert start_questions(0, 1, "p") == []


def test_equal_questions_of_a_document_are_one() -> None:
    first = SingleQA("A", 0, "Who won?", "Ann", "Ann won.")
    again = first._replace(chunk_id=2, question="who won")
    other = first._replace(doc_id="B")
    assert distinct_questions([first, again, other]) == [first, other]


def test_quality_is_a_mean_of_four() -> None:
    assert quality_score([10, 8, 8, 8]) == 8.5
    assert quality_score({"correctness": 9, "multi_fact": 8, "clarity": 9, "naturalness": 10}) == 9
    with pytest.raises(ValueError, match="3 marks"):
        quality_score([1, 2, 3])
