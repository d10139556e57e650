"""Positions over the window: the worked examples, what always holds, how much of it rows reach."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.prefer.logo import positions
from longctx.prefer.logo_positions import Mode, coverage, expected_coverage, slots

RNG = np.random.default_rng
S, Q, K, N, LEN = 24, 512, 65_536, 16, 512


def test_the_worked_example() -> None:
    found = positions([5] * 4, 4, 16, 100, "continuous", [0, 15, 3, 7])
    assert found.prefix.tolist() == [0, 1, 2, 3]
    firsts = [(int(c[0]), int(c[-1])) for c in found.chunks]
    assert firsts == [(4, 8), (39, 43), (47, 51), (71, 75)]
    assert found.question == 84
    with pytest.raises(ValueError, match="offset 16 of chunk 1 is not one of 0 to 15"):
        positions([5] * 4, 4, 16, 100, "continuous", [0, 16, 3, 7])


def test_slots_that_do_not_divide_the_window() -> None:
    assert slots(4, 4, 16, 101).tolist() == [4, 24, 44, 64, 85]
    # The last slot is there where the window divides evenly, too.
    assert slots(4, 4, 16, 100).tolist() == [4, 24, 44, 64, 84]


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=9),
    st.integers(0, 9),
    st.integers(1, 9),
    st.integers(0, 60),
    st.sampled_from(["continuous", "sparse", "spread"]),
    st.integers(0, 999),
)
def test_positions_of_anything(
    lens: list[int], S: int, Q: int, room: int, mode: Mode, seed: int
) -> None:
    K = S + Q + max(lens) * len(lens) + room
    found = positions(lens, S, Q, K, mode, rng=RNG(seed))
    all_of_them = found.context
    assert found.prefix.tolist() == list(range(S))
    assert [len(c) for c in found.chunks] == lens
    assert (np.diff(np.append(all_of_them, found.question)) > 0).all()
    assert found.question == K - Q
    borders = slots(len(lens), S, Q, K)
    for c, chunk in enumerate(found.chunks):
        if mode != "spread":
            assert borders[c] <= chunk[0] <= chunk[-1] < borders[c + 1]
        if mode != "sparse":
            assert (np.diff(chunk) == 1).all()
    again = positions(lens, S, Q, K, mode, rng=RNG(seed))
    assert again.context.tolist() == all_of_them.tolist()


def test_what_cannot_be_placed_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit into its slot"):
        positions([21, 5, 5, 5], 4, 16, 100, "sparse", rng=RNG(0))
    with pytest.raises(ValueError, match="do not fit into 80"):
        positions([81], 4, 16, 100, "spread", rng=RNG(0))
    with pytest.raises(ValueError, match="must rise within 0 to 70"):
        positions([5, 5], 4, 16, 100, "spread", [7, 3])
    with pytest.raises(ValueError, match="2 offsets for 1 chunks"):
        positions([5], 4, 16, 100, "continuous", [1, 2])
    with pytest.raises(ValueError, match="none of them empty"):
        positions([], 4, 16, 100, rng=RNG(0))
    with pytest.raises(ValueError, match="offsets or rng"):
        positions([5], 4, 16, 100)
    spread = positions([5, 5], 4, 16, 100, "spread", [3, 3])
    assert spread.context.tolist() == [0, 1, 2, 3, *range(7, 17)]


def covered(rows: int, mode: Mode, sparse: float = 0.0) -> float:
    rng = RNG(7)
    drawn = []
    for _ in range(rows):
        own: Mode = "sparse" if rng.random() < sparse else mode
        drawn.append(positions([LEN] * N, S, Q, K, own, rng=rng).context)
    return coverage(drawn, S, Q, K)


@pytest.mark.parametrize(
    ("rows", "mode", "sparse", "share", "within"),
    [
        (200, "continuous", 0.0, 0.991, 0.002),
        (1_000, "continuous", 0.0, 0.9985, 0.0006),
        (200, "continuous", 0.1, 0.999, 0.001),
        (1_000, "continuous", 0.1, 1.0, 0.0001),
        (200, "spread", 0.0, 0.9996, 0.0008),
        (1_000, "spread", 0.0, 0.9999, 0.0001),
    ],
)
def test_how_much_of_the_window_rows_reach(
    rows: int, mode: Mode, sparse: float, share: float, within: float
) -> None:
    assert covered(rows, mode, sparse) == pytest.approx(share, abs=within)


@settings(deadline=None)
@given(st.integers(1, 300))
def test_what_is_to_be_expected_is_what_is_found(rows: int) -> None:
    lens = [20, 40, 30]
    rng = RNG(rows)
    drawn = [positions(lens, 5, 15, 320, rng=rng).context for _ in range(rows)]
    wanted = expected_coverage([lens] * rows, 5, 15, 320)
    assert coverage(drawn, 5, 15, 320) == pytest.approx(wanted, abs=0.12)


def test_twelve_thousand_rows_are_as_many_tokens_as_the_paper_trains_on() -> None:
    tokens = 12_000 * N * LEN * 3
    assert tokens == pytest.approx(0.295e9, rel=1e-3)
