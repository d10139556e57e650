"""Windows of the likelihood pass: each position once, with the context that is promised."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.score.plan import Windows, fitting, joined, nll_plan, read
from tests.score.stubs import CacheLM, CopyLM


def test_plan_of_the_specification() -> None:
    plan = nll_plan(10, 4, 2)
    assert plan == [(0, 6, 1, 6), (2, 8, 6, 8), (4, 10, 8, 10)]
    assert sum(s.end - s.start for s in plan) == 18
    assert sum(s.hi - s.lo for s in plan) == 9


@given(n=st.integers(0, 300), context=st.integers(1, 60), stride=st.integers(1, 60))
@settings(deadline=None, max_examples=200)
def test_every_position_once_with_the_context_that_is_promised(
    n: int, context: int, stride: int
) -> None:
    plan = nll_plan(n, context, stride)
    scored = [t for s in plan for t in range(s.lo, s.hi)]
    assert scored == list(range(1, n))
    assert all(0 <= s.start < s.lo <= s.hi <= s.end <= n for s in plan)
    assert all(s.end - s.start <= context + stride for s in plan)
    for s in plan[1:]:
        assert s.lo - s.start == context
        assert s.hi - 1 - s.start <= context + stride - 1
    if n > 1:
        assert len(plan) == 1 + max(0, -(-(n - context - stride) // stride))


def test_default_windows_keep_their_proportions() -> None:
    assert fitting(1 << 20) == Windows(32_768, 4_096, 1_024)
    assert fitting(65_536) == Windows(32_768, 4_096, 1_024)
    assert fitting(8_191) == Windows(4_095, 511, 127)
    assert fitting(8_191, long=2048) == Windows(2_048, 256, 64)
    assert fitting(8_191, short=100, stride=50) == Windows(4_095, 100, 50)
    assert fitting(4) == Windows(2, 1, 1)


def test_scores_come_back_to_their_documents_in_one_call() -> None:
    calls = []

    class Counting(CacheLM):
        def scores(self, segments):  # type: ignore[no-untyped-def]
            calls.append(len(segments))
            return super().scores(segments)

    documents = [np.arange(n, dtype=np.int32) for n in (9, 0, 5)]
    plans = [nll_plan(len(ids), 2, 2) for ids in documents]
    asked = [[s.of(ids) for s in plan] for plan, ids in zip(plans, documents, strict=True)]
    found = read(Counting(10), asked)
    assert calls == [sum(map(len, plans))]
    for plan, scores, ids in zip(plans, found, documents, strict=True):
        assert np.isfinite(joined(plan, scores, len(ids))).all()
    part = joined(plans[0][1:], found[0][1:], 9)
    assert np.isnan(part[:3]).all()
    assert np.isfinite(part[3:]).all()


def test_cache_model_of_the_specification() -> None:
    ids = np.array([1, 2, 3, 1], np.int32)
    (whole,) = nll_plan(4, 4, 4)
    for w, expected in ((3, [4.605170, 4.605170, 1.171183]), (1, [4.605170] * 3)):
        (found,) = CacheLM(10, w=w).scores([whole.of(ids)])
        assert found.nll.tolist() == pytest.approx(expected, abs=1e-6)


def test_copy_model_of_the_specification() -> None:
    ids = np.array([5, 1, 9, 5, 1], np.int32)
    (whole,) = nll_plan(5, 5, 5)
    for w, p in ((4, 0.91), (2, 0.1), (None, 0.91)):
        (found,) = CopyLM(10, w=w).scores([whole.of(ids)])
        assert np.exp(-found.nll[-1]) == pytest.approx(p)
