"""The JSON objects of a text: found by their braces, read strictly, one fault repaired.

Models put prose, code fences or an array around the object that was asked for. Braces are matched
outside strings, so `{"a": "} {"}` is one object; a pattern such as `{.*?}` would cut it. Linear in
the text.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from longctx.llm.keys import canonical_json

Fix = Literal["trailing_comma"]
_STRING = r'"(?:[^"\\]++|\\.)*+"'
_MARK = re.compile(rf'{_STRING}|["{{}}\[\]]', re.DOTALL)
_COMMA = re.compile(rf"({_STRING})|,(?=\s*[}}\]])", re.DOTALL)
_OPENER = {"}": "{", "]": "["}


@dataclass(frozen=True, slots=True)
class Found:
    """One object: its value, its canonical text (equal for equal values), what was repaired."""

    value: dict[str, Any]
    canonical: str
    fix: Fix | None


def pieces(text: str) -> Iterator[str | None]:
    """What stands between matching braces, from left to right; None last if one never closes.

    After a closed piece the search goes on behind it, never inside. A bracket that closes what is
    not open ends its piece, which is no JSON then.
    """
    first = text.find("{")
    while first >= 0:
        end = _end(text, first)
        if end is None:
            yield None
            return
        yield text[first:end]
        first = text.find("{", end)


def _end(text: str, first: int) -> int | None:
    """Where the piece that begins with the brace at `first` ends; None if it does not."""
    open_marks: list[str] = []
    for found in _MARK.finditer(text, first):
        mark = found[0]
        if mark in "{[":
            open_marks.append(mark)
        elif mark in "}]":
            if open_marks.pop() != _OPENER[mark] or not open_marks:
                return found.end()
        elif mark == '"':  # a string that never ends, or it would have been matched whole
            return None
    return None


def read(piece: str) -> Found | None:
    """A piece as an object, with superfluous commas taken out if nothing else helps; or None."""
    if (found := _strict(piece, None)) is not None:
        return found
    mended = _COMMA.sub(lambda m: m[1] or "", piece)
    return _strict(mended, "trailing_comma") if mended != piece else None


def _strict(piece: str, fix: Fix | None) -> Found | None:
    """No NaN, no infinity (1e999 neither), no key twice, no half of a surrogate pair."""
    try:
        value = json.loads(piece, parse_constant=_refuse, object_pairs_hook=_distinct)
        canonical = canonical_json(value)
        canonical.encode()
    except (ValueError, RecursionError):
        return None
    return Found(value, canonical, fix)


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found
