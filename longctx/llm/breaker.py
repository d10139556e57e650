"""When to give up on the whole job: a server that only fails, a stage that is set up wrongly.

Without this, a run against a dead server waits for days, one patient request after the other. There
is no half-open state: the user sees to the server and starts again, and the cache resumes.
"""

from collections import Counter

from longctx.llm.classify import NEVER_RETRIED
from longctx.llm.types import Event


class Breaker:
    """Opens after so many failed attempts in a row, or so many seconds without a success.

    Time is looked at when an attempt fails: a server that takes ten minutes for a long text is
    slow, and only one that fails meanwhile is out of order. Times are monotonic seconds.
    """

    def __init__(self, failures: int = 30, seconds: float = 300.0) -> None:
        self.failures, self.seconds = failures, seconds
        self.counts: Counter[Event] = Counter()
        self._in_row = 0
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """Requests wait again after a time in which none did."""
        self._since = now

    def success(self, now: float) -> None:
        self._in_row = 0
        self._since = now
        self.counts.clear()

    def failure(self, event: Event, now: float) -> bool:
        """Count a failed attempt; whether the breaker is open now."""
        self.counts[event] += 1
        self._in_row += 1
        self._since = now if self._since is None else self._since
        return self._in_row >= self.failures or now - self._since >= self.seconds

    def said(self) -> str:
        """Counts of the failures since the last success, for the message."""
        counts = ", ".join(f"{event} {n}" for event, n in self.counts.most_common())
        return f"failed attempts since the last success: {counts}"


class FirstFinished:
    """Watches the first requests of every stage: all rejected for one reason means wrong settings.

    A code that a retry might have mended says nothing about the settings and is not counted so.
    """

    def __init__(self, first: int = 20) -> None:
        self._first = first
        self._left: dict[tuple[str, str], int] = {}
        self._code: dict[tuple[str, str], str] = {}

    def finished(self, stage: tuple[str, str], code: str | None) -> str | None:
        """Note how a request ended (None: well); the code that all of the first ones share."""
        left = self._left.get(stage, self._first)
        if left <= 0:
            return None
        if code not in NEVER_RETRIED or self._code.setdefault(stage, code) != code:
            self._left[stage] = 0
            return None
        self._left[stage] = left - 1
        return code if left == 1 else None
