"""Work on the loop thread, given up at every moment."""

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from longctx.llm.loop_thread import LoopThread


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.stop()


class Asked:
    """Waits for good, and knows whether it was begun and ended."""

    def __init__(self) -> None:
        self.begun = self.ended = False

    async def wait(self) -> None:
        self.begun = True
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


def test_an_interrupt_before_there_is_a_future_cancels_the_work(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = asyncio.run_coroutine_threadsafe

    def interrupted(work: Coroutine[Any, Any, Any], on: Any) -> Future[Any]:
        schedule(work, on)
        raise KeyboardInterrupt

    asked = Asked()
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.run(asked.wait())
    assert asked.begun == asked.ended
    assert loop.run(asyncio.sleep(0, "on")) == "on"


def test_an_interrupted_wait_ends_its_work_before_it_raises(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    asked = Asked()
    with monkeypatch.context() as patched:
        patched.setattr("longctx.llm.loop_thread.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.run(asked.wait())
    assert asked.begun == asked.ended


def test_what_the_work_raises_is_raised(loop: LoopThread) -> None:
    async def fails() -> None:
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        loop.run(fails())
