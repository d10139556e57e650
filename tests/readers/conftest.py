"""Running a program in a consumer's environment and getting what it read."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.readers.environments import missing, python

PROGRAMS = Path(__file__).parent / "programs"
Reader = Callable[..., Any]


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """`reader(consumer, program, *arguments)`: the JSON that the program writes, as it was read.

    The test is skipped, visibly, where the consumer is not installed. Nothing is asked of any hub.
    """

    def run(consumer: str, program: str, *arguments: object) -> Any:
        if reason := missing(consumer):
            pytest.skip(reason)
        found = tmp_path / "found.json"
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "TQDM_DISABLE": "1"}
        done = subprocess.run(
            [python(consumer), str(PROGRAMS / program), *map(str, arguments), str(found)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **offline},
        )
        assert done.returncode == 0, done.stderr[-3_000:]
        return json.loads(found.read_text())

    return run
