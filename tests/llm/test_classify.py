"""What a reply means: the table of retries, and messages without what the request said."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from longctx.llm.classify import RULES, read_reply
from longctx.llm.scrub import scrubbed
from longctx.llm.types import JOB_ERRORS, Answer, AttemptError, GenError, LLMJobError, Usage


def reply(**more: Any) -> bytes:
    choice = {"message": {"role": "assistant", "content": "words"}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "model": "m", **more}).encode()


def event(status: int, body: bytes, *, schema_sent: bool = False) -> str:
    with pytest.raises(AttemptError) as caught:
        read_reply(status, body, schema_sent=schema_sent)
    assert caught.value.status == status
    return caught.value.event


def error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid"}}).encode()


def test_an_answer() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert read_reply(200, reply(usage=usage)) == Answer(
        text="words", finish_reason="stop", usage=Usage(9, 2, 4), model_reported="m"
    )


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": 3}, {"prompt_tokens": True, "completion_tokens": 1}]
)
def test_usage_that_is_not_whole_is_missing(usage: object) -> None:
    assert read_reply(200, reply(usage=usage)).usage is None


@pytest.mark.parametrize(
    ("status", "expected", "code", "retries"),
    [
        *((s, "server_error", "transport", None) for s in (408, 409, 425, 500, 502, 504, 529)),
        (503, "overloaded", "transport", None),
        (429, "rate_limited", "rate_limited", None),
        (413, "context_overflow", "context_overflow", 0),
        *((s, "bad_request", "bad_request", 0) for s in (400, 405, 422, 301, 402)),
        (404, "not_found", "bad_request", 0),
        (401, "auth", "bad_request", 0),
        (403, "auth", "bad_request", 0),
    ],
)
def test_status_codes(status: int, expected: str, code: str, retries: int | None) -> None:
    found = event(status, b"rate limit of the schema of the maximum", schema_sent=False)
    assert found == expected
    rule = RULES[found]  # type: ignore[index]
    assert (rule.code, rule.retries) == (code, retries)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens",
        "context_length_exceeded",
        "exceed_context_size_error",
        "the request exceeds the available context size",
        "Prompt is too long: 200001 tokens",
    ],
)
def test_a_400_that_names_the_context_length(message: str) -> None:
    assert event(400, error(message), schema_sent=True) == "context_overflow"
    assert event(500, error(message)) == "server_error"


@pytest.mark.parametrize("word", ["json_schema", "response_format", "grammar"])
def test_a_400_that_names_the_schema_counts_only_if_one_was_sent(word: str) -> None:
    assert event(400, error(f"{word} is not supported"), schema_sent=True) == "schema_refused"
    assert event(400, error(f"{word} is not supported")) == "bad_request"


def test_a_404_that_names_the_model() -> None:
    assert event(404, error("The model `x` does not exist.")) == "model_not_found"
    assert event(404, b'{"detail":"Not Found"}') == "not_found"


@pytest.mark.parametrize(
    "body",
    [
        b"<html>busy</html>",
        b"",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        error("try later"),
        b'{"choices":[]}',
        b'{"choices":{}}',
        b'{"choices":[{"text":"of another interface"}]}',
        b'{"choices":[{"message":{"content":7}}]}',
    ],
    ids=range(10),
)
def test_a_200_that_is_no_answer(body: bytes) -> None:
    assert event(200, body) == "malformed"


@pytest.mark.parametrize("content", ["", " \n\t", None])
def test_no_text(content: str | None) -> None:
    choice = {"message": {"content": content}, "finish_reason": "stop"}
    assert event(200, reply(choices=[choice])) == "empty"
    filtered = {"message": {"content": content}, "finish_reason": "content_filter"}
    assert read_reply(200, reply(choices=[filtered])).finish_reason == "content_filter"


def test_text_in_pieces_and_refusals() -> None:
    pieces = {"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}
    assert read_reply(200, reply(choices=[pieces])).text == "ab"
    refused = {"message": {"content": None, "refusal": "I cannot."}, "finish_reason": "length"}
    answer = read_reply(200, reply(choices=[refused]))
    assert (answer.text, answer.finish_reason) == ("I cannot.", "length")


def test_what_was_charged_for_a_failure_is_known() -> None:
    body = {"error": {"message": "late"}, "usage": {"prompt_tokens": 5, "completion_tokens": 1}}
    with pytest.raises(AttemptError) as caught:
        read_reply(500, json.dumps(body).encode(), retry_after="7")
    assert (caught.value.usage, caught.value.retry_after) == (Usage(5, 1), "7")


def test_a_message_keeps_nothing_of_the_request() -> None:
    secret = "The treasure lies below the old oak, seven steps to the north."
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": secret}]
    said = scrubbed(f"Invalid input: {secret[4:50]!r} is\nnot allowed", messages)
    assert said.startswith("Invalid input: '(request)")
    assert not any(secret[i : i + 12] in said for i in range(len(secret)))
    assert len(scrubbed("x" * 3000, messages)) == 500
    assert scrubbed("too many requests", messages) == "too many requests"


def test_messages_of_results_are_cut() -> None:
    assert len(GenError("transport", 500, "m" * 600).message) == 500


def test_job_errors_are_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert [m for m, _ in JOB_ERRORS.values() if f"`{m}`" not in page] == []


def test_job_errors_say_what_to_do_and_travel() -> None:
    for code in JOB_ERRORS:
        fault = pickle.loads(pickle.dumps(LLMJobError(code, "a detail", where="here")))
        assert (fault.code, fault.detail, fault.where) == (code, "a detail", "here")
        assert fault.remedy
        assert str(fault).startswith("here: ")
        assert "(a detail)" in str(fault)
