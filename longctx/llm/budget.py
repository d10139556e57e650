"""What may still be spent, in tokens and in dollars, counted before it is spent.

A call reserves the most that it can cost (its prompt as estimated, and all of `max_tokens`), and is
sent only if what was spent, what others have reserved and its own reservation stay within the
limit. Afterwards its usage takes the reservation's place. So a limit can be passed only as far as a
prompt turned out longer than estimated.
"""

from collections.abc import Callable
from dataclasses import dataclass

from longctx.llm.types import Usage

Cost = Callable[[Usage], float]


@dataclass(frozen=True, slots=True)
class Reservation:
    """The most that a call can cost; `usd` is 0.0 where no price is known."""

    tokens: int
    usd: float


class Budget:
    """Spent and reserved sums under limits; a limit of None is none."""

    def __init__(
        self,
        max_tokens: float | None = None,
        max_usd: float | None = None,
        cost: Cost | None = None,
    ) -> None:
        if max_usd is not None and cost is None:
            raise ValueError("a limit in dollars needs a price")
        self.max_tokens, self.max_usd = max_tokens, max_usd
        self._cost = cost
        self.spent_tokens = self.reserved_tokens = 0
        self.spent_usd = self.reserved_usd = 0.0
        self._open = 0

    def reservation(self, prompt: int, max_tokens: int) -> Reservation:
        """What a call of an estimated prompt has to reserve."""
        usage = Usage(prompt, max_tokens)
        return Reservation(prompt + max_tokens, self._cost(usage) if self._cost else 0.0)

    def fits(self, wanted: Reservation) -> bool:
        tokens = self.spent_tokens + self.reserved_tokens + wanted.tokens
        usd = self.spent_usd + self.reserved_usd + wanted.usd
        return (self.max_tokens is None or tokens <= self.max_tokens) and (
            self.max_usd is None or usd <= self.max_usd
        )

    def is_idle(self) -> bool:
        """Whether nothing is in flight: what does not fit now never will."""
        return self._open == 0

    def reserve(self, wanted: Reservation) -> None:
        self._open += 1
        self.reserved_tokens += wanted.tokens
        self.reserved_usd += wanted.usd

    def settle(self, reserved: Reservation, usage: Usage | None) -> None:
        """Replace a reservation by what was used: nothing, where the server says nothing of it."""
        self._open -= 1
        self.reserved_tokens -= reserved.tokens
        # Sums of what was added and taken away leave crumbs; with nothing open there is none.
        self.reserved_usd = self.reserved_usd - reserved.usd if self._open else 0.0
        if usage is not None:
            self.spent_tokens += usage.prompt + usage.completion
            self.spent_usd += self._cost(usage) if self._cost else 0.0

    def said(self) -> str:
        """Spent and allowed, for the message."""
        parts = []
        if self.max_tokens is not None:
            parts.append(f"{self.spent_tokens:,} of {self.max_tokens:,.0f} tokens spent")
        if self.max_usd is not None:
            parts.append(f"{self.spent_usd:.2f} of {self.max_usd:.2f} USD spent")
        return ", ".join(parts) + "; the next call could cost more than what is left"
