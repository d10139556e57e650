import json

import numpy as np
import pytest

from longctx.errors import RunError
from longctx.pack.audit import (
    assert_conserved,
    finish,
    merge,
    pack_stats,
    partial,
    placement_partial,
)
from longctx.pack.concat import pack_concat
from longctx.pack.frame import Placement
from longctx.pack.similarity import similarity
from longctx.pack.windows import assemble
from tests.pack.reference import documents, one_tour

LENGTHS = np.array([6, 5, 3, 12, 2, 4, 1])


def part_of(placement: Placement, first: int, stop: int) -> Placement:
    rows = (placement.window >= first) & (placement.window < stop)
    return Placement(*(column[rows] for column in vars(placement).values()))


def unit_vectors(degrees) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_figures_of_concat_on_the_example():
    plan = pack_concat(LENGTHS, one_tour(7), 10)
    table = assemble(plan.placement, documents(LENGTHS), length=10)
    found = pack_stats(table, length=10, placement=plan.placement, lengths=LENGTHS)
    assert (found["windows"], found["windows_lower_bound"], found["tokens"]) == (4, 4, 33)
    assert found["fill"] == pytest.approx(33 / 40)
    assert found["fill_histogram"] == [0] * 6 + [1] + [0] * 12 + [3]
    assert found["docs_histogram"] == [[2, 2], [3, 2]]
    assert found["docs_per_window"] == 2.5
    assert found["docs_per_window_quantiles"] == {
        "0.05": 2, "0.25": 2, "0.5": 2, "0.75": 3, "0.95": 3,
    }  # fmt: skip
    assert found["split_docs"] == pytest.approx(3 / 7)
    assert found["split_short"] == pytest.approx(2 / 7)
    assert (found["documents"], found["segments"]) == (7, 10)
    assert found["one_document"] == 0
    assert found["several_sources"] == 1
    assert "context_coherence" not in found


def test_a_document_of_exactly_a_window_is_short():
    lengths = np.array([5, 10, 11])
    plan = pack_concat(lengths, one_tour(3), 10)
    sums = placement_partial(plan.placement, lengths, 10)
    assert (sums["split_docs"], sums["split_short"]) == (2, 1)


def test_context_coherence_of_the_specification():
    lengths = [6, 3, 1, 10, 5, 5]
    zero = np.zeros(6, np.int64)
    placement = Placement(np.array([0, 0, 0, 1, 2, 2]), np.arange(6), zero, np.array(lengths))
    sums = similarity(placement, unit_vectors([0, 60, 90, 0, 0, 30]))
    assert sums.pairs.tolist() == [27, 0, 25]
    table = assemble(placement, documents(lengths), length=10, similarities=sums)
    found = pack_stats(table, length=10, similarity=sums, dup_cos=0.86)
    assert found["context_coherence"] == pytest.approx(33.248711 / 52, abs=1e-6)
    assert found["context_best_earlier"] == pytest.approx(
        (3 * 0.5 + 1 * np.sqrt(0.75) + 5 * np.sqrt(0.75)) / 9, abs=1e-6
    )
    assert found["context_adjacent"] == pytest.approx((0.5 + 2 * np.sqrt(0.75)) / 3, abs=1e-6)
    assert found["dup_in_window"] == pytest.approx(2 / 3)
    assert found["one_document"] == pytest.approx(1 / 3)


def test_segments_of_one_document_are_not_compared():
    placement = Placement(
        np.zeros(3, np.int64), np.array([0, 1, 0]), np.array([0, 0, 8]), np.array([4, 2, 9])
    )
    sums = similarity(placement, unit_vectors([0, 60]))
    assert (sums.pairs[0], sums.adjacent[0], sums.earlier[0]) == (4 * 2 + 2 * 1, 2, 3)
    assert sums.top_cos[0] == pytest.approx(0.5)


def test_windows_of_many_segments_are_compared_in_blocks():
    n = 1_100
    g = np.random.default_rng(2)
    vectors = g.standard_normal((n, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tokens = g.integers(1, 9, n)
    zero = np.zeros(n, np.int64)
    sums = similarity(Placement(zero, np.arange(n), zero, tokens), vectors)
    cos = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    lower = np.tri(n, n, -1, dtype=bool)
    best = np.where(lower, cos, -np.inf).max(axis=1)[1:]
    assert sums.pairs[0] == pytest.approx(np.outer(tokens, tokens)[lower].sum())
    assert sums.pairs_cos[0] == pytest.approx(
        (np.outer(tokens, tokens) * cos)[lower].sum(), rel=1e-4
    )
    assert sums.adjacent[0] == n - 1
    assert sums.adjacent_cos[0] == pytest.approx(np.diagonal(cos, -1).sum(), abs=1e-3)
    assert sums.earlier_cos[0] == pytest.approx((tokens[1:] * best).sum(), rel=1e-5)
    assert sums.top_cos[0] == pytest.approx(best.max(), abs=1e-6)


def test_shards_audited_apart_add_up_to_the_whole():
    plan = pack_concat(LENGTHS, one_tour(7), 10)
    vectors = unit_vectors(np.arange(7) * 20)
    docs = documents(LENGTHS)

    def audited(placement: Placement):
        sums = similarity(placement, vectors)
        table = assemble(placement, docs, length=10, similarities=sums)
        return partial(table, length=10, similarity=sums)

    whole = audited(plan.placement)
    halves = [audited(part_of(plan.placement, 0, 1)), audited(part_of(plan.placement, 1, 4))]
    halves = [json.loads(json.dumps(half)) for half in halves]
    cuts = placement_partial(plan.placement, LENGTHS, 10)
    expected = finish(merge([whole, cuts, plan.counts]))
    for order in ([*halves, cuts, plan.counts], [plan.counts, cuts, *reversed(halves)]):
        found = finish(merge(order))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            near = pytest.approx(value) if isinstance(value, float) else value
            assert found[name] == near, name


def test_tokens_in_long_documents():
    lengths = np.array([8_191, 8_192, 40_000, 200_000])
    plan = pack_concat(lengths, one_tour(4), 8_192)
    found = finish(merge([placement_partial(plan.placement, lengths, 8_192), plan.counts]))
    total = lengths.sum()
    assert found["span_ge_8k"] == pytest.approx(248_192 / total)
    assert found["span_ge_32k"] == pytest.approx(240_000 / total)
    assert found["span_ge_128k"] == pytest.approx(200_000 / total)


def test_a_lost_token_or_a_lost_shard_stops_the_run():
    plan = pack_concat(LENGTHS, one_tour(7), 10, long_documents="truncate")
    assert_conserved(plan.counts)
    with pytest.raises(RunError, match="not conserved: 33 in, 30 placed"):
        assert_conserved(plan.counts | {"tokens_placed": 30})
    with pytest.raises(RunError, match="the windows hold 21"):
        assert_conserved(merge([plan.counts, {"tokens": 21}]))


def test_nothing_packed_has_figures_without_means():
    plan = pack_concat(np.zeros(0, np.int64), one_tour(0), 10)
    table = assemble(plan.placement, documents([]), length=10)
    found = pack_stats(table, length=10, placement=plan.placement, lengths=np.zeros(0, np.int64))
    assert (found["windows"], found["windows_lower_bound"]) == (0, 0)
    assert found["fill"] is found["docs_per_window"] is found["split_docs"] is None


def test_documents_without_a_vector_are_left_out_of_similarity() -> None:
    vectors = np.array([[1, 0], [0, 0], [1, 0]], dtype=np.float32)
    sizes = np.array([5, 7, 2])
    placement = Placement(
        np.zeros(3, dtype=np.int64), np.arange(3), np.zeros(3, dtype=np.int64), sizes
    )
    sums = similarity(placement, vectors)
    assert sums.pairs.tolist() == [10.0]
    assert sums.pairs_cos.tolist() == [10.0]
    # The two documents with a vector are no neighbours in the window.
    assert sums.adjacent.tolist() == [0.0]
    assert sums.earlier.tolist() == [2.0]
