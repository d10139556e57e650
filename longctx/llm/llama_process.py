"""A child process that ends with its parent, whose output goes to a log that stays small.

Ray ends workers with SIGKILL, after which nobody is left to stop a child. So the child is started
with Linux's parent-death signal, which is bound to the *thread* that started it: `Child` belongs
into a thread that lives as long as the process. A small Python asks for that signal and becomes the
child: a function between fork and exec can stand still where other threads held locks at the fork,
and the processes of Ray have many.
"""

import logging.handlers
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_DIES_WITH = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGKILL)})
os.getppid() == int(sys.argv[1]) or os._exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{{sys.argv[2]}} cannot be started: {{error.strerror}}")
"""
_LOG_BYTES, _LOGS, _LAST_LINES = 8 << 20, 2, 40


class Child:
    """A running child, which ends at once with a line in its log where it cannot be started."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _DIES_WITH, str(os.getpid()), *command],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, name="longctx-llama-log", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        handler = logging.handlers.RotatingFileHandler(
            self.log, maxBytes=_LOG_BYTES, backupCount=_LOGS, encoding="utf-8", errors="replace"
        )
        with self.process.stdout as output:
            for line in output:
                text = line.decode("utf-8", "replace").rstrip("\n")
                self.last_lines.append(text)
                handler.emit(logging.makeLogRecord({"msg": text}))
        handler.close()

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def said(self) -> str:
        """The last words of a child that has ended, for messages and to find out why."""
        self._reader.join(5)
        return "\n".join(self.last_lines)

    def stop(self, grace_s: float = 10.0) -> None:
        """SIGTERM, after `grace_s` seconds SIGKILL; returns when it is gone."""
        if not self.has_ended():
            self.process.terminate()
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self._reader.join(5)

    def remove_log(self) -> None:
        for suffix in ("", *(f".{i + 1}" for i in range(_LOGS))):
            Path(f"{self.log}{suffix}").unlink(missing_ok=True)
