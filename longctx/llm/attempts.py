"""Single attempts: when one may start (`Limited`), and what it took (`Metered`).

The two inner layers of a client's stack. All of it runs on the loop thread, so it needs no lock.
"""

import asyncio
import logging
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from longctx.llm.accounting import estimate_text, estimate_tokens
from longctx.llm.backoff import LONGEST_RETRY_AFTER, parse_retry_after
from longctx.llm.budget import Budget, Reservation
from longctx.llm.classify import RULES
from longctx.llm.limiter import AimdLimiter, Pace, Refusals
from longctx.llm.meter import Meter
from longctx.llm.types import Answer, AttemptError, Backend, GenRequest, LLMJobError, Usage

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
