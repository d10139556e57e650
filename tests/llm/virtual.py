"""A loop whose clock jumps to the next timer, and a backend that answers as it is told.

With them a test of waiting takes no time: a request that backs off for a minute is sent again at
once, and `loop.time()` says that a minute has passed.
"""

import asyncio
import selectors
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from longctx.llm.loop_thread import LoopThread
from longctx.llm.types import Answer, AttemptError, Caps, GenRequest, Usage

_FOR_THREADS_S = 0.0005


class _Jumping(selectors.DefaultSelector):
    """Where a timer is all there is to wait for, it has come."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(_FOR_THREADS_S)
        if not events:
            self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = _Jumping()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


@contextmanager
def virtual_loop() -> Iterator[LoopThread]:
    thread = LoopThread(VirtualLoop)
    try:
        yield thread
    finally:
        thread.stop()


Outcome = Answer | BaseException | Callable[[GenRequest], Answer]
GOOD = Answer(text="words", usage=Usage(10, 5), model_reported="m")


class Planned:
    """Outcomes of each row's attempts in turn; the last one stays. `seconds` for every attempt."""

    model_id = "api:planned"

    def __init__(
        self, plan: dict[str, list[Outcome]] | None = None, *, seconds: float = 1.0, **caps: Any
    ) -> None:
        self.caps = Caps(max_concurrency=1000, **caps)
        self.plan = plan or {}
        self.seconds = seconds
        self.sent: list[tuple[float, str]] = []
        self.ended: list[float] = []
        self.by_key: Counter[str] = Counter()
        self.in_flight = self.peak = 0
        self.closed = False

    async def attempt(self, req: GenRequest, key: str) -> Answer:
        loop = asyncio.get_running_loop()
        turn = self.by_key[key]
        self.by_key[key] += 1
        self.sent.append((loop.time(), req.row_id))
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.in_flight -= 1
            self.ended.append(loop.time())
        outcomes = self.plan.get(req.row_id) or self.plan.get("*") or [GOOD]
        outcome = outcomes[min(turn, len(outcomes) - 1)]
        if isinstance(outcome, AttemptError):
            raise AttemptError(
                outcome.event,
                outcome.message,
                status=outcome.status,
                retry_after=outcome.retry_after,
                usage=outcome.usage,
            )
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome(req) if callable(outcome) else outcome

    async def aclose(self) -> None:
        self.closed = True


def request(row: str, **more: Any) -> GenRequest:
    """A request of its own key for every row, unless `messages` says otherwise."""
    usual: dict[str, Any] = {
        "request_id": f"id-{row}",
        "messages": [{"role": "user", "content": f"question {row}"}],
        "max_tokens": 16,
        "system": "s",
        "stage": "answer",
        "row_id": row,
    }
    return GenRequest(**usual | more)
