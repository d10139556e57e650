"""One run at a time in a run folder, on any file system, with nothing to clean up after a crash.

The lock is a sequence of files `lock/0000000.json`, `lock/0000001.json`, …, each created
exclusively. The highest number counts. A holder renews it with a heartbeat; when its process is
gone (same machine) or its heartbeat stands still (another machine), a newcomer creates the next
number, which only one of several newcomers can do. A newcomer that was slow looks once more: if a
higher number came meanwhile, that one counts.

Clocks decide nothing, since they differ and jump: a heartbeat that looks old, or comes from the
future, is watched for some beats by a clock that only runs forward. What is lost: a holder that
was stopped for as long (a suspended machine, storage away) is taken for dead. It finds the higher
number when it goes on, and ends.
"""

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

from longctx.errors import RunError
from longctx.io import paths

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 90.0
WATCH_SECONDS = 30.0
LOOK_SECONDS = 1.0
_UNKNOWN = "unknown"
_NAME = re.compile(r"\d{7}\.json")


@dataclass(frozen=True)
class _Held:
    number: int
    owner: dict[str, Any]


class RunLock:
    """Context manager that holds a run folder. Raises RunError if another run holds it."""

    def __init__(self, run_dir: str) -> None:
        self._folder = paths.join(run_dir, "lock")
        self._token = uuid.uuid4().hex
        self._number = 0
        self._stop = threading.Event()
        self._overtaken = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "RunLock":
        held = self._current()
        if held is not None and not (_is_stale(held.owner) and self._is_dead(held)):
            raise self._refusal(held.owner)
        self._number = held.number + 1 if held else 0
        if not paths.create_exclusive(self._url(self._number), self._content()):
            winner = self._current()
            raise self._refusal(winner.owner if winner else {})
        numbers = self._numbers()
        if numbers and numbers[-1] > self._number:
            paths.remove(self._url(self._number))
            winner = self._current()
            raise self._refusal(winner.owner if winner else {})
        for number in numbers:
            if number < self._number:
                paths.remove(self._url(number))
        self._thread = threading.Thread(target=self._beat, name="run-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        # A lock that stays behind is stale to the next run; it must not hide how this one ended.
        with contextlib.suppress(RunError, OSError):
            paths.remove(self._url(self._number))

    def check(self) -> None:
        """Raise RunError if another run took the folder over, because this one looked dead."""
        if self._overtaken:
            held = self._current()
            raise RunError(
                f"another run took over the run folder ({_who(held.owner if held else {})})",
                where=os.path.dirname(self._folder),
                remedy="this run stood still and looked dead: let the other one finish",
            )

    def _is_dead(self, held: _Held) -> bool:
        """Whether a holder is gone: known on its own machine, else seen from beats that stop."""
        if _is_here(held.owner):
            return True
        until = time.monotonic() + WATCH_SECONDS
        while time.monotonic() < until:
            self._stop.wait(LOOK_SECONDS)
            if (now := self._current()) != held:
                return now is None
        return True

    def _url(self, number: int) -> str:
        return paths.join(self._folder, f"{number:07d}.json")

    def _content(self) -> bytes:
        owner = {
            "token": self._token,
            "host": socket.gethostname(),
            "processes": _process_space(),
            "pid": os.getpid(),
            "process_start": _process_start(os.getpid()),
            "time": _now(),
        }
        return json.dumps(owner).encode()

    def _numbers(self) -> list[int]:
        names = paths.list_files(self._folder)
        return sorted(int(n[:7]) for n in names if _NAME.fullmatch(n))

    def _current(self) -> _Held | None:
        if not (numbers := self._numbers()):
            return None
        data = paths.read_if_exists(self._url(numbers[-1]))
        return _Held(numbers[-1], _owner(data)) if data is not None else None

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                if max(self._numbers(), default=0) > self._number:
                    self._overtaken = True
                    return
                paths.write_atomic(self._url(self._number), self._content())
            except (RunError, OSError):
                # Storage may be away for a moment; the run itself will report it if it stays away.
                continue

    def _refusal(self, owner: dict[str, Any]) -> RunError:
        return RunError(
            f"the run folder is in use by {_who(owner)}",
            where=os.path.dirname(self._folder),
            remedy="wait for that run to end, or use another run_dir; if no run is alive, remove "
            f"{self._folder}",
        )


def _who(owner: dict[str, Any]) -> str:
    return f"process {owner.get('pid')} on {owner.get('host')}" if owner else "another process"


def _owner(data: bytes) -> dict[str, Any]:
    """What a lock file says of its holder; nothing if it cannot be read."""
    try:
        owner = json.loads(data)
        float(owner["time"]), int(owner["pid"])
    except (ValueError, TypeError, KeyError):
        return {}
    return dict(owner)


def _now() -> float:
    return time.time()


def _is_here(owner: dict[str, Any]) -> bool:
    """Whether a holder's process number means something to us."""
    return owner.get("host") == socket.gethostname() and owner.get("processes") == _process_space()


def _is_stale(owner: dict[str, Any]) -> bool:
    """Whether a holder is gone (here) or may be (elsewhere)."""
    if not owner:
        return False
    if _is_here(owner):
        start = _process_start(int(owner["pid"]))
        return start is None or start not in (_UNKNOWN, owner.get("process_start"))
    return abs(_now() - float(owner["time"])) > STALE_SECONDS


def _process_space() -> str:
    """What a process number means something in: a boot of a machine, and a container on it."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return _UNKNOWN


def _process_start(pid: int) -> str | None:
    """Start time of a living process as the kernel counts it, None if there is none.

    Together with the number it tells a process from a later one that got the same number.
    """
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        # Without /proc, or where it hides the processes of others, a signal still finds them.
        return _UNKNOWN if _is_alive(pid) else None
    return None if fields[0] == "Z" else fields[19]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
