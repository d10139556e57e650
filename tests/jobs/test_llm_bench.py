"""What the bench of the client makes of its measurements."""

import pytest

from jobs.bench.llm import Run, prompts, report, steady, verdict
from jobs.bench.llm_server import Server

WAITS = Server(slots=16, seconds=0.05)
BARE = Run("bare aiohttp, 1 kB", 100, 1.0, 0.02)
FULL = (WAITS, 32, Run("lets requests wait, bare aiohttp", 100, 1.0, 0.1, steady=300.0))


def test_the_middle_of_a_run_is_what_counts() -> None:
    ends = [float(i) for i in range(101)]
    ends[-1] = 1000.0  # the last one waited for its back-off
    assert steady(ends) == pytest.approx(1.0)


def test_prompts_differ_and_have_their_length() -> None:
    reqs = prompts(3, 1000)
    contents = [r.messages[0]["content"] for r in reqs]
    assert len(set(contents)) == 3
    assert all(1000 <= len(c) <= 1010 for c in contents)


def test_a_client_that_costs_too_much_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    cheap = Run("SQLite, 1 kB", 100, 1.0, 0.2)
    dear = cheap._replace(cpu_s=0.25)
    assert verdict([BARE, cheap], [FULL]) == 0
    assert verdict([BARE, dear], [FULL]) == 1
    assert "SQLite, 1 kB: 2.30 ms of CPU above bare" in capsys.readouterr().err


def test_a_server_that_is_not_used_is_off() -> None:
    slow = FULL[2]._replace(name="ours", steady=200.0)
    assert verdict([BARE], [FULL, (WAITS, 32, slow)]) == 1
    assert verdict([BARE], [FULL, (WAITS._replace(refuses=True), 32, slow)]) == 0
    text = report([BARE], [FULL, (WAITS, 32, slow._replace(limit=8))])
    assert "| bare aiohttp, 1 kB | 100 | 0.20 | 1.00 |" in text
    assert "| ours | 32 | 200 | 0.67 | 8 | 0 |" in text
