"""Tokens from logits: what is drawn, what is never drawn, and when rounding could decide."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.llm.sampling import Sampling, choose

NOTHING = np.zeros(0, dtype=np.int64)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def drawn(logits: list[float], sampling: Sampling, count: int = 2000) -> np.ndarray:
    """Shares of the tokens in many draws."""
    generator, found = rng(), np.zeros(len(logits))
    for _ in range(count):
        found[choose(np.array(logits), sampling, generator, NOTHING).token] += 1
    return found / count


def test_greedy_takes_the_first_of_the_largest() -> None:
    assert choose(np.array([0.0, 3.0, 3.0]), Sampling(), rng(), NOTHING).token == 1


def test_draws_follow_the_softmax() -> None:
    logits = [0.0, 1.0, 2.0]
    expected = np.exp(logits) / np.exp(logits).sum()
    assert drawn(logits, Sampling(1.0)) == pytest.approx(expected, abs=0.03)
    colder = np.exp(np.array(logits) / 0.5)
    assert drawn(logits, Sampling(0.5)) == pytest.approx(colder / colder.sum(), abs=0.03)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(1.0, top_k=2), {2, 3}),
        (Sampling(1.0, top_p=0.6), {3}),
        (Sampling(1.0, top_p=0.7), {2, 3}),
        (Sampling(1.0, min_p=0.3), {2, 3}),
        (Sampling(1.0, top_p=0.9, top_k=1), {3}),
        (Sampling(1.0, top_p=0.0), {3}),
        (Sampling(1.0), {0, 1, 2, 3}),
    ],
)
def test_what_is_cut_off_is_never_drawn(sampling: Sampling, kept: set[int]) -> None:
    # Probabilities 0.644, 0.237, 0.087, 0.032.
    found = drawn([0.0, 1.0, 2.0, 3.0], sampling, 400)
    assert set(np.flatnonzero(found)) == kept


def test_repetition_is_penalised_on_both_sides_of_zero() -> None:
    penalty = Sampling(repetition_penalty=2.0)
    seen = np.array([0, 0, 1], dtype=np.int64)
    assert choose(np.array([3.0, 2.0, 2.9]), penalty, rng(), seen).token == 2
    assert choose(np.array([-1.0, -1.0, -1.5]), penalty, rng(), seen).token == 2


LOGITS = st.lists(st.floats(-5, 5), min_size=2, max_size=12)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([1.0, 0.9, 0.5]),
    top_k=st.sampled_from([0, 1, 3]),
    min_p=st.sampled_from([0.0, 0.1]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
)


@given(LOGITS, SAMPLINGS, st.integers(0, 2**32), st.sampled_from([1e-3, 0.1]), st.data())
def test_a_safe_choice_stands_whatever_the_rounding(
    logits: list[float], sampling: Sampling, seed: int, tolerance: float, data: st.DataObject
) -> None:
    size = len(logits)
    moves = data.draw(st.lists(st.floats(-1, 1), min_size=size, max_size=size))
    seen = np.arange(size // 2)
    given_, moved = np.array(logits), np.array(logits) + tolerance * np.array(moves)
    found = choose(given_, sampling, rng(seed), seen, tolerance)
    assert found.token == choose(given_, sampling, rng(seed), seen).token
    if found.safe:
        assert found.token == choose(moved, sampling, rng(seed), seen).token


def test_most_choices_are_safe() -> None:
    generator = rng(1)
    logits = generator.normal(0, 2, size=(200, 5000))
    for sampling in (Sampling(), Sampling(1.0), Sampling(1.0, top_p=0.9)):
        safe = [choose(row, sampling, rng(i), NOTHING, 1e-4).safe for i, row in enumerate(logits)]
        assert np.mean(safe) > 0.98
        near = [choose(row, sampling, rng(i), NOTHING, 1.0).safe for i, row in enumerate(logits)]
        assert np.mean(near) < 0.5


def test_the_last_token_of_a_nucleus_is_safe_where_nothing_is_near() -> None:
    logits = np.array([3.0, 2.5, 0.0, -1.0])
    for sampling in (Sampling(1.0, top_p=0.8), Sampling(1.0, top_k=2), Sampling(1.0, min_p=0.5)):
        choices = [choose(logits, sampling, rng(i), NOTHING, 1e-4) for i in range(200)]
        assert {c.token for c in choices} == {0, 1}
        assert all(c.safe for c in choices)
    near = [choose(logits, Sampling(1.0, top_p=0.945), rng(i), NOTHING, 0.5) for i in range(50)]
    assert not all(c.safe for c in near)
