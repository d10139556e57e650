"""What the work of a unit takes: CPU seconds and memory as the kernel counts them, and the sums.

Every commit carries these figures, so that `run.json` says what each step of each stage took and
`make calibrate` can derive a cost model from any finished run.
"""

import os
import resource
import sys
from collections.abc import Iterable
from typing import Any

from longctx.engine.commit import Commit

KEY = "used"
_KIBIBYTE = 1 if sys.platform == "darwin" else 1024


class Meter:
    """Begun before a unit's work and read after it.

    The kernel is asked to forget the highest memory of earlier units; where it does not (only Linux
    does), `peak` is that of the process so far.
    """

    def __init__(self) -> None:
        _forget_peak()
        self._resident = _resident()
        self._cpu = _cpu()

    def read(self) -> dict[str, float | int]:
        """CPU seconds of all threads, highest resident bytes, and by how much it had grown."""
        peak = _peak()
        return {
            "cpu": round(_cpu() - self._cpu, 3),
            "peak": peak,
            "grown": max(0, peak - self._resident),
        }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _forget_peak() -> None:
    try:
        with open("/proc/self/clear_refs", "w") as control:
            control.write("5")
    except OSError:
        return


def _peak() -> int:
    """Highest resident bytes since they were forgotten.

    `ru_maxrss` begins with what the process had before it became this program: with the memory of
    the one that started it.
    """
    try:
        with open("/proc/self/status") as file:
            found = next(line for line in file if line.startswith("VmHWM:"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIBIBYTE


def _resident() -> int:
    """Resident bytes now; 0 where the kernel does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def of_step(commits: Iterable[Commit]) -> dict[str, float | int]:
    """What a step took: sums over its units, and the most that one of them did.

    `seconds` of units and their `cpu` seconds, `rows` and bytes `stored`, bytes `received` through
    an exchange; `peak`, `grown` and `largest` (received) are those of the largest unit. Units that
    an earlier run committed count with what they took then.
    """
    total: dict[str, float | int] = dict.fromkeys(
        ("units", "seconds", "cpu", "rows", "stored", "received", "peak", "grown", "largest"), 0
    )
    for commit in commits:
        used: dict[str, Any] = commit.stats.get(KEY, {})
        received = used.get("received", 0)
        added = {
            "units": 1,
            "seconds": commit.stats.get("seconds", 0),
            "cpu": used.get("cpu", 0),
            "rows": sum(f.rows for f in commit.files),
            "stored": sum(f.size for f in commit.files),
            "received": received,
        }
        for name, value in added.items():
            total[name] += value
        for name, value in (
            ("peak", used.get("peak", 0)),
            ("grown", used.get("grown", 0)),
            ("largest", received),
        ):
            total[name] = max(total[name], value)
    return {name: round(value, 3) for name, value in total.items()}


def of_parts(commits: Iterable[Commit]) -> dict[str, Any]:
    """What a step over parts took outside of a barrier."""
    return {"place": "part", **of_step(commits)}
