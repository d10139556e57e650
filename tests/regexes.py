"""The worst that a regular expression can do, told from its parse tree and not by a clock."""

import re
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any


def backtracking(pattern: re.Pattern[str]) -> list[str]:
    """Repeats of a pattern that can be taken back: all but possessive ones and `?`.

    Without any, an attempt at one place reads each character a bounded number of times: what was
    matched is never matched again in another division.
    """
    return [
        f"{low}..{high}"
        for code, (low, high, _) in _repeats(parser.parse(pattern.pattern, pattern.flags))
        if code != codes.POSSESSIVE_REPEAT and high != 1
    ]


def longest_repeat(pattern: re.Pattern[str]) -> int:
    """The largest upper bound of any repeat, so the most that one repeat reads in one attempt."""
    tree = parser.parse(pattern.pattern, pattern.flags)
    return max((int(high) for _, (_, high, _) in _repeats(tree)), default=1)


def _repeats(tree: Any) -> list[tuple[Any, Any]]:
    """(code, (least, most, body)) of all repeats, at any depth."""
    found = []
    for item in _walk(tree):
        if isinstance(item, tuple) and len(item) == 2:
            code, value = item
            if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
                found.append((code, value))
    return found


def _walk(node: Any) -> list[Any]:
    children = node if isinstance(node, (list, tuple, parser.SubPattern)) else ()
    return [node, *(inner for child in children for inner in _walk(child))]
