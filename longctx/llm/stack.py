"""From attempts to results: the outer layers between a client and its backend.

`Retrying` makes a request of attempts (`attempts.py`), `Stored` puts its result into the cache, and
`Coalesced` lets equal requests that are under way at once wait for one of them. All of it runs on
the loop thread, so nothing here needs a lock.

The lookup of whole batches stands above (`client.py`); `Stored` looks again when something was
stored since, because an equal request may have ended between that lookup and this call.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from longctx.llm.attempts import Limited
from longctx.llm.backoff import Uniform, backoff_delay, parse_retry_after
from longctx.llm.breaker import Breaker
from longctx.llm.cache import FILTERED, entry_of, is_storable
from longctx.llm.cache_writer import CacheWriter
from longctx.llm.classify import RULES
from longctx.llm.meter import Meter
from longctx.llm.scrub import scrubbed
from longctx.llm.settings import ClientSettings
from longctx.llm.structured import is_sentinel
from longctx.llm.types import (
    Answer,
    AttemptError,
    Event,
    GenError,
    GenRequest,
    GenResult,
    LLMJobError,
    Usage,
)

log = logging.getLogger(__name__)


class Retrying:
    """Attempts until one is answered, or until the table of `classify.RULES` says enough."""

    def __init__(
        self,
        inner: Limited,
        settings: ClientSettings,
        breaker: Breaker,
        meter: Meter,
        rng: Uniform,
        wall: Callable[[], float],
    ) -> None:
        self.inner, self.settings, self.breaker = inner, settings, breaker
        self._meter, self._rng, self._wall = meter, rng, wall
        self._heard = False

    async def complete(self, req: GenRequest, key: str) -> GenResult:
        """The result of a request. Raises LLMJobError alone."""
        self._meter.call(req)
        failures: Counter[Event] = Counter()
        give_up_at = float("inf")
        while True:
            attempts = failures.total() + 1
            try:
                answer = await self.inner.attempt(req, key, again=attempts > 1)
            except AttemptError as error:
                now = asyncio.get_running_loop().time()
                failures[error.event] += 1
                if attempts == 1:
                    give_up_at = now - error.latency_s + self.settings.request_limit_s
                log.debug("request %s: attempt %d: %s", key, attempts, error.event)
                self._judge(error, req, now)
                delay = self._delay(error, failures)
                if delay is None or now + delay > give_up_at:
                    return _failed(req, key, error, attempts)
                if delay:
                    self._meter.waited(req, delay)
                    await asyncio.sleep(delay)
            else:
                self._heard = True
                self.breaker.success(asyncio.get_running_loop().time())
                return _result(req, key, answer, attempts)

    def _judge(self, error: AttemptError, req: GenRequest, now: float) -> None:
        """Raise where an attempt that failed ends the whole job."""
        rule = RULES[error.event]
        job = rule.job
        if error.event == "not_found" and not self._heard:
            job = "model_not_found"
        if job is not None:
            raise self._end(LLMJobError(job, scrubbed(error.message, req.messages)))
        self._heard = True
        # A complaint of overload that was already answered says nothing new: 32 requests that were
        # refused together are one sign, not a server that has failed 32 times in a row.
        counts = rule.failure and not error.stale
        if counts and self.breaker.failure(error.event, now):
            raise self._end(LLMJobError("circuit_open", self.breaker.said()))

    def _end(self, fault: LLMJobError) -> LLMJobError:
        # At once: where this attempt has left, the next one is already at the door.
        self.inner.shut(fault)
        return fault

    def _delay(self, error: AttemptError, failures: Counter[Event]) -> float | None:
        """Seconds until the next attempt, None if there is none."""
        allowed = RULES[error.event].retries
        if failures.total() >= self.settings.attempts:
            return None
        if allowed is not None and failures[error.event] > allowed:
            return None
        if error.event == "schema_refused":
            return 0.0
        return backoff_delay(
            failures.total(),
            self._rng,
            self.settings.backoff_base_s,
            self.settings.backoff_cap_s,
            parse_retry_after(error.retry_after, self._wall()),
        )


def _failed(req: GenRequest, key: str, error: AttemptError, attempts: int) -> GenResult:
    said = scrubbed(error.message, req.messages)
    return GenResult(
        request_id=req.request_id,
        key=key,
        usage=error.usage or Usage(0, 0),
        attempts=attempts,
        latency_s=error.latency_s,
        error=GenError(RULES[error.event].code, error.status, said),
    )


def _result(req: GenRequest, key: str, answer: Answer, attempts: int) -> GenResult:
    return GenResult(
        request_id=req.request_id,
        key=key,
        # Half a surrogate pair is valid JSON, but no file can hold it.
        text=answer.text.encode("utf-8", "replace").decode(),
        finish_reason=answer.finish_reason,
        usage=answer.usage or Usage(0, 0),
        attempts=attempts,
        latency_s=answer.latency_s,
        model_reported=answer.model_reported,
        prefill=answer.prefill,
        error=FILTERED if answer.finish_reason == "content_filter" else None,
    )


class Stored:
    """Makes what was answered survive, before anybody sees it."""

    def __init__(
        self,
        inner: Retrying,
        writer: CacheWriter,
        model_id: str,
        *,
        store_truncated: bool,
        wall: Callable[[], float],
    ) -> None:
        self.inner, self.writer = inner, writer
        self._model_id, self._store_truncated, self._wall = model_id, store_truncated, wall
        self.stored = 0

    async def complete(self, req: GenRequest, keys: tuple[str, str], seen: int) -> GenResult:
        """`seen` is the value of `stored` when the cache was last asked for this key."""
        key, logical = keys
        if seen != self.stored and (found := self.writer.cache.get([key]).get(key)):
            return found.result(req.request_id, key)
        result = await self.inner.complete(req, key)
        keeps = is_storable(result, self._store_truncated, req.may_be_cut)
        if not keeps or is_sentinel(result.text):
            return result
        entry = entry_of(result, logical, self._model_id, self._wall())
        counting = await self.writer.store(entry)
        self.stored += 1
        return result if counting is entry else counting.result(req.request_id, key)


@dataclass(slots=True)
class _Flight:
    task: "asyncio.Task[GenResult]"
    waiting: int = 0


class Coalesced:
    """Equal requests that are under way at once are one request."""

    def __init__(self, inner: Stored) -> None:
        self.inner = inner
        self._flights: dict[str, _Flight] = {}

    async def complete(self, req: GenRequest, keys: tuple[str, str], seen: int) -> GenResult:
        key, _ = keys
        flight = self._flights.get(key)
        first = flight is None
        if flight is None:
            task = asyncio.get_running_loop().create_task(self.inner.complete(req, keys, seen))
            flight = self._flights[key] = _Flight(task)
            task.add_done_callback(lambda done: self._landed(key, done))
        flight.waiting += 1
        try:
            result = await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                self._landed(key, flight.task)
                flight.task.cancel()  # nobody wants it any more, or it has ended
        if first:
            return result
        hit = result.error is None
        return replace(result, request_id=req.request_id, attempts=0, latency_s=0.0, from_cache=hit)

    def _landed(self, key: str, task: "asyncio.Task[GenResult]") -> None:
        if (flight := self._flights.get(key)) and flight.task is task:
            del self._flights[key]
