import numpy as np
import pytest

from longctx.pack.concat import pack_concat
from longctx.pack.frame import Placement
from longctx.pack.lookahead import Candidate, choose, plan_look_ahead
from longctx.pack.plan import plan_windows
from longctx.pack.similarity import coherence, similarity
from tests.pack.reference import one_tour, windows_of

G = np.random.default_rng(8)
LENGTHS = np.clip(np.exp(G.normal(4, 1, 2_000)), 4, 5_000).astype(np.int64)
TOPICS = G.standard_normal((60, 16))
# Each document is one of 60 topics; topics return along the order, so far looks find their like.
VECTORS = TOPICS[np.arange(2_000) // 4 % 60] + 0.5 * G.standard_normal((2_000, 16))
VECTORS = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype(np.float32)
TOUR = one_tour(2_000)


def candidate(
    look_ahead: int, fullness: float, coherent: float | None, rule: str = "first"
) -> Candidate:
    return Candidate(rule, look_ahead, 100, fullness, fullness, coherent)


def test_the_largest_product_of_fill_and_coherence_among_the_full_is_chosen():
    near, far, empty = (candidate(*v) for v in ((1, 0.99, 0.4), (2, 0.985, 0.5), (3, 0.97, 0.9)))
    assert choose([near, far, empty], 0.9) is far
    assert choose([near, empty], 0.9) is near
    assert choose([near, candidate(9, 0.99, 0.4)], 0.9) is near


def test_coherence_beyond_that_of_the_order_is_no_merit():
    plain = candidate(1, 0.99, 0.05)
    alike = candidate(2, 0.985, 0.6, "weighed")
    assert choose([plain, alike], 0.05) is plain
    assert choose([plain, alike], 0.5) is alike


def test_weighing_must_be_worth_a_hundredth():
    plain = candidate(1, 1.0, 0.40)
    assert choose([plain, candidate(2, 1.0, 0.409, "weighed")], 0.5) is plain
    assert choose([plain, candidate(2, 1.0, 0.411, "weighed")], 0.5).rule == "weighed"


def test_the_fullest_is_chosen_where_none_is_full():
    assert choose([candidate(1, 0.5, 0.9), candidate(2, 0.6, 0.1)], 0.9).look_ahead == 2


def test_without_vectors_the_shortest_look_ahead_that_fills_is_chosen():
    tried = [candidate(w, fullness, None) for w, fullness in ((1, 0.985), (2, 0.99), (3, 1.0))]
    assert choose(tried, None).look_ahead == 2


def test_the_plan_is_that_of_the_chosen_candidate_and_nothing_beats_it():
    plan, report = plan_look_ahead(LENGTHS, TOUR, 500, vectors=VECTORS)
    options = {"rule": report["rule"], "look_ahead": report["look_ahead"], "vectors": VECTORS}
    assert windows_of(plan) == windows_of(plan_windows("window", LENGTHS, TOUR, 500, **options))
    assert [(c["rule"], c["look_ahead"]) for c in report["tried"]] == [
        (rule, look) for rule in ("first", "weighed") for look in (64, 512)
    ]
    concat = coherence(pack_concat(LENGTHS, TOUR, 500).placement, VECTORS)
    worth = [c["fill"] * min(c["coherence"], concat) for c in report["tried"]]
    assert max(worth) == report["fill"] * min(report["coherence"], concat)
    assert report["rule"] == "weighed"
    assert report["coherence_of_order"] == concat
    assert report["coherence_kept"] == pytest.approx(report["coherence"] / concat)


def test_a_given_rule_or_look_ahead_is_kept():
    _, report = plan_look_ahead(LENGTHS, TOUR, 500, rule="similar", vectors=VECTORS)
    assert {c["rule"] for c in report["tried"]} == {"similar"}
    _, report = plan_look_ahead(LENGTHS, TOUR, 500, look_ahead=5, vectors=VECTORS)
    assert [(c["rule"], c["look_ahead"]) for c in report["tried"]] == [("first", 5), ("weighed", 5)]


def test_a_random_order_is_packed_as_it_is():
    shuffled = np.random.default_rng(0).permutation(2_000)
    _, report = plan_look_ahead(LENGTHS[shuffled], TOUR, 500, vectors=VECTORS[shuffled])
    assert report["rule"] == "first"
    assert max(c["coherence"] for c in report["tried"]) > 5 * report["coherence_of_order"]


def test_without_vectors_only_lengths_are_looked_at_and_that_is_said():
    plan, report = plan_look_ahead(LENGTHS, TOUR, 500)
    assert {c["rule"] for c in report["tried"]} == {"first"}
    assert report["coherence"] is report["coherence_of_order"] is report["coherence_kept"] is None
    assert report["windows"] == plan.placement.window[-1] + 1


def test_nothing_to_plan():
    none = np.zeros(0, np.int64)
    for vectors in (None, VECTORS[:0]):
        plan, report = plan_look_ahead(none, one_tour(0), 500, vectors=vectors)
        assert windows_of(plan) == []
        assert (report["windows"], report["fill"], report["coherence_kept"]) == (0, 1.0, None)


def test_coherence_is_that_of_the_audit():
    placement = pack_concat(LENGTHS, TOUR, 500).placement
    vectors = VECTORS.copy()
    vectors[::7] = 0
    sums = similarity(placement, vectors)
    expected = sums.pairs_cos.sum() / sums.pairs.sum()
    assert coherence(placement, vectors) == pytest.approx(expected, abs=1e-6)


def test_segments_of_one_document_are_not_compared():
    rows = [(0, 0, 0, 4), (0, 1, 0, 2), (0, 0, 8, 9), (1, 1, 2, 9)]
    placement = Placement(*np.array(rows, np.int64).T)
    angle = np.deg2rad([0, 60])
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert coherence(placement, vectors) == pytest.approx(0.5)
    assert coherence(Placement(*np.array(rows[:1], np.int64).T), vectors) is None
