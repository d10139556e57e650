"""The backend for OpenAI-compatible servers, over real sockets on loop-back."""

import gzip
import json
import logging
import pickle
import random
import re
from pathlib import Path
from typing import Any

import pytest

from longctx.llm.cache_sqlite import SQLiteCache
from longctx.llm.client import Client
from longctx.llm.faults import Fault, FaultPlan
from longctx.llm.openai import OpenAICompat, OpenAISettings
from longctx.llm.openai_wire import IN_WORDS, body_of, goes_on
from longctx.llm.settings import ClientSettings
from longctx.llm.types import Caps, GenResult, LLMJobError
from tests.llm.fault_server import FaultServer
from tests.llm.raw_server import RawServer, http, said
from tests.llm.virtual import request

KEY = "sk-planted-0123456789-secret"


class Impatient(random.Random):
    """Draws from the lowest hundredth of every range: jitter without the waiting."""

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.random() / 100


def client(url: str, cache: SQLiteCache | None = None, **more: Any) -> Client:
    settings = OpenAISettings.model_validate({"base_url": url, "model": "scripted", **more})
    return Client(OpenAICompat(settings), cache, ClientSettings(), rng=Impatient(0))


def ask(
    url: str, *, n: int = 1, request_more: dict[str, Any] | None = None, **more: Any
) -> list[GenResult]:
    with client(url, **more) as asked:
        return asked.generate([request(str(i), **(request_more or {})) for i in range(n)])


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", KEY)
    schema = {"type": "object"}
    wanted = request("0", schema=schema, seed=7, stop=["\n"], extra={"top_k": 5, "model": "no"})
    with FaultServer(api_key=KEY) as server:
        more = {"api_key_env": "PLANTED", "headers": {"X-Team": "data"}, "version": "2"}
        with client(server.url, **more) as asked:
            assert asked.model_id == "api:scripted@2"
            (result,) = asked.generate([wanted])
    assert result.error is None
    assert result.model_reported == "scripted"
    assert not result.usage.estimated
    assert server.bodies == [
        {
            "top_k": 5,
            "model": "scripted",
            "messages": [{"role": "user", "content": "question 0"}],
            "temperature": 0.0,
            "top_p": 1.0,
            "max_tokens": 16,
            "stream": False,
            "stop": ["\n"],
            "seed": 7,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": schema, "strict": True},
            },
        }
    ]
    assert server.headers[0]["X-Team"] == "data"


def test_what_a_server_cannot_do_is_not_sent() -> None:
    asked = request("0", schema={}, seed=7)
    body = body_of(asked, "m", Caps(), "max_completion_tokens")
    assert body["max_completion_tokens"] == 16
    assert not {"max_tokens", "seed", "response_format", "stop"} & body.keys()


def test_requests_are_in_flight_together() -> None:
    with FaultServer(latency_s=0.3, together=8) as server:
        results = ask(server.url, n=8)
    assert server.in_flight_peak == 8
    assert all(r.error is None for r in results)


@pytest.mark.parametrize(
    ("fault", "attempts"),
    [
        (Fault(kind="http_429", retry_after="0", times=2), 3),
        (Fault(kind="http_500"), 2),
        (Fault(kind="http_503"), 2),
        (Fault(kind="html_200"), 2),
        (Fault(kind="error_200"), 2),
        (Fault(kind="no_choices"), 2),
        (Fault(kind="reset"), 2),
        (Fault(kind="empty"), 2),
        (Fault(kind="no_usage"), 1),
    ],
    ids=lambda f: getattr(f, "kind", None),
)
def test_faults_that_pass(fault: Fault, attempts: int) -> None:
    with FaultServer(plan=FaultPlan([fault])) as server:
        (result,) = ask(server.url)
    assert (result.error, result.attempts, server.requests) == (None, attempts, attempts)
    assert result.usage.estimated == (fault.kind == "no_usage")


@pytest.mark.parametrize(
    ("kind", "attempts", "code", "status"),
    [
        ("http_500", 6, "transport", 500),
        ("http_429", 6, "rate_limited", 429),
        ("html_200", 6, "transport", 200),
        ("hang", 3, "transport", None),
        ("empty", 2, "empty", 200),
        ("http_400_context", 1, "context_overflow", 400),
        ("content_filter", 1, "content_filter", None),
    ],
)
def test_faults_that_stay(kind: Any, attempts: int, code: str, status: int | None) -> None:
    plan = FaultPlan([Fault(kind=kind, row_id="0", times=None)])
    with FaultServer(plan=plan) as server:
        asked = [request(str(i)) for i in range(4)]
        server.know(asked)
        with client(server.url, read_s=2.0) as asking:
            bad, *good = asking.generate(asked)
    assert bad.error is not None
    assert (bad.error.code, bad.error.status, bad.attempts) == (code, status, attempts)
    assert all(r.error is None for r in good)
    assert server.requests == attempts + 3


def test_a_refused_key_ends_the_job_after_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "another")
    with FaultServer(api_key=KEY) as server, pytest.raises(LLMJobError) as caught:
        ask(server.url, api_key_env="PLANTED")
    assert (caught.value.code, server.requests) == ("auth", 1)


def test_a_model_that_is_not_there_ends_the_job() -> None:
    plan = FaultPlan([Fault(kind="http_404_model")])
    with FaultServer(plan=plan) as server, pytest.raises(LLMJobError) as caught:
        ask(server.url)
    assert caught.value.code == "model_not_found"


def test_a_server_without_schemas_is_learnt_once() -> None:
    plan = FaultPlan([Fault(kind="http_400_schema", times=None)])
    with FaultServer(plan=plan) as server, client(server.url) as asked:
        for i in range(3):
            (result,) = asked.generate([request(str(i), schema={"type": "object"})])
            assert result.error is None
        assert not asked.caps.json_schema
    assert ["response_format" in b for b in server.bodies] == [True, False, False, False]


def test_a_server_that_is_not_there_is_a_failing_server() -> None:
    with FaultServer() as server:
        url = server.url
    results = ask(url, n=2)
    assert [r.error and r.error.code for r in results] == ["transport"] * 2
    assert [r.attempts for r in results] == [6, 6]


BROKEN = {
    "cut in the middle": http(200, b'{"choices": [', length=5000),
    "no HTTP": b"hello\r\n\r\n",
    "a bomb": http(200, gzip.compress(bytes(65 << 20)), "Content-Encoding: gzip"),
    "no gzip": http(200, b"\x00\x01", "Content-Encoding: gzip"),
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
def test_replies_that_do_not_come_whole_are_tried_again(reply: bytes) -> None:
    replies = [reply, said("whole")]
    with RawServer(lambda body: replies.pop(0)) as server:
        (result,) = ask(server.url)
    assert (result.text, result.attempts) == ("whole", 2)


def test_redirects_are_not_followed_with_the_key() -> None:
    moved = http(307, b"", "Location: http://127.0.0.1:1/elsewhere")
    with RawServer(lambda body: moved) as server:
        (result,) = ask(server.url)
    assert result.error is not None
    assert (result.error.code, result.error.status) == ("bad_request", 307)


BEGUN = [
    {"role": "user", "content": "Tell a story."},
    {"role": "assistant", "content": "Once upon"},
]


@pytest.mark.parametrize(
    ("to_flags", "to_plain", "way"),
    [
        (said(" five, six"), None, "flag"),
        (http(400, b'{"error": {"message": "unknown field"}}'), said("five, six"), "implicit"),
        (http(400, b'{"error": {"message": "unknown field"}}'), said("One, two"), "none"),
        (said("One, two, three"), None, "none"),
        (said("Sure! Here it is"), None, "none"),
    ],
)
def test_how_a_server_continues_is_tried_out_once(
    to_flags: bytes, to_plain: bytes, way: str
) -> None:
    def reply(body: dict[str, Any]) -> bytes:
        if not body["messages"][0]["content"].startswith("Count"):
            return said(" a time")
        return to_flags if "continue_final_message" in body else to_plain

    with RawServer(reply) as server, client(server.url) as asked:
        first, second = asked.generate([request(i, messages=BEGUN, seed=int(i)) for i in "12"])
        assert asked.caps.continuation == way
        probes = [b for b in server.bodies if b["messages"][0]["content"].startswith("Count")]
        assert len(probes) == (1 if to_plain is None else 2)
    assert first.prefill == second.prefill == ("prompted" if way == "none" else None)
    last = server.bodies[-1]
    assert ("continue_final_message" in last) == (way == "flag")
    assert (last["messages"][-1] == {"role": "user", "content": IN_WORDS}) == (way == "none")
    assert last["messages"][:2] == BEGUN


def test_what_goes_on_with_a_list() -> None:
    assert goes_on(" Five, six")
    assert goes_on("\n*five*")
    assert not goes_on("one, two, three, four, five")
    assert not goes_on("")


def test_secrets_are_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PLANTED", KEY)
    monkeypatch.setenv("PLANTED_TOO", f"{KEY}-too")
    quoting = [
        http(500, json.dumps({"error": {"message": f"bad key {KEY}"}}).encode()),
        http(422, f"key {KEY}-too and {KEY} for {KEY}".encode()),
        said("an answer"),
    ]
    with RawServer(lambda body: quoting.pop(0)) as server:
        settings = OpenAISettings(
            base_url=server.url,
            model="m",
            api_key_env="PLANTED",
            secret_headers={"X-Other-Key": "PLANTED_TOO"},
        )
        backend = OpenAICompat(settings)
        cache = SQLiteCache(tmp_path / "c.sqlite")
        with Client(backend, cache, ClientSettings(in_flight=1), rng=Impatient(0)) as asked:
            results = asked.generate([request(str(i)) for i in range(2)])
        assert sorted(r.error is None for r in results) == [False, True]
        shown = [repr(results), repr(backend), repr(vars(settings)), str(asked.usage_rows())]
        quoting.append(http(401, f"Incorrect API key provided: {KEY}".encode()))
        with pytest.raises(LLMJobError) as caught:
            Client(OpenAICompat(settings)).generate([request("9")])
        shown += [str(caught.value), repr(caught.value)]
    assert "(masked)" in str(caught.value)
    kept = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    assert kept
    kept += [s.encode() for s in (*shown, caplog.text)] + [pickle.dumps(backend)]
    assert not any(re.search(rb"planted-0123", k) for k in kept)
    assert pickle.loads(pickle.dumps(backend)).model_id == "api:m"


def test_a_key_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    with FaultServer(api_key=KEY) as server:
        (result,) = ask(server.url, api_key_file=str(file))
    assert result.error is None


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"base_url": "localhost:8000/v1"}, "must begin with http"),
    ({"base_url": "https://user:word@host/v1"}, "base_url holds a user name or password"),
    ({"headers": {"Authorization": "Bearer x"}}, "looks like a secret"),
    ({"headers": {"api-key": "x"}}, "looks like a secret"),
    ({"api_key_env": "NOT_SET_ANYWHERE"}, "'NOT_SET_ANYWHERE' is not set"),
    ({"secret_headers": {"X": "NOT_SET_ANYWHERE"}}, "'NOT_SET_ANYWHERE' is not set"),
    ({"api_key_file": "/nowhere/key"}, "cannot be read: No such file"),
    ({"api_key_file": "/dev/null"}, "does not hold one line"),
    ({"api_key_env": "A", "api_key_file": "b"}, "not both"),
]


@pytest.mark.parametrize(("more", "said"), WRONG, ids=[s for _, s in WRONG])
def test_settings_that_cannot_work(more: dict[str, Any], said: str) -> None:
    with pytest.raises(LLMJobError, match=said) as caught:
        OpenAICompat(OpenAISettings(**{"base_url": "http://h/v1", "model": "m", **more}))
    assert caught.value.code == "misconfigured"
