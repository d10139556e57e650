"""Faults on demand: what a server answers when it fails, decided from the request alone.

`FaultPlan` says which attempt meets which fault, `wire_reply` what then goes over the wire. The
scripted backend and the server of the tests share both, so a run without a network meets the same
replies as one over real sockets. Drawn faults depend on the key of a request, never on the order of
arrival, and stop after so many attempts of that key: what is tried again recovers the same way
every time.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from longctx.llm.accounting import estimate_text
from longctx.llm.types import Usage

FaultKind = Literal[
    "http_429",
    "http_500",
    "http_503",
    "http_400_context",
    "http_400_schema",
    "http_401",
    "http_404_model",
    "hang",
    "reset",
    "html_200",
    "error_200",
    "no_choices",
    "truncated",
    "bad_json",
    "wrong_schema",
    "refusal",
    "sentinel",
    "empty",
    "whitespace_run",
    "repeat_loop",
    "content_filter",
    "no_usage",
    "model_changed",
]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
# Nothing comes back: a backend has to act these out itself.
SILENT: frozenset[FaultKind] = frozenset({"hang", "reset"})

_HTTP: dict[FaultKind, tuple[int, str, str]] = {
    "http_429": (429, "rate_limit_exceeded", "too many requests"),
    "http_500": (500, "internal_error", "the server failed"),
    "http_503": (503, "overloaded", "no slot is free"),
    "http_400_context": (400, "context_length_exceeded", "the maximum context length is 8 tokens"),
    "http_400_schema": (400, "invalid_request", "response_format is not supported"),
    "http_401": (401, "invalid_key", "the key is not valid"),
    "http_404_model": (404, "not_found", "the model does not exist"),
}
_TEXTS: dict[FaultKind, str] = {
    "bad_json": "{'analysis': 'single quotes', 'score': 7}",
    "wrong_schema": '{"nothing_that_was_asked_for": true}',
    "refusal": "I'm sorry, but I can't help with that.",
    "sentinel": "Trigger OpenAI's content management policy.",
    "empty": "",
    "whitespace_run": '{"analysis":' + " \n" * 150,
    "repeat_loop": "And then it went on and on. " * 30,
    "content_filter": "",
}
_CUT = frozenset({"truncated", "whitespace_run", "repeat_loop"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One line of a plan.

    It meets requests of a `stage`, of a `row_id`, or the `nth` request (from 1, in the order in
    which distinct keys come); what is None is not asked for. With `probability` it meets a key iff
    the first 8 hex digits of SHA-256(key + kind) / 2**32 are below it. It fires in the first
    `times` attempts of a key, always if that is None. `retry_after` is the header of `http_429`.
    """

    kind: FaultKind
    stage: str | None = None
    row_id: str | None = None
    nth: int | None = None
    probability: float | None = None
    times: int | None = 1
    retry_after: str | None = None

    def meets(self, key: str, stage: str, row_id: str, nth: int) -> bool:
        wanted = ((self.stage, stage), (self.row_id, row_id), (self.nth, nth))
        if any(asked is not None and asked != found for asked, found in wanted):
            return False
        return self.probability is None or _draw(key, self.kind) < self.probability


def _draw(key: str, kind: str) -> float:
    return int(hashlib.sha256((key + kind).encode()).hexdigest()[:8], 16) / 2**32


@dataclass
class FaultPlan:
    """Faults in order of precedence, and what each request has met so far."""

    faults: Sequence[Fault] = ()
    _order: dict[str, int] = field(default_factory=dict)
    _fired: Counter[tuple[int, str]] = field(default_factory=Counter)

    def next(
        self, key: str, *, stage: str = "", row_id: str = "", with_schema: bool = True
    ) -> Fault | None:
        """What the next attempt of a key meets. A schema is refused only where one is sent."""
        nth = self._order.setdefault(key, len(self._order) + 1)
        for place, fault in enumerate(self.faults):
            if fault.kind == "http_400_schema" and not with_schema:
                continue
            if not fault.meets(key, stage, row_id, nth):
                continue
            if fault.times is None or self._fired[place, key] < fault.times:
                self._fired[place, key] += 1
                return fault
        return None


@dataclass(frozen=True, slots=True)
class Said:
    """What a model says when nothing fails."""

    text: str
    model: str
    usage: Usage
    finish_reason: str = "stop"


@dataclass(frozen=True, slots=True)
class WireReply:
    """Status, body and headers of an HTTP reply."""

    status: int
    body: bytes
    content_type: str = "application/json"
    retry_after: str | None = None


def wire_reply(said: Said, fault: Fault | None = None) -> WireReply:
    """The reply of `/chat/completions`, with a fault or without. ValueError for silent ones."""
    kind = fault.kind if fault else None
    if kind is None or fault is None:
        return _json(200, _completion(said))
    if kind in SILENT:
        raise ValueError(f"{kind} has no reply")
    if kind in _HTTP:
        status, code, message = _HTTP[kind]
        reply = _json(status, {"error": {"code": code, "message": message}})
        return replace(reply, retry_after=fault.retry_after)
    if kind == "html_200":
        return WireReply(200, b"<html><body>Sign in to go on</body></html>", "text/html")
    if kind == "error_200":
        return _json(200, {"error": {"code": "upstream", "message": "the upstream server failed"}})
    if kind == "model_changed":
        said = replace(said, model=f"{said.model}-changed")
    payload = _completion(_changed(said, kind))
    if kind == "no_choices":
        payload["choices"] = []
    if kind == "no_usage":
        del payload["usage"]
    return _json(200, payload)


def _changed(said: Said, kind: FaultKind) -> Said:
    text = said.text[: len(said.text) // 2] if kind == "truncated" else _TEXTS.get(kind, said.text)
    if text != said.text:
        said = replace(said, text=text, usage=replace(said.usage, completion=estimate_text(text)))
    if kind == "content_filter":
        return replace(said, finish_reason="content_filter")
    return replace(said, finish_reason="length") if kind in _CUT else said


def _completion(said: Said) -> dict[str, object]:
    return {
        "id": "scripted",
        "object": "chat.completion",
        "model": said.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": said.text},
                "finish_reason": said.finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": said.usage.prompt,
            "completion_tokens": said.usage.completion,
            "total_tokens": said.usage.prompt + said.usage.completion,
            "prompt_tokens_details": {"cached_tokens": said.usage.cached},
        },
    }


def _json(status: int, payload: dict[str, object]) -> WireReply:
    return WireReply(status, json.dumps(payload, ensure_ascii=False).encode())
