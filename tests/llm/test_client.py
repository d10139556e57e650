"""The client's stack on a clock that jumps: retries, limits, budget, coalescing, what is stored."""

import asyncio
import logging
import math
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from longctx.llm.accounting import Price
from longctx.llm.cache import Entry, NullCache
from longctx.llm.cache_sqlite import SQLiteCache
from longctx.llm.client import Client
from longctx.llm.loop_thread import LoopThread
from longctx.llm.settings import ClientSettings
from longctx.llm.types import Answer, AttemptError, GenRequest, LLMJobError, Usage
from tests.llm.virtual import GOOD, Planned, request, virtual_loop


@pytest.fixture(scope="module")
def loop() -> Iterator[LoopThread]:
    with virtual_loop() as thread:
        yield thread


def client(
    loop: LoopThread, backend: Planned, cache: SQLiteCache | None = None, **s: object
) -> Client:
    settings = ClientSettings.model_validate(s)
    return Client(backend, cache, settings, loop=loop, rng=random.Random(0))


def rows(n: int) -> list[GenRequest]:
    return [request(str(i)) for i in range(n)]


def test_results_have_the_order_of_their_requests(loop: LoopThread) -> None:
    echo = Planned({"*": [lambda req: Answer(text=f"to {req.row_id}")]})
    with client(loop, echo, in_flight=7) as asked:
        results = asked.generate(rows(50))
    assert [r.text for r in results] == [f"to {i}" for i in range(50)]
    assert [r.request_id for r in results] == [f"id-{i}" for i in range(50)]
    assert echo.peak == 7
    assert echo.closed
    assert asked.generate([]) == []


def test_a_server_without_usage_is_estimated(loop: LoopThread) -> None:
    (result,) = client(loop, Planned({"*": [Answer(text="twelve bytes")]})).generate(rows(1))
    assert result.usage == Usage(prompt=3 + 4, completion=3, estimated=True)
    assert (result.attempts, result.latency_s, result.error) == (1, 1.0, None)


def test_equal_requests_under_way_are_one_call(loop: LoopThread) -> None:
    backend = Planned()
    asked = client(loop, backend)
    same = [{"role": "user", "content": "same"}]
    results = asked.generate([request(str(i), messages=same) for i in range(9)])
    assert len(backend.sent) == 1
    assert {r.text for r in results} == {"words"}
    assert sorted(r.from_cache for r in results) == [False] + [True] * 8
    assert len({r.request_id for r in results}) == 9
    samples = [request("0", messages=same, sample_index=i, temperature=1.0) for i in range(4)]
    asked.generate(samples)
    assert len(backend.sent) == 5


def test_equal_requests_of_several_threads_are_one_call(loop: LoopThread, tmp_path: Path) -> None:
    backend = Planned(seconds=0.5)
    asked = client(loop, backend, SQLiteCache(tmp_path / "c.sqlite"))
    together = threading.Barrier(6)

    def ask() -> None:
        together.wait()
        for _ in range(5):
            assert all(r.text == "words" for r in asked.generate(rows(20)))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(backend.by_key.values()) == {1}
    assert len(backend.by_key) == 20
    (usage,) = asked.usage_rows()
    assert (usage["requests"], usage["cache_hits"], usage["calls"]) == (600, 580, 20)


def test_429_with_retry_after_twice_then_an_answer(loop: LoopThread) -> None:
    late = AttemptError("rate_limited", status=429, retry_after="3")
    backend = Planned({"0": [late, late, GOOD]}, seconds=0)
    (result,) = client(loop, backend).generate(rows(1))
    assert (result.attempts, result.error, result.text) == (3, None, "words")
    times = [t for t, _ in backend.sent]
    assert all(3 <= after - before <= 4 for before, after in pairwise(times))


@pytest.mark.parametrize(
    ("failure", "attempts", "code"),
    [
        (AttemptError("server_error", status=500), 6, "transport"),
        (AttemptError("connection"), 6, "transport"),
        (AttemptError("malformed", status=200), 6, "transport"),
        (AttemptError("rate_limited", status=429), 6, "rate_limited"),
        (AttemptError("timeout"), 3, "transport"),
        (AttemptError("empty", status=200), 2, "empty"),
        (AttemptError("schema_refused", status=400), 2, "bad_request"),
        (AttemptError("context_overflow", status=400), 1, "context_overflow"),
        (AttemptError("bad_request", status=422), 1, "bad_request"),
        (ValueError("question 0 spoils it"), 1, "bad_request"),
    ],
    ids=str,
)
def test_what_stays_wrong_ends_in_a_reason(
    loop: LoopThread, failure: Exception, attempts: int, code: str
) -> None:
    backend = Planned({"0": [failure]})
    results = client(loop, backend, in_flight=8).generate(rows(64))
    bad, *good = results
    assert bad.error is not None
    assert (bad.error.code, bad.attempts, bad.finish_reason) == (code, attempts, "error")
    assert "question" not in bad.error.message
    assert all(r.error is None and r.text == "words" for r in good)
    assert len(backend.sent) == 63 + attempts


def test_a_request_is_given_up_after_twenty_minutes(loop: LoopThread) -> None:
    slow = AttemptError("rate_limited", status=429, retry_after="300")
    backend = Planned({"0": [slow]}, seconds=0)
    (result,) = client(loop, backend, attempts=100, breaker_s=5000).generate(rows(1))
    assert result.attempts == 4
    times = [t for t, _ in backend.sent]
    assert times[-1] - times[0] <= 1200


@pytest.mark.parametrize("code", ["auth", "model_not_found", "misconfigured"])
def test_faults_of_the_job_end_it_after_one_request(loop: LoopThread, code: str) -> None:
    backend = Planned({"*": [AttemptError(code, "no", status=401)]})  # type: ignore[arg-type]
    asked = client(loop, backend, in_flight=1)
    with pytest.raises(LLMJobError) as caught:
        asked.generate(rows(10))
    assert (caught.value.code, len(backend.sent)) == (code, 1)
    with pytest.raises(LLMJobError):
        asked.generate(rows(1))
    assert len(backend.sent) == 1


def test_a_404_is_the_jobs_fault_only_if_nothing_else_was_heard(loop: LoopThread) -> None:
    lost = AttemptError("not_found", "Not Found", status=404)
    with pytest.raises(LLMJobError, match="does not know the model"):
        client(loop, Planned({"0": [lost]}), in_flight=1).generate(rows(3))
    results = client(loop, Planned({"2": [lost]}), in_flight=1).generate(rows(4))
    assert [r.error and r.error.code for r in results] == [None, None, "bad_request", None]


def test_the_breaker_opens_and_what_was_answered_is_kept(loop: LoopThread, tmp_path: Path) -> None:
    down = AttemptError("connection", "refused")
    backend = Planned({str(i): [down] for i in range(10, 200)})
    path = tmp_path / "c.sqlite"
    asked = client(loop, backend, SQLiteCache(path), in_flight=5)
    with pytest.raises(LLMJobError, match="connection 30") as caught:
        asked.generate(rows(200))
    assert caught.value.code == "circuit_open"
    assert 40 <= len(backend.sent) <= 44
    asked.close()
    with client(loop, (again := Planned()), SQLiteCache(path)) as resumed:
        results = resumed.generate(rows(200))
    assert [r.from_cache for r in results] == [True] * 10 + [False] * 190
    assert len(again.sent) == 190


def test_a_burst_of_complaints_halves_once_and_opens_nothing(loop: LoopThread) -> None:
    busy = AttemptError("rate_limited", status=429)
    backend = Planned({str(i): [busy, GOOD] for i in range(32)})
    asked = client(loop, backend, in_flight=32)
    results = asked.generate(rows(32))
    assert all(r.error is None for r in results)
    assert (asked.limiter.limit, asked.limiter.epoch) == (16, 1)


def test_a_server_that_refuses_some_whatever_is_in_flight_is_kept_busy(loop: LoopThread) -> None:
    busy = AttemptError("rate_limited", status=429)
    backend = Planned({str(i): [busy, GOOD] for i in range(10, 1000, 20)}, seconds=0.05)
    asked = client(loop, backend, in_flight=16)
    assert all(r.error is None for r in asked.generate(rows(1000)))
    assert asked.limiter.limit == 16


def test_a_server_that_refuses_what_is_too_many_gets_fewer(loop: LoopThread) -> None:
    backend = Planned(seconds=0.05)

    def full(req: GenRequest) -> Answer:
        if backend.in_flight >= 6:
            raise AttemptError("overloaded", status=503)
        return GOOD

    backend.plan["*"] = [full]
    asked = client(loop, backend, in_flight=16, attempts=50)
    assert all(r.error is None for r in asked.generate(rows(400)))
    assert asked.limiter.epoch >= 2
    assert asked.limiter.limit <= 8


def test_a_server_that_asks_for_time_gets_it_from_all(loop: LoopThread) -> None:
    """An account whose minute is used up: forty waiting requests must not be refused one by one."""
    backend = Planned(seconds=0.01)

    def used_up(req: GenRequest) -> Answer:
        now, _ = backend.sent[-1]
        if now < backend.sent[0][0] + 20:
            raise AttemptError("rate_limited", status=429, retry_after="15")
        return GOOD

    backend.plan["*"] = [used_up]
    asked = client(loop, backend, in_flight=4)
    assert all(r.error is None for r in asked.generate(rows(40)))
    assert len(backend.sent) <= 40 + 4 + 2


def test_a_server_that_only_complains_opens_the_breaker(loop: LoopThread) -> None:
    backend = Planned({"*": [AttemptError("rate_limited", status=429)]})
    asked = client(loop, backend, in_flight=32)
    with pytest.raises(LLMJobError, match="rate_limited 30"):
        asked.generate(rows(100))
    assert asked.limiter.limit == 1


def test_a_stage_whose_first_requests_all_fail_alike_is_set_up_wrongly(loop: LoopThread) -> None:
    backend = Planned({"*": [AttemptError("context_overflow", "8192 at most", status=400)]})
    with pytest.raises(LLMJobError, match="'answer' all ended with context_overflow: 8192") as e:
        client(loop, backend, in_flight=4).generate(rows(100))
    assert e.value.code == "misconfigured"
    assert 20 <= len(backend.sent) <= 24


def test_a_request_without_a_key_spoils_no_other(loop: LoopThread) -> None:
    backend = Planned()
    bad = [request("a", temperature=math.nan), request("b", messages=[{"role": "user"}])]
    results = client(loop, backend).generate([bad[0], request("c"), bad[1]])
    assert [r.error and r.error.code for r in results] == ["bad_request", None, "bad_request"]
    assert len(backend.sent) == 1


def test_budget_of_the_worked_example(loop: LoopThread) -> None:
    """Reservations of 3,000 tokens under 10,000: three at once, the fourth when two have ended."""
    spent = Answer(text="words", usage=Usage(1_000, 400))
    backend = Planned({"*": [spent]})
    asked = client(loop, backend, in_flight=4, max_tokens_total=10_000)
    with pytest.raises(LLMJobError, match="tokens spent") as caught:
        asked.generate([request(str(i), max_tokens=3_000 - 7) for i in range(20)])
    assert caught.value.code == "budget"
    start = backend.sent[0][0]
    assert [sum(t - start == s for t, _ in backend.sent) for s in (0, 1)] == [3, 1]
    assert asked.budget.spent_tokens <= 10_000
    assert asked.budget.spent_tokens == 1_400 * len(backend.sent)


def test_budget_in_dollars_needs_a_price(loop: LoopThread) -> None:
    with pytest.raises(LLMJobError, match="no price of api:planned") as caught:
        client(loop, Planned(), max_usd=1.0)
    assert caught.value.code == "misconfigured"
    priced = Client(
        backend := Planned({"*": [Answer(text="words", usage=Usage(100, 100))]}),
        settings=ClientSettings(max_usd=0.001, in_flight=1),
        price=Price(input=1.0, output=2.0),
        loop=loop,
    )
    with pytest.raises(LLMJobError, match=r"0\.00 of 0\.00 USD"):
        priced.generate([request(str(i), max_tokens=100) for i in range(9)])
    (usage,) = priced.usage_rows()
    assert usage["cost_usd"] == pytest.approx(0.0003 * len(backend.sent))
    assert usage["cost_usd"] <= 0.001


def test_failures_that_were_charged_are_spent(loop: LoopThread) -> None:
    charged = AttemptError("server_error", status=500, usage=Usage(70, 30))
    asked = client(loop, Planned({"0": [charged, charged, GOOD]}), max_tokens_total=1_000)
    asked.generate(rows(1))
    assert asked.budget.spent_tokens == 100 + 100 + 15
    assert asked.budget.is_idle()


def test_starts_keep_the_pace(loop: LoopThread) -> None:
    backend = Planned(seconds=0)
    client(loop, backend, requests_per_minute=60, actors=2).generate(rows(5))
    times = [t for t, _ in backend.sent]
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps == pytest.approx([2.0] * 4)


def test_only_whole_answers_are_stored(loop: LoopThread, tmp_path: Path) -> None:
    plan = {
        "0": [Answer(text="cut o", finish_reason="length")],
        "1": [Answer(text="fil", finish_reason="content_filter")],
        "2": [Answer(text="Max tries. Failed.")],
        "3": [AttemptError("empty", status=200)],
        "4": [GOOD],
    }
    path = tmp_path / "c.sqlite"
    for store_truncated, kept in ((False, {4}), (True, {0, 1, 4})):
        asked = client(
            loop, Planned(dict(plan)), SQLiteCache(path), store_truncated=store_truncated
        )
        first = asked.generate(rows(5))
        assert first[1].error is not None
        assert first[1].error.code == "content_filter"
        second = asked.generate(rows(5))
        assert {i for i, r in enumerate(second) if r.from_cache} == kept
        assert [(r.text, r.error) for r in second] == [(r.text, r.error) for r in first]


def test_a_text_that_may_be_cut_is_stored_as_it_is(loop: LoopThread, tmp_path: Path) -> None:
    plan = [Answer(text="cut o", finish_reason="length")]
    filtered = [Answer(text="fil", finish_reason="content_filter")]
    wanted = [request("0", may_be_cut=True), request("1", may_be_cut=True)]
    asked = client(loop, Planned({"0": plan, "1": filtered}), SQLiteCache(tmp_path / "c.sqlite"))
    first, second = asked.generate(wanted), asked.generate(wanted)
    assert [r.from_cache for r in second] == [True, False]
    assert [(r.text, r.finish_reason) for r in second] == [(r.text, r.finish_reason) for r in first]
    # Neither key nor text tells whether a text may be cut.
    assert asked.generate([request("0")])[0].from_cache


def test_a_finished_answer_serves_another_limit_if_asked_for(
    loop: LoopThread, tmp_path: Path
) -> None:
    cut = Answer(text="cut o", finish_reason="length")
    path = tmp_path / "c.sqlite"
    client(loop, Planned({"1": [cut]}), SQLiteCache(path), store_truncated=True).generate(rows(2))
    longer = [request(str(i), max_tokens=99) for i in range(2)]
    taken = client(loop, Planned(), SQLiteCache(path), reuse_finished=True).generate(longer)
    assert [r.from_cache for r in taken] == [True, False]
    untaken = client(loop, Planned(), SQLiteCache(tmp_path / "d.sqlite")).generate(longer)
    assert [r.from_cache for r in untaken] == [False, False]
    assert taken[0].key == untaken[0].key != ""


def test_halves_of_surrogate_pairs_are_replaced(loop: LoopThread, tmp_path: Path) -> None:
    broken = Planned({"*": [Answer(text="a \ud83d b")]})
    asked = client(loop, broken, SQLiteCache(tmp_path / "c.sqlite"))
    texts = [asked.generate(rows(1))[0].text for _ in range(2)]
    assert texts == ["a ? b", "a ? b"]


def test_a_server_that_changes_its_model_is_told_once(
    loop: LoopThread, caplog: pytest.LogCaptureFixture
) -> None:
    models = {str(i): [Answer(text="t", model_reported="aaabab"[i])] for i in range(6)}
    asked = client(loop, Planned(models), in_flight=1)
    assert [r.model_reported for r in asked.generate(rows(6))] == [*"aaabab"]
    assert asked.models_reported == ("a", "b")
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "'b' now, as 'a' before" in record.getMessage()


def test_logs_hold_no_prompt(loop: LoopThread, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = [{"role": "user", "content": "nobody may read this sentence"}]
    quoting = f"cannot answer {secret[0]['content']}"
    plan = {"0": [AttemptError("server_error", quoting, status=500)], "1": [ValueError(quoting)]}
    asked = [request(str(i), messages=secret, sample_index=i) for i in range(2)]
    failed, raised = client(loop, Planned(plan)).generate(asked)
    assert failed.error is not None
    assert raised.error is not None
    assert failed.error.message == "cannot answer (request)"
    assert raised.error.message.startswith("the backend raised ValueError in attempt, line ")
    assert failed.key in caplog.text
    assert "nobody may" not in caplog.text


class Waiting(Planned):
    """Interrupts the main thread with its first attempt, and does not answer that one."""

    async def attempt(self, req: GenRequest, key: str) -> Answer:
        if not self.by_key:
            self.by_key[key] += 1
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)
            try:
                await asyncio.Event().wait()
            finally:
                self.ended.append(0.0)
        return await super().attempt(req, key)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_what_was_asked_and_nothing_else(
    loop: LoopThread, interruptible: None
) -> None:
    asked = client(loop, backend := Waiting(), in_flight=1)
    with pytest.raises(KeyboardInterrupt):
        asked.generate(rows(3))
    results = asked.generate(rows(3))
    assert [r.text for r in results] == ["words"] * 3
    assert (backend.ended[0], backend.in_flight, asked.limiter.in_flight) == (0.0, 0, 0)


class Full(NullCache):
    def put(self, entries: Sequence[Entry]) -> dict[str, Entry]:
        raise LLMJobError("cache_io", "the disk is full")


def test_a_cache_that_cannot_be_written_ends_the_job(loop: LoopThread) -> None:
    asked = Client(Planned(), Full(), loop=loop)
    with pytest.raises(LLMJobError, match="the disk is full"):
        asked.generate(rows(100))
    with pytest.raises(LLMJobError, match="the disk is full"):
        asked.generate(rows(1))
    with pytest.raises(LLMJobError, match="the disk is full"):
        asked.flush()
