from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.dedup.semantic import removal_curve, semdedup_keep, semdedup_pairs
from longctx.ids import priorities

IDS = ["a", "b", "c"]


def at_angles(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def unit_rows(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    x = rng.normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def ids_of(n: int) -> list[str]:
    return [f"d{i:05}" for i in range(n)]


FAN = at_angles(0, 10, 20)


def test_removal_is_not_greedy():
    rank, sim, row = semdedup_pairs(FAN, np.array([0.3, 0.2, 0.1]), IDS)
    assert rank.tolist() == [0, 1, 2]
    assert sim == pytest.approx([0, 0.984808, 0.984808], abs=1e-6)
    assert row.tolist() == [-1, 0, 1]
    assert semdedup_keep(sim, 0.05).tolist() == [True, False, False]


def test_natural_centroid_of_the_specification():
    dist = np.array([0.015192, 0, 0.015192])
    rank, sim, row = semdedup_pairs(FAN, dist, IDS)
    assert rank.tolist() == [0, 2, 1]
    assert sim == pytest.approx([0, 0.984808, 0.939693], abs=1e-6)
    assert row.tolist() == [-1, 0, 0]  # 0 and 20 degrees are equally near: the earlier is named
    assert semdedup_keep(sim, 0.05).tolist() == [True, False, True]
    assert semdedup_keep(sim, 0.07).tolist() == [True, False, False]


def test_orders():
    dist = np.array([0.1, 0.3, 0.3])
    ids = ["c", "b", "a"]
    assert semdedup_pairs(FAN, dist, ids, "hard")[0].tolist() == [2, 1, 0]
    assert semdedup_pairs(FAN, dist, ids, "easy")[0].tolist() == [0, 2, 1]
    n_words = np.array([5, 5, 9])
    assert semdedup_pairs(FAN, dist, ids, "longest", n_words=n_words)[0].tolist() == [2, 1, 0]
    priority = priorities(np.arange(3, dtype=np.uint64), 7)
    random = semdedup_pairs(FAN, dist, ids, "random", priority=priority)[0]
    assert random.tolist() == np.argsort(np.argsort(priority)).tolist()


def test_a_missing_column_or_unknown_order_is_named():
    for mode, message in [("random", "priority"), ("longest", "n_words"), ("best", "'best'")]:
        with pytest.raises(ValueError, match=message):
            semdedup_pairs(FAN, np.zeros(3), IDS, mode)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="eps"):
        semdedup_keep(np.zeros(1, np.float32), 1.0)


def test_empty_and_single_clusters():
    assert semdedup_pairs(FAN[:0], np.zeros(0), [])[1].size == 0
    rank, sim, row = semdedup_pairs(FAN[:1], np.zeros(1), ["a"])
    assert (rank[0], sim[0], row[0]) == (0, 0.0, -1)


def test_opposite_vectors_keep_their_negative_similarity():
    _, sim, row = semdedup_pairs(at_angles(0, 180), np.array([1.0, 0.5]), ["a", "b"])
    assert sim.tolist() == [0.0, -1.0]
    assert row.tolist() == [-1, 0]


def test_strictness_at_the_border():
    sim = np.array([0.5, 0.75], dtype=np.float32)
    assert semdedup_keep(sim, 0.25).tolist() == [True, True]
    assert semdedup_keep(sim, 0.25, inclusive=True).tolist() == [True, False]


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 7, 64, 1024]))
@settings(max_examples=40, deadline=None)
def test_neither_block_size_nor_row_order_changes_a_bit(seed: int, block: int):
    rng = np.random.default_rng(seed)
    x = unit_rows(rng, 30, 24)
    x = np.concatenate(
        [x, x[:10], x[:10] + np.float32(1e-7) * rng.normal(size=(10, 24)).astype(np.float32)]
    )
    dist = rng.random(50).round(1)
    ids = ids_of(50)
    rank, sim, row = semdedup_pairs(x, dist, ids, block=1024)
    shuffle = rng.permutation(50)
    again = semdedup_pairs(x[shuffle], dist[shuffle], [ids[i] for i in shuffle], block=block)
    assert (again[0] == rank[shuffle]).all()
    assert (again[1].view(np.uint32) == sim[shuffle].view(np.uint32)).all()
    assert [shuffle[i] if i >= 0 else -1 for i in again[2]] == row[shuffle].tolist()


def test_equals_brute_force_in_double_precision():
    rng = np.random.default_rng(5)
    x = unit_rows(rng, 200, 384)
    x[100:150] = x[:50]
    dist = rng.random(200)
    rank, sim, row = semdedup_pairs(x, dist, ids_of(200), block=33)
    exact = (x.astype(np.float64) @ x.T.astype(np.float64)).astype(np.float32)
    for i in range(200):
        earlier = [j for j in np.argsort(rank) if rank[j] < rank[i]]
        if earlier:
            assert sim[i] == max(exact[i, earlier])
            assert row[i] == earlier[int(np.argmax(exact[i, earlier]))]


def test_smaller_eps_keeps_a_superset():
    x = unit_rows(np.random.default_rng(1), 300, 4)
    _, sim, _ = semdedup_pairs(x, np.arange(300.0), ids_of(300))
    kept = [semdedup_keep(sim, eps) for eps in (0.001, 0.01, 0.05, 0.2)]
    for small, large in pairwise(kept):
        assert (small | ~large).all()
    curve = removal_curve(sim, (0.001, 0.01, 0.05, 0.2))
    assert curve == pytest.approx([1 - k.mean() for k in kept])
    assert curve[0] < curve[-1] < 1


def test_planted_groups_leave_one_each_and_strangers_stay():
    rng = np.random.default_rng(2)
    centres = unit_rows(rng, 60, 128)
    noise = rng.normal(size=(20, 4, 128)).astype(np.float32) * 0.008
    copies = (centres[:20, None] + noise).reshape(80, 128)
    copies /= np.linalg.norm(copies, axis=1, keepdims=True)
    x = np.concatenate([copies, centres[20:]])
    within = np.einsum("gid,gjd->gij", copies.reshape(20, 4, 128), copies.reshape(20, 4, 128))
    assert within.min() >= 0.97
    assert np.sort(centres @ centres.T)[:, -2].max() < 0.8
    _, sim, row = semdedup_pairs(x, rng.random(120), ids_of(120))
    keep = semdedup_keep(sim, 0.05)
    assert keep[:80].reshape(20, 4).sum(axis=1).tolist() == [1] * 20
    assert keep[80:].all()
    removed = np.flatnonzero(~keep)
    assert (removed // 4 == row[removed] // 4).all()
