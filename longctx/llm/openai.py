"""Any server that speaks OpenAI's chat completions: vLLM, llama-server, SGLang, Ray Serve, vendors.

One `aiohttp` session on the loop thread; no vendor's SDK, because those retry on their own and hide
what was used. Secrets come from the environment or from a file that the settings name; they are in
no settings, no message, no pickled form of this backend, and in nothing that is stored.
"""

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import aiohttp
from pydantic import BaseModel, ConfigDict, Field

from longctx.credentials import MASK, found_in
from longctx.llm.classify import read_reply
from longctx.llm.openai_wire import PROBE, body_of, goes_on, is_continuation
from longctx.llm.types import Answer, AttemptError, Caps, Continuation, GenRequest, LLMJobError

_LARGEST_REPLY = 64 << 20
_CHUNK = 1 << 16
# Common servers close an idle connection after 5 s; one that is reused just then is reset.
_KEPT_ALIVE_S = 4.0
_SECRET_WORDS = ("auth", "key", "token", "secret", "cookie", "password")


class OpenAISettings(BaseModel):
    """Where a server is, and what is known about it; never a secret itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    base_url: str = Field(description="URL up to and without /chat/completions")
    model: str = Field(description="the model's name at the server")
    version: str | None = Field(None, description="your name for this state of the model")
    api_key_env: str | None = Field(None, description="environment variable that holds the key")
    api_key_file: str | None = Field(None, description="file that holds the key")
    headers: dict[str, str] = Field(default_factory=dict, description="further headers")
    secret_headers: dict[str, str] = Field(
        default_factory=dict, description="further headers, each with its environment variable"
    )
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    max_context: int | None = Field(None, ge=1, description="tokens of prompt and completion")
    json_schema: bool = Field(True, description="whether schemas are sent; learnt if refused")
    seed: bool = Field(True, description="whether seeds are sent")
    continuation: Continuation | None = Field(None, description="tried out where not set")
    proxy_from_env: bool = Field(False, description="use HTTP_PROXY and HTTPS_PROXY")
    connect_s: float = Field(10.0, gt=0, description="seconds until a connection must stand")
    read_s: float | None = Field(
        None, gt=0, description="seconds without a byte; max(600, 60 + max_tokens/10) if not set"
    )


class OpenAICompat:
    """A Backend at a URL. `in_flight` is the most requests that are sent at once.

    Raises LLMJobError("misconfigured") for settings that cannot work.
    """

    def __init__(self, settings: OpenAISettings, in_flight: int = 32) -> None:
        self.settings = settings
        self._in_flight = in_flight
        check_settings(settings)
        self._headers = {"Content-Type": "application/json", **settings.headers}
        secrets = {h: _from_environment(env) for h, env in settings.secret_headers.items()}
        if key := _api_key(settings):
            secrets["Authorization"] = f"Bearer {key}"
        self._headers |= secrets
        self._secrets = [*secrets.values(), *([key] if key else [])]
        self._url = f"{settings.base_url.rstrip('/')}/chat/completions"
        self._caps = Caps(
            max_context=settings.max_context,
            max_concurrency=in_flight,
            json_schema=settings.json_schema,
            seed=settings.seed,
            continuation=settings.continuation or "none",
        )
        self._tried = settings.continuation is not None
        self._trying: asyncio.Lock | None = None
        self._session: aiohttp.ClientSession | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenAICompat, (self.settings, self._in_flight)

    @property
    def model_id(self) -> str:
        version = f"@{self.settings.version}" if self.settings.version else ""
        return f"api:{self.settings.model}{version}"

    @property
    def caps(self) -> Caps:
        return self._caps

    async def attempt(self, req: GenRequest, key: str) -> Answer:
        continued = is_continuation(req.messages)
        if continued and not self._tried:
            await self._try_continuation()
        answer = await self._ask(req)
        in_words = continued and self._caps.continuation == "none"
        return replace(answer, prefill="prompted") if in_words else answer

    async def _ask(self, req: GenRequest) -> Answer:
        schema_sent = req.schema is not None and self._caps.json_schema
        body = body_of(req, self.settings.model, self._caps, self.settings.max_tokens_field)
        try:
            status, retry_after, reply = await self._post(body, req.max_tokens)
            return read_reply(status, reply, retry_after=retry_after, schema_sent=schema_sent)
        except AttemptError as error:
            if error.event == "schema_refused":
                self._caps = replace(self._caps, json_schema=False)
            # A server that refuses a key quotes it.
            error.message = self._masked(error.message)
            raise error from None

    async def _post(self, body: dict[str, Any], max_tokens: int) -> tuple[int, str | None, bytes]:
        """Status, Retry-After and body of a reply. Raises AttemptError where none came whole."""
        data = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        read_s = self.settings.read_s or max(600.0, 60.0 + max_tokens / 10)
        # The default ends every request after 300 s, however much is still being written.
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self.settings.connect_s, sock_read=read_s
        )
        try:
            async with self._open().post(
                self._url, data=data, timeout=timeout, allow_redirects=False
            ) as response:
                retry_after = response.headers.get("Retry-After")
                return response.status, retry_after, await _read(response)
        except aiohttp.ConnectionTimeoutError as error:
            raise AttemptError("connection", str(error)) from None
        except TimeoutError:
            raise AttemptError("timeout", f"nothing was read for {read_s:g} s") from None
        except aiohttp.InvalidURL as error:
            raise AttemptError("misconfigured", f"no usable URL: {error}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise AttemptError("connection", f"{type(error).__name__}: {error}") from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                connector=aiohttp.TCPConnector(
                    limit=self._in_flight, keepalive_timeout=_KEPT_ALIVE_S
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self.settings.proxy_from_env,
            )
        return self._session

    async def _try_continuation(self) -> None:
        """Find out how this server continues a text; one or two small requests, once."""
        self._trying = self._trying or asyncio.Lock()
        async with self._trying:
            if self._tried:
                return
            way: Continuation = "none"
            ways: tuple[Continuation, ...] = ("flag", "implicit")
            for candidate in ways:
                self._caps = replace(self._caps, continuation=candidate)
                try:
                    answer = await self._ask(PROBE)
                except AttemptError as error:
                    if error.event != "bad_request":
                        raise
                else:
                    way = candidate if goes_on(answer.text) else way
                    break
            self._caps = replace(self._caps, continuation=way)
            self._tried = True

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _masked(self, message: str) -> str:
        for secret in self._secrets:
            message = message.replace(secret, MASK)
        return message


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, bounded as it is after decompression."""
    pieces, size = [], 0
    async for piece in response.content.iter_chunked(_CHUNK):
        size += len(piece)
        if size > _LARGEST_REPLY:
            raise AttemptError(
                "malformed", "the reply is larger than 64 MiB", status=response.status
            )
        pieces.append(piece)
    return b"".join(pieces)


def check_settings(settings: OpenAISettings) -> None:
    """Raise LLMJobError("misconfigured") for settings that cannot work, or that hold a secret."""
    if not settings.base_url.startswith(("http://", "https://")):
        raise LLMJobError("misconfigured", "base_url must begin with http:// or https://")
    if kind := found_in(settings.base_url):
        raise LLMJobError(
            "misconfigured", f"base_url holds {kind}: name a variable in api_key_env instead"
        )
    for header in settings.headers:
        if any(word in header.casefold() for word in _SECRET_WORDS):
            raise LLMJobError(
                "misconfigured",
                f"the header {header!r} looks like a secret: name the environment variable that "
                "holds it in secret_headers",
            )


def _api_key(settings: OpenAISettings) -> str | None:
    if settings.api_key_env is not None and settings.api_key_file is not None:
        raise LLMJobError("misconfigured", "set api_key_env or api_key_file, not both")
    if settings.api_key_env is not None:
        return _from_environment(settings.api_key_env)
    if settings.api_key_file is None:
        return None
    try:
        key = Path(settings.api_key_file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise LLMJobError(
            "misconfigured", f"api_key_file {settings.api_key_file!r} cannot be read: {said}"
        ) from None
    if not key or not key.isprintable():
        raise LLMJobError(
            "misconfigured", f"api_key_file {settings.api_key_file!r} does not hold one line"
        )
    return key


def _from_environment(name: str) -> str:
    if value := os.environ.get(name, "").strip():
        return value
    raise LLMJobError(
        "misconfigured", f"the environment variable {name!r} is not set on this machine"
    )
