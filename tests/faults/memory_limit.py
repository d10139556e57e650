"""A limit on the memory of a command and of all that it starts, held by the kernel."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryGroup:
    """A control group: `around` makes a command run in it."""

    folder: Path

    def around(self, command: list[str]) -> list[str]:
        join = f'echo $$ > {self.folder / "cgroup.procs"} && exec "$@"'
        return ["sh", "-c", join, "sh", *command]

    def killed(self) -> int:
        """How many processes the kernel ended for want of memory."""
        file = "memory.events" if (self.folder / "memory.events").exists() else "memory.oom_control"
        lines = (self.folder / file).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    """A group of at most `limit` bytes; the test is skipped where none can be made."""
    root, file = (V1, "memory.limit_in_bytes") if V1.is_dir() else (V2, "memory.max")
    folder = root / f"longctx-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / file).write_text(str(limit))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no memory group can be made (root is needed): {error.strerror}")
    try:
        yield MemoryGroup(folder)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
