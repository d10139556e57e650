"""What a figure was measured on, in words. A benchmark without its machine is not a figure."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "numpy",
    "numba",
    "scipy",
    "pyarrow",
    "ray",
    "datasketch",
    "faiss-cpu",
    "torch",
    "lightgbm",
)


def describe(libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """CPU model, usable cores, memory, system and the versions of the libraries found."""
    found = {
        "cpu": _first_value(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cores": str(_usable_cores()),
        "memory": _memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> str:
    total = _first_value(Path("/proc/meminfo"), "MemTotal")
    return f"{int(total.split()[0]) / 2**20:.1f} GiB" if total else "unknown"


def _first_value(path: Path, field: str) -> str:
    """Value of the first `field: value` line of a /proc file, empty where there is none."""
    if not path.exists():
        return ""
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""
