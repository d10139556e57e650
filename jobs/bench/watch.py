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
    `driver` is the peak of the command itself, `worker` that of its largest Ray worker.
    """

    code: int
    printed: str
    errors: str
    wall: float
    cpu: float
    peak: int
    driver: int = 0
    worker: int = 0


def watched(
    command: Sequence[str | Path], cwd: Path | None = None, env: dict[str, str] | None = None
) -> Taken:
    """Run a command to its end."""
    before = _children_seconds()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=errors, cwd=cwd, env=env)
        sampled, peaks = _sample(child)
        wall = time.perf_counter() - started
        cpu = max(sampled, _children_seconds() - before)
        out.seek(0)
        errors.seek(0)
        return Taken(child.returncode, out.read(), errors.read(), wall, cpu, *peaks)


def tree_seconds(pid: int) -> float:
    """CPU seconds that a process and those below it have taken, as far as they still live."""
    return sum(seconds for _, seconds in _seconds(_tree(psutil.Process(pid))))


def _sample(child: "subprocess.Popen[bytes]") -> tuple[float, tuple[int, int, int]]:
    """CPU seconds, and the peaks of the memory of all, of the command and of its largest worker."""
    used: dict[tuple[int, float], float] = {}
    peaks, looked = (0, 0, 0), 0.0
    parent = psutil.Process(child.pid)
    while child.poll() is None:
        processes = _tree(parent)
        used.update(_seconds(processes))
        if time.perf_counter() - looked >= MEMORY_EVERY:
            now = _memory(processes)
            peaks = max(peaks[0], now[0]), max(peaks[1], now[1]), max(peaks[2], now[2])
            looked = time.perf_counter()
        time.sleep(CPU_EVERY)
    return sum(used.values()), peaks


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


def _memory(processes: list[psutil.Process]) -> tuple[int, int, int]:
    """PSS in bytes of all processes, of the first, and of the largest worker of Ray among them."""
    total = first = worker = 0
    for i, process in enumerate(processes):
        try:
            held, name = process.memory_full_info().pss, process.name()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        total += held
        if i == 0:
            first = held
        elif name.startswith("ray::"):
            worker = max(worker, held)
    return total, first, worker


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
