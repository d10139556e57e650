import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.pack.plan import STRATEGIES
from longctx.pack.window import pack_window
from tests.pack.reference import one_tour, reference_window, steady, windows_of

LENGTHS = np.array([6, 5, 3, 12, 2, 4, 1])
# No vector, and three directions: cosines are sums of small whole numbers, so ties are exact.
WITH_TIES = np.vstack([np.zeros((1, 3)), np.eye(3)]).astype(np.float32)


@pytest.mark.parametrize(
    ("look_ahead", "fill_policy", "expected"),
    [
        (1, "none", "006 | 105 203 | 30- | 3-= 402 504 601"),
        (2, "none", "006 203 | 105 | 30- | 3-= 402 504 601"),
        (3, "none", "006 203 | 105 402 | 30- | 3-= 504 601"),
        (99, "none", "006 203 601 | 105 402 | 30- | 3-= 504"),
        (3, "split", "006 203 101 | 115 402 504 | 30- | 3-= 601"),
    ],
)
def test_the_examples_of_the_specification(look_ahead, fill_policy, expected):
    number = {"-": 10, "=": 12}
    windows = [
        [tuple(number.get(c, c) for c in span) for span in window.split()]
        for window in expected.split(" | ")
    ]
    plan = pack_window(LENGTHS, one_tour(7), 10, look_ahead=look_ahead, fill_policy=fill_policy)
    assert windows_of(plan) == [[tuple(map(int, span)) for span in w] for w in windows]


def test_largest_takes_the_largest_that_fits_and_the_earlier_of_equals():
    plan = pack_window(np.array([4, 1, 3, 6, 3, 6]), one_tour(6), 10, look_ahead=9, rule="largest")
    assert windows_of(plan)[:2] == [[(0, 0, 4), (3, 0, 6)], [(1, 0, 1), (5, 0, 6), (2, 0, 3)]]


def test_crop_drops_the_rest_of_the_head_and_counts_it():
    plan = pack_window(np.array([6, 7, 3]), one_tour(3), 10, look_ahead=1, fill_policy="crop")
    assert windows_of(plan) == [[(0, 0, 6), (1, 0, 4)], [(2, 0, 3)]]
    assert (plan.counts["dropped_crop"], plan.counts["tokens_placed"]) == (3, 13)


def test_a_tour_starts_a_window_and_the_buffer_does_not_look_into_the_next():
    tour = np.array([0, 0, 0, 1, 1, 2, 2], np.int32)
    plan = pack_window(LENGTHS, tour, 10, cross_tours=False, fill_policy="split")
    assert windows_of(plan) == [
        [(0, 0, 6), (2, 0, 3), (1, 0, 1)],
        [(1, 1, 5)],
        [(3, 0, 10)],
        [(3, 10, 12), (4, 0, 2)],
        [(5, 0, 4), (6, 0, 1)],
    ]


def test_unknown_names_and_an_empty_buffer_are_refused():
    for options in ({"rule": "smallest"}, {"fill_policy": "pad"}, {"look_ahead": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            pack_window(LENGTHS, one_tour(7), 10, **options)
    with pytest.raises(ValueError, match=r"rule='similar' needs the documents' vectors"):
        pack_window(LENGTHS, one_tour(7), 10, rule="similar")


@steady
@given(
    st.lists(st.integers(0, 80), max_size=25),
    st.integers(1, 16),
    st.integers(1, 64),
    st.sampled_from(["first", "largest", "similar", "weighed"]),
    st.sampled_from(["none", "split", "crop"]),
    st.data(),
)
def test_equals_the_plain_form_of_the_specification(
    lengths, length, look_ahead, rule, fill_policy, data
):
    kinds = data.draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths)))
    vectors = WITH_TIES[np.array(kinds, np.int64)]
    plan = pack_window(
        np.array(lengths, np.int64),
        one_tour(len(lengths)),
        length,
        look_ahead=look_ahead,
        rule=rule,
        fill_policy=fill_policy,
        vectors=vectors,
    )
    expected, cropped = reference_window(lengths, length, look_ahead, rule, fill_policy, vectors)
    assert windows_of(plan) == expected
    assert plan.counts["dropped_crop"] == cropped


@pytest.mark.parametrize("rule", ["similar", "weighed"])
def test_similarities_of_any_vectors_equal_the_plain_form(rule):
    g = np.random.default_rng(3)
    lengths = g.integers(1, 60, 300)
    vectors = g.standard_normal((300, 21)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    plan = pack_window(lengths, one_tour(300), 100, look_ahead=30, rule=rule, vectors=vectors)
    expected, _ = reference_window(lengths.tolist(), 100, 30, rule, "none", vectors)
    assert windows_of(plan) == expected


def test_similar_takes_the_most_similar_that_fits_and_the_earlier_of_equals():
    lengths = np.array([4, 2, 3, 6, 3, 2])
    vectors = WITH_TIES[[1, 2, 1, 1, 1, 2]]
    plan = pack_window(lengths, one_tour(6), 10, look_ahead=9, rule="similar", vectors=vectors)
    assert windows_of(plan) == [
        [(0, 0, 4), (2, 0, 3), (4, 0, 3)],
        [(1, 0, 2), (5, 0, 2), (3, 0, 6)],
    ]


def test_weighed_takes_what_is_large_before_what_is_a_little_more_alike():
    vectors = np.array([[1, 0], [1, 0], [0.96, 0.28], [0.6, 0.8]], np.float32)
    lengths = np.array([30, 20, 70, 70])
    options = {"look_ahead": 9, "vectors": vectors}
    similar = windows_of(pack_window(lengths, one_tour(4), 100, rule="similar", **options))
    weighed = windows_of(pack_window(lengths, one_tour(4), 100, rule="weighed", **options))
    assert similar[0] == [(0, 0, 30), (1, 0, 20)]
    assert weighed[0] == [(0, 0, 30), (2, 0, 70)]


def test_a_document_without_a_usable_vector_is_unlike_all_others():
    lengths = np.array([4, 2, 3, 3])
    vectors = WITH_TIES[[1, 0, 1, 1]].copy()
    vectors[2] = np.nan
    plan = pack_window(lengths, one_tour(4), 7, look_ahead=9, rule="similar", vectors=vectors)
    assert windows_of(plan) == [[(0, 0, 4), (3, 0, 3)], [(1, 0, 2), (2, 0, 3)]]


def test_pieces_of_a_window_lie_in_tour_order_when_they_are_weighed():
    lengths = np.array([2, 3, 4])
    plan = pack_window(
        lengths, one_tour(3), 10, look_ahead=9, rule="weighed", vectors=WITH_TIES[[1, 1, 1]]
    )
    assert windows_of(plan) == [[(0, 0, 2), (1, 0, 3), (2, 0, 4)]]


@steady
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 90)), max_size=25),
    st.integers(1, 18),
    st.booleans(),
)
def test_next_fit_with_split_is_concat(rows, length, cross_tours):
    rows.sort(key=lambda row: row[0])
    tour = np.array([t for t, _ in rows], np.int32)
    lengths = np.array([n for _, n in rows], np.int64)
    options = {"cross_tours": cross_tours}
    concat = STRATEGIES["concat"](lengths, tour, length, **options)
    window = STRATEGIES["window"](
        lengths, tour, length, look_ahead=1, fill_policy="split", **options
    )
    assert windows_of(window) == windows_of(concat)
