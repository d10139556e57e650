"""The scripted backend and the server of the tests: one plan, with sockets and without."""

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.client import RemoteDisconnected
from typing import Any

import pytest

from longctx.llm.classify import RULES, read_reply
from longctx.llm.faults import KINDS, SILENT, Fault, FaultKind, FaultPlan
from longctx.llm.keys import canonical_key
from longctx.llm.scripted import Cut, ScriptedBackend
from longctx.llm.structured import verdict
from longctx.llm.types import Answer, AttemptError, GenRequest
from tests.llm.fault_server import FaultServer

SCHEMA = {"type": "object", "properties": {"score": {"type": "number"}}, "required": ["score"]}


def ask(text: str = "hi", **changes: Any) -> GenRequest:
    return GenRequest(
        request_id="r", messages=[{"role": "user", "content": text}], max_tokens=16, **changes
    )


def attempt(backend: ScriptedBackend, req: GenRequest) -> Answer:
    return asyncio.run(backend.attempt(req, canonical_key(req, backend.model_id)))


def test_text_is_a_function_of_the_request() -> None:
    one, again = attempt(ScriptedBackend(), ask()), attempt(ScriptedBackend(), ask())
    assert one == again
    assert len(one.text.split()) == 16
    assert len(attempt(ScriptedBackend(), replace(ask(), max_tokens=500)).text.split()) == 64
    assert attempt(ScriptedBackend(), ask("ho")).text != one.text
    assert one.usage is not None
    assert one.usage.prompt == 5
    assert one.model_reported == "scripted:words-1"


def test_rules_read_parts_and_stops_cut() -> None:
    rules = {"echo": lambda req: str(req.parts["text"]) + " # more"}
    backend = ScriptedBackend(rules, "echo-1")
    assert backend.model_id == "scripted:echo-1"
    assert attempt(backend, ask(stage="echo", parts={"text": "a b"})).text == "a b # more"
    named = ask(stage="other", parts={"text": "a", "kind": "echo"}, stop=["zzz", " #"])
    assert attempt(backend, named).text == "a"


def test_a_rule_says_that_its_budget_ended_a_text() -> None:
    backend = ScriptedBackend({"cut": lambda req: Cut("a b"), "whole": lambda req: "a b"})
    cut, whole = (attempt(backend, ask(stage=stage)) for stage in ("cut", "whole"))
    assert (cut.text, cut.finish_reason) == ("a b", "length")
    assert whole == replace(cut, finish_reason="stop")
    assert attempt(backend, ask(stage="cut", stop=["b"])).finish_reason == "stop"


def test_latency_is_of_the_stage_and_takes_no_time_here() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    backend = ScriptedBackend(latency_s={"slow": 3.0}, sleep=sleep)
    attempt(backend, ask(stage="slow"))
    attempt(backend, ask(stage="fast"))
    assert slept == [3.0]


# What each fault comes to: an event of an attempt, or the verdict on the text.
EVENTS: dict[FaultKind, str] = {
    "http_429": "rate_limited",
    "http_500": "server_error",
    "http_503": "overloaded",
    "http_400_context": "context_overflow",
    "http_400_schema": "schema_refused",
    "http_401": "auth",
    "http_404_model": "model_not_found",
    "hang": "timeout",
    "reset": "connection",
    "html_200": "malformed",
    "error_200": "malformed",
    "no_choices": "malformed",
    "empty": "empty",
}
VERDICTS: dict[FaultKind, str | None] = {
    "truncated": "truncated",
    "bad_json": "not_json",
    "wrong_schema": "schema",
    "refusal": "refusal",
    "sentinel": "sentinel",
    "whitespace_run": "degenerate",
    "repeat_loop": "degenerate",
    "no_usage": None,
    "model_changed": None,
}


def test_every_fault_is_tried_below() -> None:
    assert {*EVENTS, *VERDICTS, "content_filter"} == set(KINDS)
    assert set(EVENTS.values()) <= set(RULES)


def scored(kind: FaultKind) -> tuple[ScriptedBackend, GenRequest]:
    rules = {"mark": lambda req: '{"score": 7, "analysis": "long enough to be cut"}'}
    return ScriptedBackend(rules, "t-1", FaultPlan([Fault(kind=kind)])), ask(
        stage="mark", schema=SCHEMA
    )


@pytest.mark.parametrize("kind", EVENTS)
def test_faults_that_fail_an_attempt(kind: FaultKind) -> None:
    backend, req = scored(kind)
    with pytest.raises(AttemptError) as caught:
        attempt(backend, req)
    assert caught.value.event == EVENTS[kind]
    assert verdict(attempt(backend, req).text, "stop", SCHEMA).code is None
    assert backend.attempts == 2


@pytest.mark.parametrize("kind", VERDICTS)
def test_faults_of_the_text(kind: FaultKind) -> None:
    backend, req = scored(kind)
    found = attempt(backend, req)
    assert verdict(found.text, found.finish_reason, SCHEMA).code == VERDICTS[kind]
    assert (found.usage is None) == (kind == "no_usage")
    assert (found.model_reported == backend.model_id) == (kind != "model_changed")


def test_filtered_content() -> None:
    backend, req = scored("content_filter")
    found = attempt(backend, req)
    assert (found.text, found.finish_reason) == ("", "content_filter")


def test_who_meets_a_fault() -> None:
    plan = FaultPlan(
        [
            Fault(kind="http_500", stage="judge", row_id="7", times=2),
            Fault(kind="reset", nth=3),
            Fault(kind="http_400_schema", times=None),
        ]
    )

    def met(key: str, stage: str = "judge", row: str = "0") -> str | None:
        found = plan.next(key, stage=stage, row_id=row, with_schema=False)
        return found.kind if found else None

    assert [met("a", row="7") for _ in range(3)] == ["http_500", "http_500", None]
    assert met("b", stage="answer", row="7") is None
    assert [met("c"), met("c"), met("d")] == ["reset", None, None]
    assert plan.next("e", with_schema=True) is plan.next("e", with_schema=True) is plan.faults[2]


def test_drawn_faults_depend_on_the_key_alone() -> None:
    def met(keys: list[str]) -> set[str]:
        plan = FaultPlan([Fault(kind="http_503", probability=0.3, times=2)])
        first = {key for key in keys if plan.next(key)}
        assert first == {key for key in keys if plan.next(key)}
        assert not any(plan.next(key) for key in keys)
        return first

    keys = [canonical_key(ask(str(i)), "m") for i in range(400)]
    assert met(keys) == met(keys[::-1])
    assert 90 < len(met(keys)) < 150


def post(server: FaultServer, req: GenRequest) -> tuple[int, bytes, str | None]:
    """What the server replies to a request, sent as the body of section 3.1."""
    body: dict[str, Any] = {
        "model": server.model,
        "messages": list(req.messages),
        "max_tokens": req.max_tokens,
        "temperature": req.temperature,
        "top_p": req.top_p,
        **(req.extra or {}),
    }
    if req.seed is not None:
        body["seed"] = req.seed
    if req.schema is not None:
        schema = {"name": "reply", "schema": req.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    wire = urllib.request.Request(f"{server.url}/chat/completions", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(wire, timeout=30) as reply:
            return reply.status, reply.read(), reply.headers.get("Retry-After")
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers.get("Retry-After")


def outcome(reply: Callable[[], Answer]) -> object:
    """An answer, or what its error says, whatever the model is called."""
    try:
        return replace(reply(), model_reported=None)
    except AttemptError as error:
        return error.event, error.status, error.message, error.usage


def test_the_server_says_what_the_backend_says() -> None:
    kinds = [kind for kind in KINDS if kind not in SILENT]
    reqs = [
        ask(kind, stage="mark", row_id=kind, schema=SCHEMA, seed=1, extra={"top_k": 3})
        for kind in kinds
    ]
    rules = {"mark": lambda req: f'{{"score": {len(req.row_id)}}}'}
    faults = [Fault(kind=kind, row_id=kind, retry_after="3") for kind in kinds]
    here = ScriptedBackend(rules, "t-1", FaultPlan(faults))
    with FaultServer(rules, FaultPlan(faults), model="m") as server:
        server.know(reqs)
        for req in [*reqs, *reqs]:
            status, body, retry_after = post(server, req)
            over_wire = outcome(
                partial(read_reply, status, body, retry_after=retry_after, schema_sent=True)
            )
            assert over_wire == outcome(partial(attempt, here, req))
        assert server.requests == 2 * len(reqs)
        assert server.by_key == {canonical_key(req, "api:m"): 2 for req in reqs}


def test_the_server_counts_what_is_in_flight() -> None:
    with FaultServer(together=4) as server:
        threads = [threading.Thread(target=post, args=(server, ask(str(i)))) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert server.in_flight_peak == 4
        assert sum(server.by_key.values()) == 4


def test_the_server_resets_connections_and_hides_behind_its_key() -> None:
    plan = FaultPlan([Fault(kind="reset", nth=1)])
    with (
        FaultServer(plan=plan) as server,
        pytest.raises((RemoteDisconnected, ConnectionResetError)),
    ):
        post(server, ask())
    with FaultServer(api_key="secret") as server:
        assert post(server, ask())[0] == 401
