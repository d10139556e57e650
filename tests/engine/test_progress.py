"""What the lines of a log say of a stage while it runs."""

from typing import Any

import pytest

from longctx.engine import progress
from longctx.engine.commit import Commit
from longctx.engine.progress import Lines


def unit(rows: int) -> Commit:
    return Commit(unit="u", fingerprint="f", files=(), stats={"rows_in": rows, "rows_out": rows})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]

    class Time:
        @staticmethod
        def monotonic() -> float:
            return now[0]

        @staticmethod
        def strftime(_: str) -> str:
            return "12:00:00"

    monkeypatch.setattr(progress, "time", Time)
    return now


def test_lines_name_the_step_and_a_rate_that_is_none_a_second(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    lines: Any = Lines()
    lines.stage("03-synth.in2")
    lines.step("fine", 4)
    for seconds in (60, 120):
        clock[0] = seconds
        lines.unit(unit(3))
    lines.step("files", 2)
    clock[0] += 20
    lines.unit(unit(4_000))
    assert capsys.readouterr().err.splitlines() == [
        "12:00:00 03-synth.in2",
        "12:00:00 03-synth.in2/fine: 4 parts to do",
        "12:00:00 03-synth.in2/fine: 1/4 parts, 3.0 rows/min, 180 s left",
        "12:00:00 03-synth.in2/fine: 2/4 parts, 3.0 rows/min, 120 s left",
        "12:00:00 03-synth.in2/files: 2 parts to do",
        "12:00:00 03-synth.in2/files: 1/2 parts, 200 rows/s, 20 s left",
    ]
