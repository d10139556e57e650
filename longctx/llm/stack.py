"""The layers between a client and its backend, from the inside out.

`Metered` counts attempts, `Limited` decides when one starts, `Retrying` makes a request of them,
`Stored` puts its result into the cache, and `Coalesced` lets equal requests that are under way at
once wait for one of them. All of it runs on the loop thread, so nothing here needs a lock.

The lookup of whole batches stands above (`client.py`); `Stored` looks again when something was
stored since, because an equal request may have ended between that lookup and this call.
"""

import asyncio
import logging
import traceback
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from longctx.llm.accounting import estimate_text, estimate_tokens
from longctx.llm.backoff import LONGEST_RETRY_AFTER, Uniform, backoff_delay, parse_retry_after
from longctx.llm.breaker import Breaker
from longctx.llm.budget import Budget, Reservation
from longctx.llm.cache import FILTERED, entry_of, is_storable
from longctx.llm.cache_writer import CacheWriter
from longctx.llm.classify import RULES
from longctx.llm.limiter import AimdLimiter, Pace, Refusals
from longctx.llm.meter import Meter
from longctx.llm.scrub import scrubbed
from longctx.llm.settings import ClientSettings
from longctx.llm.structured import is_sentinel
from longctx.llm.types import (
    Answer,
    AttemptError,
    Backend,
    Event,
    GenError,
    GenRequest,
    GenResult,
    LLMJobError,
    Usage,
)

BACKLOG = 256
log = logging.getLogger(__name__)


class Metered:
    """Counts what every attempt took, and estimates the usage of servers that name none."""

    def __init__(self, backend: Backend, meter: Meter) -> None:
        self.backend, self.meter = backend, meter
        self.models: list[str] = []

    async def attempt(self, req: GenRequest, key: str) -> Answer:
        started = asyncio.get_running_loop().time()
        try:
            answer = await self._answer(req, key)
        except AttemptError as error:
            error.latency_s = asyncio.get_running_loop().time() - started
            self.meter.attempt(req, error.latency_s, error.usage)
            raise
        usage = answer.usage or Usage(
            estimate_tokens(req.messages), estimate_text(answer.text), estimated=True
        )
        seconds = asyncio.get_running_loop().time() - started
        self.meter.attempt(req, seconds, usage)
        self._watch(answer.model_reported)
        return replace(answer, usage=usage, latency_s=seconds)

    async def _answer(self, req: GenRequest, key: str) -> Answer:
        try:
            return await self.backend.attempt(req, key)
        except (AttemptError, LLMJobError):
            raise
        except Exception as error:
            # What a library says may quote the prompt, so only its kind and place are told.
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__} in {place.name}, line {place.lineno}"
            raise AttemptError("bad_request", f"the backend raised {said}") from error

    def _watch(self, reported: str | None) -> None:
        """Note what the server calls its model; more than one name is told, each once."""
        if reported is None or reported in self.models:
            return
        if self.models:
            log.warning(
                "the server of %s answers as %r now, as %r before",
                *(self.backend.model_id, reported, self.models[-1]),
            )
        self.models.append(reported)


@dataclass(slots=True)
class _Ticket:
    """A request at the door: what it reserves, and the epoch in which it was let in."""

    reservation: Reservation
    admitted: "asyncio.Future[None]"
    epoch: int = -1


class Limited:
    """Lets attempts start in order: within the AIMD limit, the pace, the budget and the backlog.

    An attempt that is made again goes to the front, so that requests end in about their order.
    """

    def __init__(
        self,
        inner: Metered,
        limiter: AimdLimiter,
        budget: Budget,
        *,
        requests: Pace | None,
        tokens: Pace | None,
        backlog: Callable[[], int],
        wall: Callable[[], float],
    ) -> None:
        self.inner, self.limiter, self.budget = inner, limiter, budget
        self._requests, self._tokens, self._backlog = requests, tokens, backlog
        self._wall = wall
        self._refusals = Refusals()
        self._closed_until = float("-inf")
        self._door: deque[_Ticket] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._fault: LLMJobError | None = None

    async def attempt(self, req: GenRequest, key: str, *, again: bool) -> Answer:
        ticket = await self._enter(req, again)
        usage: Usage | None = None
        try:
            answer = await self.inner.attempt(req, key)
            usage = answer.usage
            self.limiter.success()
            self._refusals.ended(refused=False)
            return answer
        except AttemptError as error:
            usage = error.usage
            if RULES[error.event].overload:
                error.stale = ticket.epoch != self.limiter.epoch
                self._refused(ticket, error)
            raise
        finally:
            self._leave(ticket, usage)

    def _refused(self, ticket: _Ticket, error: AttemptError) -> None:
        """Let fewer in, if it is their number that was refused, and not this request.

        Nobody at all for as long as the server asks for: the next in line would be refused as well,
        and a line of refused requests would look like a server that fails.
        """
        if ticket.epoch != self.limiter.epoch:
            return
        self._refusals.ended(refused=True)
        if self._refusals.are_many():
            self.limiter.overload(ticket.epoch)
            self._refusals.clear()
            pause = parse_retry_after(error.retry_after, self._wall()) or 0.0
            now = asyncio.get_running_loop().time()
            self._closed_until = now + min(pause, LONGEST_RETRY_AFTER)

    async def _enter(self, req: GenRequest, again: bool) -> _Ticket:
        loop = asyncio.get_running_loop()
        wanted = self.budget.reservation(estimate_tokens(req.messages), req.max_tokens)
        ticket = _Ticket(wanted, loop.create_future())
        (self._door.appendleft if again else self._door.append)(ticket)
        asked = loop.time()
        self.wake()
        try:
            await ticket.admitted
        except asyncio.CancelledError:
            if ticket.epoch >= 0:
                self._leave(ticket, None)
            raise
        if self._fault is not None:
            self._leave(ticket, None)
            raise self._fault
        self.inner.meter.waited(req, loop.time() - asked)
        return ticket

    def _leave(self, ticket: _Ticket, usage: Usage | None) -> None:
        self.limiter.end()
        self.budget.settle(ticket.reservation, usage)
        if self._tokens is not None and usage is not None:
            used = usage.prompt + usage.completion
            self._tokens.give_back(ticket.reservation.tokens - used)
        self.wake()

    def shut(self, fault: LLMJobError) -> None:
        """Let nobody in any more, whoever has just been let in included."""
        self._fault = fault

    def wake(self) -> None:
        """Let in whoever may start now; called whenever something was freed."""
        while self._door:
            ticket = self._door[0]
            if ticket.admitted.done():  # the caller has gone
                self._door.popleft()
            elif not self.limiter.has_room() or self._backlog() >= BACKLOG or self._must_wait():
                return
            elif self.budget.fits(ticket.reservation):
                self._door.popleft()
                self._admit(ticket)
            elif self.budget.is_idle():
                self._door.popleft()
                ticket.admitted.set_exception(LLMJobError("budget", self.budget.said()))
            else:
                return

    def _admit(self, ticket: _Ticket) -> None:
        now = asyncio.get_running_loop().time()
        ticket.epoch = self.limiter.start()
        self.budget.reserve(ticket.reservation)
        if self._requests is not None:
            self._requests.spend(1, now)
        if self._tokens is not None:
            self._tokens.spend(ticket.reservation.tokens, now)
        ticket.admitted.set_result(None)

    def _must_wait(self) -> bool:
        """Whether the pace or the server holds all back; then the door is looked at in time."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        paces = [p.wait(now) for p in (self._requests, self._tokens) if p is not None]
        seconds = max(self._closed_until - now, *paces, 0.0)
        if seconds <= 0.0:
            return False
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = loop.call_later(seconds, self.wake)
        return True


class Retrying:
    """Attempts until one is answered, or until the table of `classify.RULES` says enough."""

    def __init__(
        self,
        inner: Limited,
        settings: ClientSettings,
        breaker: Breaker,
        rng: Uniform,
        wall: Callable[[], float],
    ) -> None:
        self.inner, self.settings, self.breaker = inner, settings, breaker
        self._rng, self._wall = rng, wall
        self._heard = False

    async def complete(self, req: GenRequest, key: str) -> GenResult:
        """The result of a request. Raises LLMJobError alone."""
        self.inner.inner.meter.call(req)
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
                    self.inner.inner.meter.waited(req, delay)
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
        self, inner: Retrying, writer: CacheWriter, model_id: str, settings: ClientSettings
    ) -> None:
        self.inner, self.writer = inner, writer
        self._model_id, self._settings = model_id, settings
        self._wall = inner._wall
        self.stored = 0

    async def complete(self, req: GenRequest, keys: tuple[str, str], seen: int) -> GenResult:
        """`seen` is the value of `stored` when the cache was last asked for this key."""
        key, logical = keys
        if seen != self.stored and (found := self.writer.cache.get([key]).get(key)):
            return found.result(req.request_id, key)
        result = await self.inner.complete(req, key)
        if not is_storable(result, self._settings.store_truncated) or is_sentinel(result.text):
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
