"""LongFilter, delta-PPL, LongPPL and the rest, by hand, and on signals planted for a copy model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.score.likelihood import (
    Contrast,
    columns,
    contrasts,
    entropy_peaks,
    key_tokens,
    longce_weights,
    longfilter,
    numbers,
    peak_gains,
    perplexity,
    split_gain,
    zip_gain,
)
from longctx.score.plan import Windows
from tests.score.stubs import CacheLM, CopyLM

F32 = np.float32
VOCABULARY = 5_000
LENGTH, SPAN = 4_000, 60


def contrast(long: list[float], short: list[float]) -> Contrast:
    return Contrast(np.array(long, F32), np.array(short, F32), len(long))


def test_longfilter_by_hand() -> None:
    long, short = [0.1, 1, 2], [2.1, 1, 1.5]
    ell, s = np.array(long), np.array(short)
    assert (np.exp(-ell) * (s - ell)).tolist() == pytest.approx([1.809675, 0, -0.067668], abs=1e-6)
    assert longfilter(long, short) == pytest.approx(0.580669, abs=1e-6)
    found = columns(contrast(long, short))
    assert found["lf_score"] == pytest.approx(0.580669, abs=1e-6)
    assert (found["n_scored"], found["n_far"]) == (3, 3)


def test_longppl_and_deltas_by_hand() -> None:
    long, short = [0.5, 0.2, 3, 1], [3, 0.3, 6, 3.5]
    assert key_tokens(long, short).tolist() == [True, False, False, True]
    found = columns(contrast(long, short))
    expected = {
        "lp_key_share": 0.5,
        "lp_n_key": 2,
        "lp_longppl": np.exp(0.75),
        "ppl_long": 3.238143,
        "ppl_delta": 21.294387,
        "ppl_short": 3.238143 + 21.294387,
        "ppl_ratio": 21.294387 / (3.238143 + 21.294387),
        "dnll_mean": 2.025,
    }
    assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-5)
    assert longce_weights(long, short).tolist() == pytest.approx([5, 1.1052, 5, 5], abs=1e-4)


def test_key_tokens_are_strict() -> None:
    assert not key_tokens([0.0, 2.0], [2.0, 9.0]).any()


def test_equal_contexts_say_nothing() -> None:
    found = columns(contrast([1, 2, 3], [1, 2, 3]))
    assert found["lf_score"] == found["dnll_mean"] == found["lp_key_share"] == 0
    assert found["lp_longppl"] is None


def test_nothing_scored_is_null() -> None:
    found = columns(contrast([], []))
    assert found["n_scored"] == found["lp_n_key"] == 0
    assert {v for k, v in found.items() if k not in ("n_scored", "n_far", "lp_n_key")} == {None}


def test_what_is_no_number_shows_in_the_columns() -> None:
    for value in (float("nan"), float("inf")):
        assert not numbers(columns(contrast([1, value], [1, 1])))
        assert not numbers(columns(contrast([1, value], [1, value])))
    found = columns(contrast([800, 800], [900, 900]))
    assert numbers(found)
    assert (found["ppl_long"], found["ppl_delta"], found["dnll_mean"]) == (None, None, 100)
    assert perplexity([]) is None


def test_cache_model_of_the_specification() -> None:
    ids = np.array([1, 2, 3, 1], np.int32)
    # Two of the model's windows stand for the contexts: the plan's are longer than the text.
    (long,), (short,) = (contrasts(CacheLM(10, w=w), [ids], Windows(4, 2, 2)) for w in (3, 1))
    assert longfilter(long.long, short.long) == pytest.approx(0.354845, abs=1e-6)


@given(n=st.integers(0, 40), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_documents_that_fit_the_short_context_score_nothing(n: int, seed: int) -> None:
    ids = np.random.default_rng(seed).integers(0, 9, n).astype(np.int32)
    (found,) = contrasts(CopyLM(10), [ids], Windows(64, 12, 4))
    assert found.n_far == max(0, n - 16)
    assert len(found.long) == len(found.short) == max(0, n - 1)
    assert np.array_equal(found.long[:15], found.short[:15])
    if 1 < n <= 16:
        assert columns(found)["lf_score"] == 0


def test_short_contexts_are_as_planned() -> None:
    ids = np.random.default_rng(1).integers(0, 6, 120).astype(np.int32)
    windows = Windows(64, 10, 5)
    (found,) = contrasts(CopyLM(10), [ids], windows)
    for t in range(1, len(ids)):
        alone = CopyLM(10).scores([_before(ids, t, _context(t, windows))])[0].nll[0]
        assert found.short[t - 1] == alone
        assert found.long[t - 1] == CopyLM(10).scores([_before(ids, t, t)])[0].nll[0]


def _context(t: int, windows: Windows) -> int:
    near = windows.short + windows.stride
    return t if t < near else windows.short + (t - near) % windows.stride


def _before(ids: np.ndarray, t: int, size: int):  # type: ignore[no-untyped-def]
    from longctx.score.causal_lm import Segment

    return Segment(ids[t - size : t + 1], size, size + 1)


def planted(rng: np.random.Generator, far: bool) -> np.ndarray:
    """Random tokens; six spans of the last quarter are copies, from the first quarter or nearby."""
    ids = rng.integers(0, VOCABULARY, LENGTH).astype(np.int32)
    for k in range(6):
        at = 3 * LENGTH // 4 + k * (LENGTH // 4 // 6)
        start = rng.integers(0, LENGTH // 4 - SPAN) if far else at - rng.integers(80, 181)
        ids[at : at + SPAN] = ids[start : start + SPAN]
    return ids


def test_copies_from_far_are_found_and_those_from_nearby_are_not() -> None:
    rng = np.random.default_rng(3)
    far = np.arange(40) < 4
    documents = [planted(rng, bool(f)) for f in far]
    found = contrasts(CopyLM(VOCABULARY), documents, Windows(2048, 256, 256))
    table = [columns(f) for f in found]
    for name in ("lf_score", "dnll_mean", "lp_key_share"):
        best = np.argsort([-row[name] for row in table])[:4]  # type: ignore[operator]
        assert far[best].all(), name
    for f, row in zip(found, table, strict=True):
        exchanged = columns(Contrast(f.short, f.long, f.n_far))
        assert exchanged["dnll_mean"] == -row["dnll_mean"]  # type: ignore[operator]


def test_a_document_written_twice_scores_high() -> None:
    rng = np.random.default_rng(4)
    once = rng.integers(0, VOCABULARY, 1_000).astype(np.int32)
    other = rng.integers(0, VOCABULARY, 1_000).astype(np.int32)
    twice, plain = (
        columns(f)["lf_score"]
        for f in contrasts(
            CopyLM(VOCABULARY),
            [np.concatenate([once, once]), np.concatenate([once, other])],
            Windows(1_024, 128, 128),
        )
    )
    assert twice > 10 * max(plain, 0.01)  # type: ignore[operator,type-var]


def test_the_first_half_helps_where_the_second_repeats_it() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, VOCABULARY, (2, 300)).astype(np.int32)
    windows = Windows(1_024, 64, 32)
    documents = [np.concatenate([a, a]), np.concatenate([a, b]), a[:1], a[:2], a[:3]]
    found = contrasts(CopyLM(VOCABULARY), documents, windows, split=True)
    gains = [split_gain(f) for f in found]
    assert gains[0] == pytest.approx(np.log(VOCABULARY * 0.90002), abs=0.2)
    assert abs(gains[1]) < 0.2  # type: ignore[arg-type]
    assert gains[2:4] == [None, None]
    assert gains[4] is not None
    assert split_gain(contrasts(CopyLM(10), [a], windows)[0]) is None


def test_compression_sees_far_repetition_only() -> None:
    drawn = np.random.default_rng(0).integers(0, 256, 200_000).astype(np.uint8)
    text = drawn.tobytes().decode("latin-1")
    assert zip_gain(text + text) == pytest.approx(0.499, abs=0.002)
    assert zip_gain(text) == pytest.approx(0, abs=0.001)
    assert zip_gain("short") == 0
    assert zip_gain("") is None


def test_entropy_peaks_by_hand() -> None:
    found = entropy_peaks([1.0] * 9 + [6.0])
    assert found.threshold == pytest.approx(4.5)
    assert found.positions.tolist() == [9]
    assert entropy_peaks([]).positions.tolist() == []
    assert entropy_peaks([2.0, 2.0]).positions.tolist() == []
    gains = peak_gains([2.0, 5.0, 0.0], [1.0, 4.0, 1.0])
    assert gains[:2].tolist() == pytest.approx([0.5, 0.2])
    assert np.isnan(gains[2])
