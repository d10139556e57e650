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
from longctx.engine.manifest import StageRecord

_LINE_SECONDS = 10.0


class Reporter(Protocol):
    """What a run tells while it works."""

    def stage(self, name: str, note: str = "") -> None:
        """A stage begins."""

    def step(self, name: str, units: int) -> None:
        """A step of the stage begins, with so many units to do."""

    def unit(self, commit: Commit) -> None:
        """A unit was committed."""

    def done(self, record: StageRecord) -> None:
        """A stage ended."""

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

    def done(self, record: StageRecord) -> None:
        """See Reporter."""

    def close(self) -> None:
        """See Reporter."""


def _rate(rows: int, seconds: float) -> str:
    """Rows a second, or a minute where that would round to none."""
    rate = rows / seconds
    return f"{rate:,.0f} rows/s" if rate >= 1 else f"{60 * rate:,.1f} rows/min"


class Lines:
    """Plain lines: one at the start of each stage, one every ten seconds while units end."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()
        self._label = self._step = ""
        self._total = self._done = self._rows = 0

    def stage(self, name: str, note: str = "") -> None:
        """See Reporter."""
        self._label = self._step = name
        self._print(f"{name}{'  ' + note if note else ''}")

    def step(self, name: str, units: int) -> None:
        """See Reporter."""
        self._begun = self._last = time.monotonic()
        self._total, self._done, self._rows = units, 0, 0
        self._step = f"{self._label}/{name}" if name else self._label
        if units > 1 and name:
            self._print(f"{self._step}: {units} parts to do")

    def unit(self, commit: Commit) -> None:
        """See Reporter."""
        self._done += 1
        self._rows += _rows(commit)
        now = time.monotonic()
        if now - self._last >= _LINE_SECONDS:
            self._last = now
            spent = now - self._begun
            left = spent / self._done * max(0, self._total - self._done)
            rate = f", {_rate(self._rows, spent)}" if self._rows else ""
            self._print(f"{self._step}: {self._done}/{self._total} parts{rate}, {left:.0f} s left")

    def done(self, record: StageRecord) -> None:
        """See Reporter."""
        if note := resumed(record):
            self._print(f"{record.stage}: {note}")

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
        self._begun = time.monotonic()
        self._rows = 0
        self._bar.start()

    def stage(self, name: str, note: str = "") -> None:
        """See Reporter."""
        self._name, self._note = name, note
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
        rate = _rate(self._rows, spent) if self._rows else ""
        self._bar.update(self._task, advance=1, rate=rate)

    def done(self, record: StageRecord) -> None:
        """See Reporter."""
        notes = [self._note, resumed(record)]
        note = "".join(f"  [dim]{n}[/dim]" for n in notes if n)
        self._console.print(f"{record.stage:<28} {record.seconds:6.1f} s{note}", highlight=False)

    def close(self) -> None:
        """See Reporter."""
        self._bar.stop()


def resumed(record: StageRecord) -> str:
    """What an earlier run left of a stage, and why the rest was done again; "" for a first run."""
    again = {reason: n for reason, n in record.why.items() if reason != "new"}
    if not record.skipped and not again:
        return ""
    kept = f"{record.skipped} of {record.units} units kept"
    reasons = [f"{n} {reason}" for reason, n in again.items()]
    if new := record.why.get("new"):
        reasons.append(f"{new} new")
    return ", ".join([kept, *reasons])


def _rows(commit: Commit) -> int:
    return int(commit.stats.get("rows_out") or sum(f.rows for f in commit.files))


def reporter(quiet: bool = False) -> Reporter:
    """The reporter that fits where the output goes."""
    if quiet:
        return Silent()
    console = Console(stderr=True)
    return Live(console) if console.is_terminal else Lines()
