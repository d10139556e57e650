"""Progress of a run: a live bar on a terminal, plain lines in logs, nothing when silent."""

import sys
import time
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from longctx.engine.commit import Commit

_LINE_SECONDS = 10.0


class Reporter(Protocol):
    """What a run tells while it works."""

    def stage(self, name: str, note: str = "") -> None:
        """A stage begins."""

    def step(self, name: str, units: int) -> None:
        """A step of the stage begins, with so many units to do."""

    def unit(self, commit: Commit) -> None:
        """A unit was committed."""

    def message(self, text: str) -> None:
        """Something worth a line."""

    def close(self) -> None:
        """The run ended."""


class Silent:
    """Tells nothing (Python API, tests)."""

    def stage(self, name: str, note: str = "") -> None:
        """See Reporter."""

    def step(self, name: str, units: int) -> None:
        """See Reporter."""

    def unit(self, commit: Commit) -> None:
        """See Reporter."""

    def message(self, text: str) -> None:
        """See Reporter."""

    def close(self) -> None:
        """See Reporter."""


class Lines:
    """Plain lines: one at the start of each stage, one every ten seconds while units end."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()
        self._label = ""
        self._total = self._done = self._rows = 0

    def stage(self, name: str, note: str = "") -> None:
        """See Reporter."""
        self._label = name
        self._print(f"{name}{'  ' + note if note else ''}")

    def step(self, name: str, units: int) -> None:
        """See Reporter."""
        self._begun = self._last = time.monotonic()
        self._total, self._done, self._rows = units, 0, 0
        if units > 1 and name:
            self._print(f"{self._label}/{name}: {units} parts to do")

    def unit(self, commit: Commit) -> None:
        """See Reporter."""
        self._done += 1
        self._rows += _rows(commit)
        now = time.monotonic()
        if now - self._last >= _LINE_SECONDS:
            self._last = now
            spent = now - self._begun
            left = spent / self._done * max(0, self._total - self._done)
            rate = f", {self._rows / spent:,.0f} rows/s" if self._rows else ""
            self._print(f"{self._label}: {self._done}/{self._total} parts{rate}, {left:.0f} s left")

    def message(self, text: str) -> None:
        """See Reporter."""
        self._print(text)

    def close(self) -> None:
        """See Reporter."""

    def _print(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Live:
    """A bar with parts done, rows per second and the time left, for terminals."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description:<32.32}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>13}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            expand=True,
            transient=True,
        )
        self._console = console
        self._task: TaskID | None = None
        self._name = self._note = ""
        self._begun = self._stage_begun = time.monotonic()
        self._rows = 0
        self._bar.start()

    def stage(self, name: str, note: str = "") -> None:
        """See Reporter."""
        self._end_stage()
        self._name, self._note = name, note
        self._stage_begun = time.monotonic()
        self.step("", 0)

    def step(self, name: str, units: int) -> None:
        """See Reporter."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        label = f"{self._name}/{name}" if name else self._name
        self._task = self._bar.add_task(label, total=units or None, rate="")
        self._begun, self._rows = time.monotonic(), 0

    def unit(self, commit: Commit) -> None:
        """See Reporter."""
        if self._task is None:
            return
        self._rows += _rows(commit)
        spent = max(time.monotonic() - self._begun, 1e-3)
        rate = f"{self._rows / spent:,.0f} rows/s" if self._rows else ""
        self._bar.update(self._task, advance=1, rate=rate)

    def message(self, text: str) -> None:
        """See Reporter."""
        self._console.print(text, highlight=False)

    def close(self) -> None:
        """See Reporter."""
        self._end_stage()
        self._bar.stop()

    def _end_stage(self) -> None:
        if self._name:
            note = f"  [dim]{self._note}[/dim]" if self._note else ""
            spent = time.monotonic() - self._stage_begun
            self._console.print(f"{self._name:<28} {spent:6.1f} s{note}", highlight=False)
        self._name = ""


def _rows(commit: Commit) -> int:
    return int(commit.stats.get("rows_out") or sum(f.rows for f in commit.files))


def reporter(quiet: bool = False) -> Reporter:
    """The reporter that fits where the output goes."""
    if quiet:
        return Silent()
    console = Console(stderr=True)
    return Live(console) if console.is_terminal else Lines()
