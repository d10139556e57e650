"""A language model in this process, without any service: small models, trials, tests.

transformers on a CPU or GPU, any causal model in safetensors, loaded by the code that scoring uses
(`score/causal_lm.py`); by default the packaged one. Requests that wait are sorted by the length of
their prompts and decoded several at a time (`decode.py`); a reply is that of its request alone,
whatever it was batched with. That needs the rounding of a batch to be small, which is measured when
the model is loaded: where it is not (bfloat16), the batch is cut to one, and `facts` says so.

JSON by prompt and repair only. Costs a thread and the model's memory; the packaged model writes 13
tokens a second and core alone, 40 and more eight at a time, 29 where they are drawn. For a corpus
use a server (`openai.py`), which batches as it goes.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from longctx.errors import LongctxError
from longctx.llm.decode import Row
from longctx.llm.local_model import LocalModel, LocalSettings, load, model_id
from longctx.llm.types import Answer, AttemptError, Caps, GenRequest, LLMJobError
from longctx.model_folders import context_length

T = TypeVar("T")


@dataclass
class _Waiting:
    """A request that waits for its turn; `row` is made on the model's thread."""

    req: GenRequest
    key: str
    answer: "asyncio.Future[Answer]"
    row: Row | None = None


class LocalBackend:
    """A Backend whose model lives on a thread of its own, and is loaded when it is first needed.

    `facts` says what the manifest of a run has to know of the model. Raises RunError where there is
    no such model.
    """

    def __init__(self, settings: LocalSettings | None = None) -> None:
        from longctx.score.causal_lm import safe_folder

        self.settings = settings or LocalSettings()
        self._folder = safe_folder(self.settings.model, self.settings.trust_remote_code)
        self.model_id = model_id(self._folder, self.settings.dtype)
        self.caps = Caps(
            max_context=context_length(self._folder), seed=True, continuation="implicit"
        )
        self.facts: dict[str, Any] = {"model": self.model_id, "dtype": self.settings.dtype}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="longctx-model")
        self._model: LocalModel | None = None
        self._waiting: list[_Waiting] = []
        self._at_work: asyncio.Task[None] | None = None
        self._closed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalBackend, (self.settings,)

    async def attempt(self, req: GenRequest, key: str) -> Answer:
        """The reply of the model. Raises AttemptError for a request that it cannot take."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(req, key, answer))
        if self._at_work is None or self._at_work.done():
            self._at_work = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        """Batches until nobody waits; the turn that follows the first request lets others come."""
        await asyncio.sleep(0)
        while self._waiting:
            waiting = self._waiting
            try:
                done = await self._call(partial(self._turn, list(waiting)))
            except Exception as error:  # it cannot be loaded, so nobody's request can be answered
                done = [(w, _of_the_job(error)) for w in waiting]
            for one, outcome in done:
                self._waiting.remove(one)
                _settle(one.answer, outcome)

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _turn(
        self, waiting: Sequence[_Waiting]
    ) -> list[tuple[_Waiting, Answer | Exception | None]]:
        """One batch, on the model's thread: the one that holds the request that waits longest."""
        if self._closed:
            return [(one, None) for one in waiting]
        if self._model is None:
            self._model = load(self.settings, self._folder, self.facts)
        failed: list[tuple[_Waiting, Answer | Exception | None]] = []
        for one in waiting:
            if one.answer.done():
                failed.append((one, None))
            elif one.row is None:
                try:
                    one.row = self._model.row(one.req, one.key, partial(self._is_wanted, one))
                except AttemptError as error:
                    failed.append((one, error))
        out = {id(one) for one, _ in failed}
        ready = [one for one in waiting if id(one) not in out]
        batch = self._model.batch([one.row for one in ready if one.row])
        rows = self._model.decode([row for i in batch if (row := ready[i].row)])
        return [*failed, *((ready[i], r) for i, r in zip(batch, rows, strict=True))]

    def _is_wanted(self, one: _Waiting) -> bool:
        return not (self._closed or one.answer.done())

    async def aclose(self) -> None:
        """End what is being decoded, and give the model's memory back."""
        self._closed = True
        if self._at_work is not None and not self._at_work.done():
            await asyncio.gather(self._at_work, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)
        self._model = None


def _of_the_job(error: Exception) -> Exception:
    if isinstance(error, LongctxError):
        return LLMJobError("misconfigured", error.message, where=error.where)
    return LLMJobError("misconfigured", f"{type(error).__name__}: {error}")


def _settle(answer: "asyncio.Future[Answer]", outcome: Answer | Exception | None) -> None:
    if answer.done():
        return
    if isinstance(outcome, Answer):
        answer.set_result(outcome)
    else:
        answer.set_exception(outcome or AttemptError("connection", "the backend was closed"))
