"""Quest: the drawn keyword, the worked tours, the budget, and planted topics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.cluster.similarity import I64
from longctx.ids import doc_keys, priorities, rng_for
from longctx.order.quest import (
    Tour,
    by_mean_vector,
    inverted_index,
    quest_tours,
    representative,
    within_budget,
)
from longctx.order.rake import Keyword, keywords
from tests.order.conftest import at_degrees
from tests.order.test_rake import REEF


def numbers(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.uint64)


def unchanged(groups: list[I64]) -> I64:
    return np.arange(len(groups))


def test_per_document_random_numbers():
    assert rng_for(0, "quest", "d1").random() == pytest.approx(0.556545, abs=1e-6)
    assert rng_for(0, "quest", "d2").random() == pytest.approx(0.355452, abs=1e-6)


def test_worked_draw():
    found = keywords([REEF])
    shares = np.cumsum([k.score for k in found]) / sum(k.score for k in found)
    assert shares == pytest.approx([0.3296, 0.6481, 0.8593, 1], abs=5e-5)
    assert representative(found, "d1", 0) == "causes coral reef bleaching"
    assert representative([], "d1", 0) is None


SCORES = [4, 2, 2, 1, 1, 1, 1]


def test_only_the_five_best_are_drawn_in_proportion():
    found = [Keyword(name, score) for name, score in zip("abcdefg", SCORES, strict=True)]
    drawn = [representative(found, f"d{i}", 0) for i in range(2000)]
    share = {name: drawn.count(name) / len(drawn) for name in "abcdefg"}
    assert share["f"] == share["g"] == 0
    assert [share[name] for name in "abcde"] == pytest.approx([0.4, 0.2, 0.2, 0.1, 0.1], abs=0.04)


TOKENS = np.array([60, 50, 45, 30, 40, 20, 80])
WORDS = ["a", "a", "a", "b", "c", "c", None]


def test_worked_tours():
    given: list[list[int]] = []

    def path(groups: list[I64]) -> I64:
        given.extend(g.tolist() for g in groups)
        return np.array([1, 0, 2])

    tours = quest_tours(WORDS, TOKENS, numbers(7), 100, path)
    assert given == [[2], [3], [4, 5]]
    assert [(kind, documents.tolist()) for kind, documents in tours] == [
        ("long", [0, 1]),
        ("short", [3, 2, 4]),
        ("pool", [5, 6]),
    ]


def test_documents_of_a_keyword_come_by_priority():
    assert {
        k: v.tolist() for k, v in inverted_index(["b", None, "a", "b"], numbers(4)).items()
    } == {
        "a": [2],
        "b": [0, 3],
    }
    index = inverted_index(["b", "b", "b"], np.array([5, 1, 3], dtype=np.uint64))
    assert index["b"].tolist() == [1, 2, 0]


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_documents(n: int):
    none = quest_tours([None] * n, np.full(n, 10), numbers(n), 100, unchanged)
    assert [t.documents.tolist() for t in none] == ([list(range(n))] if n else [])
    long = quest_tours(["a"] * n, np.full(n, 500), numbers(n), 100, unchanged)
    assert [(t.kw_class, t.documents.tolist()) for t in long] == [("long", [i]) for i in range(n)]


def test_keywords_follow_a_path_over_their_mean_vectors():
    X = np.vstack([at_degrees(0, 60, 20, 40, 22, 38), np.zeros((1, 2), dtype=np.float32)])
    groups = [np.array(g) for g in ([6], [0], [1], [2, 3, 6], [4, 5])]
    path = by_mean_vector(X)(groups).tolist()
    # Mean directions: none, 0, 60, 30, 30.
    assert path[-1] == 0
    assert path[:-1] in ([1, 3, 4, 2], [1, 4, 3, 2], [2, 3, 4, 1], [2, 4, 3, 1])


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[str | None], I64]:
    n = draw(st.integers(0, 40))
    words = draw(st.lists(st.sampled_from([None, *"abcde"]), min_size=n, max_size=n))
    tokens = draw(st.lists(st.integers(0, 120), min_size=n, max_size=n))
    return words, np.array(tokens, dtype=np.int64)


@given(corpora(), st.integers(0, 5))
def test_every_document_is_placed_once_and_tours_are_full(corpus: tuple, seed: int):
    words, tokens = corpus
    priority = priorities(doc_keys([f"d{i}" for i in range(len(words))]), seed)
    tours = quest_tours(words, tokens, priority, 100, unchanged)
    placed = np.concatenate([np.zeros(0, dtype=np.int64), *[t.documents for t in tours]])
    assert sorted(placed.tolist()) == list(range(len(words)))
    for kind, documents in tours:
        has = {words[i] for i in documents.tolist()}
        if kind != "pool":
            # Full, and not one document more than that.
            assert tokens[documents].sum() >= 100 > tokens[documents[:-1]].sum()
            assert None not in has
        if kind == "long":
            assert len(has) == 1
    kinds = [t.kw_class for t in tours]
    assert kinds == sorted(kinds, key=["long", "short", "pool"].index)
    assert all(tokens[t.documents].sum() >= 100 for t in tours[:-1] if t.kw_class == "pool")


def tour(kind: str, *documents: int) -> Tour:
    return Tour(kind, np.array(documents))  # type: ignore[arg-type]


def test_the_budget_takes_both_classes_in_their_share():
    words = ["a", "a", "a", "b", "b", "c", "d", "e", "f", None]
    tours = [
        *(tour("long", i) for i in range(5)),
        *(tour("short", i) for i in range(5, 9)),
        tour("pool", 9),
    ]
    priority = np.array([3, 1, 2, 5, 4, 9, 8, 7, 6, 0], dtype=np.uint64)

    def taken(budget: int, ratio: float = 0.5, most: int = 64) -> list[int]:
        tokens = np.full(10, 100)
        chosen = within_budget(tours, words, tokens, priority, budget, ratio, most)
        return [int(t.documents[0]) for t in chosen]

    assert taken(200) == [1, 8]
    assert taken(350) == [1, 2, 7, 8]
    assert taken(400, most=1) == [1, 4, 7, 8]
    assert taken(300, ratio=0) == [0, 1, 2]
    assert taken(300, ratio=1) == [6, 7, 8]
    assert taken(400, ratio=0.25) == [0, 1, 2, 8]
    # One class used up: the other goes on; the pool is not used.
    assert taken(600, most=1) == [1, 4, 5, 6, 7, 8]
    assert taken(10_000) == list(range(9))
    assert within_budget([], [], np.zeros(0), numbers(0), 100) == []


def test_planted_topics_make_long_tours_of_one_topic():
    """50 topics of 200 documents, a topic phrase in the first sentence of each."""
    rng = np.random.default_rng(0)
    names = [f"d{i:05d}" for i in range(10_000)]
    fillers = rng.integers(0, 3000, (len(names), 12)).tolist()
    found = []
    for i, row in enumerate(fillers):
        said = " of ".join(f"filler{word}" for word in row)
        found.append(keywords([f"On the topic{i % 50} reef theory and {said}."]))
    documents: dict[str, int] = {}
    for keyword in (k for best in found for k in best):
        documents[keyword.phrase] = documents.get(keyword.phrase, 0) + 1
    usual = {phrase for phrase, df in documents.items() if 3 <= df <= 500}
    words = [
        representative([k for k in best if k.phrase in usual], name, 0)
        for name, best in zip(names, found, strict=True)
    ]
    tours = quest_tours(
        words,
        rng.integers(100, 400, len(names)),
        priorities(doc_keys(names), 0),
        8192,
        unchanged,
    )
    long = [t.documents % 50 for t in tours if t.kw_class == "long"]
    assert len(long) >= 100
    pure = sum(len(np.unique(topics)) == 1 for topics in long)
    assert pure >= 0.95 * len(long)
