"""What a server's reply means: an answer, or an event from which everything else follows.

Decided by status code and class of exception alone, never by words: a rule that retries where the
message contains "rate" retries "generate" as well. The only texts that are looked at split a 400
(the schema, the context length) and a 404 (the model) into the kinds that need different things.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

from longctx.llm.types import Answer, AttemptError, Event, JobCode, Usage

_RETRIED_STATUS = frozenset({408, 409, 425})
_TOO_LONG = (
    "maximum context length",
    "context_length_exceeded",
    "exceed_context_size",
    "exceeds the available context",
    "prompt is too long",
)
_SCHEMA = ("schema", "response_format", "grammar")
_TRUNCATED = frozenset({"length", "max_tokens"})


@dataclass(frozen=True, slots=True)
class Rule:
    """What follows from an event.

    `retries` is how often one request may be tried again after it (None: as often as attempts
    allow), `code` what the request is rejected with, `job` what ends the whole job instead,
    `overload` whether fewer requests shall be in flight, `failure` whether the circuit breaker
    counts it.
    """

    retries: int | None
    code: str
    job: JobCode | None = None
    overload: bool = False
    failure: bool = True


RULES: dict[Event, Rule] = {
    "connection": Rule(None, "transport"),
    "timeout": Rule(2, "transport"),
    "server_error": Rule(None, "transport"),
    "overloaded": Rule(None, "transport", overload=True),
    "rate_limited": Rule(None, "rate_limited", overload=True),
    "malformed": Rule(None, "transport"),
    "empty": Rule(1, "empty"),
    # What a server can do is learnt from it, once; that is no sign of a server that fails.
    "schema_refused": Rule(1, "bad_request", failure=False),
    "context_overflow": Rule(0, "context_overflow", failure=False),
    "bad_request": Rule(0, "bad_request", failure=False),
    "not_found": Rule(0, "bad_request", failure=False),
    "auth": Rule(0, "bad_request", job="auth", failure=False),
    "model_not_found": Rule(0, "bad_request", job="model_not_found", failure=False),
    "misconfigured": Rule(0, "bad_request", job="misconfigured", failure=False),
}
# Codes that no second attempt can mend: a stage whose first requests all end so is set up wrongly.
NEVER_RETRIED = frozenset({"context_overflow", "bad_request", "content_filter"})


def read_reply(
    status: int, body: bytes, *, retry_after: str | None = None, schema_sent: bool = False
) -> Answer:
    """The answer in a reply of `/chat/completions`. Raises AttemptError for everything else."""
    if 200 <= status < 300:
        return _answer(status, body)
    payload = _json(body)
    message = _message(payload) or body[:2000].decode("utf-8", "replace")
    raise AttemptError(
        _event(status, message.casefold(), schema_sent),
        message,
        status=status,
        retry_after=retry_after,
        usage=_usage(payload),
    )


def _event(status: int, message: str, schema_sent: bool) -> Event:
    if status == 429:
        return "rate_limited"
    if status == 503:
        return "overloaded"
    if status in _RETRIED_STATUS or status >= 500:
        return "server_error"
    if status in (401, 403):
        return "auth"
    if status == 404:
        return "model_not_found" if "model" in message else "not_found"
    if status == 413 or (status == 400 and any(t in message for t in _TOO_LONG)):
        return "context_overflow"
    if status == 400 and schema_sent and any(t in message for t in _SCHEMA):
        return "schema_refused"
    return "bad_request"


def _answer(status: int, body: bytes) -> Answer:
    payload = _json(body)
    usage = _usage(payload)

    def malformed(what: str) -> AttemptError:
        return AttemptError("malformed", what, status=status, usage=usage)

    if not isinstance(payload, dict):
        raise malformed("the reply is no JSON object")
    if payload.get("error"):
        raise malformed(f"the reply holds an error: {_message(payload)}")
    choices = payload.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise malformed("the reply has no choices")
    message = choices[0].get("message")
    text = _content(message) if isinstance(message, dict) else None
    finish = _finish(choices[0].get("finish_reason"))
    if text is None:
        raise malformed("the reply's choice has no message")
    if not text.strip() and finish != "content_filter":
        raise AttemptError("empty", "the reply has no text", status=status, usage=usage)
    model = payload.get("model")
    return Answer(
        text=text,
        finish_reason=finish,
        usage=usage,
        model_reported=model if isinstance(model, str) else None,
    )


def _content(message: dict[str, Any]) -> str | None:
    """The text of a message; what a server puts into `refusal` is what the model said."""
    content = message.get("content")
    if isinstance(content, list):
        pieces = [p.get("text") for p in content if isinstance(p, dict)]
        content = "".join(p for p in pieces if isinstance(p, str))
    if content is None:
        content = message.get("refusal") or ""
    return content if isinstance(content, str) else None


def _finish(reason: object) -> Literal["stop", "length", "content_filter"]:
    if reason in _TRUNCATED:
        return "length"
    return "content_filter" if reason == "content_filter" else "stop"


def _usage(payload: object) -> Usage | None:
    """Token counts of a reply, None unless both main ones are there and are whole numbers."""
    usage = payload.get("usage") if isinstance(payload, dict) else None
    if not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(prompt, completion, min(cached or 0, prompt))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _message(payload: object) -> str:
    """What a server says of an error, wherever it puts it; empty if nowhere known."""
    if not isinstance(payload, dict):
        return ""
    error = payload.get("error", payload)
    if isinstance(error, dict):
        said = error.get("message") or error.get("detail") or ""
        code = error.get("code") or error.get("type")
        named = f"{code}: " if isinstance(code, str) else ""
        return named + (said if isinstance(said, str) else _shown(said))
    return error if isinstance(error, str) else ""


def _shown(value: object) -> str:
    """A part of a reply as text: lists of faults, as FastAPI sends them."""
    return json.dumps(value, ensure_ascii=False)[:2000]
