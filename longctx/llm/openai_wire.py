"""The body of a request to `/chat/completions`, and how a text is continued there.

Three ways to continue a last assistant message: flags (vLLM's `continue_final_message`), sending it
as it is (servers that take a last assistant message for a prefix), or asking for it in words, which
models follow less well, so results say so. Which way a server needs is learnt from one small reply:
a counted list that is begun must be gone on with.
"""

from collections.abc import Sequence
from typing import Any

from longctx.llm.types import Caps, Continuation, GenRequest, Message

IN_WORDS = (
    "Your last message was cut off. Continue exactly where this text ends, do not repeat it, and "
    "add nothing before the continuation."
)
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_BEGUN = 4
PROBE = GenRequest(
    request_id="probe",
    messages=[
        {"role": "user", "content": "Count from one to ten in words, separated by commas."},
        {"role": "assistant", "content": ", ".join(_NUMBERS[:_BEGUN]) + ","},
    ],
    max_tokens=16,
)


def is_continuation(messages: Sequence[Message]) -> bool:
    """Whether the last message is a prefix that the model shall go on with."""
    return bool(messages) and messages[-1]["role"] == "assistant"


def goes_on(reply: str) -> bool:
    """Whether a reply to `PROBE` goes on with the list instead of beginning it again.

    Anything that is not the next number counts as a no: asking in words always works.
    """
    return reply.strip(" \n,.*").casefold().startswith(_NUMBERS[_BEGUN])


def body_of(req: GenRequest, model: str, caps: Caps, max_tokens_field: str) -> dict[str, Any]:
    """The JSON object that is sent; nothing in `extra` can replace what has a name of its own."""
    body: dict[str, Any] = {
        **(req.extra or {}),
        "model": model,
        "messages": [{"role": m["role"], "content": m["content"]} for m in req.messages],
        "temperature": req.temperature,
        "top_p": req.top_p,
        max_tokens_field: req.max_tokens,
        "stream": False,
    }
    if req.stop:
        body["stop"] = list(req.stop)
    if req.seed is not None and caps.seed:
        body["seed"] = req.seed
    if req.schema is not None and caps.json_schema:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "reply", "schema": req.schema, "strict": True},
        }
    if is_continuation(req.messages):
        _continue(body, caps.continuation)
    return body


def _continue(body: dict[str, Any], way: Continuation) -> None:
    if way == "flag":
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    elif way == "none":
        body["messages"].append({"role": "user", "content": IN_WORDS})
