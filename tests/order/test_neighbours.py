"""Examples of related sentences: the worked example, each rule, and what always holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.order.neighbours import Rules, Units, grams, jaccard, knn_examples, knn_repeat

# No two share a 3-gram.
TEXTS = ["alpha", "bravo", "cedar", "delta", "eagle", "fjord", "gimlet"]
SIMS = {1: 0.97, 2: 0.80, 3: 0.90, 4: 0.60, 5: 0.955, 6: 0.45}


def units(doc=(0, 0, 0, 1, 3, 2, 2), sent=(0, 1, 4, 0, 1, 0, 1), tokens=20, text=None) -> Units:
    n = len(doc)
    sizes = np.full(n, tokens) if np.isscalar(tokens) else np.array(tokens)
    return Units(
        np.array(doc),
        np.array(sent),
        sizes.astype(np.int64),
        text or TEXTS[:n],
        np.arange(n, dtype=np.uint64),
    )


def lists(sims: dict[int, float] | None = None) -> tuple[np.ndarray, np.ndarray]:
    found = sorted((sims or SIMS).items(), key=lambda pair: (-pair[1], pair[0]))
    numbers = np.array([[u for u, _ in found]])
    return numbers, np.array([[s for _, s in found]], dtype=np.float32)


def members(given: Units | None = None, sims=None, length=64, **rules) -> list[int]:
    """The units of the one example around unit 0, or none."""
    found, _ = knn_examples(
        given or units(), np.array([0]), *lists(sims), length, rules=Rules(**rules)
    )
    return found[0].units.tolist() if found else []


def test_the_worked_example():
    assert members() == [0, 3, 4]
    assert members(inner_order="ascending") == [4, 3, 0]
    assert members(min_gap=2) == [0, 3, 2]


def test_cosines_go_with_their_units():
    ((example,), _) = knn_examples(
        units(), np.array([0]), *lists(), 64, rules=Rules(inner_order="ascending")
    )
    assert example.anchor == 0
    assert example.sims.tolist() == pytest.approx([0.6, 0.9, 1.0])


def test_jaccard_of_3_grams():
    assert jaccard("abcdefghij", "abcdefghxj") == 0.6
    assert jaccard("abcdefghij", "abcdefghij") == 1
    assert jaccard("a  b\n\nc", "a b c") == 1
    assert jaccard("abc", "xyz") == 0
    assert jaccard("ab", "ab") == jaccard("", "") == 1
    assert jaccard("ab", "abc") == jaccard("ab", "ba") == 0


@given(st.text("abc de𝔘", max_size=12), st.text("abc de𝔘", max_size=12))
def test_jaccard_is_that_of_sets(a, b):
    one, two = (
        {t[i : i + 3] for i in range(len(t) - 2)} or {t}
        for t in (" ".join(a.split()), " ".join(b.split()))
    )
    assert jaccard(a, b) == len(one & two) / len(one | two)
    assert len(grams(a)) == len(one)


def test_near_copies_are_passed_over_by_characters_too():
    sims = {1: 0.8, 2: 0.7}
    copy = ["one fine day the tide turned", "one fine day the tide turned!", "another"]
    # A copy of the anchor; then a copy of a chosen unit.
    assert members(units((0, 1, 2), (0, 0, 0), text=copy), sims) == [0, 2]
    assert members(units((0, 1, 2), (0, 0, 0), text=copy[::-1]), sims) == [0, 1]
    # 0.6 stays, 0.7 goes.
    six = ["abcdefghij", "abcdefghxj", "another"]
    assert members(units((0, 1, 2), (0, 0, 0), text=six), sims) == [0, 1, 2]
    # Eight grams and nine, seven shared: 7/10.
    seven = ["abcdefghij", "abcdefghixy", "another"]
    assert jaccard(*seven[:2]) == 0.7
    assert members(units((0, 1, 2), (0, 0, 0), text=seven), sims) == [0, 2]


def test_bounds_of_the_cosine_are_taken_as_float32():
    text = TEXTS[:3]
    given = units((0, 1, 2), (0, 0, 0), text=text)
    assert members(given, {1: 0.95, 2: 0.5}) == [0, 2]
    assert members(given, {1: 0.9499, 2: 0.4999}) == [0, 1]


def test_units_that_do_not_fit_are_skipped_and_shorter_ones_tried():
    given = units((0, 1, 2, 3), (0, 0, 0, 0), (20, 60, 21, 16))
    sims = {1: 0.9, 2: 0.8, 3: 0.7}
    assert members(given, sims, length=64) == [0, 2, 3]
    # 60 - 21 - 22 = 17 tokens are left: just enough for a unit of 16 and its separator.
    assert members(given, sims, length=60) == [0, 2, 3]
    assert members(given, sims, length=59) == [0, 2]


def test_an_anchor_without_company_stays_unused():
    found, counts = knn_examples(units(), np.array([0]), *lists({1: 0.9, 6: 0.3}), 64)
    assert found == []
    assert counts == {"anchors_tried": 1, "anchors_alone": 1, "passed_same_document": 1}
    empty = (np.zeros((1, 0), dtype=np.int64), np.zeros((1, 0), dtype=np.float32))
    assert knn_examples(units(), np.array([0]), *empty, 64)[0] == []
    assert members(units(tokens=100)) == []


def test_used_units_stand_in_no_second_example_and_used_anchors_begin_none():
    given = units((0, 1, 2), (0, 0, 0))
    numbers = np.array([[1, 2], [0, 2], [0, 1]])
    sims = np.full((3, 2), 0.8, dtype=np.float32)
    anchors = np.array([0, 1, 2])
    found, counts = knn_examples(given, anchors, numbers, sims, 43)
    assert [e.units.tolist() for e in found] == [[0, 1]]
    assert (counts["anchors_used_up"], counts["anchors_alone"]) == (1, 1)
    # Unit 0 has been used twice when the third anchor looks for company.
    twice, _ = knn_examples(given, anchors, numbers, sims, 43, rules=Rules(max_reuse=2))
    assert [e.units.tolist() for e in twice] == [[0, 1], [1, 0]]


def test_no_more_examples_than_wanted():
    given = units((0, 1, 2, 3), (0, 0, 0, 0))
    numbers, sims = np.array([[1], [0], [3], [2]]), np.full((4, 1), 0.8, dtype=np.float32)
    found, counts = knn_examples(given, np.arange(4), numbers, sims, 64, count=1)
    assert [e.units.tolist() for e in found] == [[0, 1]]
    assert counts["anchors_tried"] == 1


def test_the_shuffled_order_is_a_permutation_that_the_keys_decide():
    sims = {u: 0.9 - u / 100 for u in range(1, 7)}
    given = units(range(7), [0] * 7)
    plain = members(given, sims, length=200)
    mixed = members(given, sims, length=200, inner_order="shuffled")
    assert sorted(mixed) == plain == list(range(7))
    assert mixed != plain
    assert mixed == members(given, sims, length=200, inner_order="shuffled")


@given(st.integers(0, 2**32), st.integers(1, 3), st.sampled_from([None, 0, 1]))
@settings(max_examples=60, deadline=None)
def test_what_holds_for_any_lists(seed, max_reuse, min_gap):
    rng = np.random.default_rng(seed)
    n, k = 40, 12
    doc = np.sort(rng.integers(0, 15, n))
    sent = np.arange(n) - np.searchsorted(doc, doc)
    text = ["".join(rng.choice(list("abcd"), 8)) for _ in range(n)]
    tokens = rng.integers(16, 60, n)
    given = Units(doc, sent, tokens, text, rng.integers(0, 2**63, n).astype(np.uint64))
    anchors = rng.permutation(n)
    numbers = np.stack([rng.permutation(np.delete(np.arange(n), a))[:k] for a in anchors])
    sims = -np.sort(-rng.random((n, k)).astype(np.float32), axis=1)
    rules = Rules(min_gap, 0.95, 0.3, max_reuse, "descending", 16)
    found, counts = knn_examples(given, anchors, numbers, sims, 200, rules=rules)
    used = np.bincount(np.concatenate([e.units for e in found]) if found else [], minlength=n)
    assert used.max(initial=0) <= max_reuse
    assert len(found) + counts.get("anchors_alone", 0) + counts.get("anchors_used_up", 0) == n
    for example in found:
        of = example.units
        assert of[0] == example.anchor
        assert len(of) >= 2
        assert int((tokens[of] + 1).sum()) <= 200
        assert (np.diff(example.sims) <= 0).all()
        assert ((example.sims[1:] >= 0.3) & (example.sims[1:] < 0.95)).all()
        pairs = [(a, b) for i, a in enumerate(of) for b in of[:i]]
        assert all(jaccard(text[a], text[b]) < 0.7 for a, b in pairs)
        for a, b in pairs:
            assert doc[a] != doc[b] or (min_gap is not None and abs(sent[a] - sent[b]) > min_gap)


def test_knn_repeat_puts_every_document_before_its_neighbours():
    numbers = np.array([[1, 2, 3], [0, 2, -1], [3, 0, 1], [2, -1, -1]], dtype=np.int32)
    sims = np.array(
        [[0.96, 0.9, 0.8], [0.96, 0.5, -np.inf], [0.7, 0.6, 0.5], [0.7, -np.inf, -np.inf]],
        dtype=np.float32,
    )
    tokens = np.array([10, 20, 30, 200])
    found = knn_repeat(numbers, sims, tokens, np.array([2, 0, 1, 3]), 100)
    rows = list(zip(*(a.tolist() for a in found), strict=True))
    assert rows == [
        (0, 2, 30),
        (0, 3, 68),  # cut: 100 - 31 - its separator
        (1, 0, 10),  # document 1 is a near-copy
        (1, 2, 30),
        (1, 3, 57),
        (2, 1, 20),
        (2, 2, 30),
        (3, 3, 200),  # longer than a context: alone and whole
    ]


def test_knn_repeat_without_documents_or_text():
    none = np.zeros((0, 2), dtype=np.int32)
    assert len(knn_repeat(none, none.astype(np.float32), *[np.zeros(0, np.int64)] * 2, 10).doc) == 0
    numbers, sims = np.array([[1], [0]], dtype=np.int32), np.full((2, 1), 0.5, dtype=np.float32)
    found = knn_repeat(numbers, sims, np.array([5, 0]), np.arange(2), 10)
    assert found.doc.tolist() == [0]
    assert found.end.tolist() == [5]
