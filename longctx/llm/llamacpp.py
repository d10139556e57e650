"""A GGUF model on this node: `llama-server` as a child process, asked as any other server.

The binary is the user's own (`binary`, LONGCTX_LLAMA_SERVER, or PATH) and never fetched. The server
listens on loop-back only, behind a key that it gets through its environment, and ends with this
process, however that ends. How many slots there are and how much context each has is read from the
server: builds differ in whether slots share it.
"""

import asyncio
import os
import secrets
import shutil
import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import BaseModel, ConfigDict, Field

from longctx.llm.accounting import estimate_tokens
from longctx.llm.gguf_id import gguf_digest
from longctx.llm.llama_process import Child
from longctx.llm.openai import OpenAICompat, OpenAISettings
from longctx.llm.types import Answer, AttemptError, Caps, GenRequest, LLMJobError

BINARY_ENV = "LONGCTX_LLAMA_SERVER"
_KEY_ENV = "LLAMA_API_KEY"
_HOST = "127.0.0.1"
_PORTS = 5
_RESTARTS = 3
_LOOK_EVERY_S = 0.2
_PORT_TAKEN = ("address already in use", "address in use", "couldn't bind", "could not bind")


class LlamaCppSettings(BaseModel):
    """The model file and how `llama-server` runs it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gguf: str = Field(description="the model file")
    binary: str | None = Field(None, description=f"llama-server; else ${BINARY_ENV}, else on PATH")
    slots: int = Field(4, ge=1, description="requests at once")
    ctx_per_slot: int = Field(8192, ge=1, description="tokens of prompt and completion")
    threads: int | None = Field(None, ge=1, description="CPUs; those of the actor if not set")
    start_s: float = Field(300.0, gt=0, description="seconds until the model must be loaded")
    deterministic: bool = Field(
        False, description="one slot, no prompt cache, and only temperature 0"
    )
    log_dir: str | None = Field(None, description="where the server's output is kept")


class LlamaCpp:
    """A Backend that starts its server at the first request, and again if it dies.

    Raises LLMJobError("misconfigured") where there is no binary or no model file.
    """

    def __init__(self, settings: LlamaCppSettings) -> None:
        if settings.deterministic:
            settings = settings.model_copy(update={"slots": 1})
        self.settings = settings
        self._binary = find_binary(settings)
        self._gguf = Path(settings.gguf).expanduser()
        try:
            self.model_id = f"gguf:{gguf_digest(self._gguf)}"
        except OSError as error:
            raise LLMJobError(
                "misconfigured", f"the model {settings.gguf} cannot be read: {error.strerror}"
            ) from None
        self.caps = Caps(
            max_context=settings.ctx_per_slot,
            max_concurrency=settings.slots,
            json_schema=True,
            seed=True,
        )
        self._child: Child | None = None
        self._server: OpenAICompat | None = None
        self._starting: asyncio.Lock | None = None
        self._starts = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return LlamaCpp, (self.settings,)

    async def attempt(self, req: GenRequest, key: str) -> Answer:
        """The server's answer; what cannot fit a slot is refused without being sent."""
        server = await self._running()
        needed, room = estimate_tokens(req.messages) + req.max_tokens, self.caps.max_context
        if room is not None and needed > room:
            raise AttemptError(
                "context_overflow", f"about {needed} tokens do not fit a slot of {room}"
            )
        if self.settings.deterministic:
            if req.temperature > 0:
                raise AttemptError("bad_request", "deterministic needs temperature 0")
            req = replace(req, extra={**(req.extra or {}), "cache_prompt": False})
        answer = await server.attempt(req, key)
        self.caps = replace(self.caps, continuation=server.caps.continuation)
        return answer

    async def _running(self) -> OpenAICompat:
        """The server, started if it is not there. Called on the loop thread, which lives on."""
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            if self._server is not None and self._child is not None:
                if not self._child.has_ended():
                    return self._server
                said = _last_words(self._child)
                await self._stop()
                if self._starts > _RESTARTS:
                    raise LLMJobError("misconfigured", f"llama-server died again: {said}")
            self._starts += 1
            self._server = await self._start()
            return self._server

    async def _start(self) -> OpenAICompat:
        key = secrets.token_hex(24)
        for _ in range(_PORTS):
            port = _free_port()
            self._child = self._spawn(port, key)
            try:
                return await self._ready(self._child, port, key)
            except _EndedError as ended:
                said = str(ended)
                if not any(taken in said.casefold() for taken in _PORT_TAKEN):
                    break
            except BaseException:
                await self._stop()
                raise
        raise LLMJobError("misconfigured", f"llama-server ended at its start: {_last(said)}")

    def _spawn(self, port: int, key: str) -> Child:
        environment = {**os.environ, _KEY_ENV: key}
        try:
            return Child(
                command(self.settings, self._binary, self._gguf, port),
                environment,
                _log(self.settings),
            )
        except OSError as error:
            raise LLMJobError(
                "misconfigured", f"the log of llama-server cannot be written: {error.strerror}"
            ) from None

    async def _ready(self, child: Child, port: int, key: str) -> OpenAICompat:
        """Wait until the model is loaded; read slots and context from the server."""
        url = f"http://{_HOST}:{port}"
        headers = {"Authorization": f"Bearer {key}"}
        deadline = asyncio.get_running_loop().time() + self.settings.start_s
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            while not await _is_healthy(session, url):
                if child.has_ended():
                    raise _EndedError(await asyncio.to_thread(child.said))
                if asyncio.get_running_loop().time() > deadline:
                    raise LLMJobError(
                        "misconfigured",
                        f"llama-server did not load the model within {self.settings.start_s:g} s; "
                        f"its log is {child.log}",
                    )
                await asyncio.sleep(_LOOK_EVERY_S)
            self.caps = await self._read_caps(session, url)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as secret:
            secret.write(key)
            secret.flush()
            return OpenAICompat(
                OpenAISettings(
                    base_url=f"{url}/v1", model=self._gguf.name, api_key_file=secret.name
                ),
                self.caps.max_concurrency,
            )

    async def _read_caps(self, session: aiohttp.ClientSession, url: str) -> Caps:
        try:
            async with session.get(f"{url}/props") as reply:
                props = await reply.json()
            slots = int(props["total_slots"])
            context = int(props["default_generation_settings"]["n_ctx"])
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
            raise LLMJobError(
                "misconfigured",
                f"llama-server does not tell its slots and context ({type(error).__name__}): "
                "take a newer build",
            ) from None
        return replace(self.caps, max_context=context, max_concurrency=slots)

    async def _stop(self) -> None:
        server, child, self._server, self._child = self._server, self._child, None, None
        if server is not None:
            await server.aclose()
        if child is not None:
            await asyncio.to_thread(child.stop)

    async def aclose(self) -> None:
        """End the server; its log goes too, unless `log_dir` says where logs are kept."""
        child = self._child
        await self._stop()
        if child is not None and self.settings.log_dir is None:
            child.remove_log()


class _EndedError(Exception):
    """The server ended before it was ready; its last words."""


async def _is_healthy(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health") as reply:
            return reply.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _last_words(child: Child) -> str:
    return _last(child.said())


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def command(settings: LlamaCppSettings, binary: str, gguf: Path, port: int) -> list[str]:
    """The command line of the server; no secret stands in it."""
    return [
        *(binary, "--model", str(gguf), "--host", _HOST, "--port", str(port)),
        *("--ctx-size", str(settings.ctx_per_slot * settings.slots)),
        *("--parallel", str(settings.slots)),
        *("--threads", str(settings.threads or _cpus())),
        "--no-webui",
    ]


def _cpus() -> int:
    """CPUs of this process: what Ray gave to the actor, else what the kernel lets it use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else len(os.sched_getaffinity(0))


def _log(settings: LlamaCppSettings) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(settings.log_dir) if settings.log_dir else cache / "longctx" / "llama"
    return folder / f"llama-server-{os.getpid()}.log"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        return int(listener.getsockname()[1])


def find_binary(settings: LlamaCppSettings) -> str:
    """The path of `llama-server`. Raises LLMJobError with a hint how to get one."""
    named = settings.binary or os.environ.get(BINARY_ENV)
    found = shutil.which(named or "llama-server")
    if found is None:
        what = f"{named!r} is no program" if named else "llama-server is not on the PATH"
        raise LLMJobError(
            "misconfigured",
            f"{what}: install llama.cpp (https://github.com/ggml-org/llama.cpp/releases) on every "
            f"node and name its llama-server in `binary` or {BINARY_ENV}",
        )
    return found
