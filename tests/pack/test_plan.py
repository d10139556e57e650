import numpy as np
import pytest

from longctx.pack.audit import assert_conserved
from longctx.pack.frame import pack_blocks
from longctx.pack.plan import STRATEGIES, plan_windows
from tests.pack.reference import windows_of

G = np.random.default_rng(9)
LENGTHS = G.integers(0, 60, 300)
TOUR = np.sort(G.integers(0, 9, 300)).astype(np.int32)
BLOCK = 1_000


@pytest.mark.parametrize(
    ("strategy", "options"),
    [("window", {}), ("window", {"cross_tours": False}), ("concat", {"cross_tours": False})],
)
def test_each_block_is_packed_alone(strategy, options):
    whole = plan_windows(strategy, LENGTHS, TOUR, 50, block_tokens=BLOCK, **options)
    block = pack_blocks(LENGTHS, 50, block_tokens=BLOCK)
    expected = []
    for number in range(block.max() + 1):
        rows = np.flatnonzero(block == number)
        plan = STRATEGIES[strategy](LENGTHS[rows], TOUR[rows], 50, **options)
        expected += [[(d + rows[0], s, e) for d, s, e in w] for w in windows_of(plan)]
    assert block.max() > 5
    assert windows_of(whole) == expected
    assert_conserved(whole.counts)
    assert whole.counts["tokens_in"] == LENGTHS.sum()


def test_concat_across_tours_knows_no_blocks():
    found = plan_windows("concat", LENGTHS, TOUR, 50, block_tokens=BLOCK)
    assert windows_of(found) == windows_of(STRATEGIES["concat"](LENGTHS, TOUR, 50))


def test_a_block_larger_than_the_order_changes_nothing():
    found = plan_windows("window", LENGTHS, TOUR, 50)
    assert windows_of(found) == windows_of(STRATEGIES["window"](LENGTHS, TOUR, 50))


def test_nothing_to_plan():
    found = plan_windows("window", LENGTHS[:0], TOUR[:0], 50)
    assert windows_of(found) == []
    assert found.counts["tokens_in"] == 0
