"""The recipes of the named data sets, against the figures published with them."""

import numpy as np
import pytest

from jobs.bench.datasets import flat, flat_blocks, lengths
from longctx.cluster.similarity import pair_similarities
from tests.order.conftest import named

FIGURES = {
    "flat": ((-0.103283, 0.073685, 0.007868), -0.030485, 239.8035, 0.115135, -0.047120, 0.5656),
    "hier": ((-0.069575, -0.001411, 0.023715), -0.058181, -90.8200, 0.383017, 0.021006, 0.8151),
}


def test_named_sets_of_2000(named_set):
    first, last, total, mean_norm, pair, top1 = FIGURES[named_set]
    corpus = named(named_set)
    x = corpus.vectors
    assert x.shape == (2000, 384)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[0, :3], first, atol=1e-6)
    assert x[-1, -1] == pytest.approx(last, abs=1e-6)
    assert x.sum(dtype=np.float64) == pytest.approx(total, abs=1e-3)
    assert np.linalg.norm(x.mean(axis=0, dtype=np.float64)) == pytest.approx(mean_norm, abs=1e-6)
    assert pair_similarities(x, np.array([0]), np.array([1]))[0] == pytest.approx(pair, abs=1e-6)
    assert corpus.sims[:, 0].mean() == pytest.approx(top1, abs=5e-5)


def test_lengths():
    tokens, shuffled = lengths()
    assert tokens[:5].tolist() == [7310, 40, 1130, 363, 415]
    assert (tokens.sum(), np.median(tokens), tokens.max()) == (27_053_502, 703, 72_576)
    assert (tokens > 8192).sum() == 305
    assert sorted(shuffled) == list(range(20_000))
    other, _ = lengths(6116, seed=4)
    assert other[:3].tolist() == [330, 571, 4737]
    assert other.sum() == 8_211_433


def test_blocks_hold_the_same_numbers():
    whole = flat(700, d=16, seed=3)
    for rows in (1, 64, 699):
        np.testing.assert_array_equal(np.concatenate(list(flat_blocks(700, rows, 16, 3))), whole)
