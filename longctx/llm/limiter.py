"""How many requests are in flight, and how fast they start.

AIMD, the rule of TCP's congestion control (Chiu and Jain 1989): the limit is halved where the
server says it is overloaded, and grows by one with every 50 successes. Only the first complaint of
an epoch halves: 32 requests that were refused together tell no more than one of them.

Which complaints are heard is our own addition (`Refusals`). Some servers refuse a few requests of a
hundred whatever is in flight; halving at each of those sinks to one request in flight for good,
because 50 successes in between are rare (measured with 5 %: a thirtieth of the throughput).
"""

from collections import deque

_PER_STEP = 50


class AimdLimiter:
    """A limit between 1 and `max_in_flight`, and how many requests it has admitted."""

    def __init__(self, max_in_flight: int) -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, not {max_in_flight}")
        self.max_in_flight = self.limit = max_in_flight
        self.epoch = 0
        self.in_flight = 0
        self._successes = 0

    def has_room(self) -> bool:
        return self.in_flight < self.limit

    def start(self) -> int:
        """Admit a request; returns the epoch that it has to remember."""
        self.in_flight += 1
        return self.epoch

    def end(self) -> None:
        self.in_flight -= 1

    def success(self) -> int:
        """Count a request that was answered; returns the limit."""
        self._successes += 1
        if self._successes >= _PER_STEP:
            self._successes = 0
            self.limit = min(self.limit + 1, self.max_in_flight)
        return self.limit

    def overload(self, epoch: int) -> int:
        """A request that started in `epoch` was refused for overload; returns the limit."""
        if epoch == self.epoch:
            self.limit = max(1, self.limit // 2)
            self.epoch += 1
            self._successes = 0
        return self.limit


class Refusals:
    """Whether refusals have become so many that the number in flight must be their reason.

    They have if more than `share` of the last `window` attempts were refused, counted from the last
    halving: an attempt too many is refused at once, and so is the next one in its place.
    """

    def __init__(self, window: int = 50, share: float = 0.2) -> None:
        self._share = share
        self._last: deque[bool] = deque(maxlen=window)

    def ended(self, refused: bool) -> None:
        self._last.append(refused)

    def are_many(self) -> bool:
        return sum(self._last) > self._share * len(self._last)

    def clear(self) -> None:
        self._last.clear()


class Pace:
    """Evenly spaced starts: an amount may be spent per minute (requests, tokens).

    Spaced and not counted by the minute: a server that counts any sixty seconds, whole or not,
    never sees more than the amount. A start pays after itself, so the first one never waits.
    """

    def __init__(self, per_minute: float) -> None:
        if per_minute <= 0:
            raise ValueError(f"the amount per minute must be positive, not {per_minute}")
        self._seconds_each = 60.0 / per_minute
        self._free_at = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until the next start is allowed; 0.0 if it is."""
        return max(0.0, self._free_at - now)

    def spend(self, amount: float, now: float) -> None:
        self._free_at = max(self._free_at, now) + amount * self._seconds_each

    def give_back(self, amount: float) -> None:
        """Return what was spent beforehand and not used after all."""
        self._free_at -= amount * self._seconds_each


def share(total: float | None, actors: int) -> float | None:
    """What one of `actors` clients may spend of a limit that holds for all of them."""
    return None if total is None else total / actors
