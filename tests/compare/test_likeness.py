"""Similarity figures against worked examples and against plain loops over tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.compare.likeness import Estimate, likeness
from longctx.compare.sample import Sample, identities, sample_of
from longctx.compare.windows import Packed
from longctx.order.metrics import best_earlier, coherence
from longctx.pack.similarity import F32


def angles(*degrees: float) -> F32:
    turned = np.radians(degrees)
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


def sample(windows: list[list[int]], vectors: F32, documents: list[int] | None = None) -> Sample:
    """Windows as token counts of their segments; every segment a document unless named."""
    tokens = np.array([n for window in windows for n in window], dtype=np.int64)
    own = np.arange(1, len(tokens) + 1, dtype=np.uint64)
    document = own if documents is None else np.array(documents, dtype=np.uint64)
    borders = np.cumsum([0, *map(len, windows)])
    priority = np.arange(len(windows), dtype=np.uint64)
    return sample_of(Packed(borders, tokens, own, priority, document, None, None), vectors)


def test_coherence_is_weighted_by_tokens():
    found = likeness(sample([[6, 3, 1], [9], [5, 5]], angles(0, 60, 90, 45, 0, 30)), [10])
    assert found.coherence[0].value == pytest.approx(33.248711 / 52, abs=1e-7)
    assert likeness(sample([[6, 3, 1]], angles(0, 60, 90)), [10]).coherence[0].value == (
        pytest.approx(11.598076 / 27, abs=1e-7)
    )


def test_one_window_in_its_best_order_reaches_the_bound():
    found = likeness(sample([[1] * 6], angles(0, 10, 30, 60, 100, 150)), [6])
    assert found.adjacency.value == pytest.approx(0.839872, abs=1e-6)
    assert found.coherence[0].value == pytest.approx(0.282965, abs=1e-6)
    assert found.best_earlier.value == pytest.approx(0.839872, abs=1e-6)
    assert found.inside.found == pytest.approx(0.839872, abs=1e-6)
    assert found.inside.reached == pytest.approx(1.0, abs=1e-4)
    assert found.random == pytest.approx(0.282965, abs=1e-6)
    # Ten half-edges for five seams: the two smallest second-best similarities are left out.
    near = np.cos(np.radians([10, 30, 10, 20, 20, 30, 30, 40, 40, 50, 50, 90]))
    assert found.seams.bound == pytest.approx(np.sort(near)[2:].mean(), abs=1e-6)
    turned = likeness(sample([[1] * 6], angles(0, 30, 10, 60, 150, 100)), [6])
    assert turned.adjacency.value == pytest.approx(0.618259, abs=1e-6)
    assert turned.inside.bound == pytest.approx(0.839872, abs=1e-4)
    assert turned.inside.reached == pytest.approx(
        (0.618259 - 0.282965) / (0.839872 - 0.282965), abs=1e-3
    )


def test_equal_documents_and_pieces_of_one_are_not_compared():
    vectors = angles(0, 0, 60)
    found = likeness(sample([[4, 4, 4]], vectors, [1, 1, 2]), [12])
    assert found.adjacency.value == pytest.approx(0.5, abs=1e-6)
    assert found.coherence[0].value == pytest.approx(0.5, abs=1e-6)
    assert found.duplicates == Estimate(0.0)
    assert likeness(sample([[4, 4]], vectors[:2], [1, 1]), [8]).adjacency == Estimate()


def test_one_content_under_two_names_is_one_document():
    content = np.array([5, 5, 6, 5, 0, 0], dtype=np.uint64)
    names = np.array([1, 2, 3, 4, 7, 8], dtype=np.uint64)
    borders, tokens = np.array([0, 3, 6]), np.ones(6, dtype=np.int64)
    packed = Packed(borders, tokens, content, content[:2], names, None, None)
    assert identities(packed).tolist() == [1, 1, 3, 4, 7, 8]
    nameless = Packed(borders, tokens, content, content[:2], None, None, None)
    found = identities(nameless).tolist()
    assert found[:4] == [5, 5, 6, 5]
    assert found[4] != found[5]


def test_segments_without_a_vector_are_left_out_and_counted():
    vectors = angles(0, 0, 60)
    vectors[1] = 0
    found = likeness(sample([[4, 4, 4]], vectors), [12])
    assert (found.segments, found.unknown) == (3, 1)
    assert found.adjacency == Estimate()
    assert found.coherence[0].value == pytest.approx(0.5, abs=1e-6)
    assert found.inside.windows == 0


def test_a_window_with_near_copies_counts_once():
    vectors = angles(0, 10, 20, 0, 60, 0)
    found = likeness(sample([[1, 1, 1], [1, 1], [1]], vectors), [3])
    assert found.duplicates.value == pytest.approx(1 / 3)
    known = likeness(sample([[1, 1, 1], [1, 1], [1]], vectors), [3], np.array([True, False, True]))
    assert known.duplicates.value == pytest.approx(2 / 3)


def test_the_error_is_that_of_a_ratio():
    found = likeness(sample([[1, 1], [1, 1], [2, 1]], angles(0, 60, 0, 90, 0, 0)), [3])
    top, weight = np.array([0.5, 0.0, 2.0]), np.array([1.0, 1.0, 2.0])
    value = top.sum() / weight.sum()
    spread = ((top - value * weight) ** 2).sum()
    assert found.coherence[0].value == pytest.approx(value, abs=1e-6)
    assert found.coherence[0].error == pytest.approx(np.sqrt(1.5 * spread) / 4, abs=1e-6)


def test_nothing_to_compare_gives_no_figures():
    found = likeness(sample([[3], [4]], angles(0, 30)), [4])
    assert found.adjacency == found.best_earlier == found.coherence[0] == Estimate()
    assert (found.seams.bound, found.inside.bound) == (None, None)
    nothing = likeness(sample([[3, 1]], np.zeros((2, 2), dtype=np.float32)), [4])
    assert (nothing.random, nothing.random_best_earlier, nothing.unknown) == (None, None, 2)


def per_token(windows: list[list[int]], X: F32, size: int) -> tuple[float, float, float, float]:
    """Sums of coherence and best earlier by looking at every token of every stretch."""
    pairs = pairs_cos = earlier = earlier_cos = 0.0
    first = 0
    for window in windows:
        owner = [first + i for i, n in enumerate(window) for _ in range(n)]
        first += len(window)
        for at in range(0, len(owner), size):
            stretch = owner[at : at + size]
            for i, a in enumerate(stretch):
                others = [b for b in stretch[:i] if b != a]
                pairs += len(others)
                pairs_cos += sum(float(X[a] @ X[b]) for b in others)
            for a in dict.fromkeys(stretch):
                before = [b for b in dict.fromkeys(stretch) if b < a]
                if before:
                    earlier += stretch.count(a)
                    earlier_cos += stretch.count(a) * max(float(X[a] @ X[b]) for b in before)
    return pairs, pairs_cos, earlier, earlier_cos


WINDOWS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=5)


@settings(derandomize=True, deadline=None)
@given(WINDOWS, st.integers(1, 12), st.integers(0, 99))
def test_stretches_are_those_of_the_tokens(windows: list[list[int]], size: int, seed: int):
    X = unit(sum(map(len, windows)), seed)
    pairs, pairs_cos, earlier, earlier_cos = per_token(windows, X, size)
    found = likeness(sample(windows, X), [size])
    assert found.coherence[0].value == (
        pytest.approx(pairs_cos / pairs, abs=1e-5) if pairs else None
    )
    assert found.best_earlier.value == (
        pytest.approx(earlier_cos / earlier, abs=1e-5) if earlier else None
    )


def unit(n: int, seed: int) -> F32:
    X = np.random.default_rng(seed).standard_normal((n, 5)).astype(np.float32)
    return np.asarray(X / np.linalg.norm(X, axis=1, keepdims=True), dtype=np.float32)


@settings(derandomize=True, deadline=None)
@given(WINDOWS, st.integers(0, 99))
def test_no_order_passes_its_bounds(windows: list[list[int]], seed: int):
    n = sum(map(len, windows))
    documents = np.random.default_rng(seed).integers(1, n + 1, n).tolist()
    found = likeness(sample(windows, unit(n, seed), documents), [50])
    for bounded in (found.seams, found.inside):
        if bounded.bound is not None and bounded.found is not None:
            assert bounded.found <= bounded.bound + 1e-6


@settings(derandomize=True, deadline=None)
@given(WINDOWS, st.integers(0, 99))
def test_chance_is_the_mean_over_pairs_of_documents_with_company(
    windows: list[list[int]], seed: int
):
    X = unit(sum(map(len, windows)), seed)
    found = likeness(sample(windows, X), [99])
    company = np.repeat([len(w) > 1 for w in windows], list(map(len, windows)))
    if not company.any():
        assert (found.random, found.random_coherence) == (None, [None])
        return
    Y = X[company].astype(np.float64)
    mean = (Y @ Y.T)[np.triu_indices(len(Y), 1)].mean()
    assert found.random == pytest.approx(mean, abs=1e-6)
    assert found.random_coherence[0] == pytest.approx(mean, abs=1e-6)


def test_chance_moves_documents_to_places_of_their_size():
    """Long documents are all alike and share windows, short ones are not: order adds nothing."""
    g = np.random.default_rng(8)
    X = unit(1200, 4)
    X[:600] = angles(*g.uniform(0, 1, 600)) @ np.eye(2, 5, dtype=np.float32)
    windows = [[100] * 3] * 200 + [[5] * 3] * 200
    found = likeness(sample(windows, X), [10, 300])
    assert found.coherence[1].value == pytest.approx(found.random_coherence[1], abs=0.01)
    assert found.adjacency.value == pytest.approx(found.random, abs=0.03)
    assert found.random == pytest.approx(0.5, abs=0.03)
    # In small contexts only short documents meet, and chance says so.
    assert found.coherence[0].value == pytest.approx(found.random_coherence[0], abs=0.1)
    assert abs(found.random_coherence[0]) < 0.05


def test_equal_lengths_agree_with_the_metrics_of_an_order():
    X = unit(60, 1)
    order = np.arange(60, dtype=np.int64)
    found = likeness(sample([[7] * 6] * 10, X), [21, 42])
    assert found.coherence[0].value == pytest.approx(coherence(X, order, 3), abs=1e-6)
    assert found.coherence[1].value == pytest.approx(coherence(X, order, 6), abs=1e-6)
    assert found.best_earlier.value == pytest.approx(best_earlier(X, order, 6), abs=1e-6)


def test_a_document_in_many_pieces_leaves_the_bound_to_others():
    """One document fills its own list of nearest segments; all others are looked at then."""
    windows = [[1, 1] for _ in range(20)]
    documents = [n for i in range(20) for n in (1, 100 + i)]
    vectors = np.concatenate([angles(0, 50 + i) for i in range(20)])
    found = likeness(sample(windows, vectors, documents), [2])
    assert found.seams.bound is not None
    assert found.seams.found is not None
    assert found.seams.found <= found.seams.bound < 1.0
