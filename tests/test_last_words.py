"""A process that is killed has its last words said for it; one that ends by itself has not."""

import subprocess
import sys

SCRIPT = """
import os, signal, sys
from longctx.last_words import last_words
with last_words("so it goes"):
    {end}
"""


def said(end: str) -> tuple[int, str]:
    script = SCRIPT.format(end=end)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return done.returncode, done.stderr


def test_killed() -> None:
    assert said("os.kill(os.getpid(), signal.SIGKILL)") == (-9, "so it goes\n")


def test_ended_by_native_code() -> None:
    assert said("os._exit(3)") == (3, "so it goes\n")


def test_interrupted_as_from_a_terminal() -> None:
    """The signal reaches the whole group; the process says itself what it does about it."""
    ended = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(4)); os.kill(0, signal.SIGTERM)"
    code, words = said(f"os.setpgrp(); {ended}")
    assert (code, words) == (4, "")


def test_well_ended() -> None:
    assert said("pass") == (0, "")


def test_raised() -> None:
    code, words = said("raise KeyError")
    assert code == 1
    assert "so it goes" not in words
