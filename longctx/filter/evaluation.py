"""Items of evaluation sets: which texts of their files are looked for in the corpus.

A set's questions and answers are what a model must not have read; the long contexts beside them
(LongBench's `context`, HELMET's `ctxs`, RULER's haystack in `input`) are public texts, which a
corpus may well hold. So without `fields` the usual names of questions and answers are taken, and
of them only values of at most `LONGEST` tokens: a longer one is a prompt with its context in it.
Fields that are named are taken whole.

A row is one JSON object: a line of JSONL, an element of a JSON list, or a paragraph of plain text
(whose only field is `text`). A path such as `choices[*].text` leads to nested values; every string
and number below where it ends is a value of its own.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from longctx.errors import RecipeError
from longctx.registry import did_you_mean

LONGEST = 512  # tokens; longer values of fields that were not named are contexts
USUAL = (
    *("question", "questions", "query", "instruction", "problem", "prompt", "input", "goal"),
    *("answer", "answers", "output", "outputs", "target", "targets", "solution", "response"),
    *(
        "choices",
        "options",
        "reference",
        "ground_truth",
        "gold",
        "completion",
        "canonical_solution",
    ),
)
_STEP = re.compile(r"([^.\[\]]+)((?:\[(?:\*|\d+)\])*)")
_INDEX = re.compile(r"\[(\*|\d+)\]")
_BLANK_LINES = re.compile(r"\n\s*\n")
_LISTED = 12

Step = str | int | None  # the key of an object, the place in a list, or all places of it


class Value(NamedTuple):
    """One text of an evaluation set, the row it stands in (from 0), and its field."""

    row: int
    field: str
    text: str


def parse_path(path: str) -> tuple[Step, ...]:
    """The steps of a path such as `choices[*].text`. ValueError where it is none."""
    steps: list[Step] = []
    for part in path.split("."):
        match = _STEP.fullmatch(part)
        if match is None:
            raise ValueError(f"`{path}` is no path to a field, such as `question` or `a[*].b`")
        steps.append(match[1])
        steps += [None if i == "*" else int(i) for i in _INDEX.findall(match[2])]
    return tuple(steps)


def rows_of(
    data: bytes, name: str, where: str, what: str = "evaluation set"
) -> list[tuple[int, dict[str, Any]]]:
    """Rows of a file, each with its line (1 for an element of a list).

    `name` tells the format by its ending, compression aside. RecipeError names file and line, and
    calls the file `what`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _malformed(f"not UTF-8 ({error.reason})", where, line, what) from None
    if name.endswith((".txt", ".md")):
        parts = (p.strip() for p in _BLANK_LINES.split(text))
        return [(1, {"text": part}) for part in parts if part]
    if name.endswith(".json") and text.lstrip().startswith("["):
        return [(1, _object(row, where, 1, what)) for row in _json(text, where, 1, what)]
    lines = enumerate(text.split("\n"), start=1)
    return [
        (n, _object(_json(line, where, n, what), where, n, what))
        for n, line in lines
        if line.strip()
    ]


def values_of(
    rows: Iterable[tuple[int, dict[str, Any]]], fields: list[str] | None, where: str
) -> Iterator[Value]:
    """Texts of the rows below the named fields, or below those of `USUAL` that a row has.

    RecipeError where a named field is in no row, and where no row has a usual one.
    """
    rows = list(rows)
    named = fields or list(USUAL)
    met: set[str] = set()
    for number, (_, row) in enumerate(rows):
        for field in named:
            below = list(_follow(row, parse_path(field)))
            met |= {field} if below else set()
            for text in (text for value in below for text in _texts(value)):
                yield Value(number, field, text)
    if not rows:
        raise RecipeError(
            "the evaluation set has no rows", where=where, remedy="give the file that holds them"
        )
    have = sorted({key for _, row in rows for key in row})
    listed = ", ".join(have[:_LISTED])
    if fields is None and not met:
        raise RecipeError(
            f"no row has a field with a usual name of a question or answer; fields: {listed}",
            where=where,
            remedy="name those to look for, as in `fields: [question, choices[*].text]`",
        )
    for field in [f for f in fields or [] if f not in met]:
        raise RecipeError(
            f"no row has a value at `{field}`{did_you_mean(field.split('.')[0], have)}; "
            f"fields: {listed}",
            where=where,
            remedy="correct the path in `fields`",
        )


def _json(text: str, where: str, line: int, what: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _malformed(f"not JSON ({error.msg})", where, line + error.lineno - 1, what) from None
    except (ValueError, RecursionError) as error:
        raise _malformed(f"not JSON ({error})", where, line, what) from None


def _object(value: Any, where: str, line: int, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        found = type(value).__name__
        raise _malformed(f"a row is a JSON object, found {found}", where, line, what)
    return value


def _malformed(found: str, where: str, line: int, what: str) -> RecipeError:
    return RecipeError(
        f"the {what} cannot be read: {found}",
        where=f"{where}:{line}",
        remedy="correct the file, or give one with a JSON object on every line",
    )


def _follow(value: Any, steps: tuple[Step, ...]) -> Iterator[Any]:
    """What stands at the end of a path; nothing where the path leads nowhere."""
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    if isinstance(step, str):
        found = [value[step]] if isinstance(value, dict) and step in value else []
    elif not isinstance(value, list):
        found = []
    else:
        found = value if step is None else value[step : step + 1]
    for inner in found:
        yield from _follow(inner, rest)


def _texts(value: Any) -> Iterator[str]:
    """All strings and numbers below a value, those in lists and objects too, in their order."""
    if isinstance(value, str):
        # JSON may escape half of a surrogate pair, which is no character.
        yield value.encode("utf-8", "replace").decode()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
