"""The client of all language-model calls: cached, coalesced, retried, limited and counted.

`Client(backend, cache, settings)` is a `Generator` over any backend. `generate` blocks and may be
called from several threads; they share one limit, one budget and one breaker. A fault of the whole
job stays: every later call raises it again, and what was answered before is in the cache.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from longctx.llm.accounting import Price, cost_usd
from longctx.llm.attempts import Limited, Metered
from longctx.llm.backoff import Uniform
from longctx.llm.breaker import Breaker, FirstFinished
from longctx.llm.budget import Budget, Cost
from longctx.llm.cache import Cache, NullCache
from longctx.llm.cache_writer import CacheWriter
from longctx.llm.keys import BadRequestError, key_pair
from longctx.llm.limiter import AimdLimiter, Pace, share
from longctx.llm.loop_thread import LoopThread, process_loop
from longctx.llm.meter import Meter
from longctx.llm.settings import ClientSettings
from longctx.llm.stack import Coalesced, Retrying, Stored
from longctx.llm.types import Backend, Caps, GenError, GenRequest, GenResult, LLMJobError

Keyed = tuple[GenRequest, tuple[str, str]]


class Client:
    """A Generator over a backend; owns the backend and the cache, and closes both.

    `price` is the model's entry of the price file; without one no cost is known, and `max_usd` is
    refused as misconfigured. `rng` draws the jitter of back-off, `wall` tells Unix time.
    """

    def __init__(
        self,
        backend: Backend,
        cache: Cache | None = None,
        settings: ClientSettings | None = None,
        *,
        price: Price | None = None,
        loop: LoopThread | None = None,
        rng: Uniform | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.backend = backend
        self.cache: Cache = cache or NullCache()
        self.settings = settings or ClientSettings()
        cost = _cost(price)
        if self.settings.max_usd is not None and cost is None:
            raise LLMJobError(
                "misconfigured",
                f"max_usd is set, but the price file knows no price of {backend.model_id}",
            )
        self.meter = Meter(backend.model_id, cost)
        self._loop = loop or process_loop()
        self._lock = threading.Lock()
        self._first = FirstFinished()
        self._fault: LLMJobError | None = None
        self._live: set[asyncio.Task[GenResult]] = set()
        self._build(cost, rng or random.Random(), wall)

    def _build(self, cost: Cost | None, rng: Uniform, wall: Callable[[], float]) -> None:
        s = self.settings
        self.limiter = AimdLimiter(min(s.in_flight, self.backend.caps.max_concurrency))
        self.budget = Budget(share(s.max_tokens_total, s.actors), share(s.max_usd, s.actors), cost)
        self.breaker = Breaker(s.breaker_failures, s.breaker_s)
        rpm, tpm = (share(r, s.actors) for r in (s.requests_per_minute, s.tokens_per_minute))
        self._metered = Metered(self.backend, self.meter)
        limited = Limited(
            self._metered,
            self.limiter,
            self.budget,
            requests=None if rpm is None else Pace(rpm),
            tokens=None if tpm is None else Pace(tpm),
            backlog=lambda: self._writer.backlog,
            wall=wall,
        )
        self._writer = CacheWriter(self.cache, self._loop.loop, limited.wake)
        retrying = Retrying(limited, s, self.breaker, self.meter, rng, wall)
        self._stored = Stored(
            retrying,
            self._writer,
            self.model_id,
            store_truncated=s.store_truncated,
            wall=wall,
        )
        self._stack = Coalesced(self._stored)

    @property
    def model_id(self) -> str:
        return self.backend.model_id

    @property
    def caps(self) -> Caps:
        return self.backend.caps

    def generate(self, reqs: Sequence[GenRequest]) -> list[GenResult]:
        """Results of the same length and order; a request that fails has an `error` in its own.

        Raises LLMJobError for faults of the whole job; what was answered by then is in the cache.
        """
        if self._fault is not None:
            raise self._fault
        try:
            return self._generate(reqs)
        except LLMJobError as fault:
            self._fault = self._fault or fault
            if fault.code != "cache_io":
                self._writer.flush()
            raise

    def _generate(self, reqs: Sequence[GenRequest]) -> list[GenResult]:
        results: dict[int, GenResult] = {}
        keyed: dict[int, Keyed] = {}
        for i, req in enumerate(reqs):
            try:
                keyed[i] = req, key_pair(req, self.model_id)
            except BadRequestError as error:
                results[i] = _refused(req, str(error))
        seen = self._stored.stored
        results |= self._looked_up(keyed)
        for i, result in results.items():
            self._note(reqs[i], result)
        if misses := {i: k for i, k in keyed.items() if i not in results}:
            answers = self._loop.run(self._answered(list(misses.values()), seen))
            results |= dict(zip(misses, answers, strict=True))
        return [results[i] for i in range(len(reqs))]

    def _looked_up(self, keyed: dict[int, Keyed]) -> dict[int, GenResult]:
        stored = self.cache.get(list({key for _, (key, _) in keyed.values()}))
        if self.settings.reuse_finished:
            missing = {logical for _, (key, logical) in keyed.values() if key not in stored}
            finished = self.cache.get_finished(list(missing))
            stored = stored | {
                key: finished[logical]
                for _, (key, logical) in keyed.values()
                if key not in stored and logical in finished
            }
        return {
            i: stored[key].result(req.request_id, key)
            for i, (req, (key, _)) in keyed.items()
            if key in stored
        }

    async def _answered(self, misses: list[Keyed], seen: int) -> list[GenResult]:
        """Results of requests that the cache does not have, in their order. Runs on the loop."""
        loop = asyncio.get_running_loop()
        if not self._live:
            self.breaker.begin(loop.time())
        tasks = [loop.create_task(self._one(req, keys, seen)) for req, keys in misses]
        self._live.update(tasks)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            ended = [t for t in tasks if t.done()]
            if len(ended) == len(tasks) and not any(t.cancelled() for t in tasks):
                return [t.result() for t in tasks]
            faults = (None if t.cancelled() else t.exception() for t in ended)
            raise next((f for f in faults if f is not None), None) or self._given_up()
        finally:
            # A fault ends the requests of all threads, an interrupt those of its own.
            self._live.difference_update(tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _given_up(self) -> BaseException:
        return self._fault or asyncio.CancelledError()

    async def _one(self, req: GenRequest, keys: tuple[str, str], seen: int) -> GenResult:
        try:
            result = await self._stack.complete(req, keys, seen)
            self._note(req, result)
        except LLMJobError as fault:
            self._fault = self._fault or fault
            for task in self._live - {asyncio.current_task()}:
                task.cancel()
            raise
        return result

    def _note(self, req: GenRequest, result: GenResult) -> None:
        """Count a result. Raises LLMJobError if the first ones of a stage all failed alike."""
        code = result.error.code if result.error else None
        self.meter.finished(req, hit=result.from_cache, reject=code)
        with self._lock:
            wrong = self._first.finished((req.system, req.stage), code)
        if wrong is not None and result.error is not None:
            raise LLMJobError(
                "misconfigured",
                f"the first requests of stage {req.stage!r} all ended with {wrong}: "
                f"{result.error.message}",
            )

    def usage_rows(self) -> list[dict[str, Any]]:
        """What was asked, answered and spent so far, a row for each system and stage."""
        return self.meter.rows()

    @property
    def models_reported(self) -> tuple[str, ...]:
        """What the server has called its model so far; more than one name is a warning."""
        return tuple(self._metered.models)

    def flush(self) -> None:
        """Make every result that was handed out survive the process, as a commit needs it."""
        self._writer.flush()

    def close(self) -> None:
        """End the backend, and flush and close the cache."""
        try:
            self._loop.run(self.backend.aclose())
        finally:
            try:
                self._writer.close()
            finally:
                self.cache.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cost(price: Price | None) -> Cost | None:
    if price is None:
        return None
    known = price
    return lambda usage: cost_usd(usage, known) or 0.0


def _refused(req: GenRequest, said: str) -> GenResult:
    return GenResult(request_id=req.request_id, key="", error=GenError("bad_request", None, said))
