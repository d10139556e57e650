"""LongAttn: the specification's examples, streams against the whole matrix, planted repeats."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.filter.derived import derive
from longctx.score.longattn import (
    attn_windows,
    far_sums,
    longattn_from_matrix,
    longattn_stream,
)
from tests.score.models import Largest

EXAMPLE = [[1, 0, 0, 0], [0.6, 0.4, 0, 0], [0.2, 0.3, 0.5, 0], [0.1, 0.2, 0.3, 0.4]]


def uniform(n: int) -> np.ndarray:
    """Each row attends to all earlier tokens alike."""
    return np.tril(np.ones((n, n))) / np.arange(1, n + 1)[:, None]


def test_the_example() -> None:
    full = longattn_from_matrix(EXAMPLE, 1)
    assert full == pytest.approx((0.425, 0.0299583, 0.2), abs=1e-7)
    triangle = longattn_from_matrix(EXAMPLE, 1, var_mode="triangle")
    assert triangle == pytest.approx((0.425, 0.0296667, 0.2), abs=1e-7)


@pytest.mark.parametrize(("n", "ds"), [(8, 0.4455357), (64, 0.4092095)])
def test_uniform_attention(n: int, ds: float) -> None:
    assert longattn_from_matrix(uniform(n)).ds == pytest.approx(ds, abs=1e-7)
    q = torch.zeros(2, n, 4)
    assert longattn_stream(q, q[:1]).ds == pytest.approx(ds, abs=1e-6)


def test_uniform_attention_of_a_long_window_by_stream() -> None:
    q = torch.zeros(1, 4096, 1)
    found = longattn_stream(q, q)
    assert found.ds == pytest.approx(0.4035179, abs=1e-7)
    assert found.var == pytest.approx(2.82263e-8, rel=1e-5)


def test_uniform_attention_at_32k_by_its_rows() -> None:
    """Row i has i - k + 1 far weights of 1/(i + 1): the limit of the specification, in sums."""
    n, k = 32_768, 8192
    i = np.arange(k, n)
    s1, s2 = ((i - k + 1) / (i + 1)).sum(), ((i - k + 1) / (i + 1) ** 2).sum()
    assert s1 / n == pytest.approx(0.4034379, abs=1e-7)
    assert (s2 - s1**2 / n**2) / (n**2 - 1) == pytest.approx(4.41022e-10, rel=1e-5)
    assert s1 / n == pytest.approx(0.75 + np.log(0.25) / 4, abs=1e-4)


def test_the_scores_of_a_cut() -> None:
    columns = {"la_ds": np.array([0.3, 0.4, 0.5]), "la_var": np.array([1e-6, 3e-6, 2e-6])}
    assert derive("longattn", columns, alpha=0.5) == pytest.approx([-0.5, -0.5, 1.0])
    assert derive("longattn_released", columns, alpha=0.5) == pytest.approx([0, 0, 0.75])


@pytest.mark.parametrize(
    ("n", "windows"),
    [
        (0, []),
        (9, []),
        (10, [(0, 10)]),
        (11, [(0, 10), (1, 11)]),
        (20, [(0, 10), (10, 20)]),
        (25, [(0, 10), (7, 17), (15, 25)]),
        (30, [(0, 10), (10, 20), (20, 30)]),
        (35, [(0, 10), (25, 35), (10, 20), (15, 25)]),
    ],
)
def test_windows(n: int, windows: list[tuple[int, int]]) -> None:
    assert attn_windows(n, 10) == windows
    assert attn_windows(n, 10, keep_exact=False) == ([] if n == 10 else windows)


@given(n=st.integers(0, 500), size=st.integers(1, 60))
def test_windows_are_full_and_leave_no_token_out(n: int, size: int) -> None:
    windows = attn_windows(n, size)
    covered = np.zeros(n, dtype=bool)
    for start, end in windows:
        assert 0 <= start < end <= n
        assert end - start == size
        covered[start:end] = True
    assert covered.sum() == (n if n >= size else 0)


def attention(q: torch.Tensor, k: torch.Tensor) -> np.ndarray:
    """Weights [heads, n, n] of grouped heads, in one piece."""
    logits = q @ k.repeat_interleave(len(q) // len(k), 0).transpose(1, 2) / q.shape[2] ** 0.5
    future = torch.ones_like(logits).triu(1).bool()
    return torch.softmax(logits.masked_fill(future, -torch.inf), dim=2).numpy()


@given(
    n=st.integers(1, 90),
    groups=st.integers(1, 3),
    keys=st.integers(1, 2),
    rows=st.integers(1, 120),
    seed=st.integers(0, 9),
    mode=st.sampled_from(["full", "triangle"]),
)
@settings(max_examples=60, deadline=None)
def test_streamed_is_dense_for_any_block(
    n: int, groups: int, keys: int, rows: int, seed: int, mode: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k = (
        3 * torch.randn(h, n, 4, dtype=torch.float64, generator=generator)
        for h in (groups * keys, keys)
    )
    dense = longattn_from_matrix(attention(q, k), var_mode=mode)
    streamed = longattn_stream(q, k, var_mode=mode, rows=rows)
    assert streamed == pytest.approx(dense, abs=1e-12)
    assert -1e-12 <= streamed.nosink <= streamed.ds <= 1 - (n // 4) / n + 1e-12


@pytest.mark.parametrize("n", [1024, 4096])
def test_memory_grows_with_the_length_only(n: int) -> None:
    """Nothing is larger than the rows of weights that are held at once, 64 here."""
    q, k = torch.randn(4, n, 8), torch.randn(2, n, 8)
    with Largest() as largest:
        longattn_stream(q, k, rows=64)
    assert largest.elements == 64 * n


def test_heads_that_share_keys_are_consecutive() -> None:
    q, k = torch.randn(4, 40, 8), torch.randn(2, 40, 8)
    whole = far_sums(q, k)
    for head in range(4):
        alone = far_sums(q[head : head + 1], k[head // 2 : head // 2 + 1])
        assert alone.weights[0] == pytest.approx(whole.weights[head], rel=1e-6)
        assert alone.squares[0] == pytest.approx(whole.squares[head], rel=1e-6)
        assert alone.sink[0] == pytest.approx(whole.sink[head], rel=1e-6)


def test_large_logits_neither_overflow_nor_vanish() -> None:
    q, k = (500 * torch.randn(1, 60, 8, dtype=torch.float32) for _ in range(2))
    expected = longattn_from_matrix(attention(q.double(), k.double()))
    assert longattn_stream(q, k) == pytest.approx(expected, rel=1e-3)


def test_a_sink_is_seen_and_left_out() -> None:
    """All attention on the first token: the whole far share is the sink's."""
    q, k = torch.ones(1, 64, 4), torch.zeros(1, 64, 4)
    k[0, 0] = 100
    found = longattn_stream(q, k)
    assert found.ds == pytest.approx(0.75, abs=1e-6)
    assert found.nosink == pytest.approx(0, abs=1e-6)


def repeating(n: int, nearest: int, farthest: int, rng: np.random.Generator) -> np.ndarray:
    """Every second token of the second half repeats one that stands so far back, once."""
    tokens = np.arange(n)
    copies = tokens[n // 2 :: 2]
    # Odd distances from even places: what is repeated is never a repeat itself.
    copies -= 2 * rng.integers(nearest // 2, farthest // 2, len(copies)) + 1
    return tokens


@pytest.mark.parametrize("seed", range(5))
def test_far_repeats_score_higher_than_near_ones(seed: int) -> None:
    """Tokens attend to equal ones: a repeat farther back than k counts, one within k does not."""
    n, k = 512, 128
    rng = np.random.default_rng(seed)
    vectors = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(n, 64))).float())
    scores = {}
    for name, bounds in (("near", (1, k)), ("far", (k, n // 2))):
        q = 8 * vectors[repeating(n, *bounds, rng)][None]
        scores[name] = longattn_stream(q, q)
    unrelated = longattn_stream(8 * vectors[None], 8 * vectors[None])
    assert scores["far"].ds > 1.2 * unrelated.ds
    assert scores["near"].ds < unrelated.ds
    assert scores["far"].var > 2 * scores["near"].var
