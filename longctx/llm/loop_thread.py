"""One event loop in one thread of its own, for all model calls of a process.

It lives as long as the process: children that die with the thread that started them (llama-server)
are started from it.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_HEARS_SIGNALS_S = 0.5
_ENDS_S = 5.0


class _Call(Generic[T]):
    """One piece of work on the loop, which can be given up even before it has begun."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.ended = threading.Event()
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self._given_up = False

    async def main(self) -> T:
        self._task = asyncio.current_task()
        try:
            if self._given_up:
                self._work.close()
                raise asyncio.CancelledError
            return await self._work
        finally:
            self.ended.set()

    def give_up(self) -> None:
        """Called on the loop."""
        self._given_up = True
        if self._task is not None:
            self._task.cancel()


class LoopThread:
    """A running event loop; `run` may be called from any other thread."""

    def __init__(
        self, make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    ) -> None:
        self.loop = make_loop()
        self._thread = threading.Thread(target=self._main, name="longctx-llm", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end on the loop; it is cancelled if the caller is interrupted."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("the loop thread cannot wait for itself")
        call = _Call(work)
        try:
            future = asyncio.run_coroutine_threadsafe(call.main(), self.loop)
            # A signal that comes just before the wait would be heard only when it ends.
            while not wait([future], timeout=_HEARS_SIGNALS_S).done:
                pass
            return future.result()
        except BaseException:
            # Wherever the interrupt came, also before there was a future to cancel; what is asked
            # for next must not meet requests that are about to end.
            self.loop.call_soon_threadsafe(call.give_up)
            call.ended.wait(_ENDS_S)
            raise

    def stop(self) -> None:
        """End the loop and its thread; only tests that brought their own loop do so."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


_lock = threading.Lock()
_of_process: dict[int, LoopThread] = {}


def process_loop() -> LoopThread:
    """The loop of this process, made when it is first asked for (a fork makes its own)."""
    with _lock:
        if (pid := os.getpid()) not in _of_process:
            _of_process[pid] = LoopThread()
        return _of_process[pid]
