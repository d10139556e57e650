"""The rows of the measured table (section 8) that need lengths only, at its tolerances."""

import numpy as np
import pytest

from longctx.pack.audit import placement_partial
from longctx.pack.plan import STRATEGIES

N = 20_000


@pytest.fixture(scope="module")
def lengths() -> np.ndarray:
    """Lengths seed 3 in the random order of the tables (ordering.md, 12.1)."""
    g = np.random.default_rng(3)
    drawn = np.clip(np.exp(g.normal(6.55, 1.15, N)), 40, 200_000).astype(np.int64)
    assert drawn[:5].tolist() == [7310, 40, 1130, 363, 415]
    assert int(drawn.sum()) == 27_053_502
    return drawn[g.permutation(N)]


@pytest.mark.parametrize(
    ("strategy", "options", "windows", "fill", "split", "split_short"),
    [
        ("concat", {}, 3_303, 0.9998, 0.1543, 0.1390),
        ("window", {"look_ahead": 1}, 3_949, 0.8363, 0.0152, 0),
        ("window", {"look_ahead": 16}, 3_332, 0.9911, 0.0152, 0),
        ("window", {"look_ahead": 64}, 3_317, 0.9956, 0.0152, 0),
        ("window", {"look_ahead": 64, "fill_policy": "split"}, 3_303, 0.9998, 0.1432, 0.1280),
        ("window", {"look_ahead": 256}, 3_312, 0.9971, 0.0152, 0),
        ("window", {"look_ahead": 64, "rule": "largest"}, 3_310, 0.9977, 0.0152, 0),
    ],
)
def test_windows_of_8192_tokens(lengths, strategy, options, windows, fill, split, split_short):
    plan = STRATEGIES[strategy](lengths, np.zeros(N, np.int32), 8_192, **options)
    found = int(plan.placement.window[-1]) + 1
    sums = placement_partial(plan.placement, lengths, 8_192)
    assert found == pytest.approx(windows, rel=0.002)
    assert plan.placement.tokens / (found * 8_192) == pytest.approx(fill, abs=0.002)
    assert sums["split_docs"] / N == pytest.approx(split, abs=0.004)
    assert sums["split_short"] / N == pytest.approx(split_short, abs=0.004)
    if split_short == 0:
        assert (sums["split_docs"], sums["split_short"]) == (305, 0)


def test_windows_of_131072_tokens(lengths):
    tour = np.zeros(N, np.int32)
    for strategy, look_ahead, windows in (("concat", None, 207), ("window", 64, 207)):
        options = {} if look_ahead is None else {"look_ahead": look_ahead}
        plan = STRATEGIES[strategy](lengths, tour, 131_072, **options)
        assert int(plan.placement.window[-1]) + 1 == windows
    next_fit = STRATEGIES["window"](lengths, tour, 131_072, look_ahead=1)
    assert int(next_fit.placement.window[-1]) + 1 == pytest.approx(211, abs=1)
