"""Figures about scores against definitions and against SciPy, and the documents that are chosen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from longctx.report.scores.numbers import written
from longctx.report.scores.statistics import (
    Spread,
    constant,
    histogram,
    ladder,
    ranks,
    spearman,
    spread,
)

NAN = float("nan")
numbers = st.floats(-1e6, 1e6, width=32) | st.integers(-5, 5).map(float)
nullable = numbers | st.just(NAN)
SEEDS = st.integers(0, 2**32 - 1)


def array(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def test_quantiles_leave_nulls_out() -> None:
    assert spread(array([NAN, 1, 2, 3, 4, 5, NAN])) == Spread(1.2, 2, 3, 4, 4.8)
    assert spread(array([NAN])) is None
    assert constant(array([NAN, 2, 2]))
    assert constant(array([]))
    assert not constant(array([1, 2]))


@given(st.lists(nullable, min_size=1, max_size=200))
def test_every_value_is_in_one_bin(values: list[float]) -> None:
    known = array(values)
    if constant(known):
        with pytest.raises(ValueError, match="do not vary"):
            histogram(known)
        return
    found, bins = histogram(known)
    assert sum(found.counts) == int((~np.isnan(known)).sum())
    assert len(found.edges) == len(found.counts) + 1 <= 64
    assert all(a < b for a, b in zip(found.edges, found.edges[1:], strict=False))
    assert bins in ("whole", "doubling", "even", "cut")


def test_bins_fit_what_they_count() -> None:
    rng = np.random.default_rng(0)
    whole, kind = histogram(array([1, 1, 2, 4]))
    assert (whole.edges, whole.counts, kind) == ([1, 2, 3, 4, 5], [2, 1, 0, 1], "whole")
    lengths = rng.lognormal(6, 2, 5000)
    assert histogram(lengths)[1] == "doubling"
    assert set(np.diff(np.log2(histogram(lengths)[0].edges))) <= {1.0, np.inf}
    shares = rng.beta(2, 5, 5000)
    even, kind = histogram(shares)
    assert kind == "even"
    assert 12 <= len(even.counts) <= 36
    outlier = np.append(rng.normal(0, 1, 5000), 1e6)
    cut, kind = histogram(outlier)
    assert kind == "cut"
    assert cut.edges[-1] == 1e6
    assert cut.edges[-2] < 5


@given(st.integers(2, 6), st.integers(0, 40), SEEDS)
def test_spearman_is_scipys_over_the_rows_that_have_both(width: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = [rng.integers(0, 6, n).astype(float) for _ in range(width)]
    for column in columns[1::2]:
        column[rng.random(n) < 0.3] = NAN
    found = spearman(columns)
    for a in range(width):
        for b in range(width):
            both = ~np.isnan(columns[a]) & ~np.isnan(columns[b])
            assert found.n[a, b] == both.sum()
            x, y = columns[a][both], columns[b][both]
            if len(x) < 3 or constant(x) or constant(y):
                assert np.isnan(found.rho[a, b])
            else:
                expected = stats.spearmanr(x, y).statistic
                assert found.rho[a, b] == pytest.approx(expected, abs=1e-12)
                assert found.rho[a, b] == found.rho[b, a]


def test_ranks_are_averages_and_planted_orders_are_found() -> None:
    assert ranks(array([5, 1, 1, 3])).tolist() == [4, 1.5, 1.5, 3]
    x = np.arange(50.0)
    rho = spearman([x, np.exp(x / 9), -x, np.full(50, 2.0)]).rho
    assert rho[0, 1] == pytest.approx(1)
    assert rho[0, 2] == pytest.approx(-1)
    assert np.isnan(rho[0, 3])


def chosen(values: list[float], **changes: object) -> list[tuple[float, int]]:
    n = len(values)
    given = {
        "ties": np.arange(n),
        "groups": np.zeros(n, dtype=np.int64),
        "used": set(),
        "ascending": True,
        "most": 64,
        **changes,
    }
    return [(step.share, step.row) for step in ladder(array(values), **given)]  # type: ignore[arg-type]


def test_the_ladder_goes_from_worst_to_best_in_tenths() -> None:
    values = list(np.random.default_rng(1).permutation(1001).astype(float))
    steps = chosen(values)
    assert [values[row] for _, row in steps][:3] == [0, 1, 100]
    assert [round(share, 2) for share, _ in steps] == [
        0,
        0,
        *(i / 10 for i in range(1, 10)),
        1,
        1,
    ]
    assert [row for _, row in chosen(values, ascending=False)] == [r for _, r in steps[::-1]]


def test_equal_scores_go_by_id_and_nulls_are_nowhere() -> None:
    assert chosen([2, NAN, 2, 2], ties=np.array([2, 0, 1, 3])) == [(0, 2), (0.5, 0), (1, 3)]
    assert chosen([NAN, 7]) == [(0, 1)]
    assert chosen([NAN]) == []


@given(st.integers(1, 400), st.integers(1, 40), st.integers(1, 5), SEEDS)
def test_few_row_groups_are_read(n: int, groups: int, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = list(rng.random(n))
    group = rng.integers(0, groups, n)
    used: set[int] = set()
    steps = chosen(values, groups=group, used=used, most=most)
    assert len(used) <= most
    assert {int(group[row]) for _, row in steps} <= used
    assert len({row for _, row in steps}) == len(steps) >= 1
    shares = [share for share, _ in steps]
    assert shares == sorted(shares)
    # The worst is never replaced: it is asked for first, when there is room for any group.
    assert steps[0][1] == int(np.argmin(values))


def test_a_decile_is_near_its_place_though_texts_are_chosen_by_their_place() -> None:
    rng = np.random.default_rng(3)
    values, groups = list(rng.random(20_000)), rng.integers(0, 128, 20_000)
    used: set[int] = set()
    shares = [share for share, _ in chosen(values, groups=groups, used=used)]
    assert np.allclose(shares[2:-2], np.arange(0.1, 1, 0.1), atol=0.006)
    assert len(used) <= 6


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.012345, "0.0123"),
        (-0.5, "-0.5"),
        (1234.4, "1,234"),
        (12345.6, "12.3 k"),
        (1.23456e-6, "1.23e-6"),
        (1.0, "1"),
        (NAN, "-"),
        (None, "-"),
    ],
)
def test_scores_are_written_in_three_digits(value: float | None, said: str) -> None:
    assert written(value) == said
