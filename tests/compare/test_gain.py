"""The yardstick on planted windows, read by a model that copies what it has seen.

Documents are random tokens; where one repeats stretches of an earlier one the copying model gains
by far context, and the place of the repetition is known.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.compare.excerpt import BOTH, NEAR, OTHER, SAME, Excerpt, Piece, cut, joined
from longctx.compare.gain import (
    GROUPS,
    MEASURES,
    GainLine,
    Lengths,
    RunScores,
    Scored,
    gain_lines,
    score,
)
from longctx.score.likelihood import contrasts, key_tokens, longfilter
from longctx.score.plan import Windows, nll_plan
from tests.score.stubs import CopyLM

V = 5_000
LENGTHS = Lengths(long=320, short=32)
LM = CopyLM(V)
ALL = list(GROUPS["all"])


def noise(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, V, n).astype(np.int32)


def halves(first: int, second: int) -> Excerpt:
    """A window of two documents; the second says again, in another order, what the first says."""
    base = noise(first, 160)
    spans = [base[i : i + 20] for i in range(0, 160, 20)]
    turned = np.random.default_rng(first + 1).permutation(len(spans))
    again = np.concatenate([spans[i] for i in turned]) if first == second else noise(second, 160)
    return joined([Piece(first, base), Piece(10_000 + second, again[:159])], 0)


def within(seed: int) -> Excerpt:
    """A window of one document that repeats itself 200 tokens later."""
    base = noise(seed, 200)
    return joined([Piece(seed, np.concatenate([base, base[:120]]))], 0)


def scored(excerpt: Excerpt, number: int) -> Scored:
    return score(excerpt, LENGTHS, LENGTHS.losses(LM, excerpt.ids), 1_000_003 * number + 1, number)


def run_of(name: str, units: list[Scored]) -> RunScores:
    documents = np.unique(np.concatenate([one.documents for one in units]))
    return RunScores(name, 100, len(units) + 3, units, documents)


@pytest.fixture(scope="module")
def related() -> RunScores:
    return run_of("related", [scored(halves(i, i), i) for i in range(12)])


@pytest.fixture(scope="module")
def shuffled() -> RunScores:
    return run_of("shuffled", [scored(halves(i, (i + 5) % 12), 50 + i) for i in range(12)])


def mean(line: GainLine, group: str = "all", measure: str = "longfilter") -> float:
    value: float = getattr(line.groups[group], measure).value
    return value


def test_documents_that_repeat_each_other_gain_and_shuffled_ones_do_not(
    related: RunScores, shuffled: RunScores
) -> None:
    base, line = gain_lines([shuffled, related], seed=0)
    assert line.difference is not None
    for measure in MEASURES:
        assert getattr(line.difference["all"], measure).side == 1
        assert mean(line, measure=measure) > 5 * abs(mean(base, measure=measure))
    # The gain lies in other documents, and is told there.
    assert mean(line, "other") > 0.5
    assert line.groups["other"].share == pytest.approx(63 / 255)
    assert line.difference["other"].longfilter.side == 1
    assert abs(mean(line, "same")) < 0.01
    assert abs(mean(base, "other")) < 0.01


def test_a_document_that_repeats_itself_gains_in_itself() -> None:
    (line,) = gain_lines([run_of("one", [scored(within(i), i) for i in range(6)])], seed=0)
    assert line.difference is line.shared is line.shared_first is None
    assert line.groups["same"].share == 1
    assert line.groups["other"].tokens == line.groups["both"].tokens == 0
    assert line.groups["other"].longfilter.value is None
    assert mean(line, "same") == mean(line) > 0.3


def test_exchanging_the_contexts_turns_the_sign() -> None:
    excerpt = halves(1, 1)
    losses = LENGTHS.losses(LM, excerpt.ids)
    one = score(excerpt, LENGTHS, losses, 1, 0)
    other = score(excerpt, LENGTHS, losses[::-1], 1, 0)
    assert one.totals[ALL, 1].sum() > 10
    np.testing.assert_allclose(one.totals[:, 1], -other.totals[:, 1], rtol=1e-12)


def test_sums_are_those_of_the_positions() -> None:
    """Every far token counts once, at its place; near ones have no gain; separators do not count.

    The specification's scores over all scored tokens are the sums of all places.
    """
    excerpt = halves(3, 3)
    losses = LENGTHS.losses(LM, excerpt.ids)
    found = score(excerpt, LENGTHS, losses, 1, 7)
    assert found.tokens.tolist()[NEAR] == 2 * 32 - 1
    # Of 256 far positions one is the separator; the second document begins at 161, and its short
    # context begins 32 to 63 tokens before a token, at a multiple of 32.
    starts = LENGTHS.starts()
    far = [t for t in range(64, 320) if t != 160]
    second = [t for t in far if t > 160]
    other = [t for t in second if starts[t] <= 161]
    assert found.tokens[[SAME, OTHER, BOTH]].tolist() == [
        len(far) - len(second),
        len(other),
        len(second) - len(other),
    ]
    assert np.all(found.totals[NEAR] == 0)
    long, short = np.delete(losses, 159, axis=1).astype(np.float64)
    assert found.totals[:, 0].sum() == pytest.approx(len(long) * longfilter(long, short))
    assert found.totals[:, 1].sum() == pytest.approx((short - long).sum())
    assert found.totals[:, 2].sum() == key_tokens(long, short).sum()
    assert found.columns["lf_score"] == pytest.approx(longfilter(long, short))
    assert found.as_dict()["n_far"] == 255
    assert found.as_dict()["row"] == 7


def test_what_the_model_does_not_know_is_context_only() -> None:
    excerpt = halves(2, 2)
    silent = replace(excerpt, counted=excerpt.counted & (np.arange(320) < 200))
    found = score(silent, LENGTHS, LENGTHS.losses(LM, excerpt.ids), 1, 0)
    assert found.unknown == 120
    assert found.tokens[ALL].sum() == 200 - 64 - 1
    (line,) = gain_lines([run_of("x", [found])], seed=0)
    assert line.unknown == pytest.approx(120 / 255)


@given(long=st.integers(3, 90), short=st.integers(1, 40))
def test_the_plan_is_that_of_the_score_ops(long: int, short: int) -> None:
    """Read with the plan of `score.likelihood`, each token twice beyond the first two contexts."""
    lengths = Lengths(long, short)
    ids = np.random.default_rng(long).integers(1, 6, long).astype(np.int32)
    (expected,) = contrasts(LM, [ids], Windows(long, short, short))
    losses = lengths.losses(LM, ids)
    np.testing.assert_array_equal(losses, np.stack([expected.long, expected.short]))
    assert lengths.far == expected.n_far == (lengths.starts() > 0).sum()
    plan = nll_plan(long, short, short)
    assert lengths.read == long + sum(end - start for start, end, _, _ in plan[1:])
    held = np.arange(long) - lengths.starts()
    assert (held[lengths.starts() > 0] >= short).all()
    assert (held[lengths.starts() > 0] < 2 * short).all()


@given(long=st.integers(3, 90), short=st.integers(1, 40), before=st.integers(0, 120))
def test_all_far_context_of_a_beginning_lies_in_other_documents(
    long: int, short: int, before: int
) -> None:
    lengths = Lengths(long, short, borders=True)
    assert lengths.far == (lengths.starts() > 0).sum() <= 2 * short
    whole = joined([Piece(1, noise(1, before)), Piece(2, noise(2, 90))], 0)
    found = lengths.excerpt(whole, key=5)
    if lengths.far == 0 or before == 0 or before + 1 < long - lengths.far:
        assert found is None
        return
    assert found is not None
    counts = score(found, lengths, lengths.losses(LM, found.ids), 5, 0).tokens
    assert counts[OTHER] == lengths.far
    assert counts[SAME] == counts[BOTH] == 0
    np.testing.assert_array_equal(
        lengths.losses(LM, found.ids)[:, -lengths.far :],
        Lengths(long, short).losses(LM, found.ids)[:, -lengths.far :],
    )


def test_neither_order_of_units_nor_of_runs_changes_a_bit(
    related: RunScores, shuffled: RunScores
) -> None:
    turned = replace(related, scored=related.scored[::-1])
    a, b = gain_lines([shuffled, related], seed=4)
    c, d = gain_lines([turned, shuffled], seed=4)
    assert b.groups == c.groups
    assert a.groups == d.groups
    assert a.difference is c.difference is None
    assert b.difference is not None
    assert d.difference is not None
    one, other = b.difference["all"].dnll, d.difference["all"].dnll
    assert (one.value, one.low, one.high) == (-other.value, -other.high, -other.low)
    assert gain_lines([shuffled, related], seed=5)[1].groups != b.groups


def test_equal_runs_have_a_difference_that_holds_0(related: RunScores) -> None:
    _, again = gain_lines([related, replace(related, name="again")], seed=0)
    assert again.difference is not None
    for group in GROUPS:
        assert again.difference[group].longfilter.side == 0
    # Other windows of the same kind.
    more = run_of("more", [scored(halves(i, i), 200 + i) for i in range(12, 24)])
    _, line = gain_lines([related, more], seed=0)
    assert line.difference is not None
    assert line.difference["all"].longfilter.low < 0 < line.difference["all"].longfilter.high


def test_shares_of_documents_that_both_have(related: RunScores, shuffled: RunScores) -> None:
    _, line = gain_lines([related, shuffled], seed=0)
    assert (line.shared, line.shared_first) == (1, 1)
    kept = np.array([10_000], np.uint64)
    cut_run = replace(related, documents=kept)
    _, line = gain_lines([cut_run, shuffled], seed=0)
    far = sum(one.tokens[ALL].sum() for one in shuffled.scored)
    assert line.shared == pytest.approx(159 / far)
    assert line.shared_first == 1
    _, line = gain_lines([replace(related, documents=None), shuffled], seed=0)
    assert line.shared is line.shared_first is None


def test_longer_windows_are_cut_and_give_the_same_kind_of_sums() -> None:
    whole = joined([Piece(1, noise(1, 500)), Piece(2, noise(2, 500))], 0)
    one = cut(whole, LENGTHS.long, key=12345)
    found = score(one, LENGTHS, LENGTHS.losses(LM, one.ids), 12345, 0)
    assert found.tokens.sum() + (one.document < 0).sum() == 319
