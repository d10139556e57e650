"""One event loop in one thread of its own, for all model calls of a process.

It lives as long as the process: children that die with the thread that started them (llama-server)
are started from it.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from typing import Any, TypeVar

T = TypeVar("T")
_HEARS_SIGNALS_S = 0.5


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
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            # A signal that comes just before the wait would be heard only when it ends.
            while not wait([future], timeout=_HEARS_SIGNALS_S).done:
                pass
            return future.result()
        except BaseException:
            future.cancel()
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
