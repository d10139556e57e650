"""Keys of requests: equal for what must be answered once, different for everything else.

In the key stands what can change the answer: the model, the messages to the character, and every
parameter of sampling. Not in it: where the server is, how it is asked, and who asks (URL, keys,
timeouts, retries, request_id, system, stage, row_id). Text is not normalised.
"""

import hashlib
import json
from typing import Any

from longctx.llm.types import GenRequest

_VERSION = 1


class BadRequestError(ValueError):
    """A request that has no canonical form: NaN, infinity, half a surrogate pair, no number."""


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no blanks, non-ASCII as it is; NaN and infinity raise."""
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )


def canonical_text(req: GenRequest, model_id: str) -> str:
    """The text whose digest is the key. Raises BadRequestError."""
    return _text(_fields(req, model_id))


def canonical_key(req: GenRequest, model_id: str) -> str:
    """SHA-256 of the canonical text, 64 hex digits. Raises BadRequestError."""
    return _digest(canonical_text(req, model_id))


def logical_key(req: GenRequest, model_id: str) -> str:
    """The same without `max_tokens`: finds a finished answer after that limit was changed."""
    fields = _fields(req, model_id)
    del fields["max_tokens"]
    return _digest(_text(fields))


def key_pair(req: GenRequest, model_id: str) -> tuple[str, str]:
    """Canonical and logical key, with the messages written as JSON once. Raises BadRequestError."""
    fields = _fields(req, model_id)
    limit = fields.pop("max_tokens")
    # In ascending order of names the limit stands between `extra` and everything else.
    extra, rest = _text({"extra": fields.pop("extra")})[:-1], _encoded(_text(fields))[1:]
    heads = f'{extra},"max_tokens":{limit},', f"{extra},"
    canonical, logical = (hashlib.sha256(_encoded(head)) for head in heads)
    canonical.update(rest)
    logical.update(rest)
    return canonical.hexdigest(), logical.hexdigest()


def _fields(req: GenRequest, model_id: str) -> dict[str, Any]:
    try:
        return {
            "v": _VERSION,
            "model": model_id,
            "messages": [{"role": m["role"], "content": m["content"]} for m in req.messages],
            "temperature": float(req.temperature),
            "top_p": float(req.top_p),
            "max_tokens": int(req.max_tokens),
            "seed": None if req.seed is None else int(req.seed),
            "stop": list(req.stop or ()),
            "schema": req.schema,
            "sample_index": int(req.sample_index),
            "extra": dict(req.extra or {}),
        }
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadRequestError(_said(error)) from None


def _text(fields: dict[str, Any]) -> str:
    try:
        return canonical_json(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequestError(_said(error)) from None


def _digest(text: str) -> str:
    return hashlib.sha256(_encoded(text)).hexdigest()


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadRequestError("a text of the request holds half a surrogate pair") from None


def _said(error: Exception) -> str:
    # What these exceptions quote is a parameter or a field's name, never the text of a prompt.
    return f"the request cannot be written as JSON: {type(error).__name__}"
