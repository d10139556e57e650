"""Requests, results and errors that mean the same on every backend.

`Generator` is what a system of the library calls; `Backend` is what stands under the stack of
`client.py` and answers a single attempt. A backend knows nothing of retries, caches or limits: it
either returns an `Answer` or raises an `AttemptError`, whose event `classify.py` names.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

from longctx.errors import RunError

Message = dict[str, str]
FinishReason = Literal["stop", "length", "content_filter", "error"]
Continuation = Literal["flag", "implicit", "none"]
LONGEST_MESSAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class GenRequest:
    """One wanted text. k samples of one prompt are k requests with `sample_index` 0..k-1.

    `messages` have the roles system, user and assistant; a last assistant message is a prefix to be
    continued. `extra` is passed through to the server (top_k, min_p, ...). `request_id` is unique
    inside one call of `generate`; it, `system`, `stage` and `row_id` (labels for accounting and
    rejects) and `parts` (named pieces the prompt was built from, never sent) are not in the key,
    nor is `may_be_cut`: the asker takes a text that its budget ended, so that is kept as well.
    """

    request_id: str
    messages: Sequence[Message]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] | None = ()
    schema: dict[str, Any] | None = None
    sample_index: int = 0
    extra: dict[str, Any] | None = field(default_factory=dict)
    system: str = ""
    stage: str = ""
    row_id: str = ""
    parts: dict[str, Any] | None = None
    may_be_cut: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call: `prompt` includes `cached`. `estimated` where the server named none."""

    prompt: int
    completion: int
    cached: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class GenError:
    """Why a request has no usable text: a code of the rejects, the HTTP status, what was said.

    The message is cut to 500 characters and never holds the prompt or a key.
    """

    code: str
    status: int | None = None
    message: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", self.message[:LONGEST_MESSAGE])


@dataclass(frozen=True, slots=True, kw_only=True)
class GenResult:
    """What became of one request. `text` is raw; `error` is None unless nothing usable came.

    `latency_s` is the time of the last attempt alone, 0.0 from the cache; `attempts` counts what
    was sent for this result, 0 from the cache. `prefill` is "prompted" where the backend cannot
    continue a text and was asked for it in words.
    """

    request_id: str
    key: str
    text: str = ""
    finish_reason: FinishReason = "error"
    usage: Usage = Usage(0, 0)
    attempts: int = 0
    latency_s: float = 0.0
    model_reported: str | None = None
    from_cache: bool = False
    prefill: str | None = None
    error: GenError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a backend can do. `max_context` in tokens (prompt and completion), None if unknown."""

    max_context: int | None = None
    max_concurrency: int = 32
    json_schema: bool = False
    seed: bool = False
    continuation: Continuation = "none"
    usage: bool = True


class Generator(Protocol):
    """What every system of the library calls; `client.Client` is the one that is used."""

    @property
    def model_id(self) -> str: ...

    @property
    def caps(self) -> Caps: ...

    def generate(self, reqs: Sequence[GenRequest]) -> list[GenResult]:
        """Results of the same length and order; raises LLMJobError for faults of the whole job."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one successful attempt brought.

    Without `usage` the stack estimates it; `latency_s` is filled in by the stack.
    """

    text: str
    finish_reason: Literal["stop", "length", "content_filter"] = "stop"
    usage: Usage | None = None
    model_reported: str | None = None
    prefill: str | None = None
    latency_s: float = 0.0


Event = Literal[
    "connection",  # refused, reset, cut off, name not found
    "timeout",  # nothing read for too long
    "server_error",  # 408, 409, 425, 5xx
    "overloaded",  # 503: a server error that also asks for fewer requests
    "rate_limited",  # 429
    "malformed",  # 200 with HTML, no JSON, an error object, no choices
    "empty",  # 200 with no text
    "schema_refused",  # 400 that names the schema
    "context_overflow",  # 400 that names the context length, 413
    "bad_request",  # any other 4xx
    "not_found",  # 404 that does not name the model
    "auth",  # 401, 403
    "model_not_found",  # 404 that names the model
    "misconfigured",  # the backend cannot work at all, whatever is asked
]


class AttemptError(Exception):
    """One attempt failed. What follows from the event is the table of `classify.RULES`.

    `retry_after` is the header as it came; `usage` what the server says it has charged. The stack
    fills in `latency_s`, and `stale`: a complaint of overload that was answered before it came.
    """

    def __init__(
        self,
        event: Event,
        message: str = "",
        *,
        status: int | None = None,
        retry_after: str | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(event, message)
        self.event: Event = event
        self.message, self.status = message, status
        self.retry_after, self.usage = retry_after, usage
        self.latency_s = 0.0
        self.stale = False


class Backend(Protocol):
    """One attempt at a time, on the loop thread of the process, many at once.

    `attempt` raises AttemptError and nothing else on purpose; whatever else it raises is taken for
    a fault of that request alone. Blocking work belongs on a thread (`asyncio.to_thread`).
    """

    @property
    def model_id(self) -> str: ...

    @property
    def caps(self) -> Caps: ...

    async def attempt(self, req: GenRequest, key: str) -> Answer: ...

    async def aclose(self) -> None: ...


JobCode = Literal["auth", "model_not_found", "misconfigured", "budget", "circuit_open", "cache_io"]

# Message and remedy of each; docs/operations.md explains them at more length.
JOB_ERRORS: dict[JobCode, tuple[str, str]] = {
    "auth": (
        "the model server refused the key",
        "put a valid key into the environment variable or the file that the settings name, on "
        "every node",
    ),
    "model_not_found": (
        "the model server does not know the model",
        "check the model's name and the base URL: `GET BASE/models` lists what is served",
    ),
    "misconfigured": (
        "the model client cannot work with these settings",
        "correct what the message names and start again",
    ),
    "budget": (
        "the budget of the model calls is used up",
        "raise max_tokens_total or max_usd and start again: what was answered is in the cache",
    ),
    "circuit_open": (
        "the model server fails again and again",
        "see to the server, then start again: what was answered is in the cache",
    ),
    "cache_io": (
        "the cache of model answers cannot be read or written",
        "check the disk or the store of the cache; remove a damaged cache file only if its answers "
        "may be paid for again",
    ),
}


class LLMJobError(RunError):
    """A fault of the whole job, not of one request; ends the run with its remedy.

    A RunError, so that a stage passes it on instead of putting its rows into quarantine.
    """

    def __init__(self, code: JobCode, detail: str = "", *, where: str = "") -> None:
        message, remedy = JOB_ERRORS[code]
        super().__init__(f"{message} ({detail})" if detail else message, where=where, remedy=remedy)
        self.code: JobCode = code
        self.detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        return partial(LLMJobError, where=self.where), (self.code, self.detail)
