"""ProLong LDS by hand, on planted copies, and the draw of chunks and pairs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.ids import rng_for
from longctx.score.likelihood import numbers
from longctx.score.prolong import Draw, columns, draw, lds, perplexities
from tests.score.stubs import CopyLM

ALONE = np.array([10.0, 20.0, 10.0])
PAIRS = np.array([[1, 0], [2, 0], [2, 1]])
JOINT = np.array([10.0, 9.0, 5.0])


def test_by_hand() -> None:
    terms = lds(ALONE, JOINT, PAIRS, [0, 1, 2], scale=2)
    assert terms.tolist() == pytest.approx([1.0, 0.0, 0.8700207], abs=1e-7)
    found = columns(Draw(3, np.arange(3), PAIRS), ALONE, JOINT, scale=2)
    assert found["pl_lds"] == pytest.approx(1.8700207, abs=1e-7)
    assert found["pl_lds_per_pair"] == pytest.approx(1.8700207 / 3, abs=1e-7)
    assert (found["pl_hits"], found["pl_pairs"], found["pl_n_chunks"]) == (2, 3, 3)
    # The weights of chunk 2: ln(10/9) and ln(10/5).
    w = np.array([10 / 9, 2.0])
    w /= w.sum()
    certain = 1 + float((w * np.log(w)).sum()) / np.log(2)
    assert found["pl_lds_log"] == pytest.approx(1.0 + certain, abs=1e-7)


def plainly(alone: list[float], joint: dict[tuple[int, int], float], scale: float) -> float:
    """The sum as it is published, pair by pair."""
    total = 0.0
    for i in range(len(alone)):
        gains = {j: alone[i] - q for (k, j), q in joint.items() if k == i}
        m = len(gains)
        weights = {j: math.exp(g - max(gains.values())) for j, g in gains.items()}
        shares = [w / sum(weights.values()) for w in weights.values()]
        entropy = -sum(p * math.log(p) for p in shares if p > 0)
        certain = 1.0 if m < 2 else min(1.0, max(0.0, (math.log(m) - entropy) / math.log(m)))
        for j, gain in gains.items():
            if gain / alone[i] > 0.1:
                total += (gain / alone[i] + min(1.0, (i - j) / scale)) * certain
    return total


@given(st.integers(2, 9), st.integers(0, 999))
@settings(deadline=None, max_examples=60)
def test_sum_is_that_of_the_published_loops(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = draw(k * 10, rng, chunk=10, max_pairs=int(rng.integers(1, 20)))
    alone, joint = np.exp(rng.normal(1, 1, k)), np.exp(rng.normal(0.5, 1.5, len(found.pairs)))
    by_pair = {(i, j): q for (i, j), q in zip(found.pairs.tolist(), joint.tolist(), strict=True)}
    terms = lds(alone, joint, found.pairs, found.chunks, scale=5)
    assert terms.sum() == pytest.approx(plainly(alone.tolist(), by_pair, 5))


def test_distance_is_that_of_the_document_or_of_the_sample() -> None:
    found = Draw(9, np.array([0, 4, 8]), PAIRS)
    true = columns(found, ALONE, JOINT, scale=8)
    sampled = columns(found, ALONE, JOINT, scale=8, index="sampled")
    assert true["pl_lds"] > sampled["pl_lds"]  # type: ignore[operator]
    assert sampled == columns(found._replace(chunks=np.arange(3)), ALONE, JOINT, scale=8)
    near = lds(ALONE, JOINT, PAIRS, [0, 400, 800], scale=8)
    assert near.tolist() == lds(ALONE, JOINT, PAIRS, [0, 8, 16], scale=8).tolist()


def test_unrelated_chunks_score_nothing() -> None:
    found = columns(Draw(3, np.arange(3), PAIRS), ALONE, np.array([20.0, 10.0, 10.0]))
    assert found["pl_lds"] == found["pl_lds_log"] == found["pl_hits"] == 0


def test_what_is_no_number_does_not_become_a_score() -> None:
    for alone, joint in ((ALONE, [10.0, np.nan, 5.0]), ([10.0, np.nan, 10.0], JOINT)):
        found = columns(Draw(3, np.arange(3), PAIRS), np.array(alone), np.array(joint))
        assert not numbers(found)


def test_one_chunk_has_no_pairs() -> None:
    for n in (0, 5, 127, 128, 255):
        one = draw(n, rng_for(0, "prolong", "a"))
        assert one.n_chunks == n // 128
        assert one.pairs.shape == (0, 2)
        found = columns(one, np.ones(len(one.chunks)), np.zeros(0))
        assert (found["pl_lds"], found["pl_pairs"], found["pl_hits"]) == (None, 0, None)


@given(n=st.integers(0, 400), seed=st.integers(0, 99), most=st.integers(1, 40))
@settings(deadline=None, max_examples=100)
def test_pairs_are_distinct_and_the_later_chunk_is_first(n: int, seed: int, most: int) -> None:
    found = draw(n, rng_for(seed, "prolong", "d"), chunk=10, max_chunks=16, max_pairs=most)
    k = len(found.chunks)
    assert k == min(16, n // 10)
    assert (np.diff(found.chunks) > 0).all()
    assert len(found.pairs) == min(most, k * (k - 1) // 2)
    assert len({tuple(p) for p in found.pairs.tolist()}) == len(found.pairs)
    assert ((found.pairs[:, 0] > found.pairs[:, 1]) & (found.pairs >= 0).all(axis=1)).all()
    assert (found.pairs < max(1, k)).all()


def test_all_pairs_are_drawn_alike() -> None:
    seen = np.zeros((6, 6))
    for seed in range(3_000):
        for i, j in draw(60, rng_for(seed, "prolong", "d"), chunk=10, max_pairs=5).pairs.tolist():
            seen[i, j] += 1
    counts = seen[np.tril_indices(6, -1)]
    assert counts.min() > 850
    assert counts.max() < 1150


def test_copied_chunks_are_the_pairs_that_count() -> None:
    rng = np.random.default_rng(0)
    vocabulary = 5_000
    ids = rng.integers(0, vocabulary, 8 * 128).astype(np.int32)
    ids[6 * 128 : 7 * 128] = ids[128 : 2 * 128]
    found = draw(len(ids), rng_for(0, "prolong", "d"))
    ((alone, joint),) = perplexities(CopyLM(vocabulary), [ids], [found])
    terms = lds(alone, joint, found.pairs, found.chunks)
    assert {tuple(p) for p in found.pairs[terms > 0].tolist()} == {(6, 1)}
    few = found._replace(pairs=np.array([[5, 0], [6, 1]]))
    (one,) = perplexities(CopyLM(vocabulary), [ids], [few])
    assert lds(*one, few.pairs, few.chunks)[1] > terms.max() / 7


def test_documents_are_read_as_if_alone() -> None:
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, 50, n).astype(np.int32) for n in (300, 700, 90)]
    draws = [draw(len(ids), rng_for(0, "prolong", str(len(ids)))) for ids in documents]
    together = perplexities(CopyLM(50), documents, draws)
    for ids, one, (alone, joint) in zip(documents, draws, together, strict=True):
        ((a, b),) = perplexities(CopyLM(50), [ids], [one])
        assert np.array_equal(a, alone, equal_nan=True)
        assert b.tolist() == joint.tolist()
    assert len(together[2][0]) == 0
