"""A `run.json` that was cut short, damaged or edited ends in one sentence, never in a traceback."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from longctx.cli import main
from longctx.errors import LongctxError, RecipeError
from longctx.report.collect import collect
from longctx.report.html import render
from tests.report.recorded import Json, record

MISSING = object()
VALUES = (
    *(MISSING, None, "x", "\ud800", -1, 0, 10**30, 1.5, 1e308, math.nan, True),
    *([], {}, [1], [[1, 2, 3]], {"a": 1}, {"4096": {}}),
)
AT_ONCE = 3


def put(folder: Path, content: str | bytes) -> str:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "run.json").write_bytes(data)
    return str(folder)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON value, of long lists the first few."""
    if place:
        yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value[:5])
    for key, child in inner:
        if isinstance(child, dict | list):
            yield from places(child, (*place, key))
        else:
            yield (*place, key)


def changed(place: tuple[Any, ...], value: Any) -> Json:
    """The record with another value at one place, or with nothing there."""
    found: Any = json.loads(json.dumps(record()))
    inner = found
    for key in place[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return found


def test_the_record_itself_is_drawn(tmp_path: Path) -> None:
    page = render(collect(put(tmp_path, json.dumps(record()))))
    for heading in ("Order", "Windows", "Quarantine", "Counters"):
        assert f">{heading}</h2>" in page
    assert "window (weighed, look-ahead 64)" in page


def test_whatever_stands_anywhere_it_is_drawn_or_refused(tmp_path: Path) -> None:
    refused = drawn = tried = 0
    for number, place in enumerate(places(record())):
        if place[0] == "recipe":
            continue
        # Each place gets some of the values, neighbouring places others: all kinds get all values.
        for turn in range(AT_ONCE):
            value = VALUES[(number * AT_ONCE + turn) % len(VALUES)]
            folder = put(tmp_path, json.dumps(changed(place, value)))
            try:
                render(collect(folder)).encode()
                drawn += 1
            except LongctxError as error:
                refused += str(tmp_path / "run.json") in error.where
            tried += 1
    assert drawn + refused == tried
    assert refused > 200
    assert drawn > 20


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("stages", 1, "rows_in"), "x", "`stages.1.rows_in`: Input should be a valid integer"),
        (("stages", 1, "op"), MISSING, "`stages.1.op`: Field required, found nothing"),
        (("stages", 3, "steps", "tours", "jumps"), [], "`stages.3.steps.tours.jumps`"),
        (("stages", 4, "steps", "audit", "fill"), None, "`stages.4.steps.audit.fill`"),
        (("stages", 4, "steps", "plan"), {}, "`stages.4.steps.plan.targets`"),
        (("seconds",), math.nan, "`seconds`: Input should be a finite number, found nan"),
    ],
)
def test_the_field_is_named(place: tuple[Any, ...], value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        collect(put(tmp_path, json.dumps(changed(place, value))))
    assert said in caught.value.message
    assert "run the recipe again" in caught.value.remedy


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "no JSON": lambda data: b"PAR1" + data,
    "not UTF-8": lambda data: data.replace(b"small", b"\xff\xfe\x80", 1),
    "a list": lambda data: b"[" + data + b"]",
    "nested too deeply": lambda data: b"[" * 200_000,
    "another kind of file": lambda data: b'{"hello": 1}',
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_told_on_the_command_line(
    how: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, BROKEN[how](json.dumps(record()).encode()))
    assert main(["report", str(tmp_path)]) == 2
    said = capfd.readouterr().err
    assert f"{tmp_path}/run.json: run.json is " in said
    assert "remedy: " in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("*.html"))
