"""What the calls of a client took, by system and stage: the rows that accounting sums up."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from longctx.llm.budget import Cost
from longctx.llm.types import GenRequest, Usage


@dataclass(slots=True)
class Tally:
    """Counters of one stage. `waited_s` in queues and back-off, `used_s` in attempts.

    `requests` is what was asked for, `cache_hits` what came from the cache or from an equal request
    that was under way, `calls` what was sent for, `attempts` how often. `cost_usd` is None where no
    price is known.
    """

    requests: int = 0
    cache_hits: int = 0
    calls: int = 0
    attempts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    waited_s: float = 0.0
    used_s: float = 0.0
    cost_usd: float | None = None
    rejects: Counter[str] = field(default_factory=Counter)


class Meter:
    """The tallies of a client; may be used from several threads."""

    def __init__(self, model_id: str, cost: Cost | None = None) -> None:
        self.model_id = model_id
        self._cost = cost
        self._lock = threading.Lock()
        self._tallies: dict[tuple[str, str], Tally] = {}

    def _of(self, req: GenRequest) -> Tally:
        stage = req.system, req.stage
        if stage not in self._tallies:
            self._tallies[stage] = Tally(cost_usd=None if self._cost is None else 0.0)
        return self._tallies[stage]

    def finished(self, req: GenRequest, *, hit: bool, reject: str | None) -> None:
        """A request has its result."""
        with self._lock:
            tally = self._of(req)
            tally.requests += 1
            tally.cache_hits += hit
            if reject is not None:
                tally.rejects[reject] += 1

    def call(self, req: GenRequest) -> None:
        with self._lock:
            self._of(req).calls += 1

    def attempt(self, req: GenRequest, seconds: float, usage: Usage | None) -> None:
        """An attempt has ended; `usage` is None where the server charged nothing that we know."""
        with self._lock:
            tally = self._of(req)
            tally.attempts += 1
            tally.used_s += seconds
            if usage is None:
                return
            tally.prompt_tokens += usage.prompt
            tally.cached_tokens += usage.cached
            tally.completion_tokens += usage.completion
            tally.estimated |= usage.estimated
            if self._cost is not None and tally.cost_usd is not None:
                tally.cost_usd += self._cost(usage)

    def waited(self, req: GenRequest, seconds: float) -> None:
        with self._lock:
            self._of(req).waited_s += seconds

    def rows(self) -> list[dict[str, Any]]:
        """A row for each system and stage, in their order."""
        with self._lock:
            return [
                {
                    "system": system,
                    "stage": stage,
                    "model": self.model_id,
                    **{name: getattr(tally, name) for name in Tally.__slots__},
                    "rejects": dict(sorted(tally.rejects.items())),
                }
                for (system, stage), tally in sorted(self._tallies.items())
            ]
