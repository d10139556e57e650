import numpy as np
import pytest

from longctx.pack.boundaries import (
    cu_seqlens,
    labels,
    max_seqlen,
    megatron_loss_mask,
    pad,
    positions,
    segment_ids,
)

IDS = np.array([11, 12, 13, 21, 22, 31], np.int32)
SEGMENTS = np.array([(0, 3), (3, 5), (5, 6)])


def test_intra_of_the_specification():
    cu = cu_seqlens(SEGMENTS, 8, "intra")
    found = labels(IDS, SEGMENTS, 8, "intra")
    assert positions(SEGMENTS, 8, "intra").tolist() == [0, 1, 2, 0, 1, 0, 0, 1]
    assert cu.tolist() == [0, 3, 5, 6, 8]
    assert cu.dtype == np.int32
    assert max_seqlen(cu) == 3
    assert found.tolist() == [-100, 12, 13, -100, 22, -100, -100, -100]
    assert megatron_loss_mask(found).tolist() == [1, 1, 0, 1, 0, 0, 0, 0]
    assert segment_ids(SEGMENTS, 8, "intra").tolist() == [1, 1, 1, 2, 2, 3, 0, 0]


def test_cross_of_the_specification():
    found = labels(IDS, SEGMENTS, 8, "cross")
    assert positions(SEGMENTS, 8, "cross").tolist() == list(range(8))
    assert cu_seqlens(SEGMENTS, 8, "cross").tolist() == [0, 6, 8]
    assert found.tolist() == [11, 12, 13, 21, 22, 31, -100, -100]
    assert megatron_loss_mask(found).tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert segment_ids(SEGMENTS, 8, "cross").tolist() == [1, 1, 1, 1, 1, 1, 0, 0]


def test_a_full_row_has_no_interval_for_padding():
    assert cu_seqlens(SEGMENTS, 6, "intra").tolist() == [0, 3, 5, 6]
    assert cu_seqlens(SEGMENTS, 6, "cross").tolist() == [0, 6]
    assert pad(IDS, 8, 0).tolist() == [*IDS, 0, 0]


def test_a_long_padding_is_the_longest_interval():
    assert max_seqlen(cu_seqlens(SEGMENTS, 20, "intra")) == 14


@pytest.mark.parametrize(
    "call", [cu_seqlens, segment_ids, lambda s, m, mode: labels(IDS, s, m, mode)]
)
def test_an_unknown_mode_is_refused(call):
    with pytest.raises(ValueError, match="packed"):
        call(SEGMENTS, 8, "packed")


@pytest.mark.parametrize("mode", ["intra", "cross"])
def test_attention_and_loss_equal_a_dense_mask(mode):
    g = np.random.default_rng(11)
    for _ in range(200):
        sizes = g.integers(1, 6, g.integers(1, 8))
        ends = np.cumsum(sizes)
        n, length = int(ends[-1]), int(ends[-1] + g.integers(0, 4))
        segments = np.stack([ends - sizes, ends], axis=1)
        owner = np.repeat(np.arange(len(sizes)), sizes)

        allowed = np.zeros((length, length), bool)
        for i in range(n):
            for j in range(i + 1):
                allowed[i, j] = mode == "cross" or owner[i] == owner[j]
        cu = cu_seqlens(segments, length, mode)
        interval = np.searchsorted(cu, np.arange(length), side="right")
        found = np.tril(interval[:, None] == interval[None, :])
        assert (found[:n, :n] == allowed[:n, :n]).all()
        assert not found[n:, :n].any()
        number = segment_ids(segments, length, mode)
        assert (np.tril(number[:, None] == number[None, :])[:n, :n] == allowed[:n, :n]).all()
        assert (number[:n] > 0).all()
        assert not number[n:].any()

        if mode == "intra":
            assert (positions(segments, length, mode)[:n] == allowed[:n].sum(axis=1) - 1).all()
        mask = megatron_loss_mask(labels(np.ones(n, np.int32), segments, length, mode))
        for i in range(length):
            learns = i + 1 < n and bool(allowed[i + 1, i])
            assert mask[i] == learns
