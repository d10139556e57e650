from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.ids import mix64
from longctx.order.splice import LINKS, among, splice_tours
from tests.order.conftest import named

LISTS = np.array(
    [
        [3, 1, 5],
        [0, 4, 2],
        [1, 6, 7],
        [0, 5, 1],
        [1, 2, 6],
        [3, 0, 7],
        [2, 4, 7],
        [6, 5, 2],
    ],
    dtype=np.int32,
)
TEN = np.full(8, 10, dtype=np.int64)


def tours_of(order: np.ndarray, starts: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in np.split(order, starts[1:])] if len(starts) else []


@pytest.mark.parametrize(
    ("pool", "branches", "on_empty", "expected"),
    [
        ("index", 1, "emit_short", [[0, 3], [1], [2], [4], [5], [6], [7]]),
        ("index", 1, "restart", [[0, 3, 1, 2], [4, 5, 6, 7]]),
        ("index", 2, "emit_short", [[0, 3, 1, 5], [2, 6, 4], [7]]),
        ("index", 2, "restart", [[0, 3, 1, 5], [2, 6, 4, 7]]),
        ("unused", 1, "restart", [[0, 3, 5, 7], [1, 4, 2, 6]]),
        ("unused", 2, "restart", [[0, 3, 1, 5], [2, 6, 7, 4]]),
    ],
)
def test_trees_of_the_worked_example(pool, branches, on_empty, expected):
    order, starts, _ = splice_tours(LISTS, TEN, 40, branches, pool=pool, on_empty=on_empty)
    assert tours_of(order, starts) == expected


def test_how_each_document_of_the_worked_example_came():
    _, _, how = splice_tours(LISTS, TEN, 40, 2, pool="index")
    words = [LINKS[i] for i in how]
    assert words == ["root", *["retrieved"] * 3, "root", *["retrieved"] * 2, "restart"]


def test_an_example_ends_with_the_document_that_fills_it():
    tokens = np.array([10, 10, 10, 25, 10, 10, 10, 200], dtype=np.int64)
    order, starts, _ = splice_tours(LISTS, tokens, 40, 3)
    # 0 brings 3 and 1 and is full before its third branch; 7 is longer than an example.
    assert tours_of(order, starts) == [[0, 3, 1], [2, 6, 7], [4, 5]]


def test_roots_are_the_unused_documents_of_smallest_priority():
    priority = np.array([5, 1, 7, 0, 4, 3, 2, 6], dtype=np.uint64)
    order, starts, _ = splice_tours(LISTS, TEN, 30, priority=priority)
    assert [tour[0] for tour in tours_of(order, starts)] == [3, 6, 5]


def test_reverse_and_shuffle_keep_the_examples():
    priority = np.arange(8, dtype=np.uint64)
    built, starts, how = splice_tours(LISTS, TEN, 40, priority=priority)
    back, again, came = splice_tours(LISTS, TEN, 40, priority=priority, order="reverse")
    assert tours_of(back, again) == [tour[::-1] for tour in tours_of(built, starts)]
    assert dict(zip(back, came, strict=True)) == dict(zip(built, how, strict=True))
    mixed, again, _ = splice_tours(LISTS, TEN, 40, priority=priority, order="shuffle")
    rank = mix64(priority)
    assert tours_of(mixed, again) == [
        sorted(t, key=rank.__getitem__) for t in tours_of(built, starts)
    ]


def test_shuffled_roots_do_not_always_stand_first():
    corpus = named("flat")
    tokens = np.full(2000, 10, dtype=np.int64)
    order, starts, how = splice_tours(
        corpus.lists, tokens, 100, priority=corpus.priority, order="shuffle"
    )
    first = [LINKS[i] for i in how[starts]]
    assert 0 < first.count("root") < len(starts) / 3
    assert sorted(order) == list(range(2000))


def reference(lists, tokens, length, k, priority, pool, on_empty):
    """The printed algorithm, with a real queue."""
    used: set[int] = set()
    roots = deque(int(i) for i in np.argsort(priority, kind="stable"))
    tours = []

    def next_root():
        while roots:
            if (root := roots.popleft()) not in used:
                return root
        return None

    while (root := next_root()) is not None:
        example, queue = [root], deque([root])
        used.add(root)
        while sum(tokens[example]) < length:
            if not queue:
                root = next_root() if on_empty == "restart" else None
                if root is None:
                    break
                example.append(root)
                queue.append(root)
                used.add(root)
                continue
            listed = [j for j in lists[queue.popleft()] if j >= 0]
            if pool == "unused":
                listed = [j for j in listed if j not in used]
            for j in listed[:k]:
                if j not in used and sum(tokens[example]) < length:
                    example.append(int(j))
                    queue.append(int(j))
                    used.add(int(j))
        tours.append(example)
    return tours


@settings(deadline=None, max_examples=150)
@given(
    n=st.integers(0, 30),
    width=st.integers(1, 6),
    branches=st.integers(1, 4),
    length=st.integers(1, 60),
    pool=st.sampled_from(["index", "unused"]),
    on_empty=st.sampled_from(["restart", "emit_short"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_trees_are_those_of_the_printed_algorithm(n, width, branches, length, pool, on_empty, seed):
    rng = np.random.default_rng(seed)
    lists = np.full((n, width), -1, dtype=np.int32)
    for i in range(n):
        others = rng.permutation(np.delete(np.arange(n), i))[: rng.integers(0, width + 1)]
        lists[i, : len(others)] = others
    tokens = rng.integers(0, 25, n)
    priority = rng.integers(0, 5, n).astype(np.uint64)
    order, starts, how = splice_tours(
        lists, tokens, length, branches, priority=priority, pool=pool, on_empty=on_empty
    )
    expected = reference(lists, tokens, length, branches, priority, pool, on_empty)
    assert tours_of(order, starts) == expected
    assert sorted(order) == list(range(n))
    assert [LINKS[i] for i in how[starts]] == ["root"] * len(starts)
    for tour in tours_of(order, starts)[:-1]:
        assert on_empty == "emit_short" or tokens[tour].sum() >= length
        assert tokens[tour[:-1]].sum() < length


def test_lists_among_those_who_are_left_close_up():
    left = among(LISTS, np.array([0, 1, 4, 5, 7]))
    expected = [[1, 3, -1], [0, 2, -1], [1, -1, -1], [0, 4, -1], [3, -1, -1]]
    np.testing.assert_array_equal(left, expected)
    np.testing.assert_array_equal(among(LISTS, np.arange(8)), LISTS)
    assert among(LISTS, np.arange(0)).shape == (0, 3)
