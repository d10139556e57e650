"""Requests and answers as rows of the datasets that `ray.data.llm` maps (ray 2.60).

Its engine stage takes Python dicts, but between stages they are Arrow structs, and that decides the
shape of everything here. Rows of one block whose dicts have different keys are merged, and keys
that a row lacks come back as None: so every row has the same sampling parameters, with the value
that changes nothing where a request names none, and a schema travels as text, since two schemas
would be merged into one that is neither. The engine says no finish reason and drops the sampling
parameters, so `max_tokens` has a column of its own. A column `model` would ask for an adapter of
that name, and `request_id` is overwritten: neither is in a row. Rows that failed keep other columns
than the others and pass by what should tidy them up, so `normalised` reads either kind.

Lost is what the engine knows and does not say: a text whose last allowed token was its natural end
counts as cut off.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from longctx.llm.accounting import estimate_tokens
from longctx.llm.keys import BadRequestError, canonical_json
from longctx.llm.scrub import scrubbed
from longctx.llm.types import GenError, GenRequest, GenResult, Usage

FAILED = "__inference_error__"
# What stands for a parameter that a request does not name.
_NEUTRAL: dict[str, float | int] = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
ASKED = pa.schema(
    [
        *((name, pa.string()) for name in ("key", "logical", "stage", "row_id")),
        ("messages", pa.large_string()),
        ("sampling", pa.large_string()),
        ("max_tokens", pa.int64()),
        ("may_be_cut", pa.bool_()),
        ("reserved", pa.int64()),
    ]
)
ANSWERS = pa.schema(
    [
        *((name, pa.string()) for name in ("key", "logical", "stage", "row_id")),
        ("may_be_cut", pa.bool_()),
        ("text", pa.large_string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("latency_s", pa.float64()),
        ("from_cache", pa.bool_()),
        ("stored", pa.bool_()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
    ]
)
# What a good row keeps behind the engine. Prompt, its ids, the ids of the text and the parameters
# would more than double a block.
KEPT = (
    *("key", "logical", "stage", "row_id", "may_be_cut", "max_tokens"),
    *("generated_text", "num_input_tokens", "num_generated_tokens", "time_taken_llm"),
)
Code = Literal["bad_request", "context_overflow", "transport", "empty"]
# Of the request itself: asked again, it would fail again.
_OF_THE_REQUEST = ("ValueError", "TypeError", "VLLMValidationError", "ValidationError")
_TOO_LONG = ("maximum model length", "max_model_len", "maximum context length")


def sampling_params(req: GenRequest) -> dict[str, Any]:
    """The parameters of a request as `vllm.SamplingParams` takes them, the same keys in every row.

    `structured_outputs` is None or holds the schema as JSON text. `n` is 1: the engine stage keeps
    one text a row, so several samples are several requests. Raises BadRequestError for a parameter
    in `extra` that is not known here.
    """
    extra = dict(req.extra or {})
    if unknown := sorted(extra.keys() - _NEUTRAL.keys()):
        raise BadRequestError(
            f"the vllm backend knows no {', '.join(unknown)}, only {', '.join(_NEUTRAL)}"
        )
    named = {name: type(usual)(extra.get(name, usual)) for name, usual in _NEUTRAL.items()}
    schema = None if req.schema is None else {"json": canonical_json(req.schema)}
    return {
        "temperature": float(req.temperature),
        "top_p": float(req.top_p),
        "max_tokens": int(req.max_tokens),
        "seed": req.seed,
        "stop": list(req.stop or ()),
        **named,
        "structured_outputs": schema,
    }


def asked_row(req: GenRequest, keys: tuple[str, str]) -> dict[str, Any]:
    """A request as a row of `ASKED`; `reserved` is the most tokens that it can cost, estimated.

    Messages and parameters are JSON text until the last moment: as such they cannot be merged with
    those of other rows. Raises BadRequestError.
    """
    key, logical = keys
    messages = [{"role": m["role"], "content": m["content"]} for m in req.messages]
    return {
        "key": key,
        "logical": logical,
        "stage": req.stage,
        "row_id": req.row_id,
        "messages": json.dumps(messages, ensure_ascii=False),
        "sampling": canonical_json(sampling_params(req)),
        "max_tokens": req.max_tokens,
        "may_be_cut": req.may_be_cut,
        "reserved": estimate_tokens(req.messages) + req.max_tokens,
    }


def engine_row(asked: Mapping[str, Any], ids: list[int], failed: str = "") -> dict[str, Any]:
    """What the engine stage reads, of a row of `ASKED` and the ids of its prompt.

    With `failed` the row passes by the engine. Every row says whether it did: where only some have
    that column, the others get None, which counts as a failure.
    """
    return {
        "messages": "",
        "tokenized_prompt": ids,
        "sampling_params": json.loads(asked["sampling"]),
        FAILED: failed,
    }


def failure(code: Code, message: str) -> str:
    """A failure found before the engine, as `normalised` reads it."""
    return f"{code}: {message}"


def normalised(row: Mapping[str, Any], max_context: int) -> dict[str, Any]:
    """A row behind the processor, good or failed, as one of `ANSWERS`.

    The finish reason is `length` where the text has all tokens that it was allowed, or fills the
    context together with its prompt; else `stop`.
    """
    told = str(row.get(FAILED) or "")
    completion, prompt = (
        int(row.get(name) or 0) for name in ("num_generated_tokens", "num_input_tokens")
    )
    text = str(row.get("generated_text") or "")
    cut = completion >= int(row["max_tokens"]) or prompt + completion >= max_context
    code, message = _failure(told) if told else (None, None)
    if code is None and not text.strip():
        code, message = "empty", "the model wrote nothing"
    return {
        **{name: row[name] for name in ("key", "logical", "stage", "row_id", "may_be_cut")},
        # Half a surrogate pair is a Python string, but no file can hold it.
        "text": "" if code else text.encode("utf-8", "replace").decode(),
        "finish_reason": "error" if code else "length" if cut else "stop",
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "latency_s": max(0.0, float(row.get("time_taken_llm") or 0.0)),
        "from_cache": False,
        "stored": False,
        "error_code": code,
        "error_message": message,
    }


def _failure(told: str) -> tuple[Code, str]:
    """Code and message of a failed row."""
    kind, _, message = told.partition(": ")
    if kind == "context_overflow":
        return "context_overflow", message
    if kind == "bad_request":
        return "bad_request", message
    if any(words in told for words in _TOO_LONG):
        return "context_overflow", told
    return ("bad_request" if kind in _OF_THE_REQUEST else "transport"), told


@dataclass(frozen=True, slots=True)
class Answered:
    """What a batch said of one request; `text` is None where the cache holds it.

    `asker` is the stage and the row for which it was asked; others got it for nothing.
    """

    asker: tuple[str, str]
    text: str | None
    finish_reason: str
    usage: Usage
    latency_s: float
    code: str | None
    message: str

    def result(self, req: GenRequest, key: str) -> GenResult:
        """The result of a request, paid for by another one."""
        said = None if self.code is None else GenError(self.code, None, self._said(req))
        return GenResult(
            request_id=req.request_id,
            key=key,
            text=self.text or "",
            finish_reason=self.finish_reason,  # type: ignore[arg-type]
            usage=self.usage,
            from_cache=said is None,
            error=said,
        )

    def _said(self, req: GenRequest) -> str:
        return scrubbed(self.message, req.messages)


def answered(row: Mapping[str, Any]) -> Answered:
    """What stands in a row of `ANSWERS`."""
    return Answered(
        (row["stage"], row["row_id"]),
        row["text"],
        row["finish_reason"],
        Usage(row["prompt_tokens"], row["completion_tokens"]),
        row["latency_s"],
        row["error_code"],
        row["error_message"] or "",
    )
