"""What a command takes, watched from outside: wall time, CPU seconds, peak memory.

Processes that start others (Ray, pools of workers) are counted whole. Their CPU time is the larger
of two counts, each of which misses something: what the system says of ended children that were
waited for, and samples of every process below the command, which miss what a process did after the
last one.
"""

import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

CPU_EVERY, MEMORY_EVERY = 0.2, 1.0  # seconds


@dataclass(frozen=True)
class Taken:
    """Exit code, what was printed, wall and CPU seconds, and the largest sum of PSS in bytes.

    PSS counts pages shared by several processes once, and pages of mapped files while in memory.
    """

    code: int
    printed: str
    errors: str
    wall: float
    cpu: float
    peak: int


def watched(
    command: Sequence[str | Path], cwd: Path | None = None, env: dict[str, str] | None = None
) -> Taken:
    """Run a command to its end."""
    before = _children_seconds()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=errors, cwd=cwd, env=env)
        sampled, peak = _sample(child)
        wall = time.perf_counter() - started
        cpu = max(sampled, _children_seconds() - before)
        out.seek(0)
        errors.seek(0)
        return Taken(child.returncode, out.read(), errors.read(), wall, cpu, peak)


def tree_seconds(pid: int) -> float:
    """CPU seconds that a process and those below it have taken, as far as they still live."""
    return sum(seconds for _, seconds in _seconds(_tree(psutil.Process(pid))))


def _sample(child: "subprocess.Popen[str]") -> tuple[float, int]:
    used: dict[tuple[int, float], float] = {}
    peak, looked = 0, 0.0
    parent = psutil.Process(child.pid)
    while child.poll() is None:
        processes = _tree(parent)
        used.update(_seconds(processes))
        if time.perf_counter() - looked >= MEMORY_EVERY:
            peak, looked = max(peak, _memory(processes)), time.perf_counter()
        time.sleep(CPU_EVERY)
    return sum(used.values()), peak


def _tree(parent: psutil.Process) -> list[psutil.Process]:
    try:
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _seconds(processes: list[psutil.Process]) -> list[tuple[tuple[int, float], float]]:
    """Own CPU seconds by (pid, start), of those processes that still live."""
    found = []
    for process in processes:
        try:
            times = process.cpu_times()
            found.append(((process.pid, process.create_time()), times.user + times.system))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _memory(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
