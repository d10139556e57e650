"""Back-off, AIMD, pace, breaker, early stop and budget: arithmetic with clocks passed in."""

import random
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.llm.backoff import backoff_delay, parse_retry_after
from longctx.llm.breaker import Breaker, FirstFinished
from longctx.llm.budget import Budget
from longctx.llm.limiter import AimdLimiter, Pace, Refusals, share
from longctx.llm.types import Usage


class Highest:
    """Always the upper bound."""

    def uniform(self, low: float, high: float, /) -> float:
        return high


class Lowest:
    def uniform(self, low: float, high: float, /) -> float:
        return low


def test_delays_double_up_to_the_cap() -> None:
    delays = [backoff_delay(n, Highest()) for n in range(1, 9)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff_delay(5000, Highest()) == 60
    assert backoff_delay(8, Lowest()) == 0
    assert backoff_delay(3, Highest(), base=0.5, cap=1.5) == 1.5


def test_retry_after_is_kept() -> None:
    assert backoff_delay(1, Lowest(), retry_after=3) == 3
    assert backoff_delay(8, Highest(), retry_after=3) == 4
    assert backoff_delay(1, Lowest(), retry_after=100_000) == 300
    assert backoff_delay(1, Lowest(), retry_after=-5) == 0


@given(st.integers(1, 100), st.integers())
def test_delays_stay_in_their_bounds(failures: int, seed: int) -> None:
    rng = random.Random(seed)
    assert 0 <= backoff_delay(failures, rng) <= 60
    assert 3 <= backoff_delay(failures, rng, retry_after=3) <= 4


def test_headers_that_name_a_time() -> None:
    now = 1_700_000_000.0
    assert parse_retry_after("3", now) == 3
    assert parse_retry_after("2.5", now) == 2.5
    assert parse_retry_after("-7", now) == 0
    assert parse_retry_after(formatdate(now + 90, usegmt=True), now) == 90
    assert parse_retry_after(formatdate(now - 90, usegmt=True), now) == 0
    for unreadable in (None, "", "soon", "nan", "inf", "Fri, 99 Foo 2026"):
        assert parse_retry_after(unreadable, now) is None


def test_aimd_of_the_worked_example() -> None:
    limiter = AimdLimiter(32)
    assert limiter.overload(0) == 16
    assert limiter.overload(0) == 16
    assert limiter.overload(1) == 8
    assert [limiter.success() for _ in range(50)][-1] == 9
    assert [limiter.success() for _ in range(49)][-1] == 9
    assert limiter.overload(2) == 4


def test_aimd_stays_between_one_and_the_maximum() -> None:
    limiter = AimdLimiter(2)
    assert [limiter.overload(e) for e in range(4)] == [1, 1, 1, 1]
    assert [limiter.success() for _ in range(200)][-1] == 2
    with pytest.raises(ValueError, match="at least 1"):
        AimdLimiter(0)


def test_a_few_refusals_of_a_hundred_are_not_many() -> None:
    refusals = Refusals()
    refusals.ended(refused=True)
    assert refusals.are_many()
    refusals.clear()
    assert not refusals.are_many()
    for i in range(200):
        refusals.ended(refused=i % 20 == 19)
        assert not refusals.are_many()
    said = []
    for _ in range(12):
        refusals.ended(refused=True)
        said.append(refusals.are_many())
    assert said.index(True) in (7, 8)  # with those of the window before, 11 of 50


def test_pace_spaces_starts_and_takes_back_what_was_not_used() -> None:
    pace = Pace(60)
    assert pace.wait(100.0) == 0
    pace.spend(1, 100.0)
    assert pace.wait(100.25) == 0.75
    pace.spend(3, 101.0)
    pace.give_back(1)
    assert pace.wait(101.0) == 2.0
    assert pace.wait(500.0) == 0


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_no_minute_sees_more_than_the_pace_allows(pauses: list[float]) -> None:
    pace, now, starts = Pace(12), 0.0, []
    for pause in pauses:
        now += pause + pace.wait(now + pause)
        pace.spend(1, now)
        starts.append(now)
    assert all(sum(t <= s < t + 59.999 for s in starts) <= 12 for t in starts)


def test_limits_are_divided_by_the_actors() -> None:
    assert share(60, 4) == 15
    assert share(None, 4) is None


def test_breaker_opens_after_thirty_failures_in_a_row() -> None:
    breaker = Breaker()
    breaker.begin(0)
    assert not any(breaker.failure("timeout", 1) for _ in range(29))
    breaker.success(2)
    assert not any(breaker.failure("connection", 3) for _ in range(29))
    assert breaker.failure("rate_limited", 3)
    assert "connection 29, rate_limited 1" in breaker.said()


def test_breaker_opens_after_five_minutes_of_failures() -> None:
    breaker = Breaker()
    breaker.begin(1000)
    assert not breaker.failure("timeout", 1299)
    breaker.success(1299)
    assert not breaker.failure("timeout", 1598)
    assert breaker.failure("timeout", 1599)


def test_breaker_does_not_count_the_time_when_nothing_waited() -> None:
    breaker = Breaker()
    breaker.success(0)
    breaker.begin(10_000)
    assert not breaker.failure("timeout", 10_001)


def test_twenty_first_requests_that_fail_alike_mean_wrong_settings() -> None:
    first, stage = FirstFinished(), ("s", "t")
    said = [first.finished(stage, "context_overflow") for _ in range(20)]
    assert said == [None] * 19 + ["context_overflow"]


@pytest.mark.parametrize("other", [None, "transport", "bad_request"])
def test_one_other_end_among_the_first_means_nothing_is_wrong(other: str | None) -> None:
    first, stage = FirstFinished(), ("s", "t")
    codes = ["context_overflow"] * 10 + [other] + ["context_overflow"] * 50
    assert [first.finished(stage, c) for c in codes] == [None] * 61
    assert [first.finished(("s", "u"), "bad_request") for _ in range(20)][-1] == "bad_request"


def test_budget_of_the_worked_example() -> None:
    budget = Budget(max_tokens=10_000)
    wanted = budget.reservation(1_000, 2_000)
    sent = 0
    while budget.fits(wanted):
        budget.reserve(wanted)
        sent += 1
    assert sent == 3
    budget.settle(wanted, Usage(1_000, 400))
    assert not budget.fits(wanted)  # 1,400 + 6,000 + 3,000
    budget.settle(wanted, Usage(1_000, 400))
    assert budget.fits(wanted)
    budget.reserve(wanted)
    assert budget.spent_tokens + budget.reserved_tokens == 8_800
    assert not budget.is_idle()


def test_budget_in_dollars() -> None:
    def cost(usage: Usage) -> float:
        return usage.prompt * 1e-6 + usage.completion * 2e-6

    budget = Budget(max_usd=0.01, cost=cost)
    wanted = budget.reservation(2_000, 2_000)
    assert wanted.usd == pytest.approx(0.006)
    budget.reserve(wanted)
    assert not budget.fits(wanted)
    budget.settle(wanted, Usage(2_000, 100))
    assert budget.spent_usd == pytest.approx(0.0022)
    assert budget.reserved_usd == 0
    assert budget.fits(wanted)
    assert "0.00 of 0.01 USD" in budget.said()
    with pytest.raises(ValueError, match="price"):
        Budget(max_usd=1.0)


@given(
    st.integers(1, 10_000),
    st.lists(st.tuples(st.integers(1, 999), st.integers(1, 999), st.booleans()), max_size=40),
)
def test_a_budget_is_never_passed(limit: int, calls: list[tuple[int, int, bool]]) -> None:
    budget, open_calls = Budget(max_tokens=limit), []
    for prompt, completion, ends in calls:
        wanted = budget.reservation(prompt, completion)
        if budget.fits(wanted):
            budget.reserve(wanted)
            open_calls.append((wanted, Usage(prompt, completion)))
        if ends and open_calls:
            budget.settle(*open_calls.pop())
        assert budget.spent_tokens + budget.reserved_tokens <= limit
    for reserved, usage in open_calls:
        budget.settle(reserved, usage)
    assert budget.is_idle()
    assert budget.reserved_tokens == 0
