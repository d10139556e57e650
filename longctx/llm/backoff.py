"""How long to wait before a request is sent again.

Full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015): a uniform draw
below a limit that doubles, so that requests that failed together do not come back together. Where
the server names a time, that time is kept and only a second of jitter is added.
"""

import math
from email.utils import parsedate_to_datetime
from typing import Protocol

LONGEST_RETRY_AFTER = 300.0
_AT_ONCE = 1.0


class Uniform(Protocol):
    """A source of uniform draws: `random.Random`, `numpy.random.Generator`."""

    def uniform(self, low: float, high: float, /) -> float: ...


def backoff_delay(
    failures: int,
    rng: Uniform,
    base: float = 1.0,
    cap: float = 60.0,
    retry_after: float | None = None,
) -> float:
    """Seconds to wait after the `failures`-th failure in a row (1 is the first).

    U(0, min(cap, base * 2**(failures-1))); with `retry_after` min(retry_after, 300) + U(0, 1).
    """
    if retry_after is not None:
        return min(max(retry_after, 0.0), LONGEST_RETRY_AFTER) + float(rng.uniform(0.0, _AT_ONCE))
    # 2.0**1024 overflows, and no cap in seconds is above 2**60.
    return float(rng.uniform(0.0, min(cap, base * 2.0 ** min(failures - 1, 60))))


def parse_retry_after(header: str | None, now: float) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number or an HTTP date, `now` in Unix time.

    0 for what is negative or past, None for what is absent or cannot be read.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
