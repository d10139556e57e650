"""Statistics of judges: the worked examples, planted faults of judges, and SciPy's opinion."""

import json
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from longctx.errors import RunError
from longctx.llm import controls
from longctx.llm.controls import Control, kendall_tau_b, spearman


def test_tau_b_of_the_worked_examples() -> None:
    assert kendall_tau_b([1, 2, 3, 4, 5], [1, 3, 2, 4, 5]) == pytest.approx(0.8)
    assert kendall_tau_b([1, 2, 2, 3], [1, 2, 3, 3]) == pytest.approx(0.8)
    assert kendall_tau_b([5, 5, 5], [1, 2, 3]) is None
    assert kendall_tau_b([], []) is None
    with pytest.raises(ValueError, match="1 marks cannot be compared with 2"):
        kendall_tau_b([1], [1, 2])


PAIRS = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), max_size=12)


@given(PAIRS)
def test_correlations_agree_with_scipy(pairs: list[tuple[int, int]]) -> None:
    x, y = [a for a, _ in pairs], [b for _, b in pairs]
    for ours, theirs in ((kendall_tau_b, stats.kendalltau), (spearman, stats.spearmanr)):
        found = ours(x, y)
        if found is None:
            assert len(set(x)) < 2 or len(set(y)) < 2
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert found == pytest.approx(theirs(x, y).statistic)


def test_a_constant_judge_is_found() -> None:
    marks: dict[str, list[Any]] = {
        "logic": [[7, 7, 7], [7, 7], [6, 7], [7]],
        "help": [[1, 2, 3], [4, None, 4], [6, 7], [None, 3]],
    }
    good, bad = controls.constant_judge(marks)
    assert (good.name, good.passed, good.n) == ("constant:help", True, 3)
    assert (bad.name, bad.passed, bad.n) == ("constant:logic", False, 3)
    assert [good.value, bad.value] == pytest.approx([2 / 3, 1 / 3])
    assert bad.hard


def test_marks_must_fall_with_another_context() -> None:
    assert controls.shuffled_context([9, 8, 10], [5, 6, 7]).passed is True
    assert controls.shuffled_context([9, 8], [7, 6]).passed is False
    found = controls.shuffled_context([9, None, 8], [None, 2, 4])
    assert (found.value, found.n) == (4.0, 1)


def test_contradictions_must_be_found() -> None:
    assert controls.planted_contradiction([True] * 9 + [False, None]).value == 0.9
    assert controls.planted_contradiction([True] * 9 + [False]).passed is True
    assert controls.planted_contradiction([True] * 8 + [False]).passed is False


def test_reports_that_end_no_job() -> None:
    assert controls.stability([1, 2, 3, 4, 5], [1, 3, 2, 4, 5]).passed is True
    assert controls.stability([1, 2, 3], [3, 2, 1]).passed is False
    assert controls.stability([5, 5], [5, 5]).passed is None
    verdicts = [("x", "x"), ("x", "y"), ("y", None), ("y", "y"), ("x", "x"), ("x", "x")]
    found = controls.order(verdicts)
    assert (found.value, found.passed, found.n) == (0.8, True, 5)
    assert controls.disagreeing(verdicts) == [1, 2]
    assert controls.duplicate([7, 3, None], [8, 3, 1]).passed is True
    assert controls.duplicate([7, 3], [9, 3]).value == 2
    assert controls.length([[1, 2, 3]], [[10, 20, 30]]).passed is False
    assert controls.length([[1, 2, 3], [3, 2, None]], [[10, 20, 30], [10, 20, 9]]).value == 0.0
    assert controls.length([[5, 5]], [[1, 2]]).passed is None
    assert controls.refusal([(0, [5, 7]), (None, [1])]).passed is True
    assert controls.refusal([(7, [5, 7]), (0, [1])]).value == 0.5
    assert controls.self_judging("api:a", ["api:a", "api:b"]).passed is False
    assert controls.self_judging("api:c", ["api:a", "api:b"]).passed is True
    assert not any(c.hard for c in (found, controls.refusal([]), controls.self_judging("a", [])))


def test_only_hard_controls_end_a_job() -> None:
    soft = controls.duplicate([1], [9])
    hard = controls.shuffled_context([9, 8], [7, 6])
    controls.check([soft], "03-judge")
    with pytest.raises(RunError, match=r"shuffled_context is 2\.00, wanted >= 3") as caught:
        controls.check([soft, hard], "03-judge")
    assert "duplicate" not in str(caught.value)
    controls.check([hard], "03-judge", allow_weak=True)
    with pytest.raises(RunError, match="is without a case"):
        controls.check([controls.planted_contradiction([])], "03-judge")


def test_the_report_is_json() -> None:
    found = controls.report([controls.shuffled_context([9], [9]), controls.order([])], "api:j")
    assert json.loads(json.dumps(found))["weak"] == ["shuffled_context"]
    first = {"name": "shuffled_context", "value": 0.0, "passed": False, "n": 1, "hard": True}
    assert found["controls"][0] == first | {"wanted": ">= 3"}
    assert Control("x", None, None, 0).wanted == ""
