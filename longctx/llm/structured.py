"""What a reply says: the object, mark or label that was asked for, or why it cannot be used.

Servers that promise to keep to a schema accept keywords and ignore them, so every reply is
validated here again (vllm-project/vllm #12201, #45592; mlc-ai/xgrammar #192). Nothing is coerced
and one fault only is repaired, a superfluous comma: a reply that needs more is asked for again
(`repair.py`). Phrases of refusals and messages of clients that were taken for texts are listed in
`phrases.json`. Lost: a good answer that begins like a refusal ("As an AI ...").
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Literal, TypeVar

from longctx.llm.json_scan import Fix, pieces, read
from longctx.llm.keys import canonical_json

ReplyCode = Literal[
    "empty", "sentinel", "refusal", "degenerate", "truncated", "not_json", "schema", "semantic"
]
T = TypeVar("T")

_THINK = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
_THINKS = re.compile(r"\s*<think>")
_MARK = re.compile(r"\[\[\s*([-+]?[0-9]+(?:\.[0-9]+)?)\s*\]\]")
_LABEL = re.compile(r"\[\[([^\[\]]+)\]\]")
_REFUSAL_HEAD = 200
_BLANKS = re.compile(r"\s{200}")
_TAIL, _LONGEST_UNIT = 400, 40
_MESSAGES, _MESSAGE_LENGTH = 5, 300


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it was understood: usable where `code` is None.

    `text` is what was said behind a block of thinking; `value` the object, where a schema was
    given; `fix` what was repaired in it; `messages` what is wrong, in words for the model.
    """

    text: str
    value: dict[str, Any] | None = None
    code: ReplyCode | None = None
    fix: Fix | None = None
    messages: tuple[str, ...] = ()


def verdict(
    text: str | None,
    finish_reason: str,
    schema: Mapping[str, Any] | None = None,
    refusals: bool = True,
) -> Reply:
    """The verdict on a reply, of any stage.

    The first of: empty, sentinel, usable (with a schema: a valid object), refusal, degenerate,
    truncated, not_json or schema. What a stage knows beyond its schema it checks itself; without
    `refusals` that is what a refusal is, too.
    """
    if text is None or not text.strip():
        return Reply("", code="empty")
    if is_sentinel(text):
        return Reply(text, code="sentinel")
    said = without_thinking(text)
    found = Reply(said or text) if schema is None else _object(said, schema, finish_reason)
    if schema is not None and found.code is None:
        return found
    code = _plain_verdict(said, finish_reason, found.code, refusals)
    return Reply(found.text, code=code, messages=found.messages)


def _plain_verdict(
    said: str | None, finish_reason: str, code: ReplyCode | None, refusals: bool
) -> ReplyCode | None:
    if refusals and said is not None and is_refusal(said):
        return "refusal"
    if said is not None and is_degenerate(said):
        return "degenerate"
    if finish_reason == "length" and code != "schema":
        return "truncated"
    if said is None:
        return code or "not_json"
    return code if said.strip() else code or "empty"


def extract_json(
    text: str | None, schema: Mapping[str, Any], finish_reason: str
) -> tuple[dict[str, Any] | None, ReplyCode | None, Fix | None]:
    """The one object of a reply that fits a JSON schema, the code if there is none, the repair.

    Thinking in front, prose, code fences and an array around the object do no harm. Two different
    objects that fit (an echoed example) are `not_json`, and so is an object behind the last whole
    one that never closes, or `truncated` where the reply was cut (`finish_reason` "length").
    """
    if text is None or not text.strip():
        return None, "empty", None
    found = _object(without_thinking(text), schema, finish_reason)
    return found.value, found.code, found.fix


def _object(said: str | None, schema: Mapping[str, Any], finish_reason: str) -> Reply:
    cut: ReplyCode = "truncated" if finish_reason == "length" else "not_json"
    if said is None:
        return Reply("", code=cut, messages=("The thinking never ended.",))
    candidates = list(pieces(said))
    if candidates and candidates[-1] is None:
        return Reply(said, code=cut, messages=("The JSON object is not closed.",))
    parsed = [found for piece in candidates if piece and (found := read(piece))]
    complaints = [_complaints(found.value, schema) for found in parsed]
    valid = {
        f.canonical: f for f, c in reversed(list(zip(parsed, complaints, strict=True))) if not c
    }
    if len(valid) == 1:
        (only,) = valid.values()
        return Reply(said, only.value, fix=only.fix)
    if valid:
        several = f"There are {len(valid)} different JSON objects; one is wanted."
        return Reply(said, code="not_json", messages=(several,))
    if parsed:
        return Reply(said, code="schema", messages=complaints[-1])
    what = "is not valid JSON." if candidates else "is missing."
    return Reply(said, code="not_json", messages=(f"The JSON object {what}",))


def _complaints(value: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[str, ...]:
    """What the schema has against an object, each with its place."""
    errors = sorted(
        _validator(canonical_json(schema)).iter_errors(value), key=lambda e: e.json_path
    )
    return tuple(f"{e.json_path}: {e.message}"[:_MESSAGE_LENGTH] for e in errors[:_MESSAGES])


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    from jsonschema import Draft202012Validator

    found = json.loads(schema)
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


def without_thinking(text: str) -> str | None:
    """What stands behind a leading block of thinking; None if that never ends."""
    block = _THINK.match(text)
    if block:
        return text[block.end() :]
    return None if _THINKS.match(text) else text


def parse_mark(text: str, lo: float, hi: float) -> tuple[float | None, ReplyCode | None]:
    """The last `[[number]]` of a text; `semantic` outside [lo, hi], `not_json` if there is none."""
    found = _MARK.findall(text)
    if not found:
        return None, "not_json"
    mark = float(found[-1])
    return (mark, None) if lo <= mark <= hi else (None, "semantic")


def parse_label(text: str, mapping: Mapping[str, T]) -> tuple[T | None, ReplyCode | None]:
    """What `mapping` has for the last `[[words]]`, whatever their case and blanks.

    `semantic` where the words are none of its keys (whole, not in part), `not_json` without any.
    """
    found = _LABEL.findall(text)
    if not found:
        return None, "not_json"
    known = {_folded(label): value for label, value in mapping.items()}
    label = _folded(found[-1])
    return (known[label], None) if label in known else (None, "semantic")


def _folded(label: str) -> str:
    return " ".join(label.casefold().split())


def is_refusal(text: str) -> bool:
    """Whether one of the phrases of a refusal stands within the first 200 characters."""
    return _refusals().search(_plain(text.lstrip()[:_REFUSAL_HEAD])) is not None


def is_sentinel(text: str) -> bool:
    """Whether a text is the message of a client that was taken for the words of a model."""
    return _plain(text.lstrip()[:200]).startswith(_sentinels())


def is_degenerate(text: str) -> bool:
    """200 blanks in a row, or the last 400 characters repeat at most 40 over and over."""
    if _BLANKS.search(text):
        return True
    tail = text[-_TAIL:]
    if len(tail) < _TAIL:
        return False
    return any(tail[unit:] == tail[:-unit] for unit in range(1, _LONGEST_UNIT + 1))


def _plain(text: str) -> str:
    return text.replace("’", "'").casefold()


@cache
def _phrases() -> dict[str, Any]:
    return json.loads((files("longctx.llm") / "phrases.json").read_text(encoding="utf-8"))


@cache
def _refusals() -> re.Pattern[str]:
    """Latin phrases as whole words: "as an AI" is not in "as an aide"."""
    phrases = [_plain(p) for listed in _phrases()["refusal"].values() for p in listed]
    return re.compile("|".join(_bounded(p) for p in phrases))


def _bounded(phrase: str) -> str:
    before = "(?<![a-z0-9])" if phrase[0].isascii() else ""
    after = "(?![a-z0-9])" if phrase[-1].isascii() else ""
    return f"{before}{re.escape(phrase)}{after}"


@cache
def _sentinels() -> tuple[str, ...]:
    return tuple(_plain(p) for p in _phrases()["sentinel"])
