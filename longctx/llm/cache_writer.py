"""Results on their way into the cache, so that the event loop never waits for a disk or a store.

One thread takes what has come, puts it into the cache in one go, and only then lets the results go
on to whoever asked: what a caller has seen is stored (SQLite) or about to be (shards).
"""

import asyncio
import queue
import threading
from collections.abc import Callable

from longctx.llm.cache import Cache, Entry
from longctx.llm.types import LLMJobError

_TICK_S = 1.0
_Waiting = tuple[Entry, "asyncio.Future[Entry]"]
_Job = _Waiting | threading.Event


class CacheWriter:
    """Puts entries into a cache; `drained` is called on the loop when some were put."""

    def __init__(
        self, cache: Cache, loop: asyncio.AbstractEventLoop, drained: Callable[[], None]
    ) -> None:
        self.cache = cache
        self._loop, self._drained = loop, drained
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._queued = 0
        self._failed: LLMJobError | None = None
        self._thread = threading.Thread(target=self._main, name="longctx-llm-cache", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Results that would be lost with the process."""
        return self._queued + self.cache.unflushed

    async def store(self, entry: Entry) -> Entry:
        """Store an entry; returns the one that counts for its key. Runs on the loop."""
        if self._failed is not None:
            raise self._failed
        future: asyncio.Future[Entry] = self._loop.create_future()
        self._queued += 1
        self._jobs.put((entry, future))
        return await future

    def flush(self) -> None:
        """Wait until all that was handed over is stored. Raises LLMJobError."""
        done = threading.Event()
        if self._thread.is_alive():
            self._jobs.put(done)
            done.wait()
        if self._failed is not None:
            raise self._failed

    def close(self) -> None:
        """Flush, and end the thread."""
        self._jobs.put(None)
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def _main(self) -> None:
        going = True
        while going:
            jobs: list[_Job | None] = []
            try:
                jobs.append(self._jobs.get(timeout=_TICK_S))
                while True:
                    jobs.append(self._jobs.get_nowait())
            except queue.Empty:
                pass
            going = None not in jobs
            flushes = [j for j in jobs if isinstance(j, threading.Event)]
            waiting = [j for j in jobs if isinstance(j, tuple)]
            try:
                self._put(waiting, flush=bool(flushes) or not going)
            except LLMJobError as error:
                self._failed = error
            except Exception as error:
                self._failed = LLMJobError("cache_io", f"{type(error).__name__}: {error}")
            for done in flushes:
                done.set()

    def _put(self, waiting: list[_Waiting], *, flush: bool) -> None:
        counting: dict[str, Entry] = {}
        try:
            if waiting:
                counting = self.cache.put([entry for entry, _ in waiting])
            self.cache.flush() if flush else self.cache.tick()
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._release, waiting, counting, error)
            raise
        self._loop.call_soon_threadsafe(self._release, waiting, counting, None)

    def _release(
        self, waiting: list[_Waiting], counting: dict[str, Entry], error: BaseException | None
    ) -> None:
        self._queued -= len(waiting)
        for entry, future in waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(counting.get(entry.key, entry))
            else:
                future.set_exception(error)
        self._drained()
